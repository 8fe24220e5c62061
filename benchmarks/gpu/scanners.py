"""A training of the conditional model of whole volumes on a GPU; see README.md beside this file.

python benchmarks/gpu/scanners.py --scans build/gpu/scans.npz --out OUT --minutes 8 --count 32
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minutes import add_options, network_of, settings_of, train_for_minutes
from run import unpack

from dynamicdps.conditional.scanner_draws import ScannerRange
from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet
from dynamicdps.conditional.volume_training import BrainPatches, ScannedPatches, validate
from dynamicdps.models.model_file import write_model
from dynamicdps.training.loop import TrainingState, training_card

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
    parser.add_argument("--count", type=int, default=32, help="patches of a step")
    parser.add_argument("--channels", type=int, nargs="+", default=[48, 96, 104])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 1, 2])
    parser.add_argument("--limit", type=int, default=10_000, help="scans")
    add_options(parser)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    volumes = [v for v in unpack(arguments.scans, arguments.limit)[0] if v.contrast == "T1w"]
    held = ScannedPatches(BrainPatches(volumes[-HELD_OUT:]), ScannerRange())
    patches = BrainPatches(volumes[:-HELD_OUT] or volumes)
    _patches.append(ScannedPatches(patches, ScannerRange()))
    config = VolumeConfig(tuple(arguments.channels), tuple(arguments.blocks))
    network = network_of(arguments, config, "volume-unet")

    def finish(state: TrainingState) -> dict[str, float]:
        average = VolumeUNet(config)
        average.load_state_dict(state.average)
        found = validate(average.eval(), held)
        card = training_card("volume-unet", config, settings_of(arguments), state.step, "packed scans", len(volumes))
        card |= {"contrast": "T1w, brain", "degradation": "scanners", "degradation_parameters": ScannerRange().to_json()}
        write_model(arguments.out / "unet.safetensors", state.average, card | {f"validation_{k}": round(v, 3) for k, v in found.items()})
        print(f"{state.step} steps: {found}", flush=True)
        return found

    # Forked before the device is touched: the scans are shared, and a GPU could not be.
    with multiprocessing.get_context("fork").Pool(arguments.workers) as pool:
        train_for_minutes(arguments, network, PooledPatches(patches, ScannerRange(), arguments.count, pool), finish, every=100)


if __name__ == "__main__":
    main()
