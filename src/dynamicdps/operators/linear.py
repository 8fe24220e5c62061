"""Linear forward models with what linear solvers need of them: pseudo-inverse, regularised inverses, singular values."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.inner_products import inner
from dynamicdps.operators.precision import on_cpu
from dynamicdps.operators.sampling import along

NEGLIGIBLE = 1e-4
# Steps of a loop between two looks at what still runs, where a look waits for the device.
LOOK_EVERY = 5


class LinearModel(ABC):
    """A linear model ``y = H x + n`` on a batch.

    Attributes:
        noise_std: standard deviation of `n` for each image, ``(batch,)`` or ``(1,)``, image intensities.
    """

    noise_std: Tensor

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``H x``."""

    @abstractmethod
    def adjoint(self, w: Tensor) -> Tensor:
        """``H^T w``."""

    @abstractmethod
    def solve_normal(self, b: Tensor, c: Tensor) -> Tensor:
        """``(H^T H + c)^-1 b`` for images `b` and ``c > 0`` of shape ``(batch,)`` or ``(1,)``."""

    @abstractmethod
    def solve_dual(self, b: Tensor, c: Tensor) -> Tensor:
        """``(H H^T + c)^-1 b`` for measurements `b`."""

    @abstractmethod
    def pseudo_inverse(self, w: Tensor) -> Tensor:
        """``H^+ w``: of all images that explain `w` best, the one of least norm."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)


@dataclass(frozen=True, eq=False)
class SpectralModel(LinearModel):
    """A linear model that is diagonal in known bases: ``H = U S V^T``.

    Everything that linear solvers ask for is then a filter on the coefficients, exact and as cheap as two applications of `H`.

    Attributes:
        noise_std: see `LinearModel`.
        to_basis: ``V^T x``, image to coefficients (same shape).
        from_basis: ``V c``.
        data_to_basis: ``U^T w``, measurement to coefficients of image shape; 0 where there is no singular vector. U is complete:
            `data_from_basis` brings every measurement back.
        data_from_basis: ``U c``, coefficients of image shape to measurement.
        singular_values: of each coefficient, broadcastable to images; 0 in the null space.
    """

    noise_std: Tensor
    to_basis: Callable[[Tensor], Tensor]
    from_basis: Callable[[Tensor], Tensor]
    data_to_basis: Callable[[Tensor], Tensor]
    data_from_basis: Callable[[Tensor], Tensor]
    singular_values: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.data_from_basis(self.singular_values * self.to_basis(x))

    def adjoint(self, w: Tensor) -> Tensor:
        return self.from_basis(self.singular_values * self.data_to_basis(w))

    def solve_normal(self, b: Tensor, c: Tensor) -> Tensor:
        return self.from_basis(self.to_basis(b) / (self.singular_values.square() + _wide(c, self.singular_values)))

    def solve_dual(self, b: Tensor, c: Tensor) -> Tensor:
        return self.data_from_basis(self.data_to_basis(b) / (self.singular_values.square() + _wide(c, self.singular_values)))

    def pseudo_inverse(self, w: Tensor) -> Tensor:
        return self.from_basis(self.data_to_basis(w) * self.inverse_values)

    @property
    def inverse_values(self) -> Tensor:
        """``1 / S``, 0 where the singular value is below a ten-thousandth of the image's largest."""
        s = self.singular_values
        small = s <= NEGLIGIBLE * s.amax(tuple(range(1, s.ndim)), keepdim=True)
        return torch.where(small, torch.zeros_like(s), 1 / torch.where(small, torch.ones_like(s), s))


@dataclass(frozen=True, eq=False)
class DataSpectrum:
    """Eigenvectors of ``A A^T`` where nothing but blur, profile and resolution acts: what a data step is preconditioned with.

    Attributes:
        to_basis: ``U^T w``, measurement to coefficients of its shape.
        from_basis: ``U c``.
        values: eigenvalues, broadcastable to measurements.
        row_sums: ``A A^T 1``, broadcastable to measurements, greater than 0.
        may_be_flat: whether what comes before A may have no slope at some voxels of the measurement.
    """

    to_basis: Callable[[Tensor], Tensor]
    from_basis: Callable[[Tensor], Tensor]
    values: Tensor
    row_sums: Tensor
    may_be_flat: bool = field(default=False, kw_only=True)

    def preconditioner(self, row_sums: Tensor, r: Tensor, noise: float) -> Callable[[Tensor], Tensor]:
        """Nearly the inverse of ``r^2 J J^T + noise^2``, where J is A after a contrast or before a weight.

        A slope that changes slowly acts like its value at the measured voxel: with it as a diagonal D, ``J J^T`` is about
        ``D A A^T D``, and ``D (r^2 A A^T + n^2) D`` has a known inverse. Where D may be 0 the noise alone is left of a voxel, which that
        would take for nearly nothing: there D is at least what makes the typical eigenvalue of ``r^2 D A A^T D`` the noise's variance.

        Args:
            row_sums: ``J J^T 1``, measurement shape.
            r: one value an image, broadcastable.
            noise: standard deviation.
        """
        slope = (row_sums.abs() / self.row_sums).sqrt()
        axes = tuple(range(1, slope.ndim))
        # What a weight of 0 leaves out has the noise alone, and nothing to do with the rest.
        counts = slope > 1e-3 * slope.amax(axes, keepdim=True)
        if self.may_be_flat:
            slope = (slope.square() + noise**2 / (r.square() * self.values.mean(axes, keepdim=True))).sqrt()
        slope = torch.where(counts, slope, torch.ones_like(slope))
        # The noise's share in the typical voxel that counts, by the geometric mean.
        share = counts.to(slope).mean(axes, keepdim=True).clamp_min(1e-9)
        level = (noise / (slope.log().mean(axes, keepdim=True) / share).exp()) ** 2
        gain = 1 / (r.square() * self.values + level)
        inverse = torch.where(counts, 1 / slope, torch.zeros_like(slope))
        everything = not may_wait(slope) and bool(counts.all())
        rest = None if everything else torch.where(counts, torch.zeros_like(slope), torch.full_like(slope, 1 / noise**2))

        def apply(q: Tensor) -> Tensor:
            inside = inverse * self.from_basis(gain * self.to_basis(inverse * q))
            return inside if rest is None else inside + rest * q

        return apply


def diagonal_preconditioner(row_sums: Tensor, r: Tensor, noise: float) -> Callable[[Tensor], Tensor]:
    """The same where no spectrum is known: blur and resolution have weights of one sign, so that the row sums bound the diagonal."""
    return partial(torch.mul, 1 / (r.square() * row_sums.abs() + noise**2))


def separable_spectrum(matrices: Sequence[tuple[int, Tensor]], like: Tensor) -> DataSpectrum:
    """The spectrum of one matrix along each axis.

    Args:
        matrices: pairs of a negative axis and a matrix ``(measured, image)`` or ``(batch, measured, image)``.
        like: a measurement; gives dimensions, type and device.
    """
    vectors = []
    values, sums = (torch.ones([1] * like.ndim, dtype=like.dtype, device=like.device) for _ in range(2))
    for axis, matrix in matrices:
        gram = on_cpu(matrix) @ on_cpu(matrix).mT
        found, basis = torch.linalg.eigh(gram)
        view = [1] * like.ndim
        view[0], view[axis] = (len(found) if found.ndim == 2 else 1), found.shape[-1]
        values = values * found.clamp_min(0).to(like).view(view)
        sums = sums * gram.sum(-1).to(like).view(view)
        vectors.append((axis, basis.to(like)))

    def apply(w: Tensor, transpose: bool) -> Tensor:
        for axis, basis in vectors:
            w = along(w, basis.mT if transpose else basis, axis)
        return w

    return DataSpectrum(lambda w: apply(w, True), lambda c: apply(c, False), values, sums)


def spectral(model: LinearModel) -> SpectralModel:
    """The model, if its singular values are known.

    Raises:
        InputError: they are not.
    """
    if not isinstance(model, SpectralModel):
        raise InputError(
            "the operator's singular values are not known; expected an operator that has them for this solver; choose dynamicdps or diffpir"
        )
    return model


def separable_model(matrices: Sequence[tuple[int, Tensor]], shape: Sequence[int], noise_std: Tensor, like: Tensor) -> SpectralModel:
    """The model that applies one matrix along each axis, by the singular value decompositions of the matrices.

    Args:
        matrices: pairs of a negative axis and a matrix ``(measured, image)`` or ``(batch, measured, image)``, ``measured <= image``.
        shape: of the images.
        noise_std: ``(batch,)`` or ``(1,)``.
        like: gives type and device.
    """
    rows, columns = [], []
    values = torch.ones([1] * len(shape), dtype=like.dtype, device=like.device)
    for axis, matrix in matrices:
        u, s, vt = torch.linalg.svd(on_cpu(matrix), full_matrices=True)
        size = matrix.shape[-1]
        padded = torch.zeros(*s.shape[:-1], size, dtype=s.dtype, device=s.device)
        padded[..., : s.shape[-1]] = s
        view = [1] * len(shape)
        view[0], view[axis] = (padded.shape[0] if padded.ndim == 2 else 1), size
        values = values * padded.to(like).view(view)
        # U padded with zero columns: coefficients keep the shape of the image.
        filled = torch.zeros(*u.shape[:-1], size, dtype=u.dtype)
        filled[..., : u.shape[-1]] = u
        rows.append((axis, filled.to(like)))
        columns.append((axis, vt.to(like)))

    def apply(x: Tensor, pairs: Sequence[tuple[int, Tensor]], transpose: bool) -> Tensor:
        for axis, matrix in pairs:
            x = along(x, matrix.transpose(-1, -2) if transpose else matrix, axis)
        return x

    return SpectralModel(
        noise_std=noise_std,
        to_basis=lambda x: apply(x, columns, False),
        from_basis=lambda c: apply(c, columns, True),
        data_to_basis=lambda w: apply(w, rows, True),
        data_from_basis=lambda c: apply(c, rows, False),
        singular_values=values,
    )


def diagonal_model(values: Tensor, noise_std: Tensor) -> SpectralModel:
    """The model that multiplies each voxel by a factor of its own.

    Args:
        values: the factors, at least 0, broadcastable to images, with as many dimensions.
        noise_std: ``(batch,)`` or ``(1,)``.
    """

    def same(x: Tensor) -> Tensor:
        return x

    return SpectralModel(noise_std, same, same, same, same, values)


@dataclass(frozen=True, eq=False)
class IterativeModel(LinearModel):
    """Any linear model from its two products; inverses by conjugate gradients.

    Attributes:
        noise_std: see `LinearModel`.
        apply: ``H x``.
        transpose: ``H^T w``.
        iterations: most conjugate-gradient steps.
        tolerance: they end when each image's residual has fallen to this share.
    """

    noise_std: Tensor
    apply: Callable[[Tensor], Tensor]
    transpose: Callable[[Tensor], Tensor]
    iterations: int = 200
    tolerance: float = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.apply(x)

    def adjoint(self, w: Tensor) -> Tensor:
        return self.transpose(w)

    def solve_normal(self, b: Tensor, c: Tensor) -> Tensor:
        return conjugate_gradients(lambda x: self.transpose(self.apply(x)) + _wide(c, x) * x, b, self.iterations, self.tolerance).x

    def solve_dual(self, b: Tensor, c: Tensor) -> Tensor:
        return conjugate_gradients(lambda w: self.apply(self.transpose(w)) + _wide(c, w) * w, b, self.iterations, self.tolerance).x

    def pseudo_inverse(self, w: Tensor) -> Tensor:
        # In its normal form: that has a solution for every measurement, also where H H^T is singular.
        return conjugate_gradients(lambda x: self.transpose(self.apply(x)), self.transpose(w), self.iterations, self.tolerance).x


@dataclass(frozen=True, eq=False)
class Solution:
    """What conjugate gradients end with.

    Attributes:
        x: the solution, batch first.
        residual: what is left of the right side.
        products: of the matrix, for each image, ``(batch,)``; the one that a start takes is not counted.
    """

    x: Tensor
    residual: Tensor
    products: Tensor


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    b: Tensor,
    iterations: int,
    tolerance: float = 0.0,
    start: Tensor | None = None,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    """Solve ``product(x) = b`` for each image of a batch, `product` symmetric and positive (Hestenes and Stiefel 1952).

    Args:
        product: the matrix times a vector.
        b: right sides, batch first.
        iterations: most steps.
        tolerance: an image is done when its preconditioned residual has fallen to this share of that of `b`.
        start: first iterate; by default 0.
        precondition: nearly the inverse of the matrix, symmetric and positive; by default nothing.
    """
    precondition = precondition or _itself
    z = precondition(b)
    rho = inner(b, z)
    goal, least = tolerance**2 * rho, torch.finfo(rho.dtype).tiny
    x, residual = torch.zeros_like(b), b
    if start is not None:
        x, residual = start, b - product(start)
        z = precondition(residual)
        rho = inner(residual, z)
    p, products = z, torch.zeros_like(rho, dtype=torch.long)
    for step in range(iterations):
        running = rho > goal
        if not any_left(running, step):
            break
        image = product(p)
        products = products + running
        alpha = _wide(torch.where(running, rho / inner(p, image).clamp_min(least), torch.zeros_like(rho)), x)
        x = x + alpha * p
        residual = residual - alpha * image
        z = precondition(residual)
        new = torch.where(running, inner(residual, z), rho)
        p = z + _wide(torch.where(running, new / rho.clamp_min(least), torch.zeros_like(rho)), p) * p
        rho = new
    return Solution(x, residual, products)


def any_left(running: Tensor, step: int) -> bool:
    """Whether an image still runs, in a loop whose further steps change nothing for images that are done.

    The answer of a GPU waits for all that was queued there: it is asked for every `LOOK_EVERY` steps only.
    """
    return (may_wait(running) and step % LOOK_EVERY > 0) or bool(running.any())


def may_wait(x: Tensor) -> bool:
    """Whether reading a number of a tensor may wait for a device."""
    return x.device.type != "cpu"


def _itself(x: Tensor) -> Tensor:
    return x


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).view(-1, *[1] * (like.ndim - 1))
