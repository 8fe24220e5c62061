"""The conditional model of whole volumes: its network, the scanners it learns from, its training, and what it makes of a scan."""

from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from dynamicdps.conditional import ConditionalVolumeUNet, VolumeConfig, load_conditional, train_volume_unet
from dynamicdps.conditional.scanner_draws import (
    LESION_CONTRAST,
    MARGIN,
    ScannerRange,
    draw_axes,
    draw_contrast,
    draw_lesions,
    draw_scan,
    encoded_axis,
    sliced_axis,
    spline_matrix,
)
from dynamicdps.conditional.volume_network import VolumeUNet, channels_to_cubes, cubes_to_channels, grow
from dynamicdps.conditional.volume_training import BATCH, PATCH, BrainPatches, ScannedPatches
from dynamicdps.operators import LowField, ScanOperator, simulate
from dynamicdps.solvers.initial import initial_from_model
from dynamicdps.training import TrainingConfig
from dynamicdps.training.windows import TrainingVolume
from dynamicdps.volumes import Volume
from tests.properties import input_error

SMALL = VolumeConfig(channels=(4, 6), blocks=(1, 1))
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])


def ball(shape: tuple[int, int, int] = (30, 32, 28)) -> np.ndarray:
    """A bright ball with a dark core."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    return np.where(radius < 0.8, np.where(radius < 0.3, 60, 200), 0).astype(np.uint8)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scans")
    paths = [folder / f"sub-{k}_T1w.nii.gz" for k in range(2)]
    for path in paths:
        nibabel.save(nibabel.Nifti1Image(ball(), AFFINE), path)
    return paths


@pytest.mark.parametrize("edge", [1, 2, 3])
def test_cubes_become_channels_and_come_back(edge: int) -> None:
    x = torch.arange(2 * 6 * 12 * 18.0).view(2, 1, 6, 12, 18)
    channels = cubes_to_channels(x, edge)
    assert channels.shape == (2, edge**3, 6 // edge, 12 // edge, 18 // edge)
    torch.testing.assert_close(channels_to_cubes(channels, edge), x, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 13, 10), (1, 5, 7)])
def test_network_keeps_any_size_and_treats_each_volume_alone(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = VolumeUNet(SMALL).eval()
    x, voxel = torch.rand(3, 1, *shape), torch.rand(3, 3)
    with torch.inference_mode():
        together = network(x, voxel)
        alone = torch.cat([network(x[k : k + 1], voxel[k : k + 1]) for k in range(3)])
    assert together.shape == x.shape
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_what_is_far_away_does_not_matter() -> None:
    """Nothing is normalised over the volume: a patch has the result that it has inside of a whole head."""
    torch.manual_seed(0)
    network = VolumeUNet(SMALL).eval()
    x = torch.rand(1, 1, 48, 16, 16)
    changed = x.clone()
    changed[:, :, 40:] += 5
    with torch.inference_mode():
        one, other = (network(v, torch.zeros(1, 3)) for v in (x, changed))
    torch.testing.assert_close(one[:, :, :8], other[:, :, :8], rtol=0, atol=1e-6)
    assert not torch.equal(one[:, :, 40:], other[:, :, 40:])


@pytest.mark.parametrize("sizes", [{"channels": ()}, {"channels": (4, 8)}, {"blocks": (0, 1, 1)}, {"unshuffle": 5000}])
def test_sizes_that_make_no_network_are_refused(sizes: dict[str, object]) -> None:
    with input_error("make no network"):
        VolumeConfig(**sizes)  # type: ignore[arg-type]


def test_a_grown_network_computes_what_the_smaller_one_did_and_learns_with_all_of_it() -> None:
    torch.manual_seed(0)
    small, large = VolumeUNet(SMALL), VolumeUNet(VolumeConfig(channels=(7, 9), blocks=(2, 3)))
    grow(large, small)
    x, voxel = torch.rand(2, 1, 16, 12, 16), torch.rand(2, 3)
    torch.testing.assert_close(large(x, voxel), small(x, voxel), rtol=1e-4, atol=1e-5)
    # What is new takes no part yet and learns from the second step on.
    optimiser = torch.optim.SGD(large.parameters(), lr=1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        large(x, voxel).square().mean().backward()
        optimiser.step()
    assert all(p.grad is not None and bool((p.grad.flatten(1) != 0).any(1).all()) for p in large.parameters() if p.ndim > 1)


@pytest.mark.parametrize(
    "config",
    [VolumeConfig((3, 6), (1, 1)), VolumeConfig((4, 6, 8), (1, 1, 1)), VolumeConfig((4, 6), (1, 1), planes=2)],
    ids=["narrower", "deeper", "told-less"],
)
def test_a_network_that_cannot_hold_the_weights_is_refused(config: VolumeConfig) -> None:
    with input_error("choose a larger network"):
        grow(VolumeUNet(config), VolumeUNet(SMALL))


def test_splines_reproduce_cubic_polynomials() -> None:
    places = np.linspace(4, 15, 33)
    matrix = spline_matrix(20, places)
    index = np.arange(20.0)
    # The mirrored edge bends a polynomial, and that decays inwards by a factor of four a voxel.
    for power in range(4):
        np.testing.assert_allclose(matrix @ (index - 10) ** power, (places - 10) ** power, atol=0.02 * max(1, 10 ** (power - 1)))
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_every_axis_keeps_constants_and_places(seed: int) -> None:
    """Whatever is drawn, brightness and position stay: the middle of what is measured and interpolated is what it was."""
    size = 96
    for axis in draw_axes((size,) * 3, np.random.default_rng(seed), ScannerRange()):
        inner = slice(28, -28)
        np.testing.assert_allclose((axis.back @ axis.signal @ np.ones(size, np.float32))[inner], 1, atol=0.03)
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        np.testing.assert_allclose((axis.back @ axis.signal @ ramp)[inner], ramp[inner], atol=0.03)


@pytest.mark.parametrize("seed", range(12))
def test_an_encoded_axis_passes_what_its_window_of_k_space_passes(seed: int) -> None:
    """Whatever its taper: low frequencies whole, none above the edge, never more than there was, and less from one to the next."""
    size, voxel = 512, 2.5
    axis = encoded_axis(size, np.random.default_rng(seed), voxel)
    inner = axis.signal[len(axis.signal) // 4 : -len(axis.signal) // 4]
    places = np.arange(size) - size / 2

    def passed(share: float) -> float:
        wave = np.exp(1j * np.pi * share / voxel * places)
        return float(np.abs(inner @ wave).mean())

    responses = [passed(share) for share in (0.02, 0.3, 0.6, 0.9, 1.1, 1.3)]
    assert responses[0] == pytest.approx(1, abs=0.05)
    assert max(responses) < 1.05
    assert max(responses[-2:]) < 0.05
    assert all(b < a + 0.05 for a, b in pairwise(responses))


def test_slices_have_the_width_that_was_drawn() -> None:
    line = np.zeros((200, 1), np.float32)
    line[100] = 1
    for seed in range(5):
        axis = sliced_axis(200, np.random.default_rng(seed), 2.0, (4.0, 4.0))
        seen = (axis.signal @ line)[:, 0]
        assert 0.6 * 8 < (seen > seen.max() / 2).sum() * 2.0 < 1.6 * 8


@pytest.mark.parametrize("seed", range(10))
def test_contrast_rises_and_keeps_white_matter(seed: int) -> None:
    x, y = draw_contrast(np.random.default_rng(seed))
    assert (np.diff(y) >= 0).all()
    assert np.interp(0.95, x, y) == pytest.approx(0.95, abs=0.01)
    assert y[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_other_contrasts_fall(seed: int) -> None:
    x, y = draw_contrast(np.random.default_rng(seed), other=1.0)
    assert (np.diff(y[x >= 0.12]) <= 1e-6).all()
    assert y.max() == pytest.approx(0.95, abs=0.01)
    assert y[0] == pytest.approx(0, abs=1e-6)


def test_usual_scanners_lie_within_their_limits() -> None:
    limits = ScannerRange(thickness=(7.0, 8.0), usual=1.0).draw(np.random.default_rng(0))
    assert limits.thickness == (4.0, 6.0)
    assert limits.volumetric == 0
    assert limits.mask_error == ScannerRange().mask_error


@pytest.mark.parametrize("seed", range(6))
def test_lesions_are_spots_of_the_brain(seed: int) -> None:
    image = np.full((40, 40, 40), 0.7, np.float32)
    distance = np.where(np.arange(40) < 30, 0, 5).astype(np.float32) * np.ones_like(image)
    changed = draw_lesions(image, distance, np.random.default_rng(seed))
    ratio = changed / image
    assert np.array_equal(changed[..., 30:], image[..., 30:])
    assert np.exp(LESION_CONTRAST[0]) - 1e-5 < ratio.min() <= ratio.max() < np.exp(LESION_CONTRAST[1]) + 1e-5
    spots = np.abs(ratio - 1) > 0.02
    assert 0 < spots.mean() < 0.3
    nowhere = draw_lesions(image, distance + 1, np.random.default_rng(seed))
    assert np.array_equal(nowhere, image)


def test_a_lesion_is_in_the_scan_and_in_what_is_to_be_made_of_it() -> None:
    """Of an even brain a nearly perfect scanner shows its lesions alone, and the ideal image holds the same."""
    limits = ScannerRange(
        thickness=(1.0, 1.0),
        in_plane=(1.0, 1.0),
        signal_to_noise=(1e4, 1e4),
        shading=0,
        gain=0,
        outside=0,
        lesions=1,
        volumetric=0,
        usual=0,
    )
    image, distance = np.full((56, 56, 56), 0.95, np.float32), np.zeros((56, 56, 56), np.float32)
    inner = (slice(MARGIN, -MARGIN),) * 3
    shown = 0
    for seed in range(8):
        scan, _, ideal = (
            part[inner] if part.ndim == 3 else part for part in draw_scan(image, distance, np.random.default_rng(seed), limits)
        )
        if ideal.std() > 0.01:
            shown += 1
            assert np.corrcoef(scan.ravel(), ideal.ravel())[0, 1] > 0.95
    assert shown >= 4


def test_a_perfect_scanner_leaves_a_brain_nearly_as_it_is() -> None:
    limits = ScannerRange(
        thickness=(1.0, 1.0),
        in_plane=(1.0, 1.0),
        signal_to_noise=(1e4, 1e4),
        shading=0,
        gain=0,
        outside=0,
        lesions=0,
        volumetric=0,
        mask_error=(3, 3),
        usual=0,
    )
    image = np.asarray(ball((64, 64, 64)), np.float32) / 200
    brain = image > 0
    distance = np.where(brain, 0, 10).astype(np.float32)
    # Away from edges, where a contrast before an interpolation does not matter: the contrast is drawn all the same.
    flat = brain & (ndimage.gaussian_gradient_magnitude(image, 2) < 0.01)
    for seed in range(6):
        scan, _, ideal = draw_scan(image, distance, np.random.default_rng(seed), limits)
        assert np.corrcoef(scan[flat], ideal[flat])[0, 1] > 0.98
        assert not ideal[~brain].any()


def test_pairs_follow_from_the_generator_alone() -> None:
    pairs = ScannedPatches(
        BrainPatches([TrainingVolume.from_array(ball((80, 90, 100))), TrainingVolume.from_array(ball((32, 90, 80)))]), ScannerRange()
    )
    one, again, other = (pairs.draw(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    for a, b in zip(one, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(one[0], other[0])
    scan, voxel, image, there = one
    assert scan.shape == image.shape == there.shape == (BATCH, 1, PATCH, PATCH, PATCH)
    assert voxel.shape == (BATCH, 3)
    assert all(bool(part.isfinite().all()) for part in one)


def test_beyond_a_slab_nothing_is_learned() -> None:
    patches = BrainPatches([TrainingVolume.from_array(ball((20, 90, 80)))])
    there = patches.draw(np.random.default_rng(0), PATCH + 2 * MARGIN)[2]
    assert 0 < there.mean() < 0.6


def test_a_scan_without_a_brain_is_refused() -> None:
    with input_error("no brain"):
        BrainPatches([TrainingVolume(np.zeros((8, 8, 8), np.uint8), 0.01)])


def train(scans: list[Path], out: Path, steps: int, resume: bool = False) -> Path:
    config = TrainingConfig(steps=steps, checkpoint_every=1, bfloat16=False, learning_rate=1e-3, warmup=1)
    return train_volume_unet(scans, out, network_config=SMALL, config=config, resume=resume, data_name="balls")


def test_resumed_training_is_the_uninterrupted_one(scans: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamicdps.conditional.volume_training.VALIDATION_PATCHES", 1)
    monkeypatch.setattr("dynamicdps.conditional.volume_training.PATCH", 16)
    train(scans, tmp_path / "once", 2)
    train(scans, tmp_path / "twice", 1)
    train(scans, tmp_path / "twice", 2, resume=True)
    assert (tmp_path / "once" / "unet.safetensors").read_bytes() == (tmp_path / "twice" / "unet.safetensors").read_bytes()
    model = load_conditional(tmp_path / "once" / "unet.safetensors")
    assert isinstance(model, ConditionalVolumeUNet)


def test_the_network_computes_in_the_precision_that_is_asked_for(tmp_path: Path, scans: list[Path]) -> None:
    path = train(scans, tmp_path, 1)
    x, voxel = torch.rand(1, 1, 16, 16, 16), torch.tensor([[5.0, 1.5, 1.5]])
    exact, rounded = (load_conditional(path, precision=each)(x, voxel) for each in (torch.float32, torch.bfloat16))  # type: ignore[operator]
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.01)


class Unchanged(nn.Module):
    """A network that corrects nothing, and remembers the voxels that it was told."""

    def forward(self, x: Tensor, voxel: Tensor) -> Tensor:
        self.voxel = voxel
        return torch.zeros_like(x)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_scan_is_interpolated_on_the_image_grid_with_its_voxels_told(axis: int) -> None:
    factors = [1.5, 1.5, 1.5]
    factors[axis] = 4.0
    affine = np.diag([*factors, 1.0])
    places = np.meshgrid(*(np.arange(n) * f for n, f in zip((24, 24, 24), factors, strict=True)), indexing="ij")
    smooth = (1 + 0.3 * sum(np.sin(p / 12) for p in places)).astype(np.float32)
    scan = Volume(smooth * 100, affine)
    model = ConditionalVolumeUNet(network := Unchanged())
    operator = ScanOperator(LowField(in_plane_factor=1.5, slice_thickness=4.0), 0.02, intensity_scale=100.0) if axis == 2 else None
    if operator is not None:
        found = initial_from_model(scan, operator, model, "unchanged").volume
        at = np.meshgrid(*(np.arange(n) for n in found.shape), indexing="ij")
        mm = [found.affine[a, a] * at[a] + found.affine[a, 3] for a in range(3)]
        expected = 1 + 0.3 * sum(np.sin(p / 12) for p in mm)
        inner = (slice(8, -8),) * 3
        ratio = found.data[inner] / expected[inner]
        assert ratio.std() / ratio.mean() < 0.02
    else:
        from dynamicdps.volumes.grids import prior_grid

        model.on_grid(scan, prior_grid(scan))
    np.testing.assert_allclose(2 ** network.voxel[0].numpy(), factors[::-1], rtol=1e-5)


def test_few_slices_and_single_ones_have_an_image() -> None:
    torch.manual_seed(0)
    model = ConditionalVolumeUNet(VolumeUNet(SMALL)).eval()
    operator = LowField(in_plane_factor=2.0)
    y = torch.rand(3, 1, 12, 10)
    assert model.enhance(y, operator, (3, 1, 24, 20)).shape == (3, 1, 24, 20)
    assert model.enhance(y[:, :, None], operator, (3, 1, 1, 24, 20)).shape == (3, 1, 1, 24, 20)


def test_a_mirrored_scan_has_the_mirrored_image() -> None:
    torch.manual_seed(0)
    model = ConditionalVolumeUNet(VolumeUNet(SMALL)).eval()
    operator = LowField(in_plane_factor=2.0)
    y = torch.rand(2, 1, 6, 12, 9)
    found = model.enhance(y, operator, (2, 1, 6, 24, 18))
    torch.testing.assert_close(model.enhance(y.flip(-1), operator, (2, 1, 6, 24, 18)), found.flip(-1), rtol=1e-5, atol=1e-5)


def test_the_mask_is_applied_on_the_image_grid() -> None:
    truth = Volume(ball((40, 40, 40)).astype(np.float32), AFFINE)
    measured, operator = simulate(truth, ScanOperator(LowField(slice_thickness=5.0), 0.001), seed=0)
    inside = Volume((measured.data > 20).astype(np.float32), measured.affine)
    model = ConditionalVolumeUNet(Unchanged())
    around = measured.with_data(np.where(inside.data > 0, measured.data, 500.0).astype(np.float32))
    found = initial_from_model(around, operator, model, "unchanged", inside).volume
    assert found.data[0].max() == 0
    assert found.data.max() < 1.7 * np.percentile(truth.data, 99)
