import json
import math
from dataclasses import replace

import numpy as np
import pytest

from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation import StageMetrics, data_misfit, evaluate_volume, residual_map, segment
from dynamicdps.operators import LowField, ScanOperator, simulate
from dynamicdps.volumes import IntensityScale, Volume, brain_mask, to_slices
from tests.conftest import make_phantom
from tests.properties import input_error

IMAGE_KEYS = ["psnr", "ssim", "nrmse", "data_misfit", "volume_error", "volumes_mm3"]


def noisy(volume: Volume, std: float, seed: int = 0) -> Volume:
    return volume.with_data(volume.data + np.random.default_rng(seed).normal(0, std, volume.shape) * (volume.data > 0))


def test_the_truth_is_perfect(phantom: Volume) -> None:
    metrics = evaluate_volume(phantom, phantom, IntensityScale(1.0))
    assert (metrics.psnr, metrics.ssim, metrics.nrmse) == (math.inf, pytest.approx(1), 0)
    assert metrics.volume_error == {"csf": 0, "gm": 0, "wm": 0}
    assert metrics.data_misfit is None


def test_units_do_not_matter(phantom: Volume) -> None:
    image = noisy(phantom, 0.03)
    one = evaluate_volume(image, phantom, IntensityScale(1.0))
    many = evaluate_volume(image.with_data(image.data * 800), phantom.with_data(phantom.data * 800), IntensityScale(800.0))
    assert (many.psnr, many.ssim, many.nrmse) == pytest.approx((one.psnr, one.ssim, one.nrmse), rel=1e-5)
    assert many.volume_mm3 == pytest.approx(one.volume_mm3)


def test_only_slices_that_hold_brain_count(phantom: Volume) -> None:
    image = noisy(phantom, 0.03)
    affine = phantom.affine.copy()
    affine[2, 3] -= 4

    def pad(volume: Volume) -> Volume:
        return Volume(np.pad(volume.data, ((0, 0), (0, 0), (4, 3))), affine)

    alone, padded = (evaluate_volume(*pair, IntensityScale(1.0)) for pair in ((image, phantom), (pad(image), pad(phantom))))
    assert padded.psnr == pytest.approx(alone.psnr)
    assert padded.ssim == pytest.approx(alone.ssim)


def test_known_labels_of_the_truth_change_nothing(phantom: Volume) -> None:
    image = noisy(phantom, 0.03)
    labels = segment(phantom.data, brain_mask(phantom))
    assert evaluate_volume(image, phantom, IntensityScale(1.0), truth_labels=labels) == evaluate_volume(image, phantom, IntensityScale(1.0))


@pytest.mark.parametrize("scale", [1.0, 500.0])
def test_misfit_of_the_truth_is_one(phantom: Volume, scale: float) -> None:
    truth = phantom.with_data(phantom.data * scale)
    measurement, operator = simulate(truth, ScanOperator(LowField(gamma=0.7, in_plane_factor=1.5, slice_thickness=3.0), 0.02))
    metrics = evaluate_volume(truth, truth, IntensityScale.robust(truth.data), measurement, operator)
    assert metrics.data_misfit == pytest.approx(1, abs=0.05)
    worse = data_misfit(noisy(truth, 0.2 * scale), measurement, operator, IntensityScale.robust(truth.data))
    assert worse > metrics.data_misfit + 0.3


def test_operator_without_a_scale_takes_the_truths(phantom: Volume) -> None:
    measurement, operator = simulate(phantom, ScanOperator(LowField(gamma=0.7), 0.02))
    scale = IntensityScale(operator.intensity_scale or 1.0)
    assert data_misfit(phantom, measurement, replace(operator, intensity_scale=None), scale) == data_misfit(
        phantom, measurement, operator, IntensityScale(99.0)
    )


def test_residual_lies_on_the_scanners_grid(phantom: Volume) -> None:
    measurement, operator = simulate(phantom, ScanOperator(LowField(in_plane_factor=2.0, slice_thickness=4.0), 0.02))
    residual = residual_map(phantom, measurement, operator, IntensityScale(1.0))
    assert residual.shape == measurement.shape
    np.testing.assert_array_equal(residual.affine, measurement.affine)
    assert residual.data.std() == pytest.approx(1, abs=0.1)


def test_misfit_needs_measurement_and_operator(phantom: Volume) -> None:
    with input_error("a measurement is given without its operator"):
        evaluate_volume(phantom, phantom, IntensityScale(1.0), phantom)
    with input_error("an operator is given without its measurement"):
        evaluate_volume(phantom, phantom, IntensityScale(1.0), operator=ScanOperator(LowField(), 0.001))
    with input_error("the measurement has shape"):
        evaluate_volume(phantom, phantom, IntensityScale(1.0), phantom, ScanOperator(LowField(in_plane_factor=2.0), 0.001))


def test_unusable_volumes_are_named(phantom: Volume) -> None:
    scale = IntensityScale(1.0)
    smaller = Volume(phantom.data[:-1], phantom.affine)
    moved = Volume(phantom.data, phantom.affine + np.eye(4)[:, [3, 3, 3, 0]] * 0.5)
    broken = phantom.with_data(np.where(phantom.data > 0.8, np.nan, phantom.data))
    thin = Volume(phantom.data[:, 20:25], phantom.affine)
    speck = np.zeros(phantom.shape)
    speck[20, 20, 5:7] = 1
    for image, truth, message in (
        (smaller, phantom, "resample it to that grid"),
        (moved, phantom, "affines of reconstruction and truth differ by up to 0.5"),
        (broken, phantom, "the reconstruction holds values that are not finite"),
        (thin, thin, "at least 7 x 7"),
        (phantom, phantom.with_data(speck), "no slice of the truth is 5% brain"),
    ):
        with input_error(message):
            evaluate_volume(image, truth, scale)


def test_json_has_the_contracts_keys(phantom: Volume) -> None:
    metrics = evaluate_volume(noisy(phantom, 0.03), phantom, IntensityScale(1.0))
    values = metrics.to_json()
    assert list(values) == IMAGE_KEYS
    assert set(values["volume_error"]) == {"csf", "gm", "wm"}
    solver = replace(metrics, nfe=12, nbackward=0, start_sigma=0.15, seconds=3.2)
    assert list(solver.to_json()) == [*IMAGE_KEYS, "nfe", "nbackward", "start_sigma", "seconds"]
    assert StageMetrics.from_json(json.loads(json.dumps(solver.to_json(), allow_nan=False))) == solver


def test_json_holds_no_infinity(phantom: Volume) -> None:
    metrics = replace(evaluate_volume(phantom, phantom, IntensityScale(1.0)), volume_error={"csf": math.nan, "gm": 0.0, "wm": 0.0})
    values = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert values["psnr"] is None
    assert values["volume_error"] == {"csf": None, "gm": 0.0, "wm": 0.0}
    assert math.isnan(StageMetrics.from_json(values).volume_error["csf"])


def test_truths_volumes_follow_from_the_errors() -> None:
    metrics = StageMetrics(volume_mm3={"csf": 90.0, "gm": 0.0, "wm": 5.0}, volume_error={"csf": -0.1, "gm": -1.0, "wm": math.nan})
    assert metrics.truth_mm3 == pytest.approx({"csf": 100.0})


@pytest.mark.parametrize("thick", [False, True])
def test_the_misfit_of_noise_alone_is_1_whatever_the_mask(thick: bool) -> None:
    """Also where the operator would treat slices one by one, and with slices that hold nothing at all."""
    truth = make_phantom((40, 48, 12))
    scale = IntensityScale.robust(truth.data)
    mm = 3.0 if thick else None
    operator = LowField(gamma=0.8, slice_thickness=mm, slice_spacing=mm)
    measurement, tied = simulate(truth, ScanOperator(operator, 0.05), seed=0)
    inside = np.zeros(measurement.shape, np.float32)
    inside[10:30, 12:30, 1:3] = 1
    masked = measurement.with_data(measurement.data * inside)
    assert data_misfit(truth, masked, tied.weighted(inside), scale) == pytest.approx(1, abs=0.05)
    wide = np.ones(measurement.shape, np.float32)
    assert data_misfit(truth, measurement, tied.weighted(wide), scale) == pytest.approx(
        data_misfit(truth, measurement, tied, scale), rel=1e-5
    )
    x, y = to_slices(scale.apply(truth).data), to_slices(masked.data / tied.intensity_scale)
    found = DataTerm(y.movedim(0, 1)[None], operator, 0.05, weights=to_slices(inside)[:, 0]).misfit(x.movedim(0, 1)[None])
    assert found.item() == pytest.approx(1, abs=0.05)
