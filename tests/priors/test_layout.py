"""The layout: what unconditional samples start from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dynamicdps.models.model_file import write_model
from dynamicdps.priors import draw_samples, layout_beside, load_layout, load_prior
from dynamicdps.priors.layout import EDGE, Layout
from dynamicdps.priors.sampling import image_generators
from dynamicdps.training import fit_layout
from dynamicdps.training.layout_fit import FEWEST_SCANS
from dynamicdps.training.windows import TrainingVolume
from tests.properties import input_error


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return image_generators(torch.Generator().manual_seed(seed), count)


@pytest.fixture
def layout() -> Layout:
    torch.manual_seed(0)
    return Layout(2 + torch.rand(3, 4, 5), 0.1 * torch.randn(4, 3, 4, 5))


def scans(count: int, shape: tuple[int, int, int] = (16, 24, 16)) -> list[TrainingVolume]:
    """Cubes of one brightness each, which differ between scans."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0.3, 0.9, (count, *(n // EDGE for n in shape)))
    return [TrainingVolume.from_array(np.kron(c, np.ones((EDGE,) * 3)).astype(np.float32)) for c in coarse]


def test_draws_have_the_mean_and_the_covariance_of_the_layout(layout: Layout) -> None:
    drawn = layout.draw(generators(4000), layout.shape)
    # The middle of a cube of the mean image, where interpolation changes least.
    flat = torch.nn.functional.avg_pool3d(drawn, EDGE)[:, 0].flatten(1)
    expected = torch.nn.functional.interpolate(layout.mean[None, None], size=layout.shape, mode="trilinear")
    torch.testing.assert_close(flat.mean(0), torch.nn.functional.avg_pool3d(expected, EDGE).flatten(), atol=0.02, rtol=0)
    fine = torch.nn.functional.interpolate(layout.components[:, None], size=layout.shape, mode="trilinear")
    parts = torch.nn.functional.avg_pool3d(fine, EDGE).flatten(1)
    torch.testing.assert_close(torch.cov(flat.T), parts.T @ parts, atol=0.006, rtol=0)


def test_a_draw_does_not_depend_on_the_others(layout: Layout) -> None:
    together = layout.draw(generators(3), (5, 30, 50))
    alone = torch.cat([layout.draw([g], (5, 30, 50)) for g in generators(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert together.shape == (3, 1, 5, 30, 50)
    assert not torch.equal(together[0], together[1])


def test_a_larger_frame_is_empty_around_and_a_smaller_one_keeps_the_middle(layout: Layout) -> None:
    depth, height, width = layout.shape
    own, larger, smaller = (layout.draw(generators(2), (depth, height + a, width + a)) for a in (0, 6, -6))
    torch.testing.assert_close(larger[..., 3:-3, 3:-3], own)
    assert not larger[..., :3, :].any()
    torch.testing.assert_close(smaller, own[..., 3:-3, 3:-3])


def test_more_slices_than_the_layout_has_are_refused(layout: Layout) -> None:
    with input_error("ask for fewer"):
        layout.draw(generators(1), (layout.shape[0] + 1, 8, 8))


def test_the_fit_explains_the_scans_and_their_mirror_images() -> None:
    volumes = scans(30)
    fitted = fit_layout(volumes)
    assert fitted is not None
    assert fitted.shape == (16, 24, 16)
    cubes = torch.stack([torch.nn.functional.avg_pool3d(torch.from_numpy(v.data).float()[None] * v.scale, EDGE)[0] for v in volumes])
    both = torch.cat([cubes, cubes.flip(-1)]).flatten(1)
    torch.testing.assert_close(fitted.mean.flatten(), both.mean(0))
    # With as many components as cubes nothing is left out.
    parts = fitted.components.flatten(1)
    torch.testing.assert_close(parts.T @ parts, torch.cov(both.T, correction=0), atol=1e-4, rtol=0)


def test_few_scans_or_scans_of_many_shapes_have_no_layout() -> None:
    assert fit_layout(scans(FEWEST_SCANS - 1)) is None
    assert fit_layout([*scans(FEWEST_SCANS - 1), *scans(FEWEST_SCANS - 1, (16, 16, 16))]) is None
    assert fit_layout(scans(FEWEST_SCANS), "T2w") is None


def test_a_layout_lies_beside_its_prior(layout: Layout, tmp_path: Path) -> None:
    layout.write(tmp_path / "mine-layout.safetensors", "nobody")
    found = layout_beside(tmp_path / "mine.safetensors")
    assert found is not None
    torch.testing.assert_close(found.components, layout.components, atol=1e-3, rtol=1e-3)
    assert found.shape == layout.shape
    assert layout_beside(tmp_path / "other.safetensors") is None
    bundled = layout_beside("brain")
    assert bundled is not None
    assert bundled.suffix == "T1w"


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    card = {"kind": "layout", "suffix": "T1w", "edge": 8}
    write_model(tmp_path / "bad.safetensors", {"mean": torch.zeros(2, 3, 4), "components": torch.zeros(5, 2, 3, 3)}, card)
    with input_error("is not a layout"):
        load_layout(tmp_path / "bad.safetensors")


def test_samples_of_the_bundled_prior_are_each_one_brain() -> None:
    """Its large parts come from the layout: mirror images resemble each other, and the middle of the frame is no background."""
    samples = draw_samples(load_prior(), 1, 176, 144, steps=3, layout=layout_beside("brain"))
    coarse = torch.nn.functional.avg_pool2d(samples[:, 0], 8)[0, 0]
    assert torch.corrcoef(torch.stack([coarse.flatten(), coarse.flip(-1).flatten()]))[0, 1] > 0.8
    assert coarse[6:16, 5:13].min() > 0.1
    assert coarse[0].max() < 0.5
