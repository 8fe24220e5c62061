"""Training patches are a function of the generator, whatever the sizes of the scans."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dynamicdps.training import Patches
from dynamicdps.volumes import IntensityScale, Volume, load, to_slices
from tests.properties import input_error


def subjects() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(shape, generator=generator) for shape in [(6, 1, 40, 36), (3, 1, 30, 50), (70, 1, 40, 36)]]


def test_batch_is_a_function_of_the_generator() -> None:
    patches = Patches(subjects())
    first, again = (patches.batch(torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], patches.batch(torch.Generator().manual_seed(8))[0])


@pytest.mark.parametrize("size", [(16, 24, 5), (8, 8, 1)])
def test_sizes_are_respected(size: tuple[int, int, int], generator: torch.Generator) -> None:
    height, width, count = size
    assert Patches(subjects()).batch(generator, [size]).shape == (count, 1, height, width)


def test_smaller_slices_cut_the_patch_down(generator: torch.Generator) -> None:
    patches = Patches(subjects())
    shapes = {tuple(patches.batch(generator, [(96, 96, 4)]).shape[1:]) for _ in range(30)}
    assert shapes <= {(1, 40, 36), (1, 30, 50), (1, 30, 36)}
    assert (1, 30, 36) in shapes
    assert patches.batch(generator, [(96, 96, 1)]).shape[0] == 1


def test_patches_are_pieces_of_the_slices(generator: torch.Generator) -> None:
    """Flipped or not, brighter by at most a twentieth, darker by at most a tenth."""
    ramp = torch.arange(20.0).view(1, 1, 4, 5) / 40 + 0.1
    batch = Patches([ramp]).batch(generator, [(4, 5, 200)])
    image = ramp[0]
    factors = []
    for patch in batch:
        straight, flipped = patch / image, patch.flip(-1) / image
        ratio = straight if straight.std() < flipped.std() else flipped
        assert ratio.std() < 1e-5
        factors.append(float(ratio.mean()))
    spread = torch.tensor(factors)
    assert spread.min() >= 0.9 - 1e-5
    assert spread.max() <= 1.05 + 1e-5
    assert 0.3 < float(((spread - 1).abs() < 1e-5).float().mean()) < 0.7


def test_large_scans_count_as_64_slices(generator: torch.Generator) -> None:
    patches = Patches([torch.zeros(64, 1, 4, 4), torch.ones(640, 1, 4, 4)])
    share = float((patches.batch(generator, [(4, 4, 2000)]) > 0.5).float().mean())
    assert share == pytest.approx(0.5, abs=0.06)


def test_stack_is_of_neighbouring_slices(generator: torch.Generator) -> None:
    for slices, size in ((10, 96), (50, 8)):
        numbered = torch.arange(float(slices)).view(-1, 1, 1, 1).expand(-1, 1, 12, 14)
        stack = Patches([numbered]).stack(generator, size)
        assert stack.shape == (min(slices, 32), 1, min(size, 12), min(size, 14))
        assert (stack.mean(dim=(1, 2, 3)).diff() == 1).all()


def test_statistics_are_those_of_all_slices() -> None:
    slices = subjects()
    values = np.concatenate([s.numpy().ravel() for s in slices])
    np.testing.assert_allclose(Patches(slices).statistics(), (values.mean(dtype=np.float64), values.std(dtype=np.float64)), rtol=1e-6)


def test_files_are_scaled_and_empty_slices_left_out(tmp_path: Path, phantom: Volume) -> None:
    data = phantom.data * 800
    data[..., :3] = 0
    data[:1, :1, 0] = 500
    data[0, 0, 5] = -20
    path = phantom.with_data(data).save(tmp_path / "scan.nii")
    (slices,) = Patches.from_files([path]).subjects
    scan = load(path)
    expected = to_slices(IntensityScale.robust(scan.data).apply(scan).data).clamp_min(0)[3:]
    torch.testing.assert_close(slices, expected)


def test_no_usable_slice_is_refused(tmp_path: Path, phantom: Volume) -> None:
    data = np.zeros(phantom.shape)
    data[0, 0] = 1
    with input_error("no scan holds a usable slice"):
        Patches.from_files([phantom.with_data(data).save(tmp_path / "dots.nii")])
    with input_error("no scan"):
        Patches([])
