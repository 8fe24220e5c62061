"""The demo's numbers are those that are written down; when to make them anew: benchmarks/quality.py."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

CASE = "four slices"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    yield import_module("quality")
    sys.modules.pop("quality", None)


def test_the_demo_gives_its_golden_numbers(quality: ModuleType) -> None:
    numbers = quality.measure(quality.CASES[CASE])
    assert quality.departures(numbers, quality.golden_numbers()[CASE]["values"]) == []


def test_tolerances_are_wider_than_what_was_measured_and_no_wider_than_a_gain(quality: ModuleType) -> None:
    """Twice the largest difference between precisions and threads fits; a tenth of what DynamicDPS gains on the conditional does not."""
    for case, numbers in quality.golden_numbers().items():
        values = numbers["values"]
        assert values.keys() == numbers["apart"].keys()
        assert all(2 * apart <= quality.tolerance(name) for name, apart in numbers["apart"].items()), case
        for measure in ("psnr", "ssim", "nrmse", "data_misfit"):
            gain = abs(values[f"dynamicdps {measure}"] - values[f"conditional {measure}"])
            assert quality.TOLERANCES[measure] < gain / 10, (case, measure)


@pytest.mark.parametrize(("change", "found"), [(0.0, 0), (0.99, 0), (1.01, 1), (float("nan"), 1)])
def test_a_number_may_depart_by_its_tolerance(quality: ModuleType, change: float, found: int) -> None:
    golden = {"dynamicdps psnr": 25.0, "dynamicdps nfe": 5.0, "conditional volume_error csf": 0.1}
    numbers = golden | {"dynamicdps psnr": 25.0 - change * quality.TOLERANCES["psnr"]}
    assert len(quality.departures(numbers, golden)) == found


def test_no_number_may_be_missing(quality: ModuleType) -> None:
    golden = {"dynamicdps psnr": 25.0, "dynamicdps nfe": 5.0}
    assert quality.departures({"dynamicdps psnr": 25.0}, golden) == ["dynamicdps nfe is on one side alone"]
    assert quality.departures(golden, {"dynamicdps psnr": 25.0}) == ["dynamicdps nfe is on one side alone"]
