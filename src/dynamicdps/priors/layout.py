"""Where a brain's large parts lie: what an unconditional sample starts from.

The network of a prior sees a neighbourhood. That decides everything at the noise levels of enhancement, but not how many ventricles a head
has: what it draws from noise alone is right in each neighbourhood and put together wrongly. At high noise levels only what is large can be
told, and of what is large a normal distribution knows enough: mean and principal components of training scans, averaged over cubes of
voxels. A draw of it, with noise, is where the network takes over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.models.model_file import ModelFile, read_model, write_model
from dynamicdps.models.names import known_models
from dynamicdps.priors.sampling import noise_like

# Edge of the cubes, in voxels, and how many components are kept.
EDGE, COMPONENTS = 8, 40
# Where the network takes over: noise that hides what cubes of this size do not show.
START = 0.8
# Share of a stack at either end that single slices are not taken from.
ENDS = 0.15


@dataclass(frozen=True)
class Layout:
    """A normal distribution of coarse images.

    Attributes:
        mean: averages over cubes, ``(depth, height, width)``, image intensities.
        components: principal directions times their standard deviations, ``(number, depth, height, width)``.
        edge: of the cubes, in voxels.
        suffix: contrast of the images, as a BIDS suffix.
    """

    mean: Tensor
    components: Tensor
    edge: int = EDGE
    suffix: str = "T1w"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the images that are drawn, ``(depth, height, width)``."""
        depth, height, width = (self.edge * n for n in self.mean.shape)
        return depth, height, width

    def draw(self, generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
        """Smooth images, ``(count, 1, *shape)``: neighbouring slices from a random height; around the frame lies 0.

        Args:
            generators: one an image.
            shape: ``(depth, height, width)``, with at most as many slices as the layout has.

        Raises:
            InputError: there are more slices.
        """
        depth = self.shape[0]
        if shape[0] > depth:
            raise InputError(f"the layout has {depth} slices, not {shape[0]}; expected at most as many; ask for fewer, or for no layout")
        weights = noise_like(self.mean.new_empty(len(generators), len(self.components)), generators)
        coarse = (self.mean + torch.tensordot(weights, self.components, 1)).clamp_min(0)
        fine = F.interpolate(coarse[:, None], size=self.shape, mode="trilinear")
        drawn = []
        for image, generator in zip(fine, generators, strict=True):
            ends = min(int(ENDS * depth), (depth - shape[0]) // 2)
            first = ends + int(torch.randint(depth - shape[0] - 2 * ends + 1, (1,), generator=generator))
            drawn.append(image[:, first : first + shape[0]])
        margins = [m for want, have in ((shape[2], self.shape[2]), (shape[1], self.shape[1])) for m in _margins(want, have)]
        return F.pad(torch.stack(drawn), margins)

    def write(self, path: Path, source: str) -> ModelFile:
        """Write the layout as a model file with its card; `source` names the scans."""
        card = {"kind": "layout", "contrast": self.suffix, "suffix": self.suffix, "edge": self.edge, "data": source}
        return write_model(path, {"mean": self.mean, "components": self.components}, card)


def _margins(want: int, have: int) -> tuple[int, int]:
    """Voxels to add, or take away where negative, before and after, so that the middle stays."""
    before = (want - have) // 2
    return before, want - have - before


def load_layout(name: str | Path) -> Layout:
    """A layout by its bundled name or file.

    Raises:
        InputError: as `read_model`; or the file is not a layout's.
    """
    model = read_model(name, "layout")
    try:
        mean, components = model.weights["mean"].float(), model.weights["components"].float()
        edge, suffix = int(model.card["edge"]), str(model.card["suffix"])
        if mean.ndim != 3 or components.shape[1:] != mean.shape or not 1 <= edge <= 64 or max(mean.shape) * edge > 1024:
            raise ValueError(f"mean {tuple(mean.shape)}, components {tuple(components.shape)}, edge {edge}")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{model.path} is not a layout; expected what the training of a prior wrote; copy it again") from error
    return Layout(mean, components, edge, suffix)


def layout_beside(prior: str | Path) -> Layout | None:
    """The layout that belongs to a prior: named after it, with ``-layout`` added; `None` where there is none."""
    path = known_models(("prior",)).get(str(prior), Path(prior))
    beside = path.with_name(path.name.removesuffix(".safetensors") + "-layout.safetensors")
    return load_layout(beside) if beside.is_file() else None
