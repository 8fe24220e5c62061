"""The forward model of a low-field (or otherwise poor) scanner."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import Curve, PowerLaw
from dynamicdps.operators.linear import DataSpectrum, separable_spectrum
from dynamicdps.operators.operator import CentredGrid, LinearOperator, Operator, Scanner
from dynamicdps.operators.parameters import Parameter, check_images, check_range
from dynamicdps.operators.precision import on_cpu
from dynamicdps.operators.sampling import PROFILES, axis_matrix, constant_matrix, measured_size
from dynamicdps.operators.separable import SeparableOperator


@dataclass(frozen=True, eq=False)
class LowField(Scanner):
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
    image_spacing: float = 1.0

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, 0.05, 5.0)
        check_range("in_plane_factor", self.in_plane_factor, 1.0, 32.0)
        check_range("blur", self.blur, 0.0, 20.0)
        check_range("image_spacing", self.image_spacing, 0.1, 20.0)
        if self.slice_thickness is not None:
            check_range("slice_thickness", self.slice_thickness, 0.1, 50.0)
        if self.slice_spacing is not None:
            check_range("slice_spacing", self.slice_spacing, 0.1, 50.0)
        if self.slice_profile not in PROFILES:
            raise InputError(f"slice_profile is {self.slice_profile!r}; expected one of {', '.join(PROFILES)}")

    @property
    def parts(self) -> Sequence[Operator]:
        return ()

    @cached_property
    def linear(self) -> LinearOperator:
        """Blur, slice profile and resolution, without the contrast."""
        return _Voxels(self)

    @cached_property
    def contrast(self) -> Curve:
        return PowerLaw(self.gamma)


@dataclass(frozen=True, eq=False)
class _Voxels(SeparableOperator, CentredGrid):
    """The linear part of `LowField`, whose parameters it has: ``W_z W_y W_x``, one matrix along each axis that changes."""

    scanner: LowField

    @property
    def parts(self) -> Sequence[Operator]:
        return (self.scanner,)

    @property
    def couples_slices(self) -> bool:
        return self.scanner.slice_thickness is not None

    def select(self, index: Tensor) -> "_Voxels":
        return _Voxels(self.scanner.select(index))

    @property
    def _through_plane(self) -> tuple[float, float]:
        """Distance and width of a measured slice in image voxels."""
        scanner = self.scanner
        if scanner.slice_thickness is None:
            return 1.0, 1.0
        spacing = scanner.slice_thickness if scanner.slice_spacing is None else scanner.slice_spacing
        return max(1.0, spacing / scanner.image_spacing), max(1.0, scanner.slice_thickness / scanner.image_spacing)

    @property
    def _factors(self) -> tuple[float, float, float]:
        return self.scanner.in_plane_factor, self.scanner.in_plane_factor, self._through_plane[0]

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        if isinstance(self.scanner.blur, Tensor):
            return separable_spectrum(_mixed(self._matrices(shape, like), mixing), like)
        known = {name: getattr(self.scanner, name) for name in _OF_VOXELS}
        values = None if mixing is None else on_cpu(mixing).numpy().tobytes()
        return _spectrum(tuple(known.items()), tuple(shape), like.dtype, like.device, values)

    def to_json(self) -> dict[str, Any]:
        return replace(self.scanner, gamma=1.0).to_json()

    def __str__(self) -> str:
        return str(replace(self.scanner, gamma=1.0))

    def _matrices(self, shape: Sequence[int], like: Tensor) -> list[tuple[int, Tensor]]:
        """One matrix for each axis that changes, with its (negative) axis."""
        check_images(shape)
        scanner, axes = self.scanner, []
        if scanner.in_plane_factor != 1.0 or isinstance(scanner.blur, Tensor) or scanner.blur > 0:
            axes = [(axis, self._plane_matrix(shape[axis], like)) for axis in (-1, -2)]
        if len(shape) == 5 and scanner.slice_thickness is not None:
            spacing, width = self._through_plane
            axes.append((-3, constant_matrix(shape[-3], spacing, 0.0, scanner.slice_profile, width).to(like)))
        return axes

    def _plane_matrix(self, size: int, like: Tensor) -> Tensor:
        factor, blur = self.scanner.in_plane_factor, self.scanner.blur
        if not isinstance(blur, Tensor):
            return constant_matrix(size, factor, float(blur), "box", factor).to(like)
        blur = blur.to(like)
        return axis_matrix(size, torch.full_like(blur, factor), measured_size(size, factor), blur)


def _mixed(matrices: list[tuple[int, Tensor]], mixing: Tensor | None) -> list[tuple[int, Tensor]]:
    """The matrices of ``A L``, with L along z."""
    if mixing is None:
        return matrices
    through = dict(matrices).get(-3)
    whole = mixing[None] if through is None else on_cpu(through) @ on_cpu(mixing)
    return [pair for pair in matrices if pair[0] != -3] + [(-3, whole)]


_OF_VOXELS = ("in_plane_factor", "blur", "slice_thickness", "slice_spacing", "slice_profile", "image_spacing")


@lru_cache(maxsize=16)
def _spectrum(
    known: tuple[tuple[str, Any], ...], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, mixing: bytes | None
) -> DataSpectrum:
    """`separable_spectrum` of the operator with these parameters; all steps of a reconstruction ask for the same one.

    The mixing matrix is known by its values, float64 in rows.
    """
    # Cached for all callers: a tensor born in inference mode could not take part in a later gradient.
    with torch.inference_mode(False):
        like = torch.empty([1] * len(shape), dtype=dtype, device=device)
        matrix = None if mixing is None else torch.frombuffer(bytearray(mixing), dtype=torch.float64).view(shape[-3], shape[-3])
        return separable_spectrum(_mixed(_Voxels(LowField(**dict(known)))._matrices(shape, like), matrix), like)
