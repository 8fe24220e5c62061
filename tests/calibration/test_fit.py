"""The fit of a scan's operator: from the scan alone, with honest intervals and units, on the bundled scan and on phantoms."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import ndimage

from dynamicdps.calibration import estimator_training
from dynamicdps.calibration.estimator_training import (
    ScannerRange,
    calibrate_intervals,
    fit_network,
    simulate_scan,
    train_estimator,
    weigh_image,
)
from dynamicdps.calibration.fit import BOUNDS, fit_operator, fit_profiles
from dynamicdps.calibration.parameter_estimator import NAMES, ContrastWeight, ParameterEstimator, load_estimator
from dynamicdps.calibration.scan_statistics import COUNT, ScanStatistics
from dynamicdps.models import demo_scan
from dynamicdps.operators import LowField, ScanOperator, SwapSliceAxis, read_operator, simulate
from dynamicdps.volumes import Volume, load, to_slices
from tests.conftest import make_phantom
from tests.properties import input_error

NOISE = 0.03
TRUE = LowField(gamma=0.6, in_plane_factor=1.5, blur=1.0, slice_thickness=2.0, slice_spacing=2.0)


@pytest.fixture(scope="module")
def truth() -> Volume:
    """The bundled slab of Colin 27, a head that no model was trained on."""
    return load(demo_scan())


@pytest.fixture(scope="module")
def measured(truth: Volume) -> tuple[Volume, ScanOperator]:
    return simulate(truth, ScanOperator(TRUE, NOISE), seed=1)


@pytest.fixture(scope="module")
def heads() -> list[torch.Tensor]:
    return [to_slices(make_phantom((48, 56, 20), seed=i).data)[:, 0] for i in range(3)]


def test_finds_the_scanner_of_a_new_head(truth: Volume, measured: tuple[Volume, ScanOperator]) -> None:
    scan, tied = measured
    found = fit_operator(scan)
    assert isinstance(found.operator, LowField)
    assert found.operator.in_plane_factor == pytest.approx(1.5, abs=1e-6)
    assert found.operator.slice_spacing == pytest.approx(2.0, abs=1e-6)
    assert found.operator.gamma == pytest.approx(0.6, rel=0.3)
    assert found.operator.blur == pytest.approx(1.0, abs=0.25)
    assert found.operator.slice_thickness == pytest.approx(2.0, rel=0.15)
    assert found.scan_operator.noise.std == pytest.approx(NOISE, rel=0.1)
    assert found.scan_operator.intensity_scale == pytest.approx(tied.intensity_scale, rel=0.1)
    values, true = found.to_json(), ScanOperator(TRUE, NOISE).to_json()
    for name, (low, high) in found.intervals.items():
        assert low <= values[name] <= high
        assert low <= true[name] <= high, name
    # The truth itself as the image: the contrast that leads from it to the scan is the true one.
    better = fit_operator(scan, truth)
    assert better.least_squares is not None
    assert better.least_squares.values["gamma"] == pytest.approx(0.6, rel=0.05)


def encoded(truth: Volume, seed: int, noise: float, spacing: int = 4, kept: float = 0.625) -> Volume:
    """A scan by other physics than `LowField`'s: a curve for contrast, slices of trapezoid profile, k-space that is cut, a magnitude."""
    random = np.random.default_rng(seed)
    data = np.interp(truth.data / np.percentile(truth.data[truth.data > 0], 99), [0, 0.15, 0.6, 0.92, 1.6], [0, 0.24, 0.62, 0.8, 1.35])
    along = np.abs(np.arange(-spacing, spacing + 1))
    profile = np.clip((0.65 * spacing - along) / (0.3 * spacing), 0, 1)
    thick = ndimage.convolve1d(data, profile / profile.sum(), axis=2)[..., spacing // 2 :: spacing]
    waves = np.fft.fftshift(np.fft.fft2(thick, axes=(0, 1), norm="ortho"), axes=(0, 1))
    sizes = [int(n * kept) for n in thick.shape[:2]]
    x, y = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(thick.shape[:2], sizes, strict=True))
    low = np.fft.ifft2(np.fft.ifftshift(waves[x, y], axes=(0, 1)), axes=(0, 1), norm="ortho")
    low *= np.prod(sizes) ** 0.5 / np.prod(thick.shape[:2]) ** 0.5
    low += noise * (random.normal(size=low.shape) + 1j * random.normal(size=low.shape))
    affine = truth.affine @ np.diag([*(n / m for n, m in zip(thick.shape[:2], sizes, strict=True)), spacing, 1.0])
    affine[:3, 3] = truth.affine[:3, 3] + truth.affine[:3, 2] * (spacing // 2)
    return Volume(np.abs(low).astype(np.float32), affine, truth.native)


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_hold_the_truth_of_other_physics(truth: Volume, seed: int) -> None:
    noise = 0.03 + 0.03 * seed
    scan = encoded(truth, seed, noise)
    found = fit_operator(scan)
    best = fit_operator(scan, truth).least_squares
    assert best is not None
    true = {"slice_thickness": 4.0, "noise_std": noise / float(found.scan_operator.intensity_scale or 1.0)}
    for name, value in (true | {name: best.values[name] for name in ("gamma", "blur")}).items():
        low, high = found.intervals[name]
        assert low <= value <= high, name
    low, high = found.intervals["gamma"]
    assert high < 3 * low


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_of_any_direction(truth: Volume, axis: int) -> None:
    """A scan of slices along x or y has the operator of the same slices along z, turned, on a grid of its own orientation."""
    scan, tied = simulate(truth, ScanOperator(replace(TRUE, slice_spacing=4.0), NOISE), seed=1)
    order = [2, 1, 0] if axis == 0 else [0, 2, 1]

    def lying(volume: Volume) -> Volume:
        affine = np.diag([*np.array(volume.spacing)[order], 1.0])
        return Volume(np.ascontiguousarray(volume.data.transpose(order)), affine)

    upright, found = fit_operator(scan, truth), fit_operator(lying(scan), lying(truth))
    assert isinstance(found.operator, SwapSliceAxis)
    assert found.operator.axis == axis
    # The grids' origins differ, and with them the last digits of the interpolated image.
    for name in ("gamma", "blur", "slice_thickness", "slice_spacing", "in_plane_factor"):
        assert getattr(found.operator.inner, name) == pytest.approx(getattr(upright.operator, name), rel=0.2), name
    assert found.scan_operator.noise.std == pytest.approx(upright.scan_operator.noise.std, rel=0.2)
    assert found.intervals.keys() == upright.intervals.keys()
    assert tied.image_shape is not None
    shape, affine = found.scan_operator.grid_for(lying(scan))
    assert shape == tuple(np.array(upright.scan_operator.grid_for(scan)[0])[order])
    np.testing.assert_allclose(np.abs(affine[:3, :3]), np.eye(3), atol=1e-6)


def test_units_of_the_scan_do_not_count(measured: tuple[Volume, ScanOperator]) -> None:
    scan, _ = measured
    one, other = fit_operator(scan), fit_operator(scan.with_data(scan.data * 500))
    for name in ("gamma", "blur", "slice_thickness", "noise_std"):
        assert other.to_json()[name] == pytest.approx(one.to_json()[name], rel=1e-3)
    assert other.scan_operator.intensity_scale == pytest.approx(500 * (one.scan_operator.intensity_scale or 0), rel=1e-3)


def test_what_is_known_is_kept(measured: tuple[Volume, ScanOperator]) -> None:
    scan, _ = measured
    found = fit_operator(scan, fit=["gamma"], known={"slice_thickness": 5.0, "blur": 1.5})
    assert isinstance(found.operator, LowField)
    assert (found.operator.slice_thickness, found.operator.blur) == (5.0, 1.5)
    assert set(found.intervals) == {"gamma"}
    assert found.known == {"slice_thickness": 5.0, "blur": 1.5}
    plain = fit_operator(scan, fit=[])
    assert isinstance(plain.operator, LowField)
    assert (plain.operator.gamma, plain.operator.blur, plain.operator.slice_thickness) == (1.0, 0.0, pytest.approx(2.0))


def test_lengths_are_in_image_voxels(truth: Volume) -> None:
    fine = Volume(truth.data, truth.affine @ np.diag([0.8, 0.8, 1.0, 1.0]), truth.native)
    scan, _ = simulate(fine, ScanOperator(LowField(blur=1.0), 0.02), seed=0)
    found = fit_operator(scan)
    assert isinstance(found.operator, LowField)
    assert found.operator.in_plane_factor == pytest.approx(1.0)
    assert found.estimate is not None
    assert found.operator.blur == pytest.approx(found.estimate.mean["blur"] / 0.8, rel=1e-6)
    assert found.operator.slice_thickness is None
    assert "slice_thickness" not in found.intervals


def test_json_is_an_operator(measured: tuple[Volume, ScanOperator], tmp_path: Path) -> None:
    found = fit_operator(measured[0])
    (tmp_path / "operator.json").write_text(json.dumps(found.to_json()))
    read = read_operator(tmp_path / "operator.json")
    assert str(read) == str(found.scan_operator)
    values = found.to_json()
    assert values["gamma"] == found.operator.gamma
    assert set(values["intervals"]) == {"gamma", "blur", "slice_thickness", "noise_std"}
    assert values["warnings"] == found.warnings


def test_doubts(measured: tuple[Volume, ScanOperator], truth: Volume) -> None:
    coarse, _ = simulate(truth, ScanOperator(LowField(in_plane_factor=6.0), 0.01))
    assert any("6 mm" in w for w in fit_operator(coarse).warnings)
    scan = measured[0]
    strange = scan.with_data(ndimage.gaussian_filter(scan.data, 4))
    assert any("unlike" in w or "hardly" in w or "outside" in w for w in fit_operator(strange).warnings)


def test_bad_input(measured: tuple[Volume, ScanOperator]) -> None:
    scan, _ = measured
    with input_error("'gama'"):
        fit_operator(scan, fit=["gama"])
    with input_error("'sharpness'"):
        fit_operator(scan, known={"sharpness": 1.0})
    with input_error("blur is to be fitted and known"):
        fit_operator(scan, known={"blur": 1.0})
    skewed = Volume(scan.data, scan.affine @ np.diag([1.0, 1.3, 1.0, 1.0]), scan.native)
    with input_error("square"):
        fit_operator(skewed)
    with input_error("voxel greater than 0"):
        fit_operator(scan, scan.with_data(np.zeros(scan.shape)))


def test_training_learns_and_its_intervals_hold(heads: list[torch.Tensor]) -> None:
    random = np.random.default_rng(0)
    ranges = ScannerRange(in_plane_factor=(1.0,), slice_spacing=(2.0,), depth=(20, 20))
    scans = [s for i in range(180) if (s := simulate_scan(heads[i % 3], random, ranges)) is not None]
    x, t = np.stack([s.statistics.values for s in scans]), np.stack([s.targets for s in scans])
    network = fit_network(x[:130], t[:130], epochs=40, members=1)
    again = fit_network(x[:130], t[:130], epochs=40, members=1)
    mean, _ = network(torch.from_numpy(x[130:]).float())
    assert torch.equal(mean, again(torch.from_numpy(x[130:]).float())[0])
    error = (mean.double() - torch.from_numpy(t[130:])).abs().median(0).values
    guess = np.abs(np.median(t[:130], 0) - t[130:])
    assert (error[:3].numpy() < 0.5 * np.median(guess, 0)[:3]).all()
    stretch, errors = calibrate_intervals(network, x[130:], t[130:])
    mean, std = (v.double().numpy() for v in network(torch.from_numpy(x[130:]).float()))
    inside = np.abs(mean - t[130:]) <= np.array([stretch[n] for n in NAMES]) * std + 1e-4
    assert (inside.mean(0) >= 0.95).all()
    assert set(errors) == set(NAMES)


def test_intervals_are_stretched_by_the_conformal_quantile() -> None:
    """Of 100 held-out scans the 96th smallest error: the quantile of level ceil(101 * 0.95) / 100."""

    class Unit(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(len(x), len(NAMES)), torch.full((len(x), len(NAMES)), 2.0)

    t = np.linspace(1, 100, 100)[:, None] * np.ones(len(NAMES))
    stretch, errors = calibrate_intervals(Unit(), np.zeros((100, COUNT)), t)  # type: ignore[arg-type]
    assert list(stretch.values()) == pytest.approx([(1 + 0.96 * 99) / 2] * len(NAMES))
    assert list(errors.values()) == pytest.approx([50.0] * len(NAMES))


def test_an_exact_image_gets_the_weight(heads: list[torch.Tensor]) -> None:
    random = np.random.default_rng(1)
    ranges = ScannerRange(in_plane_factor=(1.0,), slice_spacing=(2.0,), depth=(20, 20), blur=(0.0, 0.1), slice_thickness=(2.0, 2.1))
    scans = [s for i in range(12) if (s := simulate_scan(heads[i % 3], random, ranges)) is not None]
    x, t = np.stack([s.statistics.values for s in scans]), np.stack([s.targets for s in scans])
    rough = ParameterEstimator(fit_network(x, t, epochs=3, members=1), dict.fromkeys(NAMES, 2.0), (0.9, 1.1), ContrastWeight(), {}, {})
    order = iter(range(len(scans)))
    weight, error = weigh_image(rough, scans, lambda y, operator, shape: heads[next(order) % 3][None, None], lambda k: None)
    assert weight.weight > 0.8
    assert error < 0.1


def test_weighed_intervals_cover_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the statistics four times as large as those of the image, which is biased: its weight is what least squares give."""
    count, random = 200, np.random.default_rng(0)
    own, image = 0.2 * random.standard_normal(count), 0.05 * random.standard_normal(count) - 0.3
    scanner = LowField(gamma=0.5, slice_thickness=2.0)
    scans = [
        SimpleNamespace(statistics=SimpleNamespace(top=1.0, number=k), scanner=scanner, noise=0.01, y=1.0, shape=()) for k in range(count)
    ]

    def estimator(statistics: Any) -> SimpleNamespace:
        return SimpleNamespace(mean={"gamma": 0.5 * math.exp(own[statistics.number]), "top": 1.0}, std={"gamma": 0.2})

    seen = iter(range(count))
    monkeypatch.setattr(estimator_training, "low_field", lambda *arguments: None)
    monkeypatch.setattr(
        estimator_training, "contrast_from_image", lambda *arguments: SimpleNamespace(values={"gamma": 0.5 * math.exp(image[next(seen)])})
    )
    found, error = weigh_image(cast(Any, estimator), cast(Any, scans), lambda *arguments: torch.zeros(1), lambda k: None)
    best = 0.2**2 / (0.2**2 + 0.05**2)
    assert found.weight == pytest.approx(best, abs=0.1)
    assert found.offset == pytest.approx(0.3 * found.weight, abs=0.02)
    assert found.std == pytest.approx(0.05, rel=0.2)
    left = np.abs((1 - found.weight) * own + found.weight * image + found.offset)
    half = found.stretch * math.hypot((1 - found.weight) * 0.2, found.weight * found.std)
    assert 0.95 <= (left <= half + 1e-4).mean() <= 0.97
    assert error == pytest.approx(np.median(left), abs=1e-4)


def test_contrast_is_weighed_by_hand() -> None:
    read = load_estimator()
    for name, (low, high) in (plain := read(ScanStatistics(read.network.centre.double().numpy(), 1.0))).intervals.items():
        half = read.stretch[name] * plain.std[name]
        if name in ("gamma", "top"):
            assert math.log(high / low) == pytest.approx(2 * half)
        elif low > 0:
            assert high - low == pytest.approx(2 * half)
    weighed = ParameterEstimator(read.network, read.stretch, read.noise_ratio, ContrastWeight(0.25, 0.1, 0.2, 2.0), read.ranges, read.card)
    estimate = weighed(ScanStatistics(read.network.centre.double().numpy(), 1.0))
    combined = weighed.weigh_contrast(estimate, 0.5)
    centre = 0.75 * math.log(estimate.mean["gamma"]) + 0.25 * math.log(0.5) + 0.1
    half = 2 * math.hypot(0.75 * estimate.std["gamma"], 0.25 * 0.2)
    assert combined.mean["gamma"] == pytest.approx(math.exp(centre))
    assert combined.intervals["gamma"] == (pytest.approx(math.exp(centre - half)), pytest.approx(math.exp(centre + half)))
    assert combined.mean["blur"] == estimate.mean["blur"]


def test_the_card_says_what_was_trained(scan_files: list[Path], tmp_path: Path) -> None:
    ranges = ScannerRange(depth=(10, 10))
    path = train_estimator(scan_files, tmp_path, simulations=24, epochs=1, members=1, ranges=ranges, data_name="phantoms")
    read = load_estimator(path)
    assert read.card["data"] == "phantoms"
    assert read.ranges["gamma"] == (0.25, 1.7)
    assert read.contrast == ContrastWeight()
    assert read.network.centre.shape == (COUNT,)
    damaged = path.read_bytes()[:-8] + b"\0" * 8
    path.write_bytes(damaged)
    with input_error("operator-fit"):
        load_estimator(path)
    with input_error("at least 2"):
        train_estimator(scan_files[:1], tmp_path)


def test_bounds_hold_every_estimate() -> None:
    assert set(BOUNDS) == set(NAMES) - {"top"}


def test_profiles_are_lowest_near_the_truth(truth: Volume, measured: tuple[Volume, ScanOperator]) -> None:
    """Given the true image, what a wrong blur leaves is more than the noise; the other parameters follow it."""
    found = fit_operator(measured[0])
    found.intervals["blur"] = (0.6, 1.4)
    rows = fit_profiles(measured[0], truth, found, ["blur"], points=3)
    assert [row["parameter"] for row in rows] == ["blur"] * 3
    assert [row["value"] for row in rows] == pytest.approx([0.2, 1.0, 1.8])
    assert [row["blur"] for row in rows] == pytest.approx([0.2, 1.0, 1.8])
    low, true, high = (float(row["residual"]) for row in rows)
    assert true == pytest.approx(1, rel=0.15)
    assert min(low, high) > 1.05 * true
    assert float(rows[1]["gamma"]) == pytest.approx(0.6, rel=0.1)
    assert float(rows[1]["slice_thickness"]) == pytest.approx(2.0, rel=0.1)
    with input_error("'noise_std' has no profile"):
        fit_profiles(measured[0], truth, found, ["noise_std"])
