"""Training windows: which slices, whose voxels, what is missing, and what augmentation may not do."""

import numpy as np
import pytest
import torch

from dynamicdps.networks.neighbour_unet import CONTRASTS
from dynamicdps.training.windows import SliceWindows, TrainingVolume, WindowDraw, even_slices
from tests.conftest import make_phantom
from tests.properties import input_error


def numbered(depth: int, height: int, width: int) -> TrainingVolume:
    """Every voxel says which slice it is in, from 1; brain everywhere."""
    slices = np.arange(1, depth + 1, dtype=np.uint8)[:, None, None]
    return TrainingVolume(np.tile(slices, (1, height, width)), 1.0)


def phantom(seed: int = 0, contrast: str = "T1w") -> TrainingVolume:
    return TrainingVolume.from_array(make_phantom((64, 72, 66), seed=seed).data.transpose(2, 1, 0), contrast)


def test_neighbours_are_neighbours_and_what_is_beyond_is_missing() -> None:
    windows = SliceWindows([numbered(6, 20, 16)], 5, (20, 16), 64, augment=False)
    found, present = windows.gather(windows.draw(torch.Generator().manual_seed(0)))
    middle = found[:, 2].amax((1, 2))
    assert set(middle.tolist()) == set(range(1, 7))
    assert present[:, 2].all()
    for window, there, number in zip(found, present, middle, strict=True):
        for place in range(5):
            expected = number + place - 2
            if there[place]:
                assert (window[place] == expected).all()
            else:
                assert (window[place] == 0).all()
    # Some are missing inside of the volume too: the network must know single slices.
    alone = present.sum(1) == 1
    assert 0.05 < alone.float().mean() < 0.35


def test_planes_lie_as_they_do_in_the_volume() -> None:
    """The voxels of a window are those of the volume, whatever the plane, superior and anterior upwards."""
    data = np.random.default_rng(0).integers(1, 255, (66, 70, 74), dtype=np.uint8)
    windows = SliceWindows([TrainingVolume(data, 1.0)], 3, (66, 70), 200, augment=False)
    drawn = windows.draw(torch.Generator().manual_seed(1))
    found, present = windows.gather(drawn)
    planes = {0: 0, 1: 0, 2: 0}
    for stack, (first, top, left), window, there in zip(drawn.stack.tolist(), drawn.corner.tolist(), found, present, strict=True):
        axis = {70 * 74: 0, 74: 1, 1: 2}[stack[1]]
        planes[axis] += 1
        image = torch.from_numpy(np.take(data, first + 1, axis)).float()
        part = torch.zeros(66, 70)
        rows = slice(max(0, top), min(image.shape[0], top + 66))
        columns = slice(max(0, left), min(image.shape[1], left + 70))
        part[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = image[rows, columns]
        assert there[1]
        torch.testing.assert_close(window[1], part)
    assert min(planes.values()) > 30


def test_a_slab_is_cut_along_its_slices_only() -> None:
    windows = SliceWindows([TrainingVolume(np.full((20, 70, 70), 200, np.uint8), 0.005)], 3, (64, 64), 50)
    assert (windows.draw(torch.Generator().manual_seed(0)).stack[:, 1] == 70 * 70).all()


def test_a_batch_is_a_function_of_the_generator_and_a_window_of_its_numbers() -> None:
    windows = SliceWindows([phantom(0), phantom(1)], 5, (48, 40), 12)
    drawn, again = (windows.draw(torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(drawn, again, strict=True))
    whole, there = windows.gather(drawn)
    parts = [windows.gather(WindowDraw(*(part[i : i + 5] for part in drawn))) for i in range(0, 12, 5)]
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), whole)
    assert torch.equal(torch.cat([p[1] for p in parts]), there)
    assert not torch.equal(windows.draw(torch.Generator().manual_seed(4)).control, drawn.control)


def test_augmented_windows_stay_images() -> None:
    windows = SliceWindows([phantom()], 5, (48, 40), 200)
    found, present = windows.gather(windows.draw(torch.Generator().manual_seed(0)))
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() < 1.5
    assert (found[~present] == 0).all()
    # Background stays background for the most part.
    plain = SliceWindows([phantom()], 5, (48, 40), 200, augment=False)
    untouched, _ = plain.gather(plain.draw(torch.Generator().manual_seed(0)))
    share, expected = ((each[:, 2] == 0).float().mean() for each in (found, untouched))
    assert abs(float(share - expected)) < 0.05


def test_statistics_are_those_of_what_the_network_sees() -> None:
    windows = SliceWindows([numbered(9, 16, 16)], 3, (16, 16), 50)
    mean, std = windows.statistics()
    assert mean == pytest.approx(5, abs=0.2)
    assert std == pytest.approx(2.5, abs=0.25)


def test_other_contrasts_are_a_fixed_share_and_are_told() -> None:
    windows = SliceWindows([phantom(0), phantom(1, "FLAIR"), phantom(2, "FLAIR")], 3, (32, 32), 2000)
    contrast = windows.draw(torch.Generator().manual_seed(0)).contrast
    told = {name: float((contrast == CONTRASTS.index(name)).float().mean()) for name in CONTRASTS}
    assert told["FLAIR"] == pytest.approx(0.12 * 0.9, abs=0.02)
    assert told["unknown"] == pytest.approx(0.10, abs=0.02)
    assert told["T2w"] == 0


def test_bytes_are_kept_and_other_numbers_rounded() -> None:
    data = make_phantom((40, 48, 10)).data.transpose(2, 1, 0)
    rounded = TrainingVolume.from_array(data * 700)
    assert np.abs(rounded.data * rounded.scale - data * 0.95 / np.percentile(data[data > 0], 99)).max() < 0.003
    whole = TrainingVolume.from_array((data * 200).astype(np.uint8))
    assert np.array_equal(whole.data, (data * 200).astype(np.uint8))


def test_scans_without_a_slice_are_refused() -> None:
    empty = np.zeros((10, 64, 64), np.uint8)
    empty[5, :3, :3] = 200
    with input_error("no scan holds a usable slice"):
        SliceWindows([TrainingVolume(empty, 0.005)], 3)


def test_slices_that_were_scaled_one_by_one_are_even_again() -> None:
    truth = make_phantom((48, 40, 24)).data.transpose(2, 1, 0).astype(np.float32)
    factors = np.exp(np.random.default_rng(1).normal(0, 0.1, len(truth))).astype(np.float32)
    even = even_slices(truth * factors[:, None, None])
    tissue = truth > 0.5 * truth.max()
    left = np.array([np.log(np.median(e[m] / t[m])) for e, t, m in zip(even, truth, tissue, strict=True) if m.any()])
    before = np.log(factors[tissue.any((1, 2))])
    # Their jumps are gone; the slow course of the factors, which might be shading, is left.
    assert np.abs(np.diff(left)).max() < 0.25 * np.abs(np.diff(before)).max()


def test_a_smooth_course_of_brightness_stays_and_an_even_scan_is_kept() -> None:
    truth = np.full((40, 20, 20), 100.0, np.float32)
    np.testing.assert_allclose(even_slices(truth), truth, rtol=1e-6)
    course = np.exp(0.2 * np.cos(np.linspace(0, np.pi, 40))).astype(np.float32)
    assert np.abs(np.log(even_slices(truth * course[:, None, None])[8:-8, 0, 0] / (100 * course[8:-8]))).max() < 0.02


def test_slices_without_enough_in_common_are_left_as_they_are() -> None:
    apart = np.zeros((6, 30, 30), np.float32)
    apart[::2, :10], apart[1::2, 20:] = 80.0, 160.0
    np.testing.assert_array_equal(even_slices(apart), apart)
    assert not even_slices(np.zeros((4, 8, 8), np.float32)).any()
