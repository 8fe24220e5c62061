"""Training on several processes takes the steps that one process takes."""

import csv
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, distributed, nn

from dynamicdps.training import TrainingConfig
from dynamicdps.training.loop import shares_of, train
from dynamicdps.training.processes import VARIABLES, Processes, join
from tests.properties import input_error

ROOT = Path(__file__).parents[2]
TRAIN = ["--channels", "16", "16", "--residual-blocks", "1", "1", "--checkpoint-every", "2", "--no-bfloat16"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
# Without GPUs too: it is torchrun under another name. With --cpu it starts one process.
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


class Numbers:
    """Batches of so many numbers as their generator says, and the mean of a network's squared error on them."""

    def __init__(self, sizes: tuple[int, ...] = (5, 4, 1)) -> None:
        self.sizes = sizes

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        size = self.sizes[int(torch.randint(len(self.sizes), (), generator=generator))]
        return torch.randn(size, 3, generator=generator), torch.randn(size, 1, generator=generator)

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        x, y = batch
        out: Tensor = network(x)
        return (out - y).square().mean()


def settings(steps: int = 6, batches: int = 1, accumulate: int = 1) -> TrainingConfig:
    return TrainingConfig(steps=steps, warmup=1, checkpoint_every=2, bfloat16=False, batches=batches, accumulate=accumulate)


def losses_of(out: Path, config: TrainingConfig) -> list[float]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1))
    found: list[float] = []
    train(network, Numbers(), out, config, on_step=lambda step, loss: found.append(loss))
    return found


@pytest.mark.parametrize("batches", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2, 9])
def test_shares_of_all_processes_are_the_step(batches: int, count: int, accumulate: int) -> None:
    """Every number once, with weights that give each batch the same part of the mean and each of its numbers the same part of it."""
    whole = shares_of(Numbers(), settings(batches=batches), Processes(), 7)
    assert len(whole) == batches
    wanted = {float(x): 1 / batches / len(batch[0]) for batch, _ in whole for x in batch[0][:, 0]}
    found: dict[float, float] = {}
    for rank in range(count):
        shares = shares_of(Numbers(), settings(batches=batches, accumulate=accumulate), Processes(rank, count), 7)
        assert shares
        for (x, y), weight in shares:
            assert len(x) == len(y) > 0
            if weight:
                assert not found.keys() & {float(each) for each in x[:, 0]}
                found |= {float(each): weight / len(x) for each in x[:, 0]}
    assert found == pytest.approx(wanted)
    assert math.fsum(found.values()) == pytest.approx(1)


def test_processes_with_batches_of_their_own_draw_no_others() -> None:
    drawn = []

    class Watched(Numbers):
        def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
            drawn.append(generator.initial_seed())
            return super().draw(generator)

    for rank in range(2):
        shares_of(Watched(), settings(batches=4), Processes(rank, 2), 3)
    assert len(drawn) == len(set(drawn)) == 4


@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_a_batch_in_parts_is_the_batch(accumulate: int, tmp_path: Path) -> None:
    one = losses_of(tmp_path / "one", settings())
    parts = losses_of(tmp_path / "parts", settings(accumulate=accumulate))
    assert parts == pytest.approx(one, rel=1e-5)
    assert parts[-1] != parts[0]


def test_the_loss_of_several_batches_is_their_mean(tmp_path: Path) -> None:
    (together,) = losses_of(tmp_path / "two", settings(1, batches=2))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1))
    each = [Numbers()(network, batch).item() for batch, _ in shares_of(Numbers(), settings(batches=2), Processes(), 0)]
    assert together == pytest.approx(sum(each) / 2, rel=1e-6)
    assert losses_of(tmp_path / "one", settings(1)) == pytest.approx(each[:1], rel=1e-6)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone: sums over it are what went in."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_sums_go_back_to_where_they_came_from(group: None) -> None:
    tensors = [torch.tensor(3.0), torch.randn(2, 3), torch.randn(2, 4, 5, 3).to(memory_format=torch.channels_last)]
    before = [tensor.clone() for tensor in tensors]
    processes = Processes(0, 2)
    processes.add_up(tensors)
    processes.take_from_first(tensors)
    for tensor, old in zip(tensors, before, strict=True):
        assert torch.equal(tensor, old)
        assert tensor.stride() == old.stride()


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with join() as alone:
        assert (alone.rank, alone.count, alone.first, alone.device.type) == (0, 1, True, "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with input_error("MASTER_ADDR, MASTER_PORT"), join():
        pass
    for name in VARIABLES[2:]:
        monkeypatch.setenv(name, "7")
    with input_error("GPUs for process 7"), join("cuda"):
        pass


@pytest.mark.parametrize(("rank", "steps"), [(0, 1), (1, 3)])
def test_the_clock_of_the_first_counts(rank: int, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With sums over one process alone: another one is not stopped by its own clock, and writes nothing."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: None)
    monkeypatch.setattr("torch.distributed.broadcast", lambda tensor, source: None)
    config = replace(settings(3), max_minutes=1e-9)
    assert train(nn.Linear(3, 1), Numbers(), tmp_path / "out", config, processes=Processes(rank, 2)).step == steps
    assert (tmp_path / "out").exists() == (rank == 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_not_finite_in_one_process_stops_all(rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one's own numbers are finite, and the sums are not."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.add_(torch.nan))
    monkeypatch.setattr("torch.distributed.broadcast", lambda tensor, source: None)
    with input_error("step 1 has a loss of nan"):
        train(nn.Linear(3, 1), Numbers(), tmp_path / "out", settings(3), processes=Processes(rank, 2))
    assert not (tmp_path / "out" / "checkpoint.safetensors").exists()


ONE_BAD_PROCESS = """
import os, sys
from pathlib import Path
from torch import nan, nn
from dynamicdps.training.processes import join
from dynamicdps.training.loop import train
from dynamicdps.errors import InputError
from tests.training.test_processes import Numbers, settings

class Bad(Numbers):
    calls = 0

    def __call__(self, network, batch):
        self.calls += 1
        return super().__call__(network, batch) * (nan if self.calls == 4 and os.environ["RANK"] == "1" else 1)

with join() as processes:
    try:
        train(nn.Linear(3, 1), Bad((4,)), Path(sys.argv[1]), settings(6), processes=processes)
    except InputError as error:
        sys.exit(str(error))
"""


@pytest.mark.slow
def test_two_processes_leave_together(tmp_path: Path) -> None:
    """The fourth loss of the second one is NaN: both say so, and none waits for the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-c", ONE_BAD_PROCESS, str(tmp_path / "out")]
    both = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | meet | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [1, 1]
    assert all("step 4 has a loss of nan" in words for words in said), said
    with safe_open(tmp_path / "out" / "checkpoint.safetensors", framework="pt") as file:
        assert file.metadata()["step"] == "2"


def run(launcher: list[str], scans: list[Path], out: Path, *options: str) -> None:
    command = [sys.executable, *launcher, "dynamicdps.cli", "train", "prior", *map(str, scans), "--out", str(out), *TRAIN, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def log_of(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Scans, and the training of one process."""
    from tests.conftest import make_phantom

    folder = tmp_path_factory.mktemp("alone")
    scans = [make_phantom((40, 48, 12), seed=seed).save(folder / f"scan-{seed}.nii.gz") for seed in (1, 2)]
    run(["-m"], scans, folder / "out", "--steps", "4")
    return scans, folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [[*TORCHRUN, "2"], [*ACCELERATE, "--num_processes", "2", "--main_process_port", "0"]], ids=["torchrun", "accelerate"]
)
def test_two_processes_take_the_steps_of_one(launcher: list[str], alone: tuple[list[Path], Path], tmp_path: Path) -> None:
    scans, one = alone
    if "accelerate" in launcher[1]:
        pytest.importorskip("accelerate")
    two = tmp_path / "two"
    run([*launcher, "-m"], scans, two, "--steps", "4")
    # One row a checkpoint: the first process alone writes.
    assert [row["step"] for row in log_of(two)] == [2, 4]
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())
    for row, wanted in zip(log_of(two), log_of(one), strict=True):
        assert row == pytest.approx(wanted, rel=1e-5)
    facts = json.loads((two / "run.json").read_text(encoding="utf-8"))
    assert (facts["processes"], facts["exit"]) == (2, 0)
    weights, wanted_weights = (load_file(out / "checkpoint.safetensors") for out in (two, one))
    assert weights.keys() == wanted_weights.keys()
    change = max(float((weights[name] - value).abs().max()) for name, value in wanted_weights.items() if name.startswith("network."))
    # AdamW's first steps have the length of the learning rate whatever the gradient's, so that its last digits show.
    assert change < 1e-5


@pytest.mark.slow
def test_another_number_of_processes_goes_on(alone: tuple[list[Path], Path], tmp_path: Path) -> None:
    """Two processes begin, three go on, with more parts of a batch than it has images for each."""
    scans, one = alone
    out = tmp_path / "out"
    run([*TORCHRUN, "2", "-m"], scans, out, "--steps", "2")
    run([*TORCHRUN, "3", "-m"], scans, out, "--steps", "4", "--resume", "--accumulate", "9")
    for row, wanted in zip(log_of(out), log_of(one), strict=True):
        assert row == pytest.approx(wanted, rel=1e-5)
