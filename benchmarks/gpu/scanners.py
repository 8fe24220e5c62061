"""A training of the conditional model of whole volumes on a GPU; see README.md beside this file.

python benchmarks/gpu/scanners.py --scans build/gpu/scans.npz --out OUT --minutes 8 --count 32
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from run import unpack

from dynamicdps.conditional.scanner_draws import ScannerRange
from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet, grow
from dynamicdps.conditional.volume_training import BrainPatches, ScannedPatches, validate
from dynamicdps.diffusion.model_file import read_model, write_model
from dynamicdps.diffusion.processes import Processes
from dynamicdps.diffusion.training import TrainingConfig, TrainingState, train, training_card

# Scans whose patches say how good the network is; the others are learned from.
HELD_OUT = 8

_patches: list[ScannedPatches] = []


def _pair(seed: int) -> Any:
    torch.set_num_threads(1)
    return _patches[0].pair(np.random.default_rng(seed))


@dataclass(frozen=True)
class PooledPatches(ScannedPatches):
    """Pairs that several processes draw."""

    pool: Pool | None = None

    def pairs(self, seeds: Sequence[int]) -> list[Any]:
        """See `ScannedPatches.pairs`."""
        assert self.pool is not None
        return self.pool.map(_pair, seeds, chunksize=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--count", type=int, default=32, help="patches of a step")
    parser.add_argument("--channels", type=int, nargs="+", default=[48, 96, 104])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 1, 2])
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--limit", type=int, default=10_000, help="scans")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--cooldown", type=float, default=0.3, help="share of the time with a falling learning rate")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    volumes = [v for v in unpack(arguments.scans, arguments.limit)[0] if v.contrast == "T1w"]
    held = ScannedPatches(BrainPatches(volumes[-HELD_OUT:]), ScannerRange())
    patches = BrainPatches(volumes[:-HELD_OUT] or volumes)
    _patches.append(ScannedPatches(patches, ScannerRange()))
    config = VolumeConfig(tuple(arguments.channels), tuple(arguments.blocks))
    torch.manual_seed(0)
    network = VolumeUNet(config)
    if arguments.weights is not None:
        model = read_model(arguments.weights, "volume-unet")
        grow(network, model.build(lambda values: VolumeUNet(VolumeConfig.from_json(values))))
    work = arguments.out / "work"
    began = time.monotonic()

    def on_step(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"{step} steps, {time.monotonic() - began:.0f} s, loss {loss:.4f}", flush=True)

    def on_checkpoint(state: TrainingState) -> dict[str, float]:
        average = VolumeUNet(config)
        average.load_state_dict(state.average)
        found = validate(average.eval(), held)
        card = training_card("volume-unet", config, settings, state.step, "packed scans", len(volumes))
        card |= {"contrast": "T1w, brain", "degradation": "scanners", "degradation_parameters": ScannerRange().to_json()}
        write_model(arguments.out / "unet.safetensors", state.average, card | {f"validation_{k}": round(v, 3) for k, v in found.items()})
        print(f"{state.step} steps: {found}", flush=True)
        return found

    settings = TrainingConfig(
        learning_rate=arguments.learning_rate, warmup=100, decay_from=10**9, averaging=0.05, optimiser="muon", checkpoint_every=10**9
    )
    processes = Processes(device=torch.device(arguments.device))
    # Forked before the device is touched: the scans are shared, and a GPU could not be.
    with multiprocessing.get_context("fork").Pool(arguments.workers) as pool:
        loss = PooledPatches(patches, ScannerRange(), arguments.count, pool)
        first = replace(settings, max_minutes=arguments.minutes * (1 - arguments.cooldown))
        state = train(network, loss, work, first, processes=processes, on_step=on_step, on_checkpoint=on_checkpoint)
        rest = max(1, int(state.step * arguments.cooldown / (1 - arguments.cooldown)))
        last = replace(settings, steps=state.step + rest, cooldown=rest, max_minutes=arguments.minutes * arguments.cooldown * 1.15)
        train(network, loss, work, last, resume=True, processes=processes, on_step=on_step, on_checkpoint=on_checkpoint)
    for name in ("log.csv", "training.json"):
        (arguments.out / name).write_bytes((work / name).read_bytes())
    print(json.dumps({"seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
