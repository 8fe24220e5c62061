"""Train the network that finds brains and structures on a GPU, from packed label maps. See README.md beside this file.

python benchmarks/gpu/segmenter.py pack LABELS --out build/gpu/labels.npz
python benchmarks/gpu/segmenter.py train --labels build/gpu/labels.npz --out OUT --minutes 8 --count 8 --channels 32 64 128
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamicdps.conditional.volume_network import VolumeUNet
from dynamicdps.diffusion.model_file import read_model, write_model
from dynamicdps.diffusion.processes import Processes
from dynamicdps.diffusion.training import TrainingConfig, TrainingState, train, training_card
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.segmentation.synthetic_heads import LabelMap, SyntheticHeads
from dynamicdps.segmentation.training import SEGMENTER_CONFIG, SHAPE, SegmentationLoss, validate

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
    torch.manual_seed(0)
    network = VolumeUNet(config)
    if arguments.weights is not None:
        read_model(arguments.weights, "segmenter").load_into(network)
    began = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)

    def on_step(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"{step} steps, {time.monotonic() - began:.0f} s, loss {loss:.4f}", flush=True)

    def on_checkpoint(state: TrainingState) -> dict[str, float]:
        average = VolumeUNet(config)
        average.load_state_dict(state.average)
        found = validate(average.eval(), held)
        card = training_card("segmenter", config, settings, state.step, "packed label maps", len(kept))
        card |= {"contrast": "any", "spacing_mm": [SPACING_MM] * 3, "normalisation": "99th percentile at 1", "classes": list(CLASSES)}
        scores = {f"validation_{name}": round(value, 4) for name, value in found.items()}
        write_model(arguments.out / "brain-mask.safetensors", state.average, card | scores)
        print(f"{state.step} steps: {found}", flush=True)
        return found

    settings = TrainingConfig(learning_rate=1e-3, warmup=100, decay_from=10**9, averaging=0.05, optimiser="muon", checkpoint_every=10**9)
    processes = Processes(device=torch.device(arguments.device))
    # Forked before the device is touched: the maps are shared, and a GPU could not be.
    with multiprocessing.get_context("fork").Pool(arguments.workers) as pool, tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        loss = SegmentationLoss(PooledHeads(kept, shape, SPACING_MM, arguments.count, pool))
        first = replace(settings, max_minutes=arguments.minutes * (1 - arguments.cooldown))
        state = train(network, loss, work, first, processes=processes, on_step=on_step, on_checkpoint=on_checkpoint)
        rest = max(1, int(state.step * arguments.cooldown / (1 - arguments.cooldown)))
        last = replace(settings, steps=state.step + rest, cooldown=rest, max_minutes=arguments.minutes * arguments.cooldown * 1.15)
        train(network, loss, work, last, resume=True, processes=processes, on_step=on_step, on_checkpoint=on_checkpoint)
        for name in ("log.csv", "training.json"):
            (arguments.out / name).write_bytes((work / name).read_bytes())
    print(json.dumps({"seconds": round(time.monotonic() - began, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("labels", type=Path)
    packing.add_argument("--out", type=Path, default=Path("build/gpu/labels.npz"))
    training = commands.add_parser("train")
    training.add_argument("--labels", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    training.add_argument("--minutes", type=float, default=8.0)
    training.add_argument("--count", type=int, default=8, help="heads of a step")
    training.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    training.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 2])
    training.add_argument("--shape", type=int, nargs=3, default=list(SHAPE), help="voxels of a head")
    training.add_argument("--weights", type=Path)
    training.add_argument("--limit", type=int, default=10_000, help="maps")
    training.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    training.add_argument("--cooldown", type=float, default=0.3, help="share of the time with a falling learning rate")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    if arguments.command == "pack":
        pack(arguments.labels, arguments.out)
    else:
        fit(arguments, unpack(arguments.labels))


if __name__ == "__main__":
    main()
