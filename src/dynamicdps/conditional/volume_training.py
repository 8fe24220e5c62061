"""Training of the conditional model of whole volumes, on patches that random scanners measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from dynamicdps.conditional.model import CENTRE, SPREAD
from dynamicdps.conditional.scanner_draws import MARGIN, ScannerRange, draw_scan
from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet, grow
from dynamicdps.errors import InputError
from dynamicdps.models.model_file import read_model, write_model
from dynamicdps.training import TrainingConfig, TrainingState
from dynamicdps.training.loop import train, training_card
from dynamicdps.training.patches import split_held_out
from dynamicdps.training.processes import Processes
from dynamicdps.training.windows import TrainingVolume

Array = NDArray[np.float32]

# Of the model card: the network leaves contrast as it is.
CONTRAST = "any; learned from the contrasts of its scans, some with other curves of intensity"
PATCH = 48
BATCH = 4
# Share of patches from whole brains, where there are slabs too: only they have every level, but they are few.
WHOLE_SHARE, WHOLE_SLICES = 0.65, 96
# Voxels of a brain that its patches are laid around, and how far their centres lie from them.
CENTRES, JITTER = 20_000, 8.0
# What counts as brain, in image intensities, and how far around it an image is judged, in voxels.
BRAIN, AROUND = 0.02, 4.0
FARTHEST = 25.0
# Share of patches that are turned and scaled, by at most these degrees and logarithms.
TURNED, ANGLE, SCALING = 0.4, 12.0, 0.1
VALIDATION_PATCHES = 24
# The squared error asks for the mean of the images that a scan allows, the absolute one keeps rare large errors from deciding; at errors of
# 0.06 both pull alike.
ABSOLUTE, SQUARE = 5.0, 40.0
VOLUME_TRAINING = TrainingConfig(learning_rate=4e-4, warmup=200, decay_from=3000, checkpoint_every=250)


class BrainPatches:
    """Patches of scans with the distance of each voxel from the brain.

    Args:
        volumes: skull-stripped scans.

    Raises:
        InputError: a scan holds no brain.
    """

    def __init__(self, volumes: Sequence[TrainingVolume]) -> None:
        self.volumes = list(volumes)
        self.distances: list[NDArray[np.uint8]] = []
        self.centres: list[NDArray[np.int16]] = []
        for volume in self.volumes:
            inside = volume.data * volume.scale > BRAIN
            if not inside.any():
                raise InputError("a training scan holds no brain; expected skull-stripped scans with a background of 0; check the files")
            filled = ndimage.binary_fill_holes(inside)
            distance = ndimage.distance_transform_edt(~filled)
            self.distances.append((np.minimum(distance, FARTHEST) * 10).astype(np.uint8))
            at = np.argwhere(filled)
            self.centres.append(at[:: max(1, len(at) // CENTRES)].astype(np.int16))
        whole = np.array([min(v.data.shape) >= WHOLE_SLICES for v in self.volumes])
        share = np.where(whole, WHOLE_SHARE, 1 - WHOLE_SHARE) / np.where(whole, whole.sum(), (~whole).sum())
        self.weights = share / share.sum()

    def draw(self, rng: np.random.Generator, edge: int) -> tuple[Array, Array, Array]:
        """A cube: image intensities, distance from the brain in voxels, and 1 where the scan has voxels, each ``(edge, edge, edge)``."""
        chosen = int(rng.choice(len(self.volumes), p=self.weights))
        volume, distance = self.volumes[chosen], self.distances[chosen]
        # Around a voxel of the brain: a box of the whole holds corners without any.
        centre = rng.choice(self.centres[chosen]) + rng.uniform(-JITTER, JITTER, 3)
        matrix = _turn(rng) if rng.random() < TURNED else np.eye(3)
        flip = rng.random() < 0.5
        if flip:
            matrix = matrix @ np.diag([1.0, 1.0, -1.0])
        half = (edge - 1) / 2
        reach = np.ceil(np.abs(matrix) @ np.full(3, half)).astype(int) + 2
        first = np.floor(centre).astype(int) - reach
        box = tuple(slice(f, f + 2 * r + 1) for f, r in zip(first, reach, strict=True))
        image = _cut(volume.data, box).astype(np.float32) * volume.scale
        far = _cut(distance, box).astype(np.float32) / 10
        there = _cut(np.ones(volume.data.shape, np.uint8), box, fill=0).astype(np.float32)
        if np.array_equal(np.abs(matrix), np.eye(3)):
            inside = tuple(slice(r - int(half), r - int(half) + edge) for r in reach)
            parts = [part[inside] for part in (image, far, there)]
            return cast(tuple[Array, Array, Array], tuple(np.ascontiguousarray(p[..., ::-1] if flip else p) for p in parts))
        offset = reach - matrix @ np.full(3, half)
        turned = [
            ndimage.affine_transform(part, matrix, offset, output_shape=(edge,) * 3, order=order, mode="nearest")
            for part, order in ((image, 3), (far, 1), (there, 0))
        ]
        turned[0][turned[0] < 0.01] = 0
        return turned[0], turned[1], turned[2]


def _turn(rng: np.random.Generator) -> NDArray[np.float64]:
    """A small rotation and scaling, ``(3, 3)``."""
    turned = Rotation.from_euler("xyz", rng.uniform(-ANGLE, ANGLE, 3), degrees=True).as_matrix()
    return np.asarray(turned * np.exp(rng.uniform(-SCALING, SCALING)))


def _cut(data: NDArray[np.uint8], box: Sequence[slice], fill: int | None = None) -> NDArray[np.uint8]:
    """The box of an array that it may leave: beyond the edge lies `fill`, or the mirrored scan."""
    pads = [(max(0, -s.start), max(0, s.stop - n)) for s, n in zip(box, data.shape, strict=True)]
    part = data[tuple(slice(max(0, s.start), max(0, min(n, s.stop))) for s, n in zip(box, data.shape, strict=True))]
    if fill is not None:
        return np.pad(part, pads, constant_values=fill)
    return np.pad(part, pads, mode="symmetric")


@dataclass(frozen=True)
class ScannedPatches:
    """Pairs to learn from, and the loss.

    Attributes:
        patches: true images.
        limits: of the scanners.
    """

    patches: BrainPatches
    limits: ScannerRange
    count: int = BATCH

    def pair(self, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
        """One scan on the image's grid, its voxel, the true image, and the weight of its voxels; cubes of `PATCH` voxels.

        The brain and what lies closely around it count, where they are known.
        """
        edge = PATCH + 2 * MARGIN
        image, distance, there = self.patches.draw(rng, edge)
        scan, voxel, ideal = draw_scan(image, distance, rng, self.limits)
        inner = (slice(MARGIN, -MARGIN),) * 3
        return scan[inner], voxel, ideal[inner], (there * (distance < AROUND))[inner]

    def pairs(self, seeds: Sequence[int]) -> list[tuple[Array, Array, Array, Array]]:
        """A pair for each seed; each is a function of its seed alone, so that they may be drawn side by side."""
        return [self.pair(np.random.default_rng(seed)) for seed in seeds]

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Scans ``(batch, 1, 48, 48, 48)``, voxels ``(batch, 3)``, true images and their weights."""
        seeds = torch.randint(2**62, (self.count,), generator=generator).tolist()
        pairs = self.pairs(seeds)
        scan, voxel, image, there = (torch.from_numpy(np.stack(parts)) for parts in zip(*pairs, strict=True))
        return scan[:, None], voxel, image[:, None], there[:, None]

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Absolute and squared error, weighted, mean over the voxels that count."""
        scan, voxel, image, there = batch
        error = (corrected(network, scan, voxel) - image) * there
        count = there.flatten(1).sum(1).clamp_min(1)
        absolute, square = error.abs().flatten(1).sum(1) / count, error.square().flatten(1).sum(1) / count
        return (ABSOLUTE * absolute + SQUARE * square).mean()


def corrected(network: nn.Module, scan: Tensor, voxel: Tensor) -> Tensor:
    """The network's image of an interpolated scan, both in image intensities, ``(batch, 1, depth, height, width)``."""
    correction: Tensor = network((scan - CENTRE) / SPREAD, voxel)
    return scan + SPREAD * correction.float()


@torch.inference_mode()
def validate(network: nn.Module, pairs: ScannedPatches) -> dict[str, float]:
    """PSNR in dB inside the brain over fixed draws, of the network and of the interpolated scan."""
    errors = np.zeros(3)
    for seed in range(VALIDATION_PATCHES):
        scan, voxel, image, there = (torch.from_numpy(part)[None] for part in pairs.pair(np.random.default_rng(seed)))
        inside = (image > BRAIN) & (there > 0)
        found = corrected(network, scan[None], voxel)[0]
        errors += [float((found - image)[inside].square().sum()), float((scan - image)[inside].square().sum()), float(inside.sum())]
    network_db, scan_db = -10 * np.log10(errors[:2] / errors[2])
    return {"psnr": float(network_db), "psnr_interpolated": float(scan_db)}


def train_volume_unet(
    train_files: Sequence[str | Path],
    out: Path,
    *,
    validation_files: Sequence[str | Path] = (),
    network_config: VolumeConfig = VolumeConfig(),
    limits: ScannerRange = ScannerRange(),
    config: TrainingConfig = VOLUME_TRAINING,
    resume: bool = False,
    weights: str | Path | None = None,
    data_name: str = "unnamed",
    processes: Processes = Processes(),
    on_step: Callable[[int, float], None] | None = None,
) -> Path:
    """Train a conditional model of whole volumes and write ``unet.safetensors`` with its model card.

    Args:
        train_files: skull-stripped scans at about 1 mm, slabs or whole brains.
        out: folder of the training.
        validation_files: scans of other subjects; without them the last tenth of `train_files` is held out.
        network_config: size of the network.
        limits: of the scanners that are drawn.
        config: how to train.
        resume: continue from the checkpoint in `out`.
        weights: a model of the same kind, by bundled name or file, that a new training starts from; the network may have more channels and
            blocks than it.
        data_name: what the model card says about the data.
        processes: that train together.
        on_step: called with step and loss.

    Returns:
        The model file.

    Raises:
        InputError: a scan cannot be read or is empty; otherwise as `dynamicdps.training.loop.train`.
    """
    files, held_out = split_held_out(train_files, validation_files)
    pairs = ScannedPatches(BrainPatches([TrainingVolume.from_file(f).evened() for f in files]), limits)
    held = ScannedPatches(BrainPatches([TrainingVolume.from_file(f).evened() for f in held_out]), limits) if held_out else None
    torch.manual_seed(config.seed)
    network = VolumeUNet(network_config)
    if weights is not None:
        model = read_model(weights, "volume-unet")
        grow(network, model.build(lambda values: VolumeUNet(VolumeConfig.from_json(values))))
    path = out / "unet.safetensors"

    def finish(state: TrainingState) -> dict[str, float]:
        average = VolumeUNet(network_config)
        average.load_state_dict(state.average)
        found = validate(average.eval(), held) if held is not None else {}
        card = training_card("volume-unet", network_config, config, state.step, data_name, len(files))
        card |= {"contrast": CONTRAST, "degradation": "scanners", "degradation_parameters": limits.to_json()}
        write_model(path, state.average, card | {f"validation_{name}": round(value, 3) for name, value in found.items()})
        return found

    train(network, pairs, out, config, resume=resume, processes=processes, on_step=on_step, on_checkpoint=finish)
    return path
