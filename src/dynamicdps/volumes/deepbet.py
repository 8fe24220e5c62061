"""The brain by deepbet's networks (Fisch et al. 2024, MIT license), for T1-weighted scans of whole heads.

Their weights are the files of the package deepbet 1.x. Its own code is not used: it needs a graphical toolkit and LGPL libraries,
so it is best installed as ``pip install --no-deps deepbet``.
"""

import warnings
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dynamicdps.errors import InputError
from dynamicdps.volumes.morphology import Mask, largest
from dynamicdps.volumes.volume import Volume

BOX_SIZE, FINE_SIZE, MARGIN = 128, 256, 0.1


def weights() -> tuple[Path, Path] | None:
    """Files of the networks that find the brain's box and its outline; `None` without them."""
    try:
        package = distribution("deepbet")
    except PackageNotFoundError:
        return None
    folder = Path(str(package.locate_file("data/models")))
    files = folder / "bbox_model.pt", folder / "model.pt"
    return files if all(file.is_file() for file in files) else None


def find_brain_by_deepbet(volume: Volume) -> Mask:
    """Brain on the volume's grid: a coarse pass over the whole image finds its box, a fine one its outline.

    Raises:
        InputError: the weights are missing, or no brain is found.
    """
    files = weights()
    if files is None:
        raise InputError("deepbet is not installed; expected its weights for this mask; run: pip install --no-deps deepbet")
    image = torch.from_numpy(volume.data)
    small = _resize(image, (BOX_SIZE,) * 3)
    low, high = (float(small.quantile(q)) for q in (0.005, 0.995))
    rough = largest(_predict(files[0], small, low, high) > 0.5)
    if rough.sum() < 8:
        raise InputError("deepbet finds no brain; expected a T1-weighted scan of a whole head; choose another mask")
    box = tuple(_side(rough, axis, size) for axis, size in enumerate(volume.shape))
    inside = torch.from_numpy(_predict(files[1], _resize(image[box], (FINE_SIZE,) * 3), low, high))
    chance = np.zeros(volume.shape, np.float32)
    chance[box] = _resize(inside, tuple(image[box].shape)).numpy()
    if not (chance > 0.5).any():
        raise InputError("deepbet finds no brain; expected a T1-weighted scan of a whole head; choose another mask")
    from scipy import ndimage

    return np.asarray(ndimage.binary_fill_holes(largest(chance > 0.5)))


def _side(rough: Mask, axis: int, size: int) -> slice:
    """The brain's extent along an axis of the image, with a margin on both sides."""
    shares = rough.mean(tuple(a for a in range(3) if a != axis))
    hit = np.flatnonzero(shares > min(0.02, 0.5 * float(shares.max())))
    scale = size / BOX_SIZE
    margin = MARGIN * (hit.max() + 1 - hit.min())
    return slice(max(0, round((hit.min() - margin) * scale)), min(size, round((hit.max() + 1 + margin) * scale)))


def _resize(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    return F.interpolate(image[None, None], shape, mode="nearest-exact")[0, 0]


def _predict(file: Path, image: Tensor, low: float, high: float) -> NDArray[np.float32]:
    """Chance of brain, from intensities normalised as in the networks' training."""
    scaled = ((image - low) / max(high - low, 1e-12)).clamp(0, 1)
    scaled = 0.226 * (scaled - scaled.mean()) / scaled.std().clamp_min(1e-12) + 0.449
    with warnings.catch_warnings():
        # torch deprecates the format in which deepbet distributes its networks.
        warnings.simplefilter("ignore", DeprecationWarning)
        network: Any = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        out: NDArray[np.float32] = network.eval()(scaled[None, None])[0, 1].float().numpy()
    return out
