"""The matrix that a zero-filled scan was acquired on."""

import numpy as np
import pytest
from scipy import ndimage, signal

from dynamicdps.volumes import Volume
from dynamicdps.volumes.acquired_matrix import acquired_matrix, on_acquired_matrix
from tests.volumes.zero_filled import measured, zero_filled


@pytest.mark.parametrize("taper", [0.0, 0.25])
@pytest.mark.parametrize("factor", [1.25, 1.6, 2.0])
def test_the_matrix_of_a_zero_filled_scan_is_found(factor: float, taper: float) -> None:
    waves, _ = measured((100, 100), taper)
    x, y, z = acquired_matrix(zero_filled(waves, (round(100 * factor), round(100 * factor))))
    assert z == 4
    # A taper hides what lies beyond it.
    assert [x, y] == pytest.approx([100, 100], abs=10)


def test_each_axis_has_its_own_size() -> None:
    waves, _ = measured((64, 98))
    x, y, _ = acquired_matrix(zero_filled(waves, (128, 128)))
    assert [x, y] == pytest.approx([64, 98], abs=8)


def test_a_smooth_scan_is_not_taken_for_a_zero_filled_one() -> None:
    _, scan = measured((100, 120), noise=0.0)
    blurred = scan.with_data(ndimage.gaussian_filter(scan.data, (1.5, 1.5, 0)))
    assert acquired_matrix(blurred) == scan.shape


def test_a_scan_on_its_own_matrix_keeps_it() -> None:
    _, scan = measured((100, 120))
    assert acquired_matrix(scan) == scan.shape


def test_what_has_no_thick_slices_or_no_head_keeps_its_matrix() -> None:
    waves, _ = measured((50, 50))
    fine = zero_filled(waves, (100, 100))
    cubes = Volume(fine.data, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert acquired_matrix(cubes) == cubes.shape
    tiny = Volume(fine.data[:16, :16].copy(), fine.affine)
    assert acquired_matrix(tiny) == tiny.shape


def test_noise_alone_keeps_its_matrix() -> None:
    noise = np.random.default_rng(0).rayleigh(size=(64, 64, 4)).astype(np.float32)
    assert acquired_matrix(Volume(noise, np.diag([2.0, 2.0, 6.0, 1.0]))) == (64, 64, 4)


@pytest.mark.parametrize("matrix", [(31, 45, 3), (40, 45, 3), (40, 64, 3)])
def test_what_zero_filling_added_is_taken_off_again(matrix: tuple[int, int, int]) -> None:
    values = np.random.default_rng(2).normal(size=matrix)
    # The frequency at the end of an even axis has no partner: a real image on a larger matrix has half of it on either side.
    waves = np.fft.fft2(values, axes=(0, 1))
    for axis in (0, 1):
        if matrix[axis] % 2 == 0:
            np.moveaxis(waves, axis, 0)[matrix[axis] // 2] = 0
    band_limited = np.fft.ifft2(waves, axes=(0, 1)).real
    filled = signal.resample(signal.resample(band_limited, 64, axis=0), 64, axis=1)
    assert on_acquired_matrix(filled, matrix) == pytest.approx(band_limited, abs=1e-9)
