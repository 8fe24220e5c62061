"""A residual says which assumption of the forward model was wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from dynamicdps.evaluation.misfit_causes import MisfitCause, cause_sentence, misfit_causes, misfit_reasons
from dynamicdps.operators import LowField
from dynamicdps.volumes import Volume

SHAPE = (60, 56, 60)
NOISE = 0.01
SCANNER = LowField(gamma=0.7, in_plane_factor=1.5, blur=0.8, slice_thickness=4.0)


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """Tissues of three intensities in an ellipsoid."""
    rng = np.random.default_rng(0)
    u = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    inside = (u**2).sum(0) < 0.9
    field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 3)
    levels = np.digitize(field, np.quantile(field, [0.3, 0.6]))
    return np.where(inside, np.array([0.3, 0.6, 0.9])[levels], 0).astype(np.float64)


def seen(head: np.ndarray, scanner: LowField) -> np.ndarray:
    x = torch.from_numpy(head.transpose(2, 1, 0).copy())[None, None]
    return scanner(x)[0, 0].numpy().transpose(2, 1, 0)


def residual_of(measured: np.ndarray, predicted: np.ndarray, seed: int = 1) -> Volume:
    noise = np.random.default_rng(seed).standard_normal(measured.shape)
    inside = predicted > 0.05
    return Volume(np.where(inside, (measured - predicted) / NOISE + noise, 0).astype(np.float32), np.eye(4))


def wrong(cause: str, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is measured, and what a forward model with one wrong assumption predicts."""
    predicted = seen(head, SCANNER)
    if cause == "contrast":
        return seen(head, replace(SCANNER, gamma=0.5)), predicted
    if cause == "blur":
        return seen(head, replace(SCANNER, slice_thickness=7.0, slice_spacing=4.0)), predicted
    if cause == "shading":
        places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in predicted.shape), indexing="ij"))
        return predicted * np.exp(0.25 * places[0] + 0.15 * places[2]), predicted
    shifts = np.random.default_rng(3).uniform(-0.6, 0.6, (predicted.shape[2], 2))
    moved = [ndimage.shift(predicted[:, :, k], shift, order=3) for k, shift in enumerate(shifts)]
    return np.stack(moved, 2), predicted


@pytest.mark.parametrize("cause", ["contrast", "shading", "blur", "motion"])
def test_the_wrong_assumption_is_named_first(cause: str, head: np.ndarray) -> None:
    measured, predicted = wrong(cause, head)
    found = misfit_causes(residual_of(measured, predicted), predicted)
    assert found[0].name == cause
    assert found[0].share > 0.5
    assert f"the pattern of {cause}. " in cause_sentence(found)


def test_slices_along_another_axis(head: np.ndarray) -> None:
    measured, predicted = wrong("motion", head)
    turned = residual_of(measured, predicted)
    turned = Volume(np.ascontiguousarray(turned.data.transpose(2, 0, 1)), np.eye(4))
    assert misfit_causes(turned, predicted.transpose(2, 0, 1), axis=0)[0].name == "motion"


def test_units_of_the_prediction_do_not_matter(head: np.ndarray) -> None:
    measured, predicted = wrong("blur", head)
    residual = residual_of(measured, predicted)
    shares = [{c.name: c.share for c in misfit_causes(residual, k * predicted)} for k in (1.0, 730.0)]
    assert shares[0] == pytest.approx(shares[1])


def test_noise_alone_has_no_cause(head: np.ndarray) -> None:
    """Of noise that is twice as strong as stated no pattern explains much."""
    predicted = seen(head, SCANNER)
    noise = residual_of(predicted, predicted)
    assert misfit_causes(noise.with_data(0.9 * noise.data), predicted) == []
    strong = misfit_causes(noise.with_data(2 * noise.data), predicted)
    assert max(c.share for c in strong) < 0.05
    assert "none of" in cause_sentence(strong)


def test_only_scans_that_are_not_explained_get_a_reason(head: np.ndarray) -> None:
    measured, predicted = wrong("shading", head)
    bad, good = residual_of(measured, predicted), residual_of(predicted, predicted)
    volume = Volume(predicted.astype(np.float32), np.eye(4))
    assert misfit_reasons([good], [volume], [2], 1.5) == []
    (alone,) = misfit_reasons([bad], [volume], [None], 1.5)
    (second,) = misfit_reasons([good, bad], [volume, volume], [2, 2], 1.5)
    assert "shading" in alone
    assert second.startswith("Scan 2: ")
    assert misfit_reasons([bad], [], [2], 1.5) == []


def test_a_sentence_without_causes() -> None:
    assert "none of" in cause_sentence([])
    assert "30%" in cause_sentence([MisfitCause("blur", 0.3)])


def test_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match="expected the same"):
        misfit_causes(Volume(np.ones((4, 4, 4), np.float32), np.eye(4)), np.ones((4, 4, 5)))
