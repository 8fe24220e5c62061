"""Whether a training waits for its data: seconds to draw a batch beside those to compute its step, for each kind of network.

    python benchmarks/training_speed.py [--steps 12] [--scans SCAN ...]

Without scans the bundled one is taken. Both are seconds of one core (CPU time, so that other work on the machine does not count), with
the networks' default sizes in bfloat16. Prints a table in Markdown.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dynamicdps.conditional.pairs import SimulatedPairs
from dynamicdps.conditional.unet import UNET_CONFIG, SquaredError
from dynamicdps.models import demo_scan
from dynamicdps.networks import NeighbourConfig, NeighbourUNet, NetworkConfig, SliceUNet
from dynamicdps.training import TrainingConfig
from dynamicdps.training.loop import Objective, train
from dynamicdps.training.prior_training import WINDOWS, WindowScoreMatching
from dynamicdps.training.windows import SliceWindows, TrainingVolume


@dataclass
class Timed:
    """An objective that counts the CPU seconds of its draws, in the thread that draws."""

    objective: Objective
    seconds: list[float] = field(default_factory=list)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        began = time.thread_time()
        batch = self.objective.draw(generator)
        self.seconds.append(time.thread_time() - began)
        return batch

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return self.objective(network, batch)


def measure(objective: Objective, size: NetworkConfig | NeighbourConfig, steps: int) -> tuple[float, float]:
    """Seconds to draw a batch and to compute a step, means without the first step."""
    timed = Timed(objective)
    network = (SliceUNet(size) if isinstance(size, NetworkConfig) else NeighbourUNet(size)).to(memory_format=torch.channels_last)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        config = TrainingConfig(steps=steps + 1, checkpoint_every=steps + 2)
        train(network, timed, Path(folder), config, on_step=lambda step, loss: ends.append(time.thread_time()))
    return sum(timed.seconds[1:]) / (len(timed.seconds) - 1), (ends[-1] - ends[0]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--scans", type=Path, nargs="+", default=[demo_scan()])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = NeighbourConfig()
    windows = SliceWindows([TrainingVolume.from_file(scan) for scan in arguments.scans], size.slices_in, count=WINDOWS)
    prior = WindowScoreMatching(windows, *windows.statistics(), size.slices_out)
    rows: dict[str, tuple[Objective, NetworkConfig | NeighbourConfig]] = {"prior": (prior, size)}
    for name in ("iqt-in", "range"):
        rows[f"unet, {name}"] = SquaredError(SimulatedPairs.from_files(arguments.scans, (), name)), UNET_CONFIG
    print("| training | a batch, ms | a step, ms | share |\n|---|---|---|---|")
    for name, (objective, size) in rows.items():
        draw, step = measure(objective, size, arguments.steps)
        print(f"| {name} | {1000 * draw:.1f} | {1000 * step:.0f} | {100 * draw / step:.1f} % |")


if __name__ == "__main__":
    main()
