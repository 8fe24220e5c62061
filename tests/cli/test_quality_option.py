"""What `--quality` stands for, and what overrides it."""

from typing import Any

import pytest
import torch

from dynamicdps.cli.run_sample import sheet_of
from dynamicdps.networks.precision import has_bfloat16
from dynamicdps.pipeline import EnhanceOptions
from dynamicdps.pipeline.checks import solver_config
from tests.properties import input_error


def config_of(**options: Any) -> Any:
    return solver_config(EnhanceOptions(**options))


@pytest.mark.parametrize(
    ("quality", "expected"), [("fast", ("deterministic", 2, 5)), ("default", ("mean", 2, 5)), ("best", ("mean", 8, 8))]
)
def test_qualities(quality: Any, expected: tuple[str, int, int]) -> None:
    config = config_of(quality=quality)
    assert (config.estimate, config.samples, config.steps) == expected


def test_options_override_the_quality() -> None:
    config = config_of(quality="best", samples=4, settings=("steps=3",))
    assert (config.samples, config.steps) == (4, 3)


def test_a_quality_is_of_dynamicdps() -> None:
    assert config_of(quality="default", solver="dps")
    with input_error("--quality fast is given with --solver dps"):
        config_of(quality="fast", solver="dps")


def test_the_sheet_of_volumes_shows_three_planes() -> None:
    slices, volumes = torch.rand(3, 1, 1, 8, 6), torch.rand(2, 1, 5, 8, 6)
    assert torch.equal(sheet_of(slices), slices[:, :, 0])
    sheet = sheet_of(volumes)
    assert sheet.shape == (6, 1, 8, 8)
    assert torch.equal(sheet[0, :, :, 1:7], volumes[0, :, 2])
    assert torch.equal(sheet[1, :, 1:6, 1:7], volumes[0, :, :, 4])
    assert torch.equal(sheet[2, :, 1:6], volumes[0, ..., 3])


def test_processors_are_asked_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not has_bfloat16()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert has_bfloat16()
    assert not has_bfloat16("mps")
