"""Known shading is found, and is the one that the operator of the same name applies."""

import numpy as np
import pytest
import torch

from dynamicdps.operators import BiasField
from dynamicdps.volumes import estimate_bias, to_slices
from dynamicdps.volumes.bias_estimate import evaluate_bias
from tests.properties import input_error
from tests.volumes.head import make_head


@pytest.mark.parametrize("unit", [1.0, 1e-4])
@pytest.mark.parametrize("depth_mm", [200.0, 20.0], ids=["head", "four slices"])
def test_known_shading(unit: float, depth_mm: float) -> None:
    head = make_head((3.0, 3.0, 5.0), (200.0, 230.0, depth_mm), shading=0.4)
    found = estimate_bias(head.volume.with_data(head.volume.data * unit), head.brain)
    ratio = found.field.data[head.brain] / head.shading[head.brain]
    assert np.std(head.shading[head.brain]) > 0.12
    assert np.std(ratio) < 0.6 * np.std(head.shading[head.brain])
    assert found.field.data[head.brain].mean() == pytest.approx(1, abs=1e-4)
    assert found.range == pytest.approx((found.field.data.min(), found.field.data.max()), rel=1e-5)


def test_no_shading_is_found_where_none_is() -> None:
    head = make_head()
    found = estimate_bias(head.volume, head.brain)
    assert np.std(found.field.data[head.brain]) < 0.02


def test_correction_makes_white_matter_even() -> None:
    head = make_head(shading=0.4, noise=0.02)
    even = make_head(noise=0.0)
    white = np.isclose(even.volume.data, 700 * 0.8)
    corrected = estimate_bias(head.volume, head.brain).correct(head.volume)

    def variation(data: np.ndarray) -> float:
        return float(data[white].std() / data[white].mean())

    assert variation(head.volume.data) > 0.12
    assert variation(corrected.data) < 0.08  # the noise alone: 0.025


def test_coefficients_are_those_of_the_operator() -> None:
    head = make_head(shading=0.3)
    found = estimate_bias(head.volume, head.brain, order=2)
    assert found.coefficients.shape == (3, 3, 3)
    gain = BiasField(torch.from_numpy(found.coefficients)).gain(to_slices(head.volume.data).movedim(0, 1)[None].double())
    inside = to_slices(head.brain)[:, 0] > 0
    torch.testing.assert_close(gain[0, 0][inside], to_slices(found.field.data)[:, 0][inside].double(), rtol=1e-5, atol=0)


def test_polynomials_of_few_slices_are_of_low_order() -> None:
    head = make_head(field_of_view=(200.0, 230.0, 20.0))
    assert estimate_bias(head.volume, head.brain).coefficients.shape == (2, 3, 3)
    single = make_head((2.0, 2.0, 5.0), (200.0, 230.0, 5.0))
    assert estimate_bias(single.volume, single.brain).coefficients.shape == (1, 3, 3)


def test_log_field_is_the_sum_of_legendre_polynomials() -> None:
    coefficients = np.zeros((2, 1, 3))
    coefficients[1, 0, 0], coefficients[0, 0, 2] = 0.5, 2.0
    b = evaluate_bias(coefficients, (3, 1, 5))
    # P2(-1) = 1, P2(0) = -1/2; z runs from -1 to 1.
    np.testing.assert_allclose(b[:, 0, 0], [1.5, -1.5, 1.5])
    np.testing.assert_allclose(b[1, 0], -1 + 0.5 * np.linspace(-1, 1, 5))


def test_bad_arguments() -> None:
    head = make_head()
    with input_error("order"):
        estimate_bias(head.volume, head.brain, order=7)
    for mask in (np.zeros_like(head.brain), head.brain & (np.arange(head.brain.shape[0]) == 30)[:, None, None]):
        with input_error("voxels"):
            estimate_bias(head.volume, mask)
