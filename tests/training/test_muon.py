"""Muon: orthogonal updates of matrices, AdamW for the rest."""

import pytest
import torch
from torch import nn

from dynamicdps.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_singular_values_become_about_one(shape: tuple[int, int, int], generator: torch.Generator) -> None:
    found = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=generator)))
    assert found.max() < 1.3
    assert found.min() > 0.3
    assert 0.6 < float(found.median()) < 1.2


def test_directions_are_kept(generator: torch.Generator) -> None:
    left, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    matrix = left @ torch.diag(torch.tensor([5.0, 3, 2, 1, 0.5, 0.4])) @ right
    rotated = left.mT @ orthogonal(matrix[None])[0] @ right.mT
    torch.testing.assert_close(rotated - torch.diag(rotated.diagonal()), torch.zeros(6, 6), atol=1e-3, rtol=0)
    assert (rotated.diagonal() > 0.6).all()


def test_matrices_of_one_shape_are_updated_as_alone(generator: torch.Generator) -> None:
    gradients = [torch.randn(4, 3, 2, 2, generator=generator) for _ in range(3)]

    def after(parts: list[list[int]]) -> list[torch.Tensor]:
        weights = [nn.Parameter(torch.ones(4, 3, 2, 2)) for _ in gradients]
        for part in parts:
            optimiser = Muon([weights[i] for i in part], lr=0.1)
            for i in part:
                weights[i].grad = gradients[i]
            optimiser.step()
        return [w.detach() for w in weights]

    for together, alone in zip(after([[0, 1, 2]]), after([[0], [1], [2]]), strict=True):
        torch.testing.assert_close(together, alone)


def test_vectors_are_updated_by_adamw(generator: torch.Generator) -> None:
    one, other = (nn.Parameter(torch.ones(5)) for _ in range(2))
    ours, theirs = Muon([one], lr=0.1, weight_decay=0.01), torch.optim.AdamW([other], lr=0.1, weight_decay=0.01)
    for _ in range(4):
        gradient = torch.randn(5, generator=generator)
        one.grad, other.grad = gradient.clone(), gradient.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(one, other)


def test_it_learns_a_linear_map(generator: torch.Generator) -> None:
    truth = torch.randn(6, 8, generator=generator)
    torch.manual_seed(0)
    layer = nn.Linear(8, 6)
    optimiser = Muon(layer.parameters(), lr=0.2, weight_decay=0.0)
    for step in range(300):
        for group in optimiser.param_groups:
            group["lr"] = 0.2 * (1 - step / 300)
        x = torch.randn(32, 8, generator=generator)
        loss = (layer(x) - x @ truth.mT).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (layer.weight - truth).abs().max() < 0.05
