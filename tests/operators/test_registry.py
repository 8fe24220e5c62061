"""Operators in files, compositions, and what is refused."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.operators import (
    AffineResample,
    AnisotropicBlur,
    BiasField,
    Composition,
    Identity,
    Inpainting,
    InPlaneResolution,
    KSpace,
    LinearOperator,
    LowField,
    MotionBlur,
    Noise,
    SameGrid,
    ScanOperator,
    SliceMotion,
    SliceProfile,
    operator_from_json,
    operator_types,
    read_operator,
    register_operator,
    registry,
    simulate,
)
from dynamicdps.operators.image_grid import voxel_factors
from dynamicdps.operators.scan_operator import require_noise
from dynamicdps.volumes import Volume
from tests.properties import input_error

EYE = torch.eye(4).tolist()


@pytest.mark.parametrize(
    "values",
    [
        None,
        3,
        [],
        "LowField",
        {},
        {"type": None},
        {"type": ["LowField"]},
        {"type": "Teleporter"},
        {"type": "MotionBlur"},
        {"type": "MotionBlur", "length": "4"},
        {"type": "MotionBlur", "length": -1},
        {"type": "MotionBlur", "length": [1, 2]},
        {"type": "MotionBlur", "length": 1, "angle": float("nan")},
        {"type": "LowField", "gamma": "0.5"},
        {"type": "Inpainting"},
        {"type": "Inpainting", "mask": None},
        {"type": "Inpainting", "mask": "all"},
        {"type": "Inpainting", "mask": [[0, 0]]},
        {"type": "Inpainting", "mask": [[1, 2]]},
        {"type": "Inpainting", "mask": [[1], [1, 0]]},
        {"type": "Inpainting", "mask": []},
        {"type": "Inpainting", "mask": [1, 0]},
        {"type": "KSpace", "mask": [[1]], "coils": {"real": [[[1]]]}},
        {"type": "KSpace", "mask": [[1]], "coils": {"real": [[[1]]], "imag": [[[1, 2]]]}},
        {"type": "KSpace", "mask": [[1]], "phase": [[float("inf")]]},
        {"type": "AffineResample", "matrix": EYE},
        {"type": "AffineResample", "matrix": EYE, "measured": [1, 2]},
        {"type": "AffineResample", "matrix": EYE, "measured": [0, 2, 2]},
        {"type": "AffineResample", "matrix": EYE, "measured": 4},
        {"type": "AffineResample", "matrix": torch.zeros(4, 4).tolist(), "measured": [2, 2, 2]},
        {"type": "AffineResample", "matrix": (torch.eye(4) * torch.tensor([1, 1, 0, 1])).tolist(), "measured": [2, 2, 2]},
        {"type": "AffineResample", "matrix": [[1, 0], [0, 1]], "measured": [2, 2, 2]},
        {"type": "SliceProfile", "thickness": 3, "profile": "round"},
        {"type": "SliceProfile", "thickness": None},
        {"type": "SliceMotion", "angles": [1, 2], "shifts": [[0, 0]]},
        {"type": "BiasField", "coefficients": [0.1]},
        {"type": "BiasField", "coefficients": [[[100]]]},
        {"type": "Composition"},
        {"type": "Composition", "operators": []},
        {"type": "Composition", "operators": {"type": "Identity"}},
        {"type": "Composition", "operators": [{"type": "Identity"}, {"type": "Teleporter"}]},
        {"type": "Composition", "operators": [{"type": "Identity"}, 7]},
    ],
    ids=str,
)
def test_bad_values_give_one_sentence(values: Any) -> None:
    with input_error():
        operator_from_json(values)


def test_what_is_not_a_parameter_is_left_alone() -> None:
    operator = operator_from_json(
        {"type": "MotionBlur", "length": 3, "intervals": {"length": [2, 4]}, "warnings": [], "image_shape": [1, 1, 1]}
    )
    assert str(operator) == "MotionBlur(length=3, angle=0)"


def test_compositions_in_files(tmp_path: Path) -> None:
    """The scan's grids and scale stand beside the operator, as for one without parts."""
    operator = SliceProfile(3.0) @ InPlaneResolution(2.0) @ LowField(gamma=0.5)
    affine = torch.eye(4).numpy().astype(float)
    written = ScanOperator(operator, 0.02, (16, 12, 9), affine, 700.0)
    written.save(tmp_path / "scan.operator.json")
    values = json.loads((tmp_path / "scan.operator.json").read_text(encoding="utf-8"))
    assert values["type"] == "Composition"
    assert [part["type"] for part in values["operators"]] == ["SliceProfile", "InPlaneResolution", "LowField"]
    read = read_operator(tmp_path / "scan.operator.json")
    assert read.to_json() == written.to_json()
    shape, found = read.grid_for(Volume(torch.zeros(8, 6, 3).numpy(), affine))
    assert shape == (16, 12, 9)
    assert (found == affine).all()
    free, _ = ScanOperator(operator, 0.02).grid_for(Volume(torch.zeros(8, 6, 3).numpy(), affine))
    assert free == (16, 12, 9)


LOW_FIELD, BLUR, SHADING = {"type": "LowField"}, {"type": "AnisotropicBlur"}, {"type": "BiasField", "coefficients": [[[0.1]]]}


@pytest.mark.parametrize(
    ("values", "std", "kind"),
    [
        (LOW_FIELD, 0.001, "gaussian"),
        (BLUR, 0.01, "gaussian"),
        (LOW_FIELD | {"noise_std": 0.02, "noise": "rician"}, 0.02, "rician"),
        ({"type": "Composition", "operators": [BLUR, LOW_FIELD], "noise_std": 0.02, "noise": "gaussian"}, 0.02, "gaussian"),
        # Earlier versions wrote the noise into each part.
        ({"type": "Composition", "operators": [SHADING | {"noise_std": 0.03}, LOW_FIELD | {"noise_std": 0.02}]}, 0.03, "gaussian"),
        (
            {"type": "Composition", "operators": [SHADING | {"noise_std": 0.03}, LOW_FIELD | {"noise": "rician", "noise_std": 0.02}]},
            0.03,
            "rician",
        ),
        (
            {"type": "Composition", "operators": [{"type": "Weighting", "weights": [[1.0]], "noise_std": None}, BLUR | {"noise_std": 0.3}]},
            0.3,
            "gaussian",
        ),
        ({"type": "SwapSliceAxis", "axis": 0, "inner": LOW_FIELD | {"noise_std": 0.05, "noise": "rician"}}, 0.05, "rician"),
        ({"type": "Turned", "axis": 1, "inner": LOW_FIELD | {"noise_std": 0.05}}, 0.05, "gaussian"),
    ],
    ids=str,
)
def test_the_noise_that_files_say(values: dict[str, Any], std: float, kind: str, tmp_path: Path) -> None:
    found = ScanOperator.from_json(values)
    assert (found.noise.std, found.noise.kind) == (std, kind)
    found.save(tmp_path / "again.json")
    written = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert (written["noise_std"], written["noise"]) == (std, kind)
    assert read_operator(tmp_path / "again.json").to_json() == found.to_json()


@pytest.mark.parametrize(
    "noise", [{"noise_std": 10**400}, {"noise_std": 0}, {"noise_std": "low"}, {"noise_std": True}, {"noise": "pink"}], ids=str
)
def test_noise_that_is_none(noise: dict[str, Any]) -> None:
    with input_error("noise_std|noise is|too large"):
        ScanOperator.from_json(LOW_FIELD | noise)


def test_an_operator_without_its_noise_is_no_scanner(phantom: Volume) -> None:
    operator: Any = LowField()
    for call in (lambda: simulate(phantom, operator), lambda: require_noise(operator)):
        with input_error("ScanOperator"):
            call()


def test_noise_with_a_spectrum_has_no_file() -> None:
    with input_error("spectrum"):
        ScanOperator(Identity(), Noise(0.1, spectrum=torch.ones(4, 4))).to_json()


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    for values, said in (
        ({"type": "LowField", "gamma": "high"}, "cannot be read as an operator"),
        ({"type": "Motion"}, "does not describe an operator"),
        ({"type": "Composition", "operators": [{"type": "Inpainting"}]}, "cannot be read as an operator"),
    ):
        path.write_text(json.dumps(values), encoding="utf-8")
        with input_error(f"bad.json {said}"):
            read_operator(path)
    path.write_text(json.dumps({"type": "LowField", "gamma": 9}), encoding="utf-8")
    with input_error("gamma is 9"):
        read_operator(path)


def test_a_new_type_of_operator(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    monkeypatch.setattr(registry, "_OPERATORS", dict(registry._OPERATORS))

    @register_operator
    @dataclass(frozen=True, eq=False)
    class Gain(LinearOperator, SameGrid):
        factor: float

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x

    assert "Gain" in operator_types()
    operator = Gain(2.0) @ Identity()
    again = operator_from_json(operator.to_json())
    x = torch.rand(1, 1, 3, 4, generator=generator)
    assert torch.equal(again(x), 2 * x)
    assert str(again) == "Gain(factor=2) @ Identity()"
    assert torch.equal(Gain(3.0).adjoint(x, x.shape), 3 * x)
    with pytest.raises(ValueError, match="there is an operator 'Gain' already"):
        register_operator(Gain)


def test_composition_is_one_after_the_other(generator: torch.Generator) -> None:
    outer, middle, inner = SliceProfile(3.0), InPlaneResolution(2.0), LowField(gamma=0.5)
    x = torch.rand(2, 1, 9, 8, 6, generator=generator)
    left, right = (outer @ middle) @ inner, outer @ (middle @ inner)
    torch.testing.assert_close(left(x), outer(middle(inner(x))))
    assert left.operators == right.operators == (outer, middle, inner)
    assert left.couples_slices
    assert not left.is_linear
    assert (outer @ middle).is_linear
    assert left.typical_value(0.9) == pytest.approx(0.9**0.5, rel=1e-3)
    assert voxel_factors(left) == (2.0, 2.0, 3.0)
    assert str(middle @ Identity()) == "InPlaneResolution(factor=2) @ Identity()"


def test_composition_passes_spread_and_curve_to_the_innermost(generator: torch.Generator) -> None:
    outer, inner = InPlaneResolution(2.0), LowField(gamma=0.5)
    whole = LowField(gamma=0.5, in_plane_factor=2.0)
    x = torch.rand(2, 1, 8, 6, generator=generator, dtype=torch.float64)
    p = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    spread, step = torch.full((2, 1, 1, 1), 0.1, dtype=x.dtype), torch.full((2, 1, 1, 1), 0.5, dtype=x.dtype)
    near, expected = (outer @ inner).linearise(x, spread), whole.linearise(x, spread)
    torch.testing.assert_close(near.jvp(p), expected.jvp(p))
    torch.testing.assert_close(near.vjp(near.value), expected.vjp(expected.value))
    for found, exact in zip(
        (outer @ inner).search_curve(x, 0.1 * p, spread)(step), whole.search_curve(x, 0.1 * p, spread)(step), strict=True
    ):
        torch.testing.assert_close(found, exact)


def test_parameters_out_of_range_are_named() -> None:
    with input_error("std_y is -1"):
        AnisotropicBlur(1.0, -1.0)
    with input_error("angle is"):
        MotionBlur(1.0, torch.tensor([0.0, 1000.0]))
    with input_error("factor is 0.5"):
        InPlaneResolution(0.5)
    with input_error("spacing"):
        SliceProfile(torch.tensor([2.0, 3.0]))
    with input_error("the profile is 'round'"):
        SliceProfile(2.0, profile="round")
    with input_error("mask has other values"):
        KSpace(torch.full((4, 4), 0.5))
    with input_error("mask has shape"):
        Inpainting(torch.ones(4))
    with input_error("coils has shape"):
        KSpace(torch.ones(4, 4), torch.ones(4, 4))
    with input_error("as many pairs of shifts"):
        SliceMotion(torch.zeros(3), torch.zeros(2, 2))
    with input_error("coefficients"):
        BiasField(torch.full((1, 1, 1), torch.nan))
    with input_error("no inverse"):
        AffineResample(torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0])), (2, 2, 2))
    with input_error("a composition has 0 parts"):
        Composition(())
    with input_error("nothing else"):
        Composition((Identity(), "blur"))  # type: ignore[arg-type]


def test_printable_forms() -> None:
    assert str(LowField(gamma=torch.tensor([0.5, 0.6]))).startswith("LowField(gamma=[0.5, 0.6], in_plane_factor=1, ")
    assert str(Inpainting(torch.ones(3, 4))) == "Inpainting(mask=tensor(3, 4))"
    assert str(AffineResample(torch.eye(4), (2, 3, 4))) == "AffineResample(matrix=tensor(4, 4), measured=(2, 3, 4))"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"type": "LowField", "gama": 0.5}, "has 'gama'; expected of LowField only blur, gamma.*did you mean 'gamma'"),
        ({"type": "LowField", "gamma": 0.5, "gama": 0.5}, "has 'gama'"),
        ({"type": "Composition", "operators": [{"type": "MotionBlur", "length": 2.0, "angel": 3.0}]}, "did you mean 'angle'"),
        ({"type": "SwapSliceAxis", "axis": 1, "inner": {"type": "LowField", "blurr": 1.0}}, "did you mean 'blur'"),
        ({"type": "Contrast", "gamma": 0.5, "zzz": 1}, "has 'zzz'; .* correct it"),
    ],
)
def test_a_misspelt_parameter_is_no_other_scanner(values: dict[str, Any], said: str) -> None:
    with input_error(said):
        operator_from_json(values)


def test_what_files_hold_beside_parameters_is_read_past() -> None:
    beside = {"about": "mine", "intervals": {"gamma": [0.4, 0.6]}, "warnings": [], "known": {}, "correlations": {}, "intensity_scale": 2.0}
    assert str(operator_from_json({"type": "LowField", "gamma": 0.5, **beside})) == str(LowField(gamma=0.5))
