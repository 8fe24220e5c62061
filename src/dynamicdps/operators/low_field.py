"""The forward model of a low-field (or otherwise poor) scanner."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import inverse_power_law, power_law, power_law_slope
from dynamicdps.operators.linear import separable_model
from dynamicdps.operators.operator import Linearisation, LinearProblem, Operator
from dynamicdps.operators.sampling import along, axis_matrix, image_size, measured_size

PROFILES = ("gaussian", "box")
NOISES = ("gaussian", "rician")
Parameter = float | Tensor


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
        slice_profile: ``"gaussian"`` (thickness is its full width at half maximum) or ``"box"``.
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
        _check("gamma", self.gamma, 0.05, 5.0)
        _check("in_plane_factor", self.in_plane_factor, 1.0, 32.0)
        _check("blur", self.blur, 0.0, 20.0)
        _check("noise_std", self.noise_std, 1e-6, 1.0)
        _check("image_spacing", self.image_spacing, 0.1, 20.0)
        if self.slice_thickness is not None:
            _check("slice_thickness", self.slice_thickness, 0.1, 50.0)
        if self.slice_spacing is not None:
            _check("slice_spacing", self.slice_spacing, 0.1, 50.0)
        if self.slice_profile not in PROFILES:
            raise InputError(f"slice_profile is {self.slice_profile!r}; expected one of {', '.join(PROFILES)}; change it")
        if self.noise not in NOISES:
            raise InputError(f"noise is {self.noise!r}; expected one of {', '.join(NOISES)}; change it")

    @property
    def is_linear(self) -> bool:
        return bool((torch.as_tensor(self.gamma) == 1).all())

    def linear_problem(self, y: Tensor, shape: Sequence[int]) -> LinearProblem:
        """The blur, profile and resolution; a contrast is undone on the measurement first.

        That is exact only where the image is constant over a measured voxel: contrast and averaging do not commute.
        """
        noise = torch.full((1,), self.noise_std, dtype=y.dtype, device=y.device)
        warnings = []
        if not self.is_linear:
            gamma = self._per_image(self.gamma, y)
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

    def select(self, index: Tensor) -> "LowField":
        gamma = self.gamma[index] if isinstance(self.gamma, Tensor) else self.gamma
        blur = self.blur[index] if isinstance(self.blur, Tensor) else self.blur
        return replace(self, gamma=gamma, blur=blur)

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(power_law(x, self._per_image(self.gamma, x)))

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        gamma = self._per_image(self.gamma, x)
        slope = _slope(x, gamma, spread)
        return Linearisation(
            self.resample(power_law(x, gamma)), lambda p: self.resample(slope * p), lambda w: slope * self.resample_adjoint(w, x.shape)
        )

    def move(self, x: Tensor, direction: Tensor, step: Tensor, spread: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """For ``gamma < 1`` the curve is a straight line in contrast ``c(x)``, where the data term is exactly quadratic.

        In image intensities the slope of the contrast at 0 would stop every step at the first background pixel.
        """
        gamma = self._per_image(self.gamma, x)
        if not bool((gamma < 1).any()):
            return super().move(x, direction, step)
        speed = _slope(x, gamma, spread) * direction
        curved = inverse_power_law(power_law(x, gamma) + step * speed, gamma)
        bend = gamma < 1
        return torch.where(bend, curved, x + step * direction), torch.where(bend, speed / power_law_slope(curved, gamma), direction)

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
        if len(shape) not in (4, 5):
            raise ValueError(f"the image has shape {tuple(shape)}; expected (batch, 1, height, width) or (batch, 1, depth, height, width)")
        axes = []
        if self.in_plane_factor != 1.0 or isinstance(self.blur, Tensor) or self.blur > 0:
            axes = [(axis, self._plane_matrix(shape[axis], like)) for axis in (-1, -2)]
        if len(shape) == 5 and self.slice_thickness is not None:
            spacing, width = self._through_plane
            axes.append((-3, _constant_matrix(shape[-3], spacing, 0.0, self.slice_profile, width).to(like)))
        return axes

    def _plane_matrix(self, size: int, like: Tensor) -> Tensor:
        if not isinstance(self.blur, Tensor):
            return _constant_matrix(size, self.in_plane_factor, float(self.blur), "box", self.in_plane_factor).to(like)
        blur = self.blur.to(like)
        return axis_matrix(size, torch.full_like(blur, self.in_plane_factor), measured_size(size, self.in_plane_factor), blur)

    def _per_image(self, value: Parameter, x: Tensor) -> Tensor:
        if not isinstance(value, Tensor):
            return torch.as_tensor(value, dtype=x.dtype, device=x.device)
        return value.to(x).view(-1, *[1] * (x.ndim - 1))

    def __str__(self) -> str:
        values = self.to_json().items()
        parts = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values if name != "type"]
        return f"LowField({', '.join(parts)})"

    def to_json(self) -> dict[str, Any]:
        """Type and parameters as plain values.

        Raises:
            ValueError: a parameter differs per image.
        """
        values: dict[str, Any] = {"type": "LowField"}
        for name in PARAMETERS:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                raise ValueError(f"{name} differs per image; expected one value to write")
            values[name] = value
        return values


PARAMETERS = (
    "gamma",
    "in_plane_factor",
    "blur",
    "slice_thickness",
    "slice_spacing",
    "slice_profile",
    "noise_std",
    "noise",
    "image_spacing",
)


@lru_cache(maxsize=64)
def _constant_matrix(size: int, factor: float, blur: float, profile: str, width: float) -> Tensor:
    def one(value: float) -> Tensor:
        return torch.tensor([value])

    # Cached for all callers: a tensor born in inference mode could not take part in a later gradient.
    with torch.inference_mode(False):
        return axis_matrix(size, one(factor), measured_size(size, factor), one(blur), profile, one(width))


def _slope(x: Tensor, gamma: Tensor, spread: Tensor | None) -> Tensor:
    """Slope of the contrast at `x`: the tangent's, or the secant's over `x` plus and minus the spread.

    At 0 the tangent is good for a hundredth of the range only: a Newton step with it sends background pixels far away.
    """
    if spread is None:
        return power_law_slope(x, gamma)
    return (power_law(x + spread, gamma) - power_law(x - spread, gamma)) / (2 * spread)


def _check(name: str, value: Parameter, low: float, high: float) -> None:
    values = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
    if not bool(((values >= low) & (values <= high)).all()):
        shown = value if isinstance(value, float | int) else values.tolist()
        raise InputError(f"{name} is {shown}; expected a number from {low:g} to {high:g}; change it")
