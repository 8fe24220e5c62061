"""Where the brain is, and its parts, by a network that has seen heads of every contrast."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet
from dynamicdps.errors import InputError
from dynamicdps.models.model_cache import held
from dynamicdps.models.model_file import read_model
from dynamicdps.models.names import known_models
from dynamicdps.segmentation.class_chances import ClassChances
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import native_grid, prior_grid, sample
from dynamicdps.volumes.morphology import Mask, dilate

BRAIN_MODEL = "brain-mask"
WORKING_MM = 2.0
# Share of the scale of intensities that the brain's brightest tissue reaches at least, and where it is put when it does not.
DIM, BRIGHT = 0.6, 0.9
# Voxels of nothing around the head, so that one that fills its field of view has an edge.
PADDING = 4
# Masks of a brain hold this much of the fluid around it, and so does this one; volumes are measured without it.
FLUID_MM = 2.0


@dataclass(frozen=True)
class View:
    """How the network looks at a head.

    Attributes:
        mirrored: left and right swapped before, and back after.
        shift_mm: of the voxels on which it works, along x, y, z.
        gamma: exponent of the intensities.
    """

    mirrored: bool = False
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gamma: float = 1.0


class BrainNetwork:
    """Finds the brain and its parts in a head of any contrast.

    Args:
        network: classes of a head's voxels of 2 mm, ``(batch, classes, x, y, z)``, from ``(batch, 1, x, y, z)``.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def chances(self, volume: Volume, views: tuple[View, ...] = (View(), View(mirrored=True)), scale: float | None = None) -> ClassChances:
        """The chance of each class on voxels of 2 mm along the world's axes: the mean over views.

        The default, the head and its mirror image, gives a mirrored head the mirrored chances.

        Args:
            volume: a head, in any position.
            views: of one shift.
            scale: intensity that is 1 for the network; by default the volume tells it.

        Raises:
            InputError: the scan is empty.
        """
        coarse = on_working_grid(volume, views[0].shift_mm)
        data = coarse.data.clip(0)
        if scale is not None:
            return ClassChances(self._mean(data, scale, views), coarse.affine, scale=scale)
        bright = data[data > 0.02 * np.percentile(data, 99.5)]
        if not bright.size:
            raise InputError("the scan is empty; expected a magnitude image of a head; check the file")
        top = float(np.percentile(bright, 99))
        chances = ClassChances(self._mean(data, top, views), coarse.affine, scale=top)
        if not chances.inside.any():
            return chances
        brightest = float(np.percentile(data[chances.inside], 95))
        if 0 < brightest < DIM * top:
            # A scalp beside the coil, or fat, is so bright that the brain is darker than any that the network has seen.
            return ClassChances(self._mean(data, brightest / BRIGHT, views), coarse.affine, scale=brightest / BRIGHT)
        return chances

    def _mean(self, data: NDArray[np.float32], scale: float, views: tuple[View, ...]) -> NDArray[np.float32]:
        scaled = np.clip(data / np.float32(scale), 0, 2)
        seen = [self._seen(scaled, view) for view in views]
        return sum(seen[1:], start=seen[0]) / np.float32(len(seen))

    @torch.inference_mode()
    def _seen(self, scaled: NDArray[np.float32], view: View) -> NDArray[np.float32]:
        x = np.pad(scaled**view.gamma, PADDING).astype(np.float32)
        x = x[::-1] if view.mirrored else x
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        found: NDArray[np.float32] = self.network(torch.from_numpy(x.copy()).to(device)[None, None]).softmax(1)[0].cpu().numpy()
        found = found[:, ::-1] if view.mirrored else found
        return found[(slice(None), *(slice(PADDING, n - PADDING) for n in x.shape))]

    def find(self, volume: Volume) -> Mask:
        """The brain on the grid of a scan: its largest piece with closed sulci, and the fluid that touches it.

        Raises:
            InputError: nothing looks like a brain.
        """
        chances = self.chances(volume)
        if not chances.inside.any():
            raise InputError("no brain is found in the scan; expected a head or a brain; check the image, or give a mask")
        return dilate(chances.brain_on(native_grid(volume)), FLUID_MM, volume.spacing)


def on_working_grid(volume: Volume, shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Volume:
    """The volume on voxels of 2 mm along the world's axes, without what they cannot hold.

    Args:
        volume: in any position.
        shift_mm: of the voxels along x, y, z; without it they lie evenly about the volume's middle.
    """
    from scipy import ndimage

    grid = prior_grid(volume, WORKING_MM)
    affine = grid.affine.copy()
    affine[:3, 3] += shift_mm
    widths = [np.sqrt(max(0.0, (WORKING_MM / edge) ** 2 - 1)) / 2.355 for edge in volume.spacing]
    smooth = volume.with_data(ndimage.gaussian_filter(volume.data, widths)) if max(widths) > 0 else volume
    return sample(smooth, replace(grid, affine=affine))


@held
def load_brain_network(name: str | Path = BRAIN_MODEL, device: str = "cpu") -> BrainNetwork:
    """The network that finds brains, by its bundled name or file.

    Raises:
        InputError: as `dynamicdps.models.model_file.read_model`.
    """
    model = read_model(name, "segmenter")
    return BrainNetwork(model.build(lambda values: VolumeUNet(VolumeConfig.from_json(values))).to(device))


def brain_finder(name: str = BRAIN_MODEL) -> Callable[[Volume], Mask] | None:
    """What finds brains, by the model of that name, bundled or added; `None` where there is none."""
    if name not in known_models(("segmenter",)):
        return None
    return lambda volume: load_brain_network(name).find(volume)
