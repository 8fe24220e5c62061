"""How an image of one contrast explains a scan of another: a curve, the coil's shading, and how far to trust both at each voxel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators.bias_field import BiasField, legendre
from dynamicdps.operators.contrast import HermiteCurve, curve_through
from dynamicdps.operators.contrast_operator import Contrast
from dynamicdps.operators.operator import Composition, LinearOperator, Operator, Scanner

# Intensities of the image at which the curve is free. Fluid of a T1w image lies below 0.3, where a T2w scan changes most.
POSITIONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15)
# Weight of the curve's bends against all voxels: it decides where an intensity hardly occurs.
BENDS = 1e-4
# Largest total degree of the shading's polynomial, and the voxels along an axis from which on it is more than a slope there.
DEGREE, FEW = 3, 8
ROUNDS = 6
# The misfit is judged over this distance (standard deviation): over fewer voxels noise alone would lower weights. One voxel counts as this
# many standard deviations of the noise at most, so that a strong misfit does not reach further than a weak one.
NEAR_MM, STRONGEST = 2.0, 6.0
# A misfit of this many standard deviations of the noise, root mean square over that distance, is still what the image's own errors leave.
TRUSTED = 1.5
# Most voxels that the shading is found from.
MOST_POINTS = 100_000


@dataclass(frozen=True)
class OtherContrast:
    """How an image explains a scan of another contrast: ``A(x) = exp(b) L c(x)``.

    Attributes:
        curve: c, from the image's intensities to the scan's.
        shading: the factor ``exp(b)`` on the scan's grid; `None` where it was not looked for.
        weights: 1 where they explain the scan, less where the misfit beside a voxel is more than noise and errors of the image leave:
            there the voxel counts as if its noise were that large; ``(depth, height, width)``.
    """

    curve: HermiteCurve
    shading: BiasField | None
    weights: Tensor

    def scanner(self, linear: LinearOperator) -> Scanner:
        """A, behind whose curve and shading lies L."""
        scanner = Scanner(linear, self.curve)
        return scanner if self.shading is None else Composition((self.shading, scanner))

    def with_curve(self, operator: Operator) -> Composition:
        """A as a file has it, behind an operator without contrast on the scan's own image grid."""
        outer = () if self.shading is None else (self.shading,)
        return Composition((*outer, operator, Contrast(self.curve)))


@torch.inference_mode()
def explain(term: DataTerm, image: Tensor, spacing: tuple[float, float, float], *, shading: bool = True) -> OtherContrast:
    """Find curve, shading and weights from the present estimate of the image, by least squares reweighted where no curve explains the scan.

    Args:
        term: of one whole scan; its scanner is the linear part L, its weights are the mask.
        image: ``(1, 1, depth, height, width)``, image intensities.
        spacing: of the scan's voxels along x, y, z in mm.
        shading: whether to look for it.
    """
    linear = term.scanner.linear
    assert linear is not None, "scans of several contrasts are linear behind them"
    y = term.measurement
    mask = torch.ones(y.shape[2:]) if term.weights is None else term.weights.expand(y.shape[2:])
    inside = mask.flatten() > 0
    positions = torch.tensor(POSITIONS)
    # Linear pieces are linear in their values: each knot's share of the image is measured once.
    shares = torch.stack([linear(hat).flatten()[inside] for hat in _hats(image, positions)], 1)
    target, weights = y.flatten()[inside], torch.ones(int(inside.sum()))
    basis = _polynomials(y.shape[2:], y)[inside] if shading else None
    every = slice(None, None, max(1, len(target) // MOST_POINTS))
    field, values = torch.zeros_like(target), torch.zeros(len(positions))
    coefficients = torch.zeros(0 if basis is None else basis.shape[1])
    for _ in range(ROUNDS):
        gain = field.exp()
        values = _solved(gain[:, None] * shares, target, weights, _bends(positions))
        shown = shares @ values
        if basis is not None:
            rest, slope = target - gain * shown, (gain * shown)[:, None] * basis
            coefficients = coefficients + _solved(slope[every], rest[every], weights[every], torch.eye(basis.shape[1]))
            field = basis @ coefficients
        misfit = torch.zeros(y.shape[2:])
        misfit.view(-1)[inside] = (target - field.exp() * shown) / term.noise_std
        trust = _trust(misfit.numpy(), mask.numpy() > 0, spacing)
        weights = torch.from_numpy(trust).flatten()[inside]
    curve = curve_through(positions.double(), values.double())
    return OtherContrast(curve, None if basis is None else _field(coefficients, y.shape[2:]), torch.from_numpy(trust))


def _hats(image: Tensor, positions: Tensor) -> Iterator[Tensor]:
    """For each knot an image that is 1 there, 0 at the others and straight between; the outer pieces go on straight."""
    piece = torch.bucketize(image, positions[1:-1])
    share = (image - positions[piece]) / (positions[piece + 1] - positions[piece])
    for k in range(len(positions)):
        yield torch.where(piece == k, 1 - share, torch.where(piece == k - 1, share, 0.0))


def _bends(positions: Tensor) -> Tensor:
    """The penalty against changes of slope, ``(knots, knots)``."""
    width = positions.diff()
    rows = torch.zeros(len(positions) - 2, len(positions))
    for k in range(len(rows)):
        rows[k, k], rows[k, k + 2] = 1 / width[k], 1 / width[k + 1]
        rows[k, k + 1] = -rows[k, k] - rows[k, k + 2]
    penalty: Tensor = rows.T @ rows / len(rows) * float(width.mean()) ** 2
    return penalty


def _solved(columns: Tensor, target: Tensor, weights: Tensor, penalty: Tensor) -> Tensor:
    """Weighted least squares with a penalty in shares of the columns' mean power."""
    weighted = (weights[:, None] * columns).double()
    normal = weighted.T @ weighted
    normal = normal + BENDS * float(normal.diagonal().mean()) * penalty.double() + 1e-9 * float(normal.trace()) * torch.eye(len(normal))
    solution: Tensor = torch.linalg.solve(normal, weighted.T @ (weights * target).double())
    return solution.float()


def _degrees(shape: torch.Size) -> list[tuple[int, ...]]:
    limits = [min(DEGREE if n >= FEW else 1, n - 1) for n in shape]
    return [d for d in np.ndindex(*(limit + 1 for limit in limits)) if 0 < sum(d) <= DEGREE]


def _polynomials(shape: torch.Size, like: Tensor) -> Tensor:
    """Products of Legendre polynomials along z, y, x, ``(voxels, products)``."""
    z, y, x = (legendre(n, DEGREE + 1, like) for n in shape)
    return torch.stack([(z[k][:, None, None] * y[j][:, None] * x[i]).flatten() for k, j, i in _degrees(shape)], 1)


def _field(coefficients: Tensor, shape: torch.Size) -> BiasField:
    grid = torch.zeros([DEGREE + 1] * 3)
    for degrees, value in zip(_degrees(shape), coefficients.tolist(), strict=True):
        grid[degrees] = value
    return BiasField(grid)


def _trust(misfit: NDArray[np.float32], inside: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Weight of each voxel from the misfit beside it in standard deviations of the noise; arrays ``(depth, height, width)``."""
    widths = [NEAR_MM / edge for edge in spacing[::-1]]
    square, count = (ndimage.gaussian_filter(a.astype(np.float32), widths) for a in (np.minimum(misfit**2, STRONGEST**2) * inside, inside))
    return np.asarray(1 / np.maximum(1, np.sqrt(square / np.maximum(count, 1e-6)) / TRUSTED), dtype=np.float32)
