"""An error's parts: what the measurement could have shown, and what it could not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators import LinearModel, Operator, ScanOperator, SpectralModel, conjugate_gradients, to_image_grid
from dynamicdps.operators.linear import NEGLIGIBLE
from dynamicdps.volumes import IntensityScale, Volume, from_slices, to_batch, to_slices

SIGNAL = 0.1
ITERATIONS, TOLERANCE = 200, 1e-4
# Of several scans of a whole head: a map to look at, in seconds.
JOINT_ITERATIONS, JOINT_TOLERANCE = 15, 1e-2


@dataclass(frozen=True)
class NullSpaceSplit:
    """An error, or any image, as the sum of two parts.

    Attributes:
        measurement: ``A^+ A e``: changes what is measured; image shape.
        null: ``e - A^+ A e``: leaves no trace in the measurement above its noise; image shape.
    """

    measurement: Tensor
    null: Tensor

    @property
    def null_share(self) -> Tensor:
        """Share of the energy that lies in the null space, ``(batch,)``, from 0 to 1; NaN where the error is 0."""
        measured, null = (part.flatten(1).square().sum(1) for part in (self.measurement, self.null))
        return null / (measured + null)

    @property
    def null_rms(self) -> Tensor:
        """Root mean square of the null-space part, ``(batch,)``, image intensities."""
        return self.null.flatten(1).square().mean(1).sqrt()


def null_space_split(
    operator: Operator, image: Tensor, truth: Tensor | None = None, *, noise_std: float, signal: float = SIGNAL
) -> NullSpaceSplit:
    """Split an error into its measurement-space and null-space part (Bhadra et al., IEEE TMI 2021, section III).

    The contrast is left out: it changes every intensity where it is and hides nothing. With the singular value decomposition
    ``A = U S V^T``, structure of amplitude `signal` along a right singular vector changes the measurement by ``s * signal``, against noise
    of `noise_std` along the left one: where ``s < noise_std / signal`` it drowns, and the direction counts as null space. As `signal` grows
    this becomes the exact pseudo-inverse (down to a ten-thousandth of the largest singular value, below which float arithmetic decides).

    Where the operator knows its singular values, both parts are orthogonal projections. Elsewhere ``A^+ A`` is Tikhonov's filter
    ``t = s^2 / (s^2 + c^2)`` with the same cut-off c, by conjugate gradients, sharpened by ``3 t^2 - 2 t^3`` (McWeeny 1960): half at
    the cut-off, within 0.03 of a projection for gains beyond three times the cut-off or below a third of it.

    Args:
        operator: the forward model.
        image: reconstructions ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``; without `truth`, errors.
        truth: the same shape.
        noise_std: standard deviation of the measurement's noise, image intensities.
        signal: amplitude of structure that matters, image intensities, greater than 0; `math.inf` for the exact pseudo-inverse.

    Returns:
        Both parts, float64.

    Raises:
        InputError: the operator has no linear part, or `signal` is not greater than 0.
        ValueError: the shapes differ.
    """
    if not signal > 0:
        raise InputError(f"the signal is {signal}; expected an amplitude greater than 0")
    if truth is not None and truth.shape != image.shape:
        raise ValueError(f"the images have shapes {tuple(image.shape)} and {tuple(truth.shape)}; expected the same")
    error = image.double() if truth is None else image.double() - truth.double()
    linear = operator.linear
    if linear is None:
        raise InputError(
            f"{type(operator).__name__} is not linear behind a contrast; expected it to be; give the linear operator that is nearest to it"
        )
    model = linear.linear_problem(linear(torch.zeros_like(error)), error.shape, noise_std).model
    measured = _projection(model, noise_std / signal)(error)
    return NullSpaceSplit(measured, error - measured)


def unsupported_map(image: Volume, operator: ScanOperator, scale: IntensityScale, *, signal: float = SIGNAL) -> Volume | None:
    """What of a reconstruction the measurement could not have shown, so that models alone put it there.

    It is the null-space part of what the image has beyond its own measurement, interpolated: ``(I - A^+ A) (x - S A x)`` with S the
    interpolation on the image grid. The rest, ``x`` less this map, is the interpolation made to explain the same measurement. The
    null-space part of x itself would count a constant as invented wherever slices have gaps, and show stripes. Shading and weights of the
    measurement hide nothing and are left out, as the contrast is. It is no error by itself: sharp edges are in it too.

    Args:
        image: reconstruction on the image grid.
        operator: of the scan.
        scale: to image intensities.
        signal: as for `null_space_split`.

    Returns:
        In the units of `image`; `None` where the operator's singular values are not known: iterations over a volume would take minutes.
    """
    linear = None if operator.operator.linear is None else operator.operator.linear.mixing_part
    if linear is None:
        return None
    x = (to_batch if linear.couples_slices else to_slices)(scale.apply(image).data)
    if not isinstance(linear.linear_problem(linear(x), x.shape, operator.noise.std).model, SpectralModel):
        return None
    null = null_space_split(linear, x, to_image_grid(linear(x), linear, x.shape), noise_std=operator.noise.std, signal=signal).null
    return image.with_data(from_slices(null).astype(np.float32) * scale.scale)


@torch.inference_mode()
def unsupported_by_all(image: Volume, operators: Sequence[ScanOperator], scale: IntensityScale, *, signal: float = SIGNAL) -> Volume:
    """What of a reconstruction no one of several scans could have shown: ``(I - F) (x - S x)`` with Tikhonov's filter of all together.

    ``F = (N + 1)^-1 N`` with ``N = sum of J^T J / c^2`` over the scans, c each one's noise over the signal, by conjugate gradients. S is
    what the scans themselves show, spread back over the image: ``sum of J^T J x / sum of J^T J 1``. F counts each voxel of the image alone,
    and would call half of a constant invented where thick voxels are noisy; S shows every constant.

    Args:
        image: reconstruction on the image grid.
        operators: of the scans, on that grid.
        scale: to image intensities.
        signal: as for `null_space_split`.

    Returns:
        In the units of `image`.

    Raises:
        InputError: an operator is not linear behind a contrast.
    """
    parts = []
    for each in operators:
        if each.operator.linear is None:
            raise InputError(f"{each.operator} is not linear behind a contrast; expected it to be for the map of several scans")
        parts.append((each.operator.linear, signal / each.noise.std))
    x = to_batch(scale.apply(image).data)

    def normal(v: Tensor) -> Tensor:
        return torch.stack([gain**2 * linear.adjoint(linear(v), v.shape) for linear, gain in parts]).sum(0)

    seen = normal(torch.ones_like(x))
    beyond = x - torch.where(seen > 1e-3 * seen.max(), normal(x) / seen.clamp_min(1e-12), torch.zeros_like(x))
    shown = conjugate_gradients(lambda v: normal(v) + v, normal(beyond), JOINT_ITERATIONS, JOINT_TOLERANCE).x
    return image.with_data(from_slices(beyond - shown).astype(np.float32) * scale.scale)


def _projection(model: LinearModel, cutoff: float) -> Callable[[Tensor], Tensor]:
    """``A^+ A`` with gains below the cut-off counted as 0."""
    if isinstance(model, SpectralModel):
        s = model.singular_values
        kept = (s > NEGLIGIBLE * s.amax(tuple(range(1, s.ndim)), keepdim=True)) & (s >= cutoff)
        return lambda e: model.from_basis(kept * model.to_basis(e))
    if cutoff == 0:
        return lambda e: model.pseudo_inverse(model.forward(e))

    def normal(x: Tensor) -> Tensor:
        return model.adjoint(model.forward(x))

    def filtered(e: Tensor) -> Tensor:
        return conjugate_gradients(lambda x: normal(x) + cutoff**2 * x, normal(e), ITERATIONS, TOLERANCE).x

    def sharpened(e: Tensor) -> Tensor:
        twice = filtered(filtered(e))
        return 3 * twice - 2 * filtered(twice)

    return sharpened
