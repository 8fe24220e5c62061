"""Total variation (Rudin, Osher, Fatemi 1992): the classical floor, without learning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.data_term import DataTerm, join
from dynamicdps.operators import LinearModel
from dynamicdps.priors import Denoiser, Prior
from dynamicdps.solvers.reconstruction import Progress, Reconstruction, check_positive
from dynamicdps.solvers.registry import register


@dataclass(frozen=True)
class TVConfig:
    """How to run total variation.

    Attributes:
        weight: of the total variation against ``|y - H x|^2 / 2``.
        smoothing: differences below this are not edges, image intensities.
        iterations: most steps of L-BFGS.
    """

    weight: float = 1e-3
    smoothing: float = 0.01
    iterations: int = 200

    def __post_init__(self) -> None:
        check_positive(self)


@register("tv", config=TVConfig)
def solve_tv(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser | None,
    initial: Tensor,
    *,
    generator: torch.Generator | None = None,
    config: TVConfig = TVConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Minimise ``|y - H x|^2 / 2 + weight * sum(sqrt(|grad x|^2 + smoothing^2))`` by scipy's L-BFGS, image by image.

    It starts at the image of least norm that explains the measurement, not at the initial image: what that invented would stay.
    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`; no prior, no randomness.

    Raises:
        InputError: the operator is not linear.
    """
    term = join(terms)
    from scipy.optimize import minimize

    del prior, generator
    # Scipy works on the CPU, in float64.
    own = term.to("cpu")
    problem = own.linear_problem(initial.shape)
    start = problem.model.pseudo_inverse(problem.measurement).double()
    found, most = [], 0
    for index in range(len(initial)):
        chosen = torch.tensor([index])
        part = own.select(chosen).to(torch.float64).linear_problem(initial[index : index + 1].shape)
        shape = initial[index : index + 1].shape

        def objective(
            flat: NDArray[np.float64], model: LinearModel = part.model, y: Tensor = part.measurement, shape: torch.Size = shape
        ) -> tuple[float, NDArray[np.float64]]:
            x = torch.from_numpy(flat).view(shape)
            residual = model(x) - y
            value, slope = _total_variation(x, config.smoothing)
            total = 0.5 * float(residual.square().sum()) + config.weight * value
            return total, (model.adjoint(residual) + config.weight * slope).flatten().numpy()

        options = {"maxiter": config.iterations, "maxcor": 10}
        result = minimize(objective, start[index].flatten().numpy(), jac=True, method="L-BFGS-B", options=options)
        found.append(torch.from_numpy(result.x).view(shape))
        most = max(most, 2 * int(result.nfev))
        if progress is not None:
            progress(index + 1, len(initial))
    image = torch.cat(found).to(initial)
    zeros = torch.zeros(len(initial), device=initial.device)
    misfit = term.misfit(image)
    return Reconstruction(image, misfit, zeros.long(), zeros.long(), zeros, operator_calls=most, warnings=problem.warnings)


def _total_variation(x: Tensor, smoothing: float) -> tuple[float, Tensor]:
    """Smoothed total variation of one image or volume (forward differences, zero at the far border) and its gradient."""
    axes = range(2, x.ndim)
    differences = [torch.cat([x.diff(dim=a), torch.zeros_like(x.narrow(a, 0, 1))], dim=a) for a in axes]
    length = (torch.stack([d.square() for d in differences]).sum(0) + smoothing**2).sqrt()
    gradient = torch.zeros_like(x)
    for axis, difference in zip(axes, differences, strict=True):
        flow = difference / length
        gradient -= flow
        size = x.shape[axis]
        gradient.narrow(axis, 1, size - 1).add_(flow.narrow(axis, 0, size - 1))
    return float((length - smoothing).sum()), gradient
