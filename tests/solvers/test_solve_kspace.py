"""Volumes in, volumes out, k-space in between."""

import numpy as np
import pytest
import torch

from dynamicdps.evaluation import data_misfit
from dynamicdps.operators import LowField, ScanOperator, partial_fourier_mask
from dynamicdps.operators.kspace_measurement import KSpaceMeasurement, measure_kspace
from dynamicdps.solvers import make_config, solve
from dynamicdps.volumes import IntensityScale, Volume
from tests.conftest import make_phantom
from tests.operators.raw_scans import make_raw
from tests.properties import input_error

NOISE = 0.02
OPERATOR = LowField(gamma=0.7)


class Smoother(torch.nn.Module):
    """A denoiser without training: shrinks towards a mean."""

    errors: tuple[tuple[float, float], ...] = ()

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        weight = (0.04 / (0.04 + sigma**2)).view(-1, 1, 1, 1)
        return weight * x + (1 - weight) * 0.5


def scene() -> tuple[Volume, Volume]:
    """The truth, and what the scanner shows of it, 3 mm voxels."""
    truth = make_phantom((48, 56, 3), (3.0, 3.0, 5.0))
    x = torch.from_numpy(truth.data.transpose(2, 1, 0).copy())[None, None]
    return truth, truth.with_data(OPERATOR(x)[0, 0].numpy().transpose(2, 1, 0))


def tied_to(measured: KSpaceMeasurement) -> ScanOperator:
    return ScanOperator(OPERATOR, NOISE, intensity_scale=1.0, kspace=measured)


@pytest.mark.parametrize("partial", [False, True])
def test_the_data_step_explains_kspace(partial: bool) -> None:
    truth, shown = scene()
    mask = partial_fourier_mask((56, 48), 0.75).numpy() if partial else None
    raw = make_raw(shown, noise=NOISE, mask=mask)
    measured = measure_kspace(raw, NOISE, weights=(truth.data > 0).astype(np.float32), generator=torch.Generator().manual_seed(0))
    tied = tied_to(measured)
    initial = truth.with_data(0.8 * truth.data)
    result = solve("data-step", raw.magnitude(), tied, Smoother(), initial=initial)
    before, after = (data_misfit(image, raw.magnitude(), tied, IntensityScale(1.0)) for image in (initial, result.volume))
    assert before > 2
    assert after < 1.1
    assert float(result.reconstruction.misfit[0]) == pytest.approx(after, rel=1e-3)
    inside = truth.data > 0
    errors = [np.sqrt(((image.data - truth.data)[inside] ** 2).mean()) for image in (initial, result.volume)]
    assert errors[1] < 0.5 * errors[0]
    assert result.residual.shape == raw.magnitude().shape
    assert result.residual.data[inside].std() < 1.3


def test_all_of_kspace_is_the_phase_corrected_image() -> None:
    """The same solver on the image that the k-space is of gives the same."""
    truth, shown = scene()
    raw = make_raw(shown, noise=NOISE)
    measured = measure_kspace(raw, NOISE, generator=torch.Generator().manual_seed(0))
    tied = ScanOperator(OPERATOR, NOISE, intensity_scale=1.0)
    config = make_config("data-step", {})
    from_kspace = solve("data-step", raw.magnitude(), tied_to(measured), Smoother(), initial=truth, config=config)
    from_image = solve("data-step", shown.with_data(measured.image), tied, Smoother(), initial=truth, config=config)
    np.testing.assert_allclose(from_kspace.volume.data, from_image.volume.data, atol=3e-3)


def test_samples_have_an_uncertainty_and_a_seed() -> None:
    truth, shown = scene()
    raw = make_raw(shown, noise=NOISE)
    measured = measure_kspace(raw, NOISE, generator=torch.Generator().manual_seed(0))
    config = make_config("dynamicdps", {"samples": 2, "steps": 2, "start_sigma": 0.1, "keep_samples": True})
    results = [
        solve("dynamicdps", raw.magnitude(), tied_to(measured), Smoother(), initial=truth, config=config, seed=seed) for seed in (1, 1, 2)
    ]
    assert results[0].uncertainty is not None
    assert results[0].uncertainty.data.max() > 0
    assert len(results[0].samples) == 2
    np.testing.assert_array_equal(results[0].volume.data, results[1].volume.data)
    assert np.abs(results[0].volume.data - results[2].volume.data).max() > 0


def test_solvers_that_undo_the_contrast_refuse() -> None:
    truth, shown = scene()
    measured = measure_kspace(make_raw(shown, noise=NOISE), NOISE, generator=torch.Generator().manual_seed(0))
    with input_error("linear"):
        solve("ddnm", shown, tied_to(measured), Smoother(), initial=truth)
