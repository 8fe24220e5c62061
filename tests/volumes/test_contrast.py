"""T1w, T2w and FLAIR are told apart by the order of their tissues."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.volumes import Volume, brain_mask, load
from dynamicdps.volumes.contrast import SURE, T1_RISE, T2_TAIL, contrast_likelihood, look_at_contrast
from tests.conftest import make_phantom

SHAPE = (96, 110, 8)
# Fluid, cortex and white matter of a scan of each contrast.
TISSUES = {"T1w": (0.2, 0.6, 0.9), "T2w": (1.0, 0.45, 0.35), "FLAIR": (0.2, 0.8, 0.7)}


def scan_of(contrast: str, noise: float = 0.0, scale: float = 400.0) -> tuple[Volume, NDArray[np.bool_]]:
    """Slices of a brain of 1 mm with a cortex of 3 mm under 5 mm of fluid, furrows and ventricles; and where it is."""
    x, y = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE[:2]), indexing="ij")
    inside = (x / 44) ** 2 + (y / 51) ** 2 < 1
    fluid = ndimage.distance_transform_edt(inside) < 5
    fluid |= (np.abs(x) < 1) | ((np.abs(np.abs(x) - 8) < 4) & (np.abs(y) < 14))
    for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False):
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        fluid |= (along > 30) & (np.abs(across) < 1)
    depth = ndimage.distance_transform_edt(inside & ~fluid)
    values = np.select([~inside, fluid, depth < 4.5], [0.0, *TISSUES[contrast][:2]], TISSUES[contrast][2])
    data = np.repeat(values[..., None], SHAPE[2], 2) + noise * np.random.default_rng(0).standard_normal(SHAPE)
    return Volume(scale * data.astype(np.float32), np.eye(4)), np.repeat(inside[..., None], SHAPE[2], 2)


@pytest.mark.parametrize("contrast", TISSUES)
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_contrasts_of_a_phantom(contrast: str, noise: float) -> None:
    found = look_at_contrast(*scan_of(contrast, noise))
    assert found is not None
    assert found.contrast == contrast
    assert found.is_sure
    assert found.confidence >= SURE
    assert sum(found.likelihood.values()) == pytest.approx(1.0)
    assert contrast in found.in_words()


@pytest.mark.parametrize("gamma", [0.3, 0.6, 1.0, 1.5])
def test_a_contrast_curve_leaves_t1w_scans_what_they_are(gamma: float) -> None:
    scan, inside = scan_of("T1w", 0.02, 1.0)
    found = look_at_contrast(scan.with_data(np.maximum(scan.data, 0) ** gamma), inside)
    assert found is not None
    assert found.contrast == "T1w"


@pytest.mark.parametrize("contrast", TISSUES)
def test_units_and_orientation_change_nothing(contrast: str) -> None:
    scan, inside = scan_of(contrast)
    found = look_at_contrast(scan, inside)
    scaled = look_at_contrast(scan.with_data(7.5 * scan.data), inside)
    turned = Volume(np.ascontiguousarray(scan.data.transpose(2, 0, 1)), np.eye(4))
    other = look_at_contrast(turned, inside.transpose(2, 0, 1), 0)
    assert found is not None
    for each in (scaled, other):
        assert each is not None
        assert each.bright_tail == pytest.approx(found.bright_tail, rel=1e-3)
        assert each.deep_rise == pytest.approx(found.deep_rise, abs=1e-3)


def test_thresholds_are_where_two_contrasts_are_alike() -> None:
    for tail, rise in ((T2_TAIL, T1_RISE), (1.8, 0.06)):
        at_tail = contrast_likelihood(tail, None, tail, rise)
        assert at_tail["T2w"] == pytest.approx(0.5)
        assert at_tail["T1w"] == at_tail["FLAIR"]
        at_rise = contrast_likelihood(0.5 * tail, rise, tail, rise)
        assert at_rise["T1w"] == pytest.approx(at_rise["FLAIR"])
        assert sum(at_rise.values()) == pytest.approx(1.0)
        assert contrast_likelihood(0.5 * tail, rise + 0.05, tail, rise)["T1w"] > SURE
        assert contrast_likelihood(0.5 * tail, rise - 0.05, tail, rise)["FLAIR"] > SURE
        assert contrast_likelihood(2 * tail, rise + 0.05, tail, rise)["T2w"] > SURE


def test_known_numbers() -> None:
    """Planes of one value each: no fluid, so that the tail is that of the planes."""
    planes = np.repeat(np.linspace(0.01, 1.01, 101)[None, None] ** 2, 60, 0).repeat(60, 1).astype(np.float32)
    found = look_at_contrast(Volume(planes, np.eye(4)), np.ones(planes.shape, bool))
    assert found is not None
    assert found.bright_tail == pytest.approx((0.99**2 - 0.51**2) / (0.51**2 - 0.03**2), rel=1e-3)


def test_too_little_to_tell() -> None:
    phantom = make_phantom((16, 16, 4))
    assert look_at_contrast(phantom, phantom.data > 10) is None
    assert look_at_contrast(phantom, phantom.data > 0) is None
    assert look_at_contrast(Volume(np.ones((60, 60, 8), np.float32), np.eye(4)), np.ones((60, 60, 8), bool)) is None


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("t2w/sub-patient19_T2w", "T2w"),
        ("flair/sub-patient19_FLAIR", "FLAIR"),
        ("wholebrain/sub-patient19_T1w", "T1w"),
        ("wholebrain/sub-aomic_T1w", "T1w"),
    ],
)
def test_real_brains(real_scans: Path, name: str, contrast: str) -> None:
    scan = load(real_scans / f"{name}.nii.gz")
    found = look_at_contrast(scan, brain_mask(scan))
    assert found is not None
    assert found.contrast == contrast
    assert found.is_sure
