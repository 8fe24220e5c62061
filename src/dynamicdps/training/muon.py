"""Muon: momentum whose matrices are made orthogonal; AdamW for what is no matrix."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

# Quintic whose iteration drives singular values to about 1 (Jordan et al. 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
MOMENTUM = 0.95
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) with the step size of Liu et al. 2025, eq. 4, so that learning rate and weight decay are AdamW's.

    Weights of two and more dimensions are matrices of one row an output channel; vectors are updated by AdamW.

    Args:
        parameters: to train.
        lr: learning rate.
        weight_decay: decoupled.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 1e-3, weight_decay: float = 1e-4) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: computes the loss and its gradients anew, as torch's optimisers take it.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(trained, 1 - group["lr"] * group["weight_decay"])
            matrices: dict[tuple[int, int], list[nn.Parameter]] = {}
            for p in trained:
                if p.ndim > 1:
                    matrices.setdefault((len(p), p[0].numel()), []).append(p)
            for shape, alike in matrices.items():
                self._step_matrices(alike, shape, group["lr"])
            self._step_vectors([p for p in trained if p.ndim < 2], group["lr"])
        return loss

    def _step_matrices(self, alike: list[nn.Parameter], shape: tuple[int, int], lr: float) -> None:
        """Matrices of one shape are made orthogonal together."""
        momenta = []
        for p in alike:
            state: dict[str, Any] = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            momenta.append(state["momentum"])
        gradients: list[Tensor] = [p.grad for p in alike]  # type: ignore[misc]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        updates = orthogonal(torch.stack([a.reshape(shape) for a in ahead]))
        length = -lr * 0.2 * max(shape) ** 0.5
        for p, update in zip(alike, updates, strict=True):
            p.add_(update.view(p.shape).to(p.dtype), alpha=length)

    def _step_vectors(self, vectors: list[nn.Parameter], lr: float) -> None:
        """AdamW without its weight decay, which all parameters have had."""
        if not vectors:
            return
        for p in vectors:
            state: dict[str, Any] = self.state[p]
            if not state:
                state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            state["step"] += 1
        gradients: list[Tensor] = [p.grad for p in vectors]  # type: ignore[misc]
        means = [self.state[p]["exp_avg"] for p in vectors]
        squares = [self.state[p]["exp_avg_sq"] for p in vectors]
        steps = [float(self.state[p]["step"]) for p in vectors]
        torch._foreach_lerp_(means, gradients, 1 - BETAS[0])
        torch._foreach_mul_(squares, BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - BETAS[1])
        scales = torch._foreach_div(squares, [1 - BETAS[1] ** step for step in steps])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, EPSILON)
        torch._foreach_addcdiv_(list[Tensor](vectors), means, scales, [-lr / (1 - BETAS[0] ** step) for step in steps])


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: ``(count, rows, columns)``, singular values within about 0.7 to 1.2."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x.bfloat16() if x.is_cuda else x.float()
    x = x / (x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None])
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = x.mT if tall else x
    return found
