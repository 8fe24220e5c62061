"""Train the network that finds brains and structures on a GPU, from packed label maps. See README.md beside this file.

python benchmarks/gpu/segmenter.py pack LABELS --out build/gpu/labels.npz
python benchmarks/gpu/segmenter.py train --labels build/gpu/labels.npz --out OUT --minutes 8 --count 8 --channels 32 64 128
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minutes import add_options, network_of, settings_of, train_for_minutes
from torch import Tensor

from dynamicdps.conditional.volume_network import VolumeUNet
from dynamicdps.models.model_file import write_model
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.segmentation.synthetic_heads import LabelMap, SyntheticHeads
from dynamicdps.segmentation.training import SEGMENTER_CONFIG, SHAPE, SegmentationLoss, validate
from dynamicdps.training.loop import TrainingState, training_card

# Every sixth map is held out, from the third: those that the bundled model's card is measured on.
HELD_OUT = slice(2, None, 6)
SPACING_MM = 2.0

_heads: list[SyntheticHeads] = []


def _pair(seed: int) -> Any:
    torch.set_num_threads(1)
    return _heads[0].pair(np.random.default_rng(seed))


@dataclass(frozen=True)
class PooledHeads(SyntheticHeads):
    """Heads that several processes draw, each batch while the network learns from the one before."""

    pool: Pool | None = None
    waiting: list[Any] = field(default_factory=list)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """See `SyntheticHeads.draw`."""
        assert self.pool is not None
        while len(self.waiting) < 2:
            seeds = torch.randint(2**62, (self.count,), generator=generator).tolist()
            self.waiting.append(self.pool.map_async(_pair, seeds, chunksize=1))
        images, classes = zip(*self.waiting.pop(0).get(), strict=True)
        return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(classes)).long()


def pack(labels: Path, out: Path) -> None:
    """Label maps on voxels of 2 mm, compressed, in one file."""
    files = sorted(labels.glob("*.nii.gz"))
    arrays = {}
    for file in files:
        head = LabelMap.from_file(file, SPACING_MM)
        arrays[f"{file.name}/tissues"], arrays[f"{file.name}/classes"] = head.tissues, head.classes
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    print(f"{len(files)} maps, {out.stat().st_size / 1e6:.1f} MB")


def unpack(path: Path) -> list[LabelMap]:
    """The packed maps, in the order of their names."""
    with np.load(path) as file:
        names = sorted({key.rpartition("/")[0] for key in file.files})
        return [LabelMap(file[f"{name}/tissues"], file[f"{name}/classes"]) for name in names]


def fit(arguments: argparse.Namespace, maps: Sequence[LabelMap]) -> None:
    """Train for some minutes, the last share of them with a falling learning rate; write the model after either part."""
    held_maps = list(maps[HELD_OUT])
    kept = [head for number, head in enumerate(maps) if number % 6 != 2][: arguments.limit]
    shape = tuple(arguments.shape)
    held = SyntheticHeads(held_maps, shape, SPACING_MM)
    _heads.append(SyntheticHeads(kept, shape, SPACING_MM))
    config = replace(SEGMENTER_CONFIG, channels=tuple(arguments.channels), blocks=tuple(arguments.blocks))
    network = network_of(arguments, config, "segmenter")
    arguments.out.mkdir(parents=True, exist_ok=True)

    def finish(state: TrainingState) -> dict[str, float]:
        average = VolumeUNet(config)
        average.load_state_dict(state.average)
        found = validate(average.eval(), held)
        card = training_card("segmenter", config, settings_of(arguments), state.step, "packed label maps", len(kept))
        card |= {"contrast": "any", "spacing_mm": [SPACING_MM] * 3, "normalisation": "99th percentile at 1", "classes": list(CLASSES)}
        scores = {f"validation_{name}": round(value, 4) for name, value in found.items()}
        write_model(arguments.out / "brain-mask.safetensors", state.average, card | scores)
        print(f"{state.step} steps: {found}", flush=True)
        return found

    # Forked before the device is touched: the maps are shared, and a GPU could not be.
    with multiprocessing.get_context("fork").Pool(arguments.workers) as pool:
        loss = SegmentationLoss(PooledHeads(kept, shape, SPACING_MM, arguments.count, pool))
        train_for_minutes(arguments, network, loss, finish, every=50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("labels", type=Path)
    packing.add_argument("--out", type=Path, default=Path("build/gpu/labels.npz"))
    training = commands.add_parser("train")
    training.add_argument("--labels", type=Path, required=True)
    training.add_argument("--count", type=int, default=8, help="heads of a step")
    training.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    training.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 2])
    training.add_argument("--shape", type=int, nargs=3, default=list(SHAPE), help="voxels of a head")
    training.add_argument("--limit", type=int, default=10_000, help="maps")
    add_options(training)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    if arguments.command == "pack":
        pack(arguments.labels, arguments.out)
    else:
        fit(arguments, unpack(arguments.labels))


if __name__ == "__main__":
    main()
