"""The T1w-like image that explains a T2w scan: what it starts from, how it explains the scan, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dynamicdps as dd
from dynamicdps.operators import BiasField, LowField, Operator, ScanOperator, read_operator
from dynamicdps.output_names import ENHANCED_SIDECAR, OPERATOR, RUN
from dynamicdps.pipeline.cross_contrast import Crossed, check_from, cross, falling_image
from dynamicdps.priors.prior import SlicePrior
from dynamicdps.solvers.initial import Initial
from dynamicdps.volumes import Acquisition, BrainMask, BrainScan, Volume, from_slices, to_batch
from dynamicdps.volumes.grids import native_grid
from tests.cli.tiny import write_tiny
from tests.properties import input_error
from tests.volumes.test_contrast import TISSUES, scan_of

SCALE = 400.0
SILENT = SlicePrior(lambda x, sigma: x)


def head_of(volume: Volume, inside: np.ndarray, *, stripped: bool) -> BrainScan:
    weights = None if stripped else inside.astype(np.float32)
    return BrainScan(volume, Acquisition(), BrainMask(inside, "none" if stripped else "network"), volume, weights)


def crossed_of(noise: float = 0.0, *, stripped: bool = False, start: Initial | None = None, operator: Operator | None = None) -> Crossed:
    volume, inside = scan_of("T2w", noise)
    scanner = ScanOperator(operator or LowField(), max(noise, 0.01))
    return cross(head_of(volume, inside, stripped=stripped), scanner, SCALE, SILENT, start)


def test_the_brightest_become_darkest_with_the_histogram_of_t1w_heads() -> None:
    volume, inside = scan_of("T2w", 0.02)
    head = head_of(volume, inside, stripped=False)
    turned = falling_image(head, native_grid(volume), SCALE)
    # Apart from the mask's soft edge.
    deep = head.inside_on(volume) > 0.999
    by_scan = np.argsort(volume.data[deep], kind="stable")
    assert (np.diff(turned.data[deep][by_scan]) <= 1e-3).all()
    assert np.median(turned.data[deep]) / SCALE == pytest.approx(0.57, abs=0.1)
    # Where there is no signal there is none in the image, although it is darker than all tissue.
    assert turned.data[~inside].max() < 0.3 * SCALE
    assert turned.data.min() >= 0
    # Units of the scan do not matter.
    brighter = head_of(volume.with_data(3 * volume.data), inside, stripped=False)
    np.testing.assert_allclose(falling_image(brighter, native_grid(volume), SCALE).data, turned.data, atol=0.01)


@pytest.mark.parametrize("stripped", [False, True])
def test_the_start_explains_the_scan_by_a_curve_that_falls(stripped: bool) -> None:
    found = crossed_of(0.01, stripped=stripped)
    curve = found.scanner.operator.contrast
    assert curve is not None
    fluid, grey, white = (curve.typical_value(x) for x in (0.15, 0.5, 0.85))
    assert fluid > grey > white
    counted = found.head.weights
    assert counted is not None
    predicted = from_slices(found.scanner.operator(to_batch(found.initial.volume.data / SCALE)))
    left = (predicted - found.head.brain.data / SCALE)[counted > 0]
    # Half of the tissue contrast between grey and white matter, which no constant would leave.
    assert np.sqrt((left**2).mean()) < 0.05


def test_around_a_stripped_brain_nothing_counts() -> None:
    volume, inside = scan_of("T2w")
    stripped, head = crossed_of(stripped=True).head, crossed_of().head
    assert stripped.weights is not None
    assert head.weights is not None
    assert (stripped.weights <= head.weights).all()
    assert 0.8 * inside.sum() < stripped.weights.sum() < inside.sum()
    assert volume.shape == stripped.weights.shape


def test_a_start_that_is_given_says_the_curve_which_need_not_fall() -> None:
    """Three tissues in any order, as a FLAIR scan has them against T1w: the curve goes through all three."""
    image, _ = scan_of("T1w", scale=SCALE)
    for contrast in ("T2w", "FLAIR"):
        volume, inside = scan_of(contrast, 0.005)
        head = head_of(volume, inside, stripped=False)
        found = cross(head, ScanOperator(LowField(), 0.01), SCALE, SILENT, Initial(image, "given"))
        assert found.initial.volume is image
        curve = found.scanner.operator.contrast
        assert curve is not None
        for here, there in zip(TISSUES["T1w"], TISSUES[contrast], strict=True):
            assert curve.typical_value(here) == pytest.approx(there, abs=0.03)


def test_the_scan_s_own_contrast_is_left_out_and_its_noise_stays() -> None:
    bent = crossed_of(0.03, operator=LowField(gamma=0.6))
    plain = crossed_of(0.03)
    x = to_batch(plain.initial.volume.data / SCALE)
    torch.testing.assert_close(bent.scanner.operator(x), plain.scanner.operator(x))
    shaded = crossed_of(0.03, operator=BiasField(torch.zeros(1, 1, 2)) @ LowField())
    for found in (bent, plain, shaded):
        assert found.scanner.to_json()["type"] == "Composition"
        assert found.scanner.noise.std == 0.03


def test_scans_that_no_falling_curve_leads_to() -> None:
    with input_error("--to T1w is given for a T1w scan"):
        check_from("T1w")
    for contrast in ("FLAIR", "unknown"):
        with input_error(f"contrast {contrast}; expected a T2w scan"):
            check_from(contrast)
    with input_error("not linear behind a contrast"):
        crossed_of(operator=LowField(gamma=0.5) @ LowField(blur=1.0) @ LowField(gamma=0.5))
    volume, inside = scan_of("T2w")
    even = head_of(volume.with_data(np.ones(volume.shape, np.float32)), inside, stripped=False)
    with input_error("one intensity"):
        falling_image(even, native_grid(volume), SCALE)


@pytest.fixture
def both(tmp_path: Path) -> dict[str, Any]:
    """Options that take no time, with models of T1w and T2w."""
    prior = write_tiny(tmp_path / "both.safetensors", "prior", suffix="T1w", contrasts={"T2w": {"denoising_rmse": {"0.1": 0.08}}})
    conditional = write_tiny(tmp_path / "any.safetensors", "unet", contrast="any")
    return {"prior": str(prior), "conditional": str(conditional), "samples": 2, "steps": 1, "start_sigma": 0.05, "mask": "none"}


def test_it_says_everywhere_that_its_contrast_is_synthesised(both: dict[str, Any], tmp_path: Path) -> None:
    volume, _ = scan_of("T2w", 0.02)
    scan = volume.save(tmp_path / "sub-1_T2w.nii.gz")
    found = dd.enhance(scan, to="t1w", **both)
    assert found.warnings[0].startswith("synthesised contrast: ")
    assert found.facts["synthesised_contrast"] == "T1w"
    assert found.facts["contrast"] == "T2w"
    assert set(found.volumes) == {"csf", "gm", "wm"}
    assert found.hallucination is not None
    page = found.write(tmp_path / "out").read_text()
    assert "T1w-like image synthesised from a T2w scan" in page
    assert "ynthesised contrast: " in page
    assert json.loads((tmp_path / "out" / ENHANCED_SIDECAR).read_text())["SynthesisedContrast"] == "T1w"
    assert "--to T1w" in " ".join(json.loads((tmp_path / "out" / RUN).read_text())["argv"])
    # The file leads from the image to the scan.
    operator = read_operator(tmp_path / "out" / OPERATOR)
    x = torch.rand(1, 1, *volume.shape[::-1])
    torch.testing.assert_close(operator.operator(x), found.operator.operator(x), rtol=1e-4, atol=1e-4)
    # What an earlier result said of itself does not stay beside another one.
    dd.enhance(scan, **both).write(tmp_path / "out")
    assert not (tmp_path / "out" / ENHANCED_SIDECAR).exists()


def test_another_model_s_t1w_image_is_the_start(both: dict[str, Any], tmp_path: Path) -> None:
    volume, _ = scan_of("T2w", 0.02)
    scan = volume.save(tmp_path / "sub-1_T2w.nii.gz")
    image = scan_of("T1w")[0].save(tmp_path / "synthsr.nii.gz")
    found = dd.enhance(scan, to="T1w", initial=image, **both)
    assert "synthsr.nii.gz" in found.facts["initial"]
    assert np.corrcoef(found.initial.data.ravel(), dd.load(image).data.ravel())[0, 1] > 0.99


def test_what_is_asked_for_in_vain(both: dict[str, Any], tmp_path: Path) -> None:
    volume, _ = scan_of("T2w", 0.02)
    scan = volume.save(tmp_path / "sub-1_T2w.nii.gz")
    with input_error("--to is 't2w'; expected T1w"):
        dd.enhance(scan, to="t2w", **both)
    with input_error("--to is given for several scans or raw k-space"):
        dd.enhance([scan, volume], to="T1w", **both)
    with input_error("--to T1w is given for a T1w scan"):
        dd.enhance(scan, to="T1w", contrast="T1w", **both)
    t2w_only = write_tiny(tmp_path / "t2w.safetensors", "prior", suffix="T2w")
    with input_error("the scan is T1w, the model"):
        dd.enhance(scan, to="T1w", **both | {"prior": str(t2w_only)})


def test_a_given_forward_model_and_another_grid(both: dict[str, Any], tmp_path: Path) -> None:
    volume, _ = scan_of("T2w", 0.02)
    scan = volume.save(tmp_path / "sub-1_T2w.nii.gz")
    found = dd.enhance(scan, to="T1w", operator=ScanOperator(LowField(), 0.02), grid="native", **both)
    assert found.fit is None
    assert found.image.shape == volume.shape
    assert found.brain_mask is None
    assert replace(found.operator, weights=None).to_json()["operators"][-1]["type"] == "Contrast"
