"""A resumed training is the uninterrupted one, bit by bit."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dynamicdps.networks import NeighbourConfig, NeighbourUNet
from dynamicdps.priors import load_prior
from dynamicdps.training import TrainingConfig, TrainingState, train_prior
from dynamicdps.training.loop import FREE_SETTINGS, train
from dynamicdps.training.prior_training import WindowScoreMatching
from dynamicdps.training.windows import SliceWindows, TrainingVolume
from tests.conftest import make_phantom
from tests.properties import input_error


def settings(steps: int, **changes: Any) -> TrainingConfig:
    return TrainingConfig(steps=steps, warmup=2, decay_from=3, checkpoint_every=2, **changes)


class SumOfThree:
    """A line through the sum of three numbers."""

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(4, 3, generator=generator),)

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        (x,) = batch
        out: Tensor = network(x)
        return (out - x.sum(1, keepdim=True)).square().mean()


small_loss = SumOfThree()


class Spoiled(SumOfThree):
    """The same until a step (counted from 0) in which something happens to the loss."""

    def __init__(self, step: int, spoil: Callable[[Tensor], Tensor]) -> None:
        self.step = step
        self.spoil = spoil

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        (x,) = super().draw(generator)
        return x, torch.full((len(x),), generator.initial_seed() == self.step)

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        x, spoiled = batch
        loss = super().__call__(network, (x,))
        return self.spoil(loss) if spoiled.any() else loss


def linear(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(width, 1)


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same(one: TrainingState, other: TrainingState) -> None:
    assert one.step == other.step
    pairs = [(one.network.state_dict(), other.network.state_dict()), (one.average, other.average)]
    slots = (one.optimiser.state_dict()["state"], other.optimiser.state_dict()["state"])
    pairs += [(slots[0][index], slots[1][index]) for index in slots[0]]
    assert slots[0].keys() == slots[1].keys()
    for left, right in pairs:
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize(("bfloat16", "optimiser"), [(False, "adamw"), (True, "adamw"), (False, "muon")])
def test_resumed_training_is_the_uninterrupted_one(tmp_path: Path, tiny_prior: NeighbourConfig, bfloat16: bool, optimiser: str) -> None:
    phantom = TrainingVolume.from_array(make_phantom((24, 20, 8)).data.transpose(2, 1, 0))
    loss = WindowScoreMatching(SliceWindows([phantom], tiny_prior.slices_in, (16, 16), 4), 0.3, 0.3, tiny_prior.slices_out)
    config: dict[str, Any] = {"bfloat16": bfloat16, "optimiser": optimiser}

    def network(seed: int) -> NeighbourUNet:
        torch.manual_seed(seed)
        return NeighbourUNet(tiny_prior).to(memory_format=torch.channels_last)

    whole = train(network(0), loss, tmp_path / "whole", settings(6, **config))
    train(network(0), loss, tmp_path / "parts", settings(3, **config))
    resumed = train(network(99), loss, tmp_path / "parts", settings(6, **config), resume=True)
    assert resumed.step == 6
    assert_same(whole, resumed)
    assert log_of(tmp_path / "whole")[-1]["step"] == log_of(tmp_path / "parts")[-1]["step"] == "6"
    start = network(0).state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in resumed.network.state_dict().items())
    assert any(not torch.equal(value, resumed.average[name]) for name, value in resumed.network.state_dict().items())


def test_global_random_state_changes_nothing(tmp_path: Path) -> None:
    states = []
    for seed in (1, 2):
        network = linear()
        torch.manual_seed(seed)
        states.append(train(network, small_loss, tmp_path / str(seed), settings(3)))
    assert_same(*states)


def test_training_learns_and_logs(tmp_path: Path) -> None:
    steps: list[tuple[int, float]] = []
    config = TrainingConfig(steps=200, warmup=5, learning_rate=0.05, checkpoint_every=50, bfloat16=False)
    state = train(
        linear(),
        small_loss,
        tmp_path,
        config,
        on_step=lambda *row: steps.append(row),
        on_checkpoint=lambda s: {"weight": float(s.average["weight"][0, 0])},
    )
    assert [step for step, _ in steps] == list(range(1, 201))
    assert steps[-1][1] < 0.05 * steps[0][1]
    log = log_of(tmp_path)
    assert [row["step"] for row in log] == ["50", "100", "150", "200"]
    assert float(log[0]["loss"]) == pytest.approx(sum(value for _, value in steps[:50]) / 50, rel=1e-4)
    assert float(log[-1]["weight"]) == pytest.approx(float(state.average["weight"][0, 0]), rel=1e-4)
    assert json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))["learning_rate"] == 0.05
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.csv", "training.json"]


def test_time_limit_stops_and_keeps_what_was_done(tmp_path: Path) -> None:
    assert train(linear(), small_loss, tmp_path, settings(10**9, max_minutes=0.001)).step > 0
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_existing_folder_is_refused_without_resume(tmp_path: Path) -> None:
    train(linear(), small_loss, tmp_path, settings(2))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with input_error("holds a training already"):
        train(linear(), small_loss, tmp_path, settings(4))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_resume_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with input_error("has no checkpoint"):
        train(linear(), small_loss, tmp_path / "empty", settings(2), resume=True)


@pytest.mark.parametrize("other", [nn.Linear(5, 1), nn.Sequential(nn.Linear(3, 1)), nn.Linear(3, 1, bias=False)], ids=str)
def test_checkpoint_of_another_network_is_refused(tmp_path: Path, other: nn.Module) -> None:
    train(linear(), small_loss, tmp_path, settings(2))
    with input_error("of another network"):
        train(other, small_loss, tmp_path, settings(4), resume=True)


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train(linear(), small_loss, tmp_path, settings(2))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with input_error("cannot be read"):
        train(linear(), small_loss, tmp_path, settings(4), resume=True)


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"step": "two"}, {"step": "-2"}, {"step": "9" * 5000}], ids=lambda each: repr(each)[:20]
)
def test_checkpoint_without_its_step_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    train(linear(), small_loss, tmp_path, settings(2))
    path = tmp_path / "checkpoint.safetensors"
    save_file(load_file(path), path, metadata)
    with input_error("checkpoint.safetensors cannot be read"):
        train(linear(), small_loss, tmp_path, settings(4), resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"average.weight": None}, "average does not fit"),
        ({"average.bias": torch.zeros(2)}, "average does not fit"),
        ({"average.bias": torch.zeros(1, dtype=torch.int32)}, "average does not fit"),
        ({"average.more": torch.zeros(1)}, "average does not fit"),
        ({"network.bias": torch.tensor([torch.nan])}, "'network.bias' holds values that are not finite"),
        ({"optimiser.0.exp_avg": torch.full((1, 3), torch.inf)}, "'optimiser.0.exp_avg' holds values that are not finite"),
        ({"optimiser.0.exp_avg": torch.zeros(3)}, "'optimiser.0.exp_avg' fits no parameter"),
        ({"optimiser.0.step": torch.zeros(1, 3)}, "'optimiser.0.step' fits no parameter"),
        ({"optimiser.2.exp_avg": torch.zeros(1)}, "'optimiser.2.exp_avg' fits no parameter"),
        ({"optimiser.-1.exp_avg": torch.zeros(1)}, "'optimiser.-1.exp_avg' fits no parameter"),
        ({"optimiser.one.exp_avg": torch.zeros(1)}, "'optimiser.one.exp_avg' fits no parameter"),
        ({"optimiser.1.momentum": torch.zeros(1)}, "'optimiser.1.momentum' fits no parameter"),
        ({"optimiser.1": torch.zeros(1)}, "'optimiser.1' fits no parameter"),
        ({"optimiser.1.exp_avg_sq": None}, "only exp_avg, step of parameter 1"),
    ],
    ids=str,
)
def test_checkpoint_of_damaged_tensors_is_refused(tmp_path: Path, changes: dict[str, Tensor | None], message: str) -> None:
    train(linear(), small_loss, tmp_path, settings(2))
    path = tmp_path / "checkpoint.safetensors"
    tensors = load_file(path)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, path, {"step": "2"})
    with input_error(message):
        train(linear(), small_loss, tmp_path, settings(4), resume=True)


@pytest.mark.parametrize("bad", [4, 5], ids=["before a checkpoint's step", "at it"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda loss: loss * torch.nan, "a loss of nan and a gradient of length nan"),
        (lambda loss: loss * torch.inf, "a loss of inf"),
        (lambda loss: loss + (0 * loss).sqrt(), "a gradient of length nan"),
    ],
    ids=["nan", "infinite", "gradient alone"],
)
def test_nothing_is_learned_from_what_is_not_finite(tmp_path: Path, bad: int, spoil: Callable[[Tensor], Tensor], message: str) -> None:
    """The weights stay those of the last good step; the checkpoint, the model and the log those of the last checkpoint."""
    network, weights, kept = linear(), [], {}

    def remember_files(state: TrainingState) -> dict[str, float]:
        (tmp_path / "model").write_text(str(state.step), encoding="utf-8")
        kept["checkpoint"] = (tmp_path / "checkpoint.safetensors").read_bytes()
        return {}

    with input_error(f"step {bad + 1} has .*{message}.*--learning-rate or --no-bfloat16"):
        train(
            network,
            Spoiled(bad, spoil),
            tmp_path,
            settings(8),
            on_step=lambda step, loss: weights.append({name: value.clone() for name, value in network.state_dict().items()}),
            on_checkpoint=remember_files,
        )
    assert len(weights) == bad
    assert all(torch.equal(value, weights[-1][name]) for name, value in network.state_dict().items())
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == kept["checkpoint"]
    assert (tmp_path / "model").read_text(encoding="utf-8") == "4"
    assert [row["step"] for row in log_of(tmp_path)] == ["2", "4"]
    # Where the fault was no part of the data, the training goes on.
    whole = train(linear(), small_loss, tmp_path / "whole", settings(8))
    assert_same(train(linear(), small_loss, tmp_path, settings(8), resume=True), whole)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_every_part_that_is_clipped_is_looked_at(tmp_path: Path, part: str) -> None:
    """The loss stays finite, and of two networks one has a gradient that is not."""
    networks = nn.ModuleDict({"weight": linear(), "bias": linear()})

    class Both(SumOfThree):
        def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
            losses = {name: super(Both, self).__call__(each, batch) for name, each in networks.items()}
            total: Tensor = losses["weight"] + losses["bias"] + (0 * losses[part]).sqrt()
            return total

    with input_error("of length (nan and [0-9.]+|[0-9.]+ and nan);"):
        train(networks, Both(), tmp_path, settings(2), clipped=tuple(networks.values()))


OTHER_SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "warmup": 3,
    "decay_from": 4,
    "averaging": 0.05,
    "weight_decay": 0.0,
    "seed": 7,
    "bfloat16": False,
    "batches": 2,
    "optimiser": "muon",
}


def test_every_setting_is_free_or_not() -> None:
    assert {field.name for field in fields(TrainingConfig)} == {*OTHER_SETTINGS, *FREE_SETTINGS}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_resuming_with_another_setting_is_refused(tmp_path: Path, name: str) -> None:
    config = settings(2)
    train(linear(), small_loss, tmp_path, config)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    new = OTHER_SETTINGS[name]
    with input_error(f"began with {name} {json.dumps(getattr(config, name))}, now {json.dumps(new)};"):
        train(linear(), small_loss, tmp_path, replace(config, steps=4, **{name: new}), resume=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_all_settings_that_changed_are_named(tmp_path: Path) -> None:
    train(linear(), small_loss, tmp_path, settings(2))
    with input_error("learning_rate 0.0004, now 0.001; seed 0, now 7;"):
        train(linear(), small_loss, tmp_path, settings(4, seed=7, learning_rate=1e-3), resume=True)


def test_the_end_of_a_training_may_be_moved(tmp_path: Path) -> None:
    train(linear(), small_loss, tmp_path, settings(4, cooldown=2, max_minutes=60.0))
    config = TrainingConfig(steps=9, warmup=2, decay_from=3, cooldown=3, checkpoint_every=5, accumulate=2, max_minutes=30.0)
    assert train(linear(), small_loss, tmp_path, config, resume=True).step == 9
    assert json.loads((tmp_path / "training.json").read_text(encoding="utf-8")) == asdict(config)


@pytest.mark.parametrize("lacking", ["seed", "batches", None])
def test_a_setting_that_was_not_written_may_be_any(tmp_path: Path, lacking: str | None) -> None:
    """Trainings of older versions, which had fewer settings; `None` for a folder without the file."""
    train(linear(), small_loss, tmp_path, settings(2))
    path = tmp_path / "training.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    if lacking is None:
        path.unlink()
    else:
        del values[lacking]
        path.write_text(json.dumps(values | {"of_old": 3}), encoding="utf-8")
    config = settings(4, **{lacking or "seed": 2})
    assert train(linear(), small_loss, tmp_path, config, resume=True).step == 4
    assert json.loads(path.read_text(encoding="utf-8")) == asdict(config)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\ud800"], ids=repr)
def test_damaged_settings_are_refused(tmp_path: Path, content: str) -> None:
    train(linear(), small_loss, tmp_path, settings(2))
    (tmp_path / "training.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with input_error("training.json cannot be read"):
        train(linear(), small_loss, tmp_path, settings(4), resume=True)


def test_learning_rate() -> None:
    config = TrainingConfig(steps=10_000, learning_rate=1e-3, warmup=100, decay_from=2000, cooldown=1000)
    assert config.rate(0) == pytest.approx(1e-5)
    assert config.rate(49) == pytest.approx(5e-4)
    assert config.rate(99) == config.rate(1000) == config.rate(2000) == pytest.approx(1e-3)
    assert config.rate(8000) == pytest.approx(1e-3 / 2)
    assert config.rate(9500) == pytest.approx(1e-3 * (2000 / 9500) ** 0.5 / 2)
    assert config.rate(10_000) == 0


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_average_has_its_relative_width(width: float, gamma: float) -> None:
    """Karras et al. 2024, section 3.1: the exponents that they give for two widths, and the width of the profile itself."""
    config = TrainingConfig(averaging=width)
    assert config.average_decay(9) == pytest.approx((1 - 1 / 10) ** (gamma + 1), rel=1e-3)
    assert 0 < config.average_decay(1) < config.average_decay(100) < config.average_decay(10_000) < 1
    decays = [config.average_decay(step) for step in range(1, 2001)]
    weights = torch.tensor([(1 - d) * math.prod(decays[i + 1 :]) for i, d in enumerate(decays)], dtype=torch.float64)
    weights /= weights.sum()
    time = torch.linspace(0, 1, 2000, dtype=torch.float64)
    mean = (weights * time).sum()
    assert float((weights * (time - mean) ** 2).sum().sqrt()) == pytest.approx(width, rel=0.02)


@pytest.mark.parametrize("given_validation", [False, True])
def test_train_prior_writes_a_usable_model(
    tmp_path: Path, scan_files: list[Path], tiny_prior: NeighbourConfig, given_validation: bool
) -> None:
    files, validation = (scan_files[:2], scan_files[2:]) if given_validation else (scan_files, [])
    out = tmp_path / "out"
    path = train_prior(files, out, validation_files=validation, network_config=tiny_prior, config=settings(2), data_name="phantoms")
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (card["kind"], card["data"], card["subjects"], card["steps"]) == ("prior", "phantoms", 2, 2)
    windows = SliceWindows([TrainingVolume.from_file(file) for file in scan_files[:2]], tiny_prior.slices_in, (56, 48), 8)
    assert (card["data_mean"], card["data_std"]) == pytest.approx(windows.statistics())
    assert (card["suffix"], card["contrast"], card["slices"]) == ("T1w", "T1w, skull-stripped, axial", 22)
    assert card["error_correlation"][0] == 1
    assert list(card["denoising_rmse"]) == ["0.01", "0.03", "0.06", "0.12", "0.25", "0.5", "1", "2", "5", "10"]
    assert "rmse@0.06" in log_of(out)[0]
    x = torch.rand(1, 1, 4, 20, 20)
    assert load_prior(path)(x, torch.tensor([0.1])).shape == x.shape


def test_train_prior_shows_samples_at_each_checkpoint(tmp_path: Path, tiny_prior: NeighbourConfig) -> None:
    scan = make_phantom((16, 20, 4)).save(tmp_path / "scan.nii")
    sheets: list[tuple[int, tuple[int, ...]]] = []
    train_prior(
        [scan],
        tmp_path / "out",
        network_config=tiny_prior,
        config=settings(3),
        on_sheet=lambda step, images: sheets.append((step, tuple(images.shape))),
    )
    assert sheets == [(2, (8, 1, 1, 20, 16)), (3, (8, 1, 1, 20, 16))]
