"""Thick slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.operator import CentredGrid
from dynamicdps.operators.parameters import Parameter, check_images, check_range
from dynamicdps.operators.sampling import PROFILES, axis_matrix, measured_size
from dynamicdps.operators.separable import SeparableOperator


@dataclass(frozen=True, eq=False)
class SliceProfile(SeparableOperator, CentredGrid):
    """Each measured slice is a mean of the image's slices, weighted by the profile. A single slice stays as it is.

    Attributes:
        thickness: of a measured slice in mm, 0.1 to 50, one or ``(batch,)``: the profile's full width at half maximum (of ``"box"``, its
            width). Thinner than an image slice counts as one.
        spacing: distance of slice centres in mm; by default the thickness (no gap).
        profile: ``"gaussian"``, ``"box"`` or ``"sinc"`` (see `dynamicdps.operators.sampling.axis_matrix`).
        image_spacing: voxel length of the image grid in mm along z.

    Raises:
        InputError: a parameter is out of its range, or the thickness differs per image and no spacing is given.
    """

    thickness: Parameter
    spacing: float | None = None
    profile: str = "gaussian"
    image_spacing: float = 1.0

    def __post_init__(self) -> None:
        check_range("thickness", self.thickness, 0.1, 50.0)
        if self.spacing is not None:
            check_range("spacing", self.spacing, 0.1, 50.0)
        elif isinstance(self.thickness, Tensor):
            raise InputError("the thickness differs per image and has no spacing; expected one distance of slices for all; give spacing")
        check_range("image_spacing", self.image_spacing, 0.1, 20.0)
        if self.profile not in PROFILES:
            raise InputError(f"the profile is {self.profile!r}; expected one of {', '.join(PROFILES)}")

    @property
    def couples_slices(self) -> bool:
        return True

    @property
    def _factors(self) -> tuple[float, float, float]:
        return 1.0, 1.0, self._factor

    @property
    def _factor(self) -> float:
        """Distance of slice centres in image voxels."""
        return max(1.0, float(self.thickness if self.spacing is None else self.spacing) / self.image_spacing)

    def _matrices(self, shape: Sequence[int], like: Tensor) -> list[tuple[int, Tensor]]:
        check_images(shape)
        if len(shape) == 4:
            return []
        width = (torch.as_tensor(self.thickness).to(like).reshape(-1) / self.image_spacing).clamp_min(1.0)
        factor = torch.full_like(width, self._factor)
        return [(-3, axis_matrix(shape[-3], factor, measured_size(shape[-3], self._factor), torch.zeros_like(width), self.profile, width))]
