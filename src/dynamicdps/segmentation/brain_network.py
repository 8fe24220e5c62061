"""Where the brain is, by a network that has seen heads of every contrast."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet
from dynamicdps.diffusion import read_model
from dynamicdps.diffusion.held_models import held
from dynamicdps.errors import InputError
from dynamicdps.models.names import known_models
from dynamicdps.segmentation.classes import BRAIN
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import native_grid, prior_grid, sample
from dynamicdps.volumes.morphology import Mask, close, largest

WORKING_MM = 2.0
# Sulci are closed over this width; fluid between gyri counts as brain, that around them does not.
CLOSING_MM = 4.0
# Voxels of nothing around the head, so that one that fills its field of view has an edge.
PADDING = 4


class BrainNetwork:
    """Finds the brain in a head of any contrast.

    Args:
        network: classes of a head's voxels of 2 mm, ``(batch, classes, x, y, z)``, from ``(batch, 1, x, y, z)``.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    @torch.inference_mode()
    def chances(self, volume: Volume) -> tuple[Volume, NDArray[np.float32]]:
        """The head on voxels of 2 mm along the world's axes, and the chance of each class there, ``(classes, x, y, z)``."""
        grid = prior_grid(volume, WORKING_MM)
        coarse = sample(_smoothed(volume), grid)
        data = coarse.data.clip(0)
        bright = data[data > 0.02 * np.percentile(data, 99.5)]
        if not bright.size:
            raise InputError("the scan is empty; expected a magnitude image of a head; check the file")
        x = np.pad(np.clip(data / np.percentile(bright, 99), 0, 2), PADDING).astype(np.float32)
        found = self.network(torch.from_numpy(x)[None, None]).softmax(1)[0].numpy()
        inner = (slice(None), *(slice(PADDING, n - PADDING) for n in x.shape))
        return coarse, found[inner]

    def find(self, volume: Volume) -> Mask:
        """The brain on the grid of a scan: its largest piece with closed sulci.

        Raises:
            InputError: nothing looks like a brain.
        """
        coarse, chances = self.chances(volume)
        brain = chances[list(BRAIN)].sum(0)
        inside = largest(brain > 0.5)
        if not inside.any():
            raise InputError("no brain is found in the scan; expected a head or a brain; check the image, or give a mask")
        from scipy import ndimage

        inside = ndimage.binary_fill_holes(close(inside, CLOSING_MM, coarse.spacing))
        # Between its coarse voxels the chance is interpolated: no steps along the outline.
        smooth = np.where(inside, np.maximum(brain, 0.55), np.minimum(brain, 0.45)).astype(np.float32)
        return sample(coarse.with_data(smooth), native_grid(volume)).data > 0.5


def _smoothed(volume: Volume) -> Volume:
    """The volume without what voxels of 2 mm cannot hold."""
    from scipy import ndimage

    widths = [np.sqrt(max(0.0, (WORKING_MM / edge) ** 2 - 1)) / 2.355 for edge in volume.spacing]
    return volume.with_data(ndimage.gaussian_filter(volume.data, widths)) if max(widths) > 0 else volume


@held
def load_brain_network(name: str | Path = "brain-mask", device: str = "cpu") -> BrainNetwork:
    """The network that finds brains, by its bundled name or file.

    Raises:
        InputError: as `dynamicdps.diffusion.read_model`.
    """
    model = read_model(name, "segmenter")
    return BrainNetwork(model.build(lambda values: VolumeUNet(VolumeConfig.from_json(values))).to(device))


def brain_finder(name: str = "brain-mask") -> Callable[[Volume], Mask] | None:
    """What finds brains, by the model of that name, bundled or added; `None` where there is none."""
    if name not in known_models(("segmenter",)):
        return None
    return lambda volume: load_brain_network(name).find(volume)
