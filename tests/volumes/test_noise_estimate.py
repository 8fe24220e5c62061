"""Estimates of known noise, and honest refusals and warnings where noise cannot be told from anatomy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from dynamicdps.operators import LowField, add_noise
from dynamicdps.volumes import open_brain, to_batch, to_slices
from dynamicdps.volumes.noise_estimate import NoiseEstimate, background_noise, estimate_noise, image_noise, independent_share, scan_noise
from tests.conftest import make_phantom
from tests.properties import input_error
from tests.volumes.head import make_head
from tests.volumes.zero_filled import measured
from tests.volumes.zero_filled import zero_filled as zero_filled_head

SCANNERS = {
    "as it is": LowField(),
    "1.5 voxels, 3 mm": LowField(gamma=0.7, in_plane_factor=1.5, slice_thickness=3.0),
    "blurred": LowField(gamma=0.8, blur=1.5),
}
scanners = pytest.mark.parametrize("scanner", SCANNERS.values(), ids=SCANNERS)


def phantom_volume(shape: tuple[int, int, int]) -> Tensor:
    return to_slices(make_phantom(shape).data).movedim(0, 1)[None]


@pytest.fixture(scope="module")
def volume() -> Tensor:
    """A skull-stripped head of 96 x 112 x 16 voxels, ``(1, 1, 16, 112, 96)``; white matter is 0.9."""
    return phantom_volume((96, 112, 16))


def own_generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(10 + i) for i in range(count)]


def stripped(clean: Tensor, std: float, kind: str = "gaussian") -> Tensor:
    """A noisy scan whose background is exactly 0."""
    return torch.where(clean > 0.01, add_noise(clean, std, own_generators(len(clean)), kind), 0.0)


def error(estimate: NoiseEstimate, std: float) -> float:
    assert estimate.std.shape == (1,)
    return float(estimate.std[0]) / std - 1


@scanners
@pytest.mark.parametrize("std", [0.001, 0.02, 0.1])
@pytest.mark.parametrize(("kind", "coils"), [("gaussian", 1), ("rician", 1), ("noncentral-chi", 4)])
def test_background(scanner: LowField, std: float, kind: str, coils: int, volume: Tensor) -> None:
    y = add_noise(scanner(volume), std, own_generators(1), kind, coils)
    estimate = estimate_noise(y, coils=coils)
    assert estimate.method == ("background",)
    assert not estimate.warnings
    assert abs(error(estimate, std)) < 0.03


@scanners
@pytest.mark.parametrize("std", [0.018, 0.045, 0.09])
@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_image_at_signal_to_noise_ratios_from_10_to_50(scanner: LowField, std: float, kind: str, volume: Tensor) -> None:
    estimate = estimate_noise(stripped(scanner(volume), std, kind), kind="image")
    assert estimate.method == ("image",)
    assert abs(error(estimate, std)) < 0.05


def test_image_inside_a_mask(volume: Tensor) -> None:
    y = add_noise(volume, 0.045, own_generators(1))
    assert abs(error(image_noise(y, volume > 0.01), 0.045)) < 0.05


@pytest.mark.parametrize(
    ("scanner", "std"),
    [
        (LowField(), 0.001),
        (LowField(gamma=0.8, in_plane_factor=4.0, blur=1.0), 0.001),
        (LowField(gamma=0.8, in_plane_factor=4.0, blur=1.0), 0.03),
    ],
    ids=["little noise", "coarse voxels, little noise", "coarse voxels"],
)
def test_image_says_so_where_anatomy_dominates(scanner: LowField, std: float, volume: Tensor) -> None:
    estimate = image_noise(stripped(scanner(volume), std))
    assert error(estimate, std) > 0.3
    assert "anatomy" in estimate.warnings[0]


def test_no_warning_where_noise_dominates(volume: Tensor) -> None:
    assert not image_noise(stripped(volume, 0.045)).warnings


@pytest.mark.parametrize("snr", [0.0, 1.0, 2.0, 3.0, 5.0, 20.0])
def test_rician_bias_at_low_signal_is_removed(snr: float) -> None:
    y = add_noise(torch.full((1, 1, 200, 200), 0.05 * snr), 0.05, own_generators(1), "rician")
    estimate = image_noise(y, torch.ones_like(y, dtype=torch.bool))
    # Near 1 the ratio of mean to spread hardly depends on the signal any more.
    assert abs(error(estimate, 0.05)) < (0.05 if snr > 2 else 0.08 if snr != 1 else 0.3)


@pytest.mark.parametrize(("kind", "coils"), [("rician", 1), ("noncentral-chi", 4)])
def test_signal_voxels_in_the_air_do_not_count(kind: str, coils: int, generator: torch.Generator) -> None:
    clean = torch.where(torch.rand(1, 1, 200, 200, generator=generator) < 0.04, 0.9, 0.0)
    y = add_noise(clean, 0.02, own_generators(1), kind, coils)
    assert abs(error(background_noise(y, torch.ones_like(y, dtype=torch.bool), coils), 0.02)) < 0.03


def test_background_rounded_to_integers(volume: Tensor) -> None:
    y = add_noise(volume * 200, 2.0, own_generators(1), "rician").round()
    assert abs(error(background_noise(y), 2.0)) < 0.03


def test_background_outside_a_mask_of_the_head(volume: Tensor) -> None:
    y = add_noise(volume, 0.03, own_generators(1), "rician")
    assert abs(error(estimate_noise(y, volume > 0.01, kind="background"), 0.03)) < 0.03


def test_wrong_number_of_coils_is_noticed(volume: Tensor) -> None:
    y = add_noise(volume, 0.02, own_generators(1), "noncentral-chi", 8)
    with input_error("as much as noise of 1 coil"):
        background_noise(y)
    assert "varies" in background_noise(y, volume == 0).warnings[0]


def test_background_of_exactly_zero_is_refused(volume: Tensor) -> None:
    y = stripped(volume, 0.045)
    with input_error("exactly 0, as in a skull-stripped scan"):
        background_noise(y)
    estimate = estimate_noise(y)
    assert estimate.method == ("image",)
    assert "exactly 0" in estimate.warnings[0]
    assert abs(error(estimate, 0.045)) < 0.05


def test_an_image_does_not_depend_on_its_batch(volume: Tensor) -> None:
    clean = volume[0].movedim(0, 1)[6:10]
    noisy = add_noise(clean, 0.03, own_generators(4), "rician")
    y = torch.cat([noisy[:2], torch.where(clean > 0.01, noisy, 0.0)[2:]])
    together = estimate_noise(y)
    assert together.method == ("background", "background", "image", "image")
    for i in range(4):
        alone = estimate_noise(y[i : i + 1])
        assert torch.equal(alone.std, together.std[i : i + 1])
        assert alone.method == together.method[i : i + 1]


def test_units_and_type_are_the_images(volume: Tensor) -> None:
    y = add_noise(volume[:, :, 8].double(), 0.03, own_generators(1), "rician")
    one, many = estimate_noise(y), estimate_noise(1000 * y)
    assert one.std.dtype == torch.float64
    torch.testing.assert_close(many.std, 1000 * one.std)


def test_bad_input(volume: Tensor) -> None:
    y = volume[:, :, 8]
    with input_error("kind of the noise estimate"):
        estimate_noise(y, kind="guess")
    with input_error("shape"):
        estimate_noise(y[0])
    with input_error("mask has shape"):
        estimate_noise(y, torch.ones(1, 1, 4, 4))
    with input_error("coils is 0"):
        estimate_noise(y, coils=0)
    with input_error("not finite"):
        estimate_noise(torch.full_like(y, float("nan")))
    with input_error("fewer than 8 x 8"):
        image_noise(y[..., :6])
    with input_error("only 0 places"):
        image_noise(torch.zeros_like(y))
    with input_error("exactly 0"):
        image_noise(torch.ones_like(y))
    with input_error("there is no background"):
        background_noise(torch.rand(1, 1, 4, 4) + 1)


def test_the_noise_of_a_head_is_that_of_its_air(tmp_path: Path) -> None:
    head = make_head((3.0, 3.0, 6.0), (180.0, 210.0, 60.0), noise=0.0)
    rng = np.random.default_rng(0)
    mask = head.volume.with_data(head.brain.astype(np.float32)).save(tmp_path / "mask.nii.gz")
    std = 0.03 * float(head.volume.data.max())
    real, imaginary = (rng.normal(0, std, head.volume.shape) for _ in range(2))
    noisy = head.volume.with_data(np.hypot(head.volume.data + real, imaginary).astype(np.float32))
    estimate = scan_noise(open_brain(noisy.save(tmp_path / "scan.nii.gz"), mask=str(mask)))
    assert estimate.method == ("background",)
    assert float(estimate.std[0]) == pytest.approx(std, rel=0.05)
    # A scanner that sets the air to 0 leaves the brain.
    still = noisy.with_data(np.where(head.volume.data > 0, noisy.data, 0).astype(np.float32))
    inside = scan_noise(open_brain(still.save(tmp_path / "still.nii.gz"), mask=str(mask)))
    assert inside.method == ("image",)
    assert 0.3 * std < float(inside.std[0]) < 3 * std


def zero_filled(rows: float, columns: float, size: int = 128) -> Tensor:
    """Magnitude of complex noise of which shares of the rows and columns of k-space were measured, ``(1, 6, size, size)``."""
    k = torch.view_as_complex(torch.randn(1, 6, size, size, 2, generator=torch.Generator().manual_seed(3)))
    inside = (torch.linspace(-1, 1, size)[:, None].abs() < rows) & (torch.linspace(-1, 1, size)[None].abs() < columns)
    return torch.fft.ifft2(torch.fft.ifftshift(k * inside, dim=(-2, -1))).abs()


@pytest.mark.parametrize(("rows", "columns"), [(1.0, 1.0), (0.5, 1.0), (0.5, 0.75), (0.75, 0.75)])
def test_the_share_of_kspace_that_was_measured(rows: float, columns: float) -> None:
    assert independent_share(zero_filled(rows, columns)) == pytest.approx(rows * columns, rel=0.2)


def test_air_with_a_slope_is_no_correlation_and_no_air_says_nothing() -> None:
    slope = torch.linspace(0.9, 1.1, 128)[:, None]
    assert independent_share(zero_filled(1.0, 1.0) * slope) > 0.85
    assert independent_share(torch.zeros(1, 4, 32, 32)) == 1.0
    assert independent_share(zero_filled(0.5, 1.0)[..., :12, :12]) == 1.0


def test_noise_of_an_interpolated_head_counts_as_stronger(tmp_path: Path) -> None:
    head = make_head((2.0, 2.0, 10.0), (220.0, 250.0, 60.0), noise=0.0)
    mask = head.volume.with_data(head.brain.astype(np.float32)).save(tmp_path / "mask.nii.gz")
    rng = np.random.default_rng(0)
    k = np.fft.fftshift(rng.normal(size=(2, *head.volume.shape)), axes=(1, 2))
    fine = np.fft.fft2(k[0] + 1j * k[1], axes=(0, 1), norm="ortho")
    keep = np.abs(np.fft.fftfreq(fine.shape[0]))[:, None, None] < 0.25
    noise = np.fft.ifft2(fine * keep, axes=(0, 1), norm="ortho")
    noise *= 0.03 * head.volume.data.max() / noise.real.std()
    noisy = head.volume.with_data(np.abs(head.volume.data + noise).astype(np.float32))
    estimate = scan_noise(open_brain(noisy.save(tmp_path / "scan.nii.gz"), mask=str(mask)))
    assert float(estimate.std[0]) == pytest.approx(2**0.5 * noise.real.std(), rel=0.15)
    assert "interpolated or zero-filled" in estimate.warnings[-1]


def test_a_ghost_in_the_air_is_not_taken_for_noise_that_voxels_share(tmp_path: Path) -> None:
    std = 0.03
    waves, _ = measured((90, 90), noise=std, ghost=1.2 * std)
    scan = zero_filled_head(waves, (128, 128))
    mask = scan.with_data((scan.data > 0.3).astype(np.float32)).save(tmp_path / "mask.nii.gz")
    estimate = scan_noise(open_brain(scan.save(tmp_path / "scan.nii.gz"), mask=str(mask)))
    # As strong as white noise of that power in k-space is on the larger matrix, and the ghost's own power, which the air cannot tell.
    expected = std * 128 / 90
    by_air = float(background_noise(to_batch(scan.data)).std[0]) * independent_share(to_batch(scan.data)[0]) ** -0.5
    assert float(estimate.std[0]) == pytest.approx(expected, rel=0.25)
    assert by_air > 1.1 * float(estimate.std[0])


@pytest.mark.parametrize("matrix", [(90, 90), (64, 98)])
@pytest.mark.parametrize("unsteady", [0.0, 0.03, 0.05])
def test_noise_that_lies_on_the_brain_alone_counts(tmp_path: Path, unsteady: float, matrix: tuple[int, int]) -> None:
    waves, _ = measured(matrix, noise=0.03, grain=0.0, unsteady=unsteady)
    scan = zero_filled_head(waves, (128, 128))
    mask = scan.with_data((ndimage.gaussian_filter(scan.data, (1, 1, 0)) > 0.5).astype(np.float32)).save(tmp_path / "mask.nii.gz")
    estimate = scan_noise(open_brain(scan.save(tmp_path / "scan.nii.gz"), mask=str(mask)))
    expected = np.hypot(0.03, unsteady) * 128 / np.sqrt(np.prod(matrix))
    assert float(estimate.std[0]) == pytest.approx(expected, rel=0.12)
    assert any("times that of the air" in text for text in estimate.warnings) == (unsteady > 0)


def test_anatomy_on_the_acquired_matrix_is_not_taken_for_noise(tmp_path: Path) -> None:
    waves, _ = measured((90, 90), noise=0.01)
    scan = zero_filled_head(waves, (128, 128))
    mask = scan.with_data((scan.data > 0.3).astype(np.float32)).save(tmp_path / "mask.nii.gz")
    estimate = scan_noise(open_brain(scan.save(tmp_path / "scan.nii.gz"), mask=str(mask)))
    assert float(estimate.std[0]) == pytest.approx(0.01 * 128 / 90, rel=0.1)


@pytest.mark.parametrize("lag", [1, 2, 5, 8])
@pytest.mark.parametrize("axis", [-2, -1])
def test_voxels_that_share_half_their_noise_with_another(axis: int, lag: int) -> None:
    """A correlation of 1/2 with the voxels so far away on either side: 1 / (1 + 2 / 4) of them are independent."""
    n = torch.view_as_complex(torch.randn(1, 6, 128, 128, 2, generator=torch.Generator().manual_seed(4)))
    assert independent_share((n + n.roll(lag, axis)).abs()) == pytest.approx(2 / 3, rel=0.1)


def test_white_noise_is_independent_to_the_last_voxel() -> None:
    n = torch.view_as_complex(torch.randn(1, 6, 128, 128, 2, generator=torch.Generator().manual_seed(5)))
    assert independent_share(n.abs()) == pytest.approx(1, abs=0.03)


def test_a_message_numbers_images_only_where_there_are_several(volume: Tensor) -> None:
    flat = torch.ones_like(volume)
    with input_error("^the noise of the scan cannot"):
        image_noise(flat)
    with input_error("^the noise of image 0 cannot"):
        image_noise(torch.cat([flat, flat]))


def test_how_small_an_image_may_be() -> None:
    """Eight voxels each way and fifty places inside are enough."""
    y = add_noise(torch.full((1, 1, 8, 9), 0.5), 0.02, own_generators(1))
    everywhere = torch.ones_like(y, dtype=torch.bool)
    assert float(image_noise(y, everywhere).std[0]) == pytest.approx(0.02, rel=0.5)
    with input_error("fewer than 8 x 8"):
        image_noise(y[..., :7, :], everywhere[..., :7, :])
    # 50 places of four voxels in 8 x 9 voxels: a block of 6 x 11 has 5 x 10.
    wide = add_noise(torch.full((1, 1, 8, 14), 0.5), 0.02, own_generators(1))
    block = torch.zeros_like(wide, dtype=torch.bool)
    block[..., 1:7, 1:12] = True
    assert float(image_noise(wide, block).std[0]) == pytest.approx(0.02, rel=0.5)
    block[..., 1, 1] = False
    with input_error("only 49 places lie inside the brain, 50 are needed"):
        image_noise(wide, block)
