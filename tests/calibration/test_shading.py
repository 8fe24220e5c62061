"""Shading of coils: found on scans that have it, left out of those that have none, and a factor of the forward model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dynamicdps.calibration.fit import fit_operator
from dynamicdps.calibration.shading import SLAB_LIMIT, WHOLE_LIMIT, Shading, find_shading, without_shading
from dynamicdps.operators import BiasField, Composition, LowField, SwapSliceAxis, operator_from_json
from dynamicdps.volumes import Volume, from_slices, swap_axes, to_slices
from dynamicdps.volumes.preparation import in_words
from tests.properties import assert_adjoint, assert_jacobian_products, input_error
from tests.volumes.head import Head, make_head


@pytest.fixture(scope="module")
def shaded() -> Head:
    return make_head(shading=0.3, stripped=True)


def test_known_shading_is_kept(shaded: Head) -> None:
    found = find_shading(shaded.volume, shaded.brain, gamma=1.0)
    assert found.kept
    assert found.spread > 1.5 * found.limit
    left = shaded.volume.data[shaded.brain] / found.flat(shaded.volume).data[shaded.brain] / shaded.shading[shaded.brain]
    assert np.std(np.log(shaded.shading[shaded.brain])) > 0.1
    assert np.std(left) < 0.6 * np.std(np.log(shaded.shading[shaded.brain]))
    assert found.spread == pytest.approx(np.std(np.log(shaded.shading[shaded.brain])), rel=0.5)


def test_a_scan_without_shading_stays_as_it_is() -> None:
    head = make_head(stripped=True)
    found = find_shading(head.volume, head.brain, gamma=1.0)
    assert not found.kept
    assert found.spread < found.limit
    assert found.flat(head.volume) is head.volume
    assert found.factor() is None
    kept = find_shading(head.volume, head.brain, gamma=1.0, choice="on")
    assert kept.kept
    assert kept.spread == found.spread


def test_anatomy_may_look_like_more_in_a_slab_and_at_a_strong_contrast() -> None:
    whole, slab = make_head(stripped=True), make_head(field_of_view=(200.0, 230.0, 40.0), stripped=True)
    assert find_shading(whole.volume, whole.brain, gamma=0.5).limit == 0.5 * WHOLE_LIMIT
    assert find_shading(slab.volume, slab.brain, gamma=2.0).limit == 2.0 * SLAB_LIMIT


def test_what_is_left_out_is_not_looked_for(shaded: Head) -> None:
    found = find_shading(shaded.volume, shaded.brain, gamma=1.0, choice="off")
    assert found.estimate is None
    assert not found.kept
    assert in_words(found.step().to_json()) == "shading: kept no, remark not looked for"


def test_too_small_a_brain() -> None:
    head = make_head()
    nothing = np.zeros_like(head.brain)
    found = find_shading(head.volume, nothing, gamma=1.0)
    assert not found.kept
    assert "voxels" in found.step().found["remark"]
    with input_error("voxels"):
        find_shading(head.volume, nothing, gamma=1.0, choice="on")
    with input_error("'maybe'"):
        find_shading(head.volume, head.brain, gamma=1.0, choice="maybe")


def test_the_step_says_what_was_found(shaded: Head) -> None:
    step = json.loads(json.dumps(find_shading(shaded.volume, shaded.brain, gamma=1.0).step().to_json()))
    assert step["name"] == "shading"
    assert step["parameters"] == {"shading": "auto"}
    assert step["found"]["kept"] is True
    low, high = step["found"]["range_in_brain"]
    inside = shaded.shading[shaded.brain]
    assert (low, high) == (pytest.approx(inside.min(), abs=0.15), pytest.approx(inside.max(), abs=0.15))
    assert np.shape(step["found"]["coefficients"]) == (3, 3, 3)
    assert "coefficients" not in in_words(step)
    assert step["warnings"] == []


def test_strong_shading_is_doubted(shaded: Head) -> None:
    found = find_shading(shaded.volume, shaded.brain, gamma=1.0)
    assert found.estimate is not None
    strong = replace(found, estimate=replace(found.estimate, range=(0.4, 1.5)))
    assert "0.40 to 1.50" in strong.step().warnings[0]
    assert replace(strong, kept=False).step().warnings == []


@pytest.mark.parametrize("axis", [0, 2])
def test_the_factor_is_the_last_of_the_operator_whatever_the_slices(axis: int) -> None:
    """The fit is that of the scan without its shading."""
    slab = make_head((4.0, 4.0, 5.0), (160.0, 200.0, 50.0), shading=0.4, stripped=True)
    scan, inside = swap_axes(slab.volume, axis), slab.brain.swapaxes(axis, 2)
    found = find_shading(scan, inside, gamma=1.0, choice="on")
    fit = fit_operator(scan, shading=found)
    even = fit_operator(found.flat(scan))
    assert isinstance(fit.operator, Composition)
    factor, inner = fit.operator.operators
    assert isinstance(factor, BiasField)
    assert isinstance(inner, LowField if axis == 2 else SwapSliceAxis)
    assert fit.scanner.to_json() == even.scanner.to_json()
    assert fit.scan_operator.noise.std == even.scan_operator.noise.std
    assert fit.scan_operator.intensity_scale == even.scan_operator.intensity_scale
    gain = from_slices(factor.gain(to_slices(scan.data).movedim(0, 1)[None])[0].movedim(0, 1))
    assert found.estimate is not None
    np.testing.assert_allclose(gain[inside], found.estimate.field.data[inside], rtol=1e-4)
    np.testing.assert_allclose(without_shading(scan, fit.operator).data[inside], found.flat(scan).data[inside], rtol=1e-4)
    again = operator_from_json(fit.to_json())
    assert str(again) == str(fit.operator)


def test_without_a_factor_nothing_is_divided(shaded: Head) -> None:
    assert without_shading(shaded.volume, LowField()) is shaded.volume
    assert without_shading(shaded.volume, Composition((LowField(), BiasField(torch.zeros(1, 1, 2))))) is shaded.volume
    single = BiasField(torch.tensor([[[np.log(2.0)]]]).float())
    np.testing.assert_allclose(without_shading(shaded.volume, single).data, shaded.volume.data / 2, rtol=1e-6)


def test_the_composed_operator_has_the_products_of_its_jacobian() -> None:
    generator = torch.Generator().manual_seed(0)
    coefficients = 0.3 * torch.randn(3, 3, 3, generator=generator)
    linear = Composition((BiasField(coefficients.double()), LowField(in_plane_factor=2.0, blur=0.5, slice_thickness=3.0)))
    shape = (1, 1, 6, 10, 8)
    assert_adjoint(linear, lambda w: linear.adjoint(w, shape), shape, generator)
    bent = Composition((BiasField(coefficients), LowField(gamma=0.7, in_plane_factor=2.0, slice_thickness=3.0)))
    assert_jacobian_products(bent, 0.2 + 0.6 * torch.rand(shape, generator=generator, dtype=torch.float64), generator)


def test_an_unkept_shading_changes_no_fit() -> None:
    scan: Volume = make_head((4.0, 4.0, 5.0), (160.0, 200.0, 50.0), stripped=True).volume
    none = Shading(None, 0.0, 0.03, False, "off")
    assert fit_operator(scan, shading=none).to_json() == fit_operator(scan).to_json()
