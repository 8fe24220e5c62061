"""The brain is found in heads of any kind, and the way it was found is told."""

from pathlib import Path

import numpy as np
import pytest

from dynamicdps.models import demo_scan
from dynamicdps.operators import PRESETS, simulate
from dynamicdps.volumes import Volume, crop, deepbet, extract_brain, load
from dynamicdps.volumes.brain_extraction import BrainMask, covers_head, is_skull_stripped
from dynamicdps.volumes.head import random_walk
from dynamicdps.volumes.morphology import block_mean, depth, soft_edge
from tests.conftest import make_phantom
from tests.properties import input_error
from tests.volumes.head import dice, make_head


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests find must not depend on what is installed."""
    monkeypatch.setattr(deepbet, "weights", lambda: None)


@pytest.mark.parametrize(
    ("spacing", "field_of_view"),
    [
        ((2.0, 2.0, 5.0), (200.0, 230.0, 200.0)),
        ((2.0, 5.0, 2.0), (200.0, 230.0, 200.0)),
        ((5.0, 2.0, 2.0), (200.0, 230.0, 200.0)),
        ((3.0, 3.0, 3.0), (200.0, 230.0, 200.0)),
        ((1.0, 1.0, 5.0), (200.0, 230.0, 20.0)),
    ],
    ids=["axial", "coronal", "sagittal", "isotropic", "four slices"],
)
def test_inside_of_the_skull(spacing: tuple[float, float, float], field_of_view: tuple[float, float, float]) -> None:
    head = make_head(spacing, field_of_view, noise=0.06, shading=0.3)
    found = extract_brain(head.volume)
    assert found.method == "classical"
    assert dice(found.inside, head.brain) > 0.94
    # The outline lies in the bone: nothing deep inside is missed, no skin is taken.
    deep = depth(head.brain, head.volume.spacing) > 8
    assert found.inside[deep].all()
    assert not found.inside[depth(~head.brain, head.volume.spacing) > 8].any()
    assert any("look at it" in warning for warning in found.warnings)


def test_brightness_has_no_unit() -> None:
    volume = make_head((3.0, 3.0, 5.0)).volume
    first, second = (extract_brain(v, "classical").inside for v in (volume, volume.with_data(volume.data * 1e-4)))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("clean_air", [False, True])
def test_a_head_is_not_taken_for_a_stripped_brain(clean_air: bool) -> None:
    assert not is_skull_stripped(make_head(clean_air=clean_air).volume)


def test_noise_around_a_head_tells_it_from_a_brain() -> None:
    """Soft slices that cross no dark bone, as of a T2w scan at low field, are no stripped brain where the air is not black."""
    brain = make_head((2.0, 2.0, 5.0), (200.0, 230.0, 20.0), stripped=True).volume
    noise = np.abs(np.random.default_rng(0).normal(0, 0.08, brain.shape)).astype(np.float32)
    # A part of the field of view that was filled with zeros makes it no stripped brain either.
    noise[:12] = 0
    assert is_skull_stripped(brain)
    assert not is_skull_stripped(brain.with_data(brain.data + noise * brain.data.max()))


@pytest.mark.parametrize(("slices", "asked"), [(4, False), (14, False), (17, True), (40, True)])
def test_the_network_is_asked_of_what_shows_enough_of_a_head(slices: int, asked: bool) -> None:
    head = make_head((3.0, 3.0, 5.0), (200.0, 230.0, 5.0 * slices))
    calls: list[Volume] = []

    def network(volume: Volume) -> np.ndarray:
        calls.append(volume)
        return head.brain

    found = extract_brain(head.volume, network=network)
    assert (len(calls) == 1) is asked
    assert found.method == ("network" if asked else "classical")


def test_stripped_brain_is_taken_as_it_is(phantom: Volume) -> None:
    head = make_head(stripped=True, noise=0.01)
    found = extract_brain(head.volume)
    assert (found.method, found.warnings) == ("none", [])
    assert dice(found.inside, head.brain) > 0.99
    assert extract_brain(phantom).method == "none"


def test_given_mask_may_lie_on_another_grid(tmp_path: Path) -> None:
    head = make_head()
    fine = make_head((2.0, 3.0, 5.0))
    path = fine.volume.with_data(fine.brain).save(tmp_path / "mask.nii.gz")
    found = extract_brain(head.volume, path)
    assert found.method == str(path)
    assert dice(found.inside, head.brain) > 0.95
    with input_error("empty"):
        extract_brain(head.volume, head.volume.with_data(0.1 * head.brain).save(tmp_path / "empty.nii"))
    with input_error("no mask"):
        extract_brain(head.volume, "otsu")


def test_what_is_no_head_is_refused() -> None:
    ball = sum((g - 15.5) ** 2 for g in np.ogrid[:32, :32, :32]) < 49
    noise = np.random.default_rng(0).random((32, 32, 32))
    volume = Volume((ball + 0.05 * noise).astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]))
    with input_error("50 mm wide"):
        extract_brain(volume, "classical")
    with input_error("deepbet is not installed"):
        extract_brain(volume, "deepbet")


def test_soft_edge_is_measured_in_millimetres() -> None:
    mask = np.zeros((9, 9, 5), bool)
    mask[4, 4, 2] = True
    edge = soft_edge(mask, 4.0, (1.0, 2.0, 5.0))
    np.testing.assert_allclose(edge[4:, 4, 2], [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(edge[4, 4:, 2], [1, 0.5, 0, 0, 0])
    np.testing.assert_allclose(edge[4, 4, 2:], [1, 0, 0])
    np.testing.assert_array_equal(soft_edge(mask, 0.0, (1.0, 1.0, 1.0)), mask)


def test_soft_mask_keeps_the_geometry_and_the_brain() -> None:
    head = make_head()
    found = extract_brain(head.volume)
    soft = found.soft(head.volume, 4.0)
    np.testing.assert_array_equal(soft.data == 1, found.inside)
    assert soft.affine is head.volume.affine
    assert 0 <= soft.data.min() < soft.data.max() == 1
    assert found.millilitres(head.volume) == pytest.approx(found.inside.sum() * 0.045)


def test_random_walk_on_a_line_is_the_gamblers_ruin() -> None:
    shape = (6, 1, 1)
    inner, outer = np.zeros(shape, bool), np.zeros(shape, bool)
    inner[0], outer[5] = True, True
    np.testing.assert_allclose(random_walk(np.ones(shape), inner, outer, (1.0, 1.0, 1.0)).ravel(), np.linspace(1, 0, 6), atol=1e-3)
    # Resistances in series: 1, 1, 1 / 0.1, 1 / 0.1, 1, whose shares are the steps.
    dark = np.ones(shape)
    dark[3] = 0.1
    steps = np.cumsum([0, 1, 1, 10, 10, 1]) / 23
    np.testing.assert_allclose(random_walk(dark, inner, outer, (1.0, 1.0, 1.0)).ravel(), 1 - steps, atol=1e-3)


def test_block_mean_repeats_the_border() -> None:
    data = np.arange(5.0).reshape(5, 1, 1)
    np.testing.assert_allclose(block_mean(data, (2, 1, 1)).ravel(), [0.5, 2.5, 4.0])


@pytest.mark.parametrize(("field_of_view", "whole"), [((200.0, 230.0, 200.0), True), ((200.0, 230.0, 20.0), False)])
def test_whole_head(field_of_view: tuple[float, float, float], whole: bool) -> None:
    assert covers_head(make_head(field_of_view=field_of_view).volume) is whole


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("part", [slice(0, 32), slice(0, 8), slice(24, 32), slice(10, 14)])
def test_a_degraded_stripped_brain_has_no_skull(name: str, part: slice) -> None:
    """The bundled scan through every bundled scanner, whole and in thin slabs, with the scanner's values and with a magnitude's."""
    slab = crop(load(demo_scan()), (slice(None), slice(None), part))
    poor, _ = simulate(slab, PRESETS[name], seed=1)
    assert is_skull_stripped(poor)
    assert is_skull_stripped(poor.with_data(np.maximum(poor.data, 0)))


def test_a_scan_too_small_for_a_surface_counts_as_stripped() -> None:
    """It fills its field of view: nothing of it lies near an outline."""
    data = make_phantom((12, 14, 12)).data
    assert is_skull_stripped(Volume(data, np.eye(4)))


def test_the_rim_is_two_voxels_deep_across_thick_slices_and_as_wide_as_asked_along_fine_ones() -> None:
    inside = np.zeros((30, 30, 12), bool)
    inside[5:25, 5:25, 2:10] = True
    mask = BrainMask(inside, "none")
    rim = mask.rim(Volume(inside.astype(np.float32), np.diag([1.0, 1.0, 5.0, 1.0])), 2.5).data
    np.testing.assert_allclose(rim[15, 15, 1:6], [0, 0.5, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(rim[4:10, 15, 6], [0, 0.4, 0.8, 1, 1, 1], atol=1e-6)
    fine = mask.rim(Volume(inside.astype(np.float32), np.eye(4)), 2.5).data
    np.testing.assert_allclose(fine[15, 15, 1:6], [0, 0.4, 0.8, 1, 1], atol=1e-6)
