"""The forward model of a low-field (or otherwise poor) scanner."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import inverse_power_law, power_law, power_law_slope
from dynamicdps.operators.linear import DataSpectrum, separable_model, separable_spectrum
from dynamicdps.operators.operator import Linearisation, LinearProblem, Operator, SearchCurve
from dynamicdps.operators.parameters import Parameter, check_images, check_range, per_image
from dynamicdps.operators.precision import on_cpu
from dynamicdps.operators.sampling import PROFILES, along, axis_matrix, constant_matrix, image_size, measured_size

NOISES = ("gaussian", "rician")


@dataclass(frozen=True, eq=False)
class LowField(Operator):
    """Contrast, then blur, slice profile and resolution: ``A(x) = W_z W_y W_x c(x)``.

    Each part is optional; the defaults leave the image as it is. Parameters that are tensors of shape ``(batch,)`` differ per
    image.

    Attributes:
        gamma: exponent of the contrast's power law on [0, 1]; 1 leaves it.
        in_plane_factor: length of a measured voxel in the plane, in image voxels, at least 1.
        blur: standard deviation of a Gaussian blur in the plane, in image voxels.
        slice_thickness: thickness of a measured slice in mm; `None` keeps the image's slices. Applies to volumes.
        slice_spacing: distance of slice centres in mm; by default the thickness (no gap).
        slice_profile: ``"gaussian"`` or ``"sinc"`` (thickness is the full width at half maximum) or ``"box"``.
        noise_std: standard deviation of the noise as a share of the intensity range.
        noise: ``"gaussian"`` or ``"rician"``.
        image_spacing: voxel length of the image grid in mm along z; thickness in voxels follows from it.

    Raises:
        InputError: a parameter is out of its range.
    """

    gamma: Parameter = 1.0
    in_plane_factor: float = 1.0
    blur: Parameter = 0.0
    slice_thickness: float | None = None
    slice_spacing: float | None = None
    slice_profile: str = "gaussian"
    noise_std: float = 0.001
    noise: str = "gaussian"
    image_spacing: float = 1.0

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, 0.05, 5.0)
        check_range("in_plane_factor", self.in_plane_factor, 1.0, 32.0)
        check_range("blur", self.blur, 0.0, 20.0)
        check_range("noise_std", self.noise_std, 1e-6, 1.0)
        check_range("image_spacing", self.image_spacing, 0.1, 20.0)
        if self.slice_thickness is not None:
            check_range("slice_thickness", self.slice_thickness, 0.1, 50.0)
        if self.slice_spacing is not None:
            check_range("slice_spacing", self.slice_spacing, 0.1, 50.0)
        if self.slice_profile not in PROFILES:
            raise InputError(f"slice_profile is {self.slice_profile!r}; expected one of {', '.join(PROFILES)}; change it")
        if self.noise not in NOISES:
            raise InputError(f"noise is {self.noise!r}; expected one of {', '.join(NOISES)}; change it")

    @property
    def is_linear(self) -> bool:
        return bool((torch.as_tensor(self.gamma) == 1).all())

    def typical_value(self, x: float) -> float:
        return float(power_law(torch.tensor(x), torch.as_tensor(self.gamma, dtype=torch.float32)).mean())

    def linear_problem(self, y: Tensor, shape: Sequence[int]) -> LinearProblem:
        """The blur, profile and resolution; a contrast is undone on the measurement first.

        That is exact only where the image is constant over a measured voxel: contrast and averaging do not commute.
        """
        noise = self.noise_like(y)
        warnings = []
        if not self.is_linear:
            gamma = per_image(self.gamma, y)
            y = inverse_power_law(y, gamma)
            slope = power_law_slope(y, gamma)
            noise = self.noise_std * slope.pow(-2).flatten(1).mean(1).sqrt()
            warnings = [
                "the contrast was undone on the measurement, because the solver needs a linear operator; that is not exact at edges"
            ]
        return LinearProblem(separable_model(self._matrices(shape, y), shape, noise, y), y, warnings)

    @property
    def couples_slices(self) -> bool:
        return self.slice_thickness is not None

    @property
    def _through_plane(self) -> tuple[float, float]:
        """Distance and width of a measured slice in image voxels."""
        if self.slice_thickness is None:
            return 1.0, 1.0
        spacing = self.slice_thickness if self.slice_spacing is None else self.slice_spacing
        return max(1.0, spacing / self.image_spacing), max(1.0, self.slice_thickness / self.image_spacing)

    def voxel_factors(self) -> tuple[float, float, float]:
        return self.in_plane_factor, self.in_plane_factor, self._through_plane[0]

    def measurement_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        x, y, z = (measured_size(n, f) for n, f in zip(shape, self.voxel_factors(), strict=True))
        return x, y, z

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        x, y, z = (image_size(n, f) for n, f in zip(shape, self.voxel_factors(), strict=True))
        return x, y, z

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(power_law(x, per_image(self.gamma, x)))

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        gamma = per_image(self.gamma, x)
        slope = _slope(x, gamma, spread)
        return Linearisation(
            lambda: self.forward(x), lambda p: self.resample(slope * p), lambda w: slope * self.resample_adjoint(w, x.shape)
        )

    def search_curve(self, x: Tensor, direction: Tensor, spread: Tensor | None = None) -> SearchCurve:
        """For ``gamma < 1`` a straight line in contrast ``c(x)``, where the data term is exactly quadratic.

        In image intensities the slope of the contrast at 0 would stop every step at the first background pixel.
        """
        gamma = per_image(self.gamma, x)
        bend = gamma < 1
        if not bool(bend.any()):
            return super().search_curve(x, direction)
        speed, origin = _slope(x, gamma, spread) * direction, power_law(x, gamma)

        def at(step: Tensor) -> tuple[Tensor, Tensor]:
            curved = inverse_power_law(origin + step * speed, gamma) if bool(step.any()) else x
            velocity = speed / power_law_slope(curved, gamma)
            if bool(bend.all()):
                return curved, velocity
            return torch.where(bend, curved, x + step * direction), torch.where(bend, velocity, direction)

        return at

    @property
    def straightens(self) -> bool:
        return bool((torch.as_tensor(self.gamma) <= 1).all())

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        """Of blur, profile and resolution."""
        if isinstance(self.blur, Tensor):
            return separable_spectrum(_mixed(self._matrices(shape, like), mixing), like)
        key = (self.in_plane_factor, float(self.blur), self.slice_thickness, self.slice_spacing, self.slice_profile, self.image_spacing)
        plain = _spectrum(key, tuple(shape), like.dtype, like.device)
        return plain if mixing is None else separable_spectrum(_mixed(self._matrices(shape, like), mixing), like)

    def resample(self, u: Tensor) -> Tensor:
        """The linear part: blur, slice profile and resolution, without the contrast."""
        for axis, matrix in self._matrices(u.shape, u):
            u = along(u, matrix, axis)
        return u

    def resample_adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        """Transpose of `resample` onto images of the given shape."""
        for axis, matrix in self._matrices(shape, w):
            w = along(w, matrix.transpose(-1, -2), axis)
        return w

    def _matrices(self, shape: Sequence[int], like: Tensor) -> list[tuple[int, Tensor]]:
        """One matrix for each axis that changes, with its (negative) axis."""
        check_images(shape)
        axes = []
        if self.in_plane_factor != 1.0 or isinstance(self.blur, Tensor) or self.blur > 0:
            axes = [(axis, self._plane_matrix(shape[axis], like)) for axis in (-1, -2)]
        if len(shape) == 5 and self.slice_thickness is not None:
            spacing, width = self._through_plane
            axes.append((-3, constant_matrix(shape[-3], spacing, 0.0, self.slice_profile, width).to(like)))
        return axes

    def _plane_matrix(self, size: int, like: Tensor) -> Tensor:
        if not isinstance(self.blur, Tensor):
            return constant_matrix(size, self.in_plane_factor, float(self.blur), "box", self.in_plane_factor).to(like)
        blur = self.blur.to(like)
        return axis_matrix(size, torch.full_like(blur, self.in_plane_factor), measured_size(size, self.in_plane_factor), blur)


def _slope(x: Tensor, gamma: Tensor, spread: Tensor | None) -> Tensor:
    """Slope of the contrast at `x`: the tangent's, or the secant's over `x` plus and minus the spread.

    At 0 the tangent is good for a hundredth of the range only: a Newton step with it sends background pixels far away.
    """
    if spread is None:
        return power_law_slope(x, gamma)
    return (power_law(x + spread, gamma) - power_law(x - spread, gamma)) / (2 * spread)


def _mixed(matrices: list[tuple[int, Tensor]], mixing: Tensor | None) -> list[tuple[int, Tensor]]:
    """The matrices of ``A L``, with L along z."""
    if mixing is None:
        return matrices
    through = dict(matrices).get(-3)
    whole = mixing[None] if through is None else on_cpu(through) @ on_cpu(mixing)
    return [pair for pair in matrices if pair[0] != -3] + [(-3, whole)]


@lru_cache(maxsize=16)
def _spectrum(key: tuple[Any, ...], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> DataSpectrum:
    """`separable_spectrum` of the operator with these parameters; all steps of a reconstruction ask for the same one."""
    factor, blur, thickness, spacing, profile, image_spacing = key
    operator = LowField(
        in_plane_factor=factor,
        blur=blur,
        slice_thickness=thickness,
        slice_spacing=spacing,
        slice_profile=profile,
        image_spacing=image_spacing,
    )
    # Cached for all callers: a tensor born in inference mode could not take part in a later gradient.
    with torch.inference_mode(False):
        like = torch.empty([1] * len(shape), dtype=dtype, device=device)
        return separable_spectrum(operator._matrices(shape, like), like)
