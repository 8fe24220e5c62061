"""The prior on volumes: windows of slices, edges, planes, batches, and what its card says of it."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dynamicdps.models.model_file import write_model
from dynamicdps.networks import NeighbourConfig, NeighbourUNet
from dynamicdps.priors import Domain, NeighbourPrior, SlicePrior, as_prior, load_prior
from dynamicdps.priors.prior import MIN_SLICES, window_slices
from tests.properties import input_error

MEAN, STD = 0.3, 0.25
TINY = NeighbourConfig(5, 3, channels=(16, 32), residual_blocks=(1, 1), attention=(False, False), norm_groups=8)


def tiny(config: NeighbourConfig = TINY) -> NeighbourUNet:
    """A network whose every layer does something (a fresh one returns 0)."""
    torch.manual_seed(0)
    network = NeighbourUNet(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


def prior_of(slices_in: int, slices_out: int, planes: tuple[str, ...] = ("axial",)) -> NeighbourPrior:
    config = NeighbourConfig(slices_in, slices_out, TINY.channels, TINY.residual_blocks, TINY.attention, TINY.norm_groups)
    return NeighbourPrior(tiny(config), MEAN, STD, Domain(suffix="T1w", planes=planes))


class Zero(nn.Module):
    """The best network for white Gaussian data."""

    def __init__(self, config: NeighbourConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, time: Tensor, present: Tensor, contrast: Tensor) -> Tensor:
        return torch.zeros_like(x[:, : self.config.slices_out])


@pytest.mark.parametrize(("slices_in", "slices_out"), [(1, 1), (3, 1), (5, 3), (7, 5)])
@pytest.mark.parametrize("depth", [1, 2, 3, 7, 12])
def test_every_slice_is_returned_once_with_its_neighbours(slices_in: int, slices_out: int, depth: int) -> None:
    index, present = window_slices(depth, slices_in, slices_out)
    margin = (slices_in - slices_out) // 2
    returned = index[:, margin : margin + slices_out].flatten()
    inside = returned[(returned >= 0) & (returned < depth)]
    assert inside.tolist() == list(range(depth))
    assert torch.equal(present, (index >= 0) & (index < depth))
    # What is returned beyond the volume is shared out to both ends: the middle of every window exists.
    assert present[:, slices_in // 2].all()


@pytest.mark.parametrize(("slices_in", "slices_out"), [(3, 1), (5, 3), (7, 5)])
@pytest.mark.parametrize("depth", [1, 4, 9])
def test_posterior_mean_of_gaussian_data(slices_in: int, slices_out: int, depth: int, generator: torch.Generator) -> None:
    network: NeighbourUNet = Zero(NeighbourConfig(slices_in, slices_out))  # type: ignore[assignment]
    prior = NeighbourPrior(network, MEAN, STD, Domain())
    sigma = torch.tensor([0.1, 2.0])
    x = MEAN + torch.randn(2, 1, depth, 6, 7, generator=generator)
    expected = MEAN + STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1, 1) ** 2) * (x - MEAN)
    torch.testing.assert_close(prior(x, sigma), expected)


def test_a_slice_depends_on_its_window_and_on_nothing_beyond(generator: torch.Generator) -> None:
    prior, sigma = prior_of(5, 3), torch.tensor([0.2])
    x = torch.rand(1, 1, 9, 16, 16, generator=generator)
    before = prior(x, sigma)
    changed = x.clone()
    changed[:, :, 0] += 0.3
    moved = (prior(changed, sigma) - before).abs().amax((0, 1, 3, 4))
    # The first window returns slices 0 to 2 and sees 0 to 3, the second returns 3 to 5 and sees 2 to 6.
    assert (moved[:3] > 1e-4).all()
    assert (moved[3:] == 0).all()


def test_missing_neighbours_are_told_from_black_ones(generator: torch.Generator) -> None:
    prior, sigma = prior_of(3, 1), torch.tensor([0.2])
    x = torch.rand(1, 1, 1, 16, 16, generator=generator)
    mean_around = torch.full_like(x, MEAN)
    assert not torch.allclose(prior(x, sigma), prior(torch.cat([mean_around, x, mean_around], 2), sigma)[:, :, 1:2], atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_batch_and_bound_change_nothing(at_once: int, generator: torch.Generator) -> None:
    prior, sigma = prior_of(5, 3), torch.tensor([0.05, 0.3, 1.0])
    x = torch.rand(3, 1, 7, 16, 12, generator=generator)
    alone = torch.cat([prior(x[i : i + 1], sigma[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(prior(x, sigma, at_once), alone, atol=1e-5, rtol=0)


def test_single_images_are_volumes_of_one_slice(generator: torch.Generator) -> None:
    prior, sigma = prior_of(5, 3), torch.tensor([0.05, 0.3])
    x = torch.rand(2, 1, 16, 12, generator=generator)
    assert torch.equal(prior(x, sigma), prior(x[:, :, None], sigma)[:, :, 0])


@pytest.mark.parametrize("at_once", [1, 100])
@pytest.mark.parametrize("kind", ["slices", "windows"])
def test_pullback_is_the_transpose_of_the_jacobian(kind: str, at_once: int, generator: torch.Generator) -> None:
    prior = prior_of(5, 3) if kind == "windows" else SlicePrior(lambda x, sigma: x**2 + x.flip(-1))
    sigma = torch.tensor([0.1, 0.4])
    x, w = torch.rand(2, 2, 1, 4, 8, 8, generator=generator)
    variable = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(prior(variable, sigma), variable, w)
    torch.testing.assert_close(prior.pullback(x, sigma, w, at_once), expected, atol=1e-5, rtol=1e-4)


def test_planes_are_taken_in_turns_where_a_volume_is_large_enough(generator: torch.Generator) -> None:
    prior, sigma = prior_of(3, 1, ("axial", "coronal", "sagittal")), torch.tensor([0.2])
    x = torch.rand(1, 1, MIN_SLICES, MIN_SLICES + 8, MIN_SLICES + 16, generator=generator)
    axial, coronal, sagittal, again = (prior(x, sigma, turn=turn) for turn in range(4))
    assert torch.equal(axial, again)
    assert not torch.allclose(axial, coronal, atol=1e-3)
    assert not torch.allclose(coronal, sagittal, atol=1e-3)
    # A coronal pass is the axial one of the volume that stands on its back.
    torch.testing.assert_close(coronal, prior(x.transpose(2, 3).contiguous(), sigma).transpose(2, 3), atol=1e-5, rtol=0)
    weights = torch.rand(x.shape, generator=generator)
    thin = x[:, :, :10]
    assert torch.equal(prior(thin, sigma, turn=1), prior(thin, sigma))
    standing = prior.pullback(x.transpose(2, 3).contiguous(), sigma, weights.transpose(2, 3).contiguous()).transpose(2, 3)
    torch.testing.assert_close(prior.pullback(x, sigma, weights, turn=1), standing, atol=1e-4, rtol=1e-4)


def test_a_bare_denoiser_is_a_prior_of_slices(generator: torch.Generator) -> None:
    class Halving:
        errors = {0.1: 0.05}  # noqa: RUF012
        data_mean = 0.2

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            assert x.ndim == 4
            return x / 2 + sigma.view(-1, 1, 1, 1)

    prior = as_prior(Halving())
    assert as_prior(prior) is prior
    assert (prior.neighbours, prior.data_mean, prior.domain.errors) == (0, 0.2, {0.1: 0.05})
    x, sigma = torch.rand(2, 1, 3, 4, 5, generator=generator), torch.tensor([0.1, 0.2])
    torch.testing.assert_close(prior(x, sigma), x / 2 + sigma.view(-1, 1, 1, 1, 1))
    torch.testing.assert_close(prior.error(sigma)[0], torch.tensor(0.05))


def saved(folder: Path, **changes: object) -> Path:
    card = {
        "kind": "prior",
        "network": TINY.to_json(),
        "data_mean": MEAN,
        "data_std": STD,
        "suffix": "FLAIR",
        "spacing_mm": [1.0, 1.0, 2.0],
    }
    write_model(folder / "p.safetensors", tiny().state_dict(), card | changes)
    return folder / "p.safetensors"


def test_the_domain_is_that_of_the_card(tmp_path: Path) -> None:
    start = {"kind": "start-level", "rule": "misfit", "misfit": [0.1], "sigma": [0.2]}
    path = saved(
        tmp_path,
        denoising_rmse={"0.1": 0.04},
        error_correlation=[1, 0.4],
        planes=["axial", "sagittal"],
        start_level=start,
        contrast="FLAIR",
    )
    prior = load_prior(path)
    expected = Domain("FLAIR", "FLAIR", (1.0, 1.0, 2.0), ("axial", "sagittal"), {0.1: 0.04}, (1.0, 0.4), start)
    assert prior.domain == expected
    assert prior.neighbours == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spacing_mm", [1.0, 1.0]),
        ("spacing_mm", [1.0, 1.0, -1.0]),
        ("spacing_mm", "wide"),
        ("error_correlation", []),
        ("error_correlation", [0.9]),
        ("error_correlation", [1.0, 1.2]),
        ("planes", []),
        ("planes", ["oblique"]),
        ("start_level", 3),
    ],
)
def test_damaged_domains_are_refused(tmp_path: Path, field: str, value: object) -> None:
    path = saved(tmp_path, **{field: value})
    with input_error("model card"):
        load_prior(path)


@pytest.mark.parametrize(("slices_in", "slices_out"), [(4, 1), (3, 2), (3, 5), (0, 0), (99, 1)])
def test_windows_without_a_middle_are_refused(slices_in: int, slices_out: int) -> None:
    with input_error("has no middle"):
        NeighbourConfig(slices_in, slices_out)


@pytest.mark.parametrize("changes", [{"unshuffle": 0}, {"unshuffle": 9}, {"contrasts": ()}])
def test_networks_that_are_none_are_refused(changes: dict[str, object]) -> None:
    with input_error("make no network"):
        NeighbourConfig(**changes)  # type: ignore[arg-type]


def test_network_takes_any_size_and_survives_its_card(tmp_path: Path, generator: torch.Generator) -> None:
    network = tiny()
    assert NeighbourConfig.from_json(json.loads(json.dumps(TINY.to_json()))) == TINY
    for height, width in ((16, 16), (13, 9), (3, 5)):
        x = torch.rand(2, 5, height, width, generator=generator)
        out = network(x, torch.tensor([10.0, 900.0]), torch.ones(2, 5, dtype=torch.bool), torch.tensor([0, 1]))
        assert out.shape == (2, 3, height, width)


def test_the_contrast_is_told(generator: torch.Generator) -> None:
    x, sigma = torch.rand(1, 1, 3, 16, 16, generator=generator), torch.tensor([0.2])
    network = tiny()
    found = [NeighbourPrior(network, MEAN, STD, Domain(suffix=s))(x, sigma) for s in ("T1w", "FLAIR", "unknown", "PDw")]
    assert not torch.allclose(found[0], found[1], atol=1e-4)
    # What the network has no name for is unknown to it.
    assert torch.equal(found[2], found[3])
