"""The conditional ESRGAN: its generator, the game it is trained by, its files."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from dynamicdps.cli import main
from dynamicdps.conditional import ConditionalESRGAN, RRDBConfig, load_conditional, load_unet, train_esrgan, train_unet
from dynamicdps.conditional.discriminator import UNetDiscriminator, relativistic_loss
from dynamicdps.conditional.esrgan import RRDBNetwork
from dynamicdps.conditional.esrgan_training import Adversaries, ESRGANLoss
from dynamicdps.conditional.pairs import SimulatedPairs
from dynamicdps.models.model_file import file_hash, write_model
from dynamicdps.networks import NeighbourConfig, NetworkConfig
from dynamicdps.operators import preset, to_image_grid
from dynamicdps.priors import load_prior
from dynamicdps.training import TrainingConfig, train_prior
from dynamicdps.training.loop import train
from dynamicdps.training.processes import Processes
from dynamicdps.volumes import Volume, to_slices
from tests.properties import assert_batch_independent, input_error

TINY = RRDBConfig(channels=8, growth=4, blocks=1)
TWO_STEPS = TrainingConfig(steps=2, warmup=1, checkpoint_every=2)


def generator_of(config: RRDBConfig = TINY, seed: int = 0) -> RRDBNetwork:
    torch.manual_seed(seed)
    return RRDBNetwork(config).eval().requires_grad_(False)


@pytest.fixture
def esrgan() -> ConditionalESRGAN:
    """Far from the interpolated input: every part of the network counts."""
    network = generator_of()
    nn.init.normal_(network.last.weight, std=0.3)
    return ConditionalESRGAN(network)


@pytest.fixture
def adversaries() -> Adversaries:
    torch.manual_seed(0)
    return Adversaries(RRDBNetwork(TINY), UNetDiscriminator(4))


@pytest.fixture
def pairs(scan_files: list[Path]) -> SimulatedPairs:
    return SimulatedPairs.from_files(scan_files[:2], scan_files[2:], "iqt-in")


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (16, 20), (17, 22), (18, 19)])
def test_any_size_keeps_its_shape(shape: tuple[int, int], esrgan: ConditionalESRGAN, generator: torch.Generator) -> None:
    x = torch.rand(2, 1, *shape, generator=generator)
    out = esrgan(x)
    assert out.shape == x.shape
    assert (out - x).abs().max() > 0.001
    torch.manual_seed(0)
    assert UNetDiscriminator(4)(x).shape == x.shape


def test_padding_repeats_the_edge(esrgan: ConditionalESRGAN, generator: torch.Generator) -> None:
    x = torch.rand(1, 1, 14, 17, generator=generator)
    by_hand = esrgan(F.pad(x, (0, 3, 0, 2), mode="replicate"))[..., :14, :17]
    torch.testing.assert_close(esrgan(x), by_hand)


def test_untrained_model_is_near_interpolation(phantom: Volume) -> None:
    operator = preset("iqt-in").operator
    slices = to_slices(phantom.data)
    y = operator(slices)
    expected = to_image_grid(y, operator, slices.shape).clamp_min(0)
    out = ConditionalESRGAN(generator_of(RRDBConfig())).enhance(y, operator, slices.shape)
    assert 0 < float((out - expected).square().mean().sqrt()) < 0.05
    assert float(out.min()) >= 0


def test_images_do_not_depend_on_batch_mates(esrgan: ConditionalESRGAN, generator: torch.Generator) -> None:
    def forward(x: Tensor) -> Tensor:
        out: Tensor = esrgan(x)
        return out

    assert_batch_independent(forward, torch.rand(3, 1, 18, 22, generator=generator), rtol=1e-4, atol=1e-5)


def test_enhancement_does_not_depend_on_chunks_or_layout(esrgan: ConditionalESRGAN, phantom: Volume) -> None:
    operator = preset("iqt-in").operator
    slices = to_slices(phantom.data)[2:9]
    y = operator(slices)
    whole = esrgan.enhance(y, operator, slices.shape, chunk=7)
    torch.testing.assert_close(esrgan.enhance(y, operator, slices.shape, chunk=3), whole, rtol=1e-4, atol=1e-5)
    as_volume = esrgan.enhance(y.movedim(0, 1)[None], operator, slices.movedim(0, 1)[None].shape)
    torch.testing.assert_close(as_volume[0].movedim(0, 1), whole, rtol=1e-4, atol=1e-5)


def test_default_generator_fits_its_file(tmp_path: Path) -> None:
    """The number of weights by hand, and under 5.5 MB as float16."""
    c, g = 48, 24
    dense = sum(9 * (c + i * g) * g + g for i in range(4)) + 9 * (c + 4 * g) * c + c
    square = 9 * c * c + c
    expected = 18 * dense + square + (9 * 16 * c + c) + 3 * square + (9 * c + 1)
    network = generator_of(RRDBConfig())
    assert sum(p.numel() for p in network.parameters()) == expected
    path = write_model(tmp_path / "esrgan.safetensors", network.state_dict(), {"kind": "esrgan"}).path
    assert path.stat().st_size < 5.5e6


def test_config_round_trip_and_limits() -> None:
    config = RRDBConfig(channels=8, growth=3, blocks=2)
    assert RRDBConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with input_error("growth 0"):
        RRDBConfig(growth=0)


def test_relativistic_loss_of_known_logits() -> None:
    """By hand: D(real) = sigmoid(2 - 0) and sigmoid(0 - 0), D(fake) = sigmoid(0 - 1), halved."""
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0])
    expected = (torch.tensor([2.0, 0.0]).sigmoid().log().mean() + (1 - torch.tensor(-1.0).sigmoid()).log()) / -2
    torch.testing.assert_close(relativistic_loss(real, fake), expected)
    assert relativistic_loss(real, fake) < relativistic_loss(fake, real)
    torch.testing.assert_close(relativistic_loss(real, real.flip(0).clone()), relativistic_loss(real + 5, real + 5))


def test_each_network_gets_its_own_gradient(adversaries: Adversaries, pairs: SimulatedPairs) -> None:
    """The gradient of the sum is, for each network, that of its own loss alone, computed here on graphs of their own."""

    def gradient(network: nn.Module) -> list[Tensor]:
        found = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        adversaries.zero_grad(set_to_none=True)
        return found

    # Without training mode the power iteration of the spectral norm stands still, so that judging twice gives the same.
    adversaries.eval()
    weight = 0.3
    loss = ESRGANLoss(pairs, weight)
    loss(adversaries, loss.draw(torch.Generator().manual_seed(1))).backward()
    assert all(p.requires_grad for p in adversaries.parameters())
    together = [[p.grad.clone() for p in part.parameters() if p.grad is not None] for part in adversaries.children()]
    adversaries.zero_grad(set_to_none=True)

    inputs, truth = pairs.draw(torch.Generator().manual_seed(1), [(96, 96, 8)])

    def judge(image: Tensor) -> Tensor:
        out: Tensor = adversaries.discriminator((image - 0.5) / 0.3)
        return out

    image = ConditionalESRGAN(adversaries.generator)(inputs)
    ((image - truth).abs().mean() + weight * relativistic_loss(judge(image.clamp_min(0)), judge(truth))).backward()
    alone = gradient(adversaries.generator)
    with torch.no_grad():
        image = ConditionalESRGAN(adversaries.generator)(inputs).clamp_min(0)
    relativistic_loss(judge(truth), judge(image)).backward()
    assert all(p.grad is None for p in adversaries.generator.parameters())
    assert len(together[0]) == len(alone) == len(list(adversaries.generator.parameters()))
    for parts in (zip(together[0], alone, strict=True), zip(together[1], gradient(adversaries.discriminator), strict=True)):
        for one, other in parts:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_first_phase_leaves_the_discriminator_alone(adversaries: Adversaries, pairs: SimulatedPairs) -> None:
    before = {name: value.clone() for name, value in adversaries.discriminator.state_dict().items()}
    loss = ESRGANLoss(pairs, None)
    value = loss(adversaries, loss.draw(torch.Generator().manual_seed(1)))
    value.backward()
    assert all(p.grad is None for p in adversaries.discriminator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in adversaries.discriminator.state_dict().items())
    assert loss.read()["l1"] == pytest.approx(value.item())
    assert loss.recent == []


def test_discriminator_is_lipschitz_by_its_spectral_norm() -> None:
    """Every normalised layer's matrix has the largest singular value 1."""
    torch.manual_seed(0)
    network = UNetDiscriminator(4)
    for _ in range(60):
        network(torch.rand(1, 1, 8, 8))
    layers = [*network.down, *network.up, *network.full]
    assert len(layers) == 8
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.eval().weight.detach().flatten(1), 2)
        assert float(norm) == pytest.approx(1, abs=0.02)


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("degradation", ["iqt-in", "range"])
def test_training_writes_a_usable_model(degradation: str, tmp_path: Path, scan_files: list[Path]) -> None:
    losses: list[float] = []
    path = train_esrgan(
        scan_files,
        tmp_path / "out",
        degradation=degradation,
        network_config=TINY,
        adversarial_weight=0.07,
        pretrain_steps=1,
        config=TWO_STEPS,
        data_name="phantoms",
        on_step=lambda step, loss: losses.append(loss),
    )
    assert path == tmp_path / "out" / "esrgan.safetensors"
    assert len(losses) == 2
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (card["kind"], card["degradation"], card["data"], card["subjects"], card["steps"]) == ("esrgan", degradation, "phantoms", 2, 2)
    assert (card["adversarial_weight"], card["pretrain_steps"], card["network"]) == (0.07, 1, TINY.to_json())
    assert 5 < card["validation_psnr"] < 60
    assert 0 < card["validation_sharpness"] < 3
    assert card["sha256"] == file_hash(path)
    assert not any("discriminator" in name for name in load_file(path))
    first, second = log_of(path.parent)
    assert (first["step"], first["discriminator"], second["step"]) == ("1", "nan", "2")
    assert 0.2 < float(second["discriminator"]) < 2
    model = cast(ConditionalESRGAN, load_conditional(path))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.enhance(torch.rand(2, 1, 5, 6), preset("iqt-in").operator, (2, 1, 20, 24)).shape == (2, 1, 20, 24)


@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (1, 2, 3)], ids=str)
def test_resumed_training_is_the_uninterrupted_one(stops: tuple[int, ...], tmp_path: Path, scan_files: list[Path]) -> None:
    """Stopped in the first phase, between the two and in the second; bit by bit, checkpoint (spectral norms included) and model."""

    def run(out: str, steps: int, resume: bool = False) -> None:
        config = TrainingConfig(steps=steps, warmup=1, checkpoint_every=2)
        train_esrgan(scan_files[:1], tmp_path / out, network_config=TINY, pretrain_steps=2, config=config, resume=resume)

    run("whole", 4)
    for index, steps in enumerate((*stops, 4)):
        run("parts", steps, resume=index > 0)
    whole, parts = (load_file(tmp_path / out / "checkpoint.safetensors") for out in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert any("discriminator" in name and name.endswith("_u") for name in whole)
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    assert (tmp_path / "whole/esrgan.safetensors").read_bytes() == (tmp_path / "parts/esrgan.safetensors").read_bytes()


def test_training_reduces_the_error(tmp_path: Path, adversaries: Adversaries, pairs: SimulatedPairs) -> None:
    """L1 falls in the first phase; in the second the discriminator learns to tell the images from the true ones."""
    config = TrainingConfig(steps=60, warmup=5, learning_rate=1e-2, checkpoint_every=100)
    first = ESRGANLoss(pairs, None)

    def error() -> float:
        return sum(first(adversaries, first.draw(torch.Generator().manual_seed(seed))).item() for seed in (-1, -2))

    before = error()
    train(adversaries, first, tmp_path, config)
    assert error() < 0.9 * before
    second = ESRGANLoss(pairs, 0.02)
    # Another learning rate would be refused.
    (tmp_path / "training.json").unlink()
    train(adversaries, second, tmp_path, replace(config, steps=100, learning_rate=2e-3), resume=True)
    assert [row[2] for row in second.recent[:1]] == pytest.approx([math.log(2)], abs=0.1)
    assert sum(row[2] for row in second.recent[-10:]) < 5 * math.log(2)


def test_without_adversary_the_weight_is_all_that_differs(tmp_path: Path, scan_files: list[Path]) -> None:
    """With an adversarial weight of 0 the discriminator looks on: the generator is that of L1 alone."""
    models = []
    for name, phase in (("alone", 2), ("watched", 0)):
        path = train_esrgan(
            scan_files[:1], tmp_path / name, network_config=TINY, pretrain_steps=phase, adversarial_weight=0.0, config=TWO_STEPS
        )
        models.append(load_file(path))
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_training_starts_from_given_weights(tmp_path: Path, scan_files: list[Path]) -> None:
    first = train_esrgan(scan_files[:1], tmp_path / "first", network_config=TINY, pretrain_steps=2, config=TWO_STEPS)
    still = replace(TWO_STEPS, steps=1, learning_rate=1e-12, seed=5)
    tuned = train_esrgan(scan_files[:1], tmp_path / "tuned", network_config=TINY, config=still, weights=first)
    before, after = load_file(first), load_file(tuned)
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before)
    with input_error("does not fit the network"):
        train_esrgan(scan_files[:1], tmp_path / "other", network_config=replace(TINY, growth=5), config=still, weights=first)


def test_models_of_each_kind_open_as_conditional(
    tmp_path: Path, scan_files: list[Path], tiny_network: NetworkConfig, tiny_prior: NeighbourConfig
) -> None:
    esrgan = train_esrgan(scan_files[:1], tmp_path / "e", network_config=TINY, config=TWO_STEPS)
    unet = train_unet(scan_files[:1], tmp_path / "u", network_config=tiny_network, config=TWO_STEPS)
    prior = train_prior(scan_files[:1], tmp_path / "p", network_config=tiny_prior, config=TWO_STEPS)
    x = torch.rand(1, 1, 20, 24)
    assert torch.equal(load_conditional(unet)(x), load_unet(unet)(x))
    assert not torch.equal(load_conditional(unet)(x), load_conditional(esrgan)(x))
    with input_error("of kind 'esrgan'; expected 'unet'"):
        load_unet(esrgan)
    with input_error("of kind 'esrgan'; expected 'prior'"):
        load_prior(esrgan)
    with input_error("of kind 'prior'; expected 'unet' or 'esrgan' or 'volume-unet'"):
        load_conditional(prior)
    with input_error("there is no unet or esrgan or volume-unet model 'none-such'.*unet-range"):
        load_conditional("none-such")


@pytest.mark.parametrize("network", [{"channels": 8, "growth": 4}, {"channels": 8, "growth": 4, "blocks": 0}, "large"], ids=str)
def test_card_without_a_network_is_refused(network: object, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.safetensors", generator_of().state_dict(), {"kind": "esrgan", "network": network}).path
    with input_error("no network"):
        load_conditional(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degradation": "thick-5mm"}, "thick slices"),
        ({"degradation": "iqt"}, "there is no degradation"),
        ({"adversarial_weight": -1.0}, "adversarial weight is -1"),
        ({"adversarial_weight": float("nan")}, "adversarial weight is nan"),
        ({"pretrain_steps": -1}, "after -1 steps"),
    ],
)
def test_unusable_arguments_are_refused(arguments: dict[str, object], message: str, tmp_path: Path, scan_files: list[Path]) -> None:
    with input_error(message):
        train_esrgan(scan_files, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_command_line_trains_and_enhances(
    tmp_path: Path, scan_files: list[Path], tiny_network: NetworkConfig, tiny_prior: NeighbourConfig
) -> None:
    out = tmp_path / "e"
    size = ["--channels", "8", "--growth", "4", "--blocks", "1"]
    command = ["train", "esrgan", *map(str, scan_files), "--out", str(out), "--pretrain-steps", "1", *size]
    assert main([*command, "--steps", "1"]) == 0
    assert main([*command, "--steps", "2", "--resume", "--adversarial-weight", "0.04"]) == 0
    card = json.loads((out / "esrgan.json").read_text(encoding="utf-8"))
    assert (card["steps"], card["adversarial_weight"], card["network"]) == (2, 0.04, TINY.to_json())
    prior = train_prior(scan_files[:1], tmp_path / "p", network_config=tiny_prior, config=TWO_STEPS)
    poor = tmp_path / "low" / "poor.nii.gz"
    assert main(["simulate", str(scan_files[0]), "--out", str(poor)]) == 0
    done = tmp_path / "done"
    model = str(out / "esrgan.safetensors")
    assert main(["enhance", str(poor), "--out", str(done), "--prior", str(prior), "--conditional", model, "--solver", "data-step"]) == 0
    record = json.loads((done / "run.json").read_text(encoding="utf-8"))
    assert record["models"]["conditional"] == card["sha256"]
    assert model in record["initial"]
    condition = ["--conditions", f"{model}/iqt-in", "--solvers", "conditional", "--slices-per-scan", "1", "--prior", str(prior)]
    assert main(["benchmark", str(scan_files[0]), "--out", str(tmp_path / "b"), *condition]) == 0


@pytest.mark.parametrize(
    "shared", [{"processes": Processes(0, 2)}, {"config": replace(TWO_STEPS, accumulate=2)}], ids=["processes", "parts"]
)
def test_a_batch_that_is_shared_out_is_refused(shared: dict[str, Any], tmp_path: Path, scan_files: list[Path]) -> None:
    """The average of the relativistic loss is over the whole batch."""
    with input_error("with the rest of its batch"):
        train_esrgan(scan_files, tmp_path / "out", network_config=TINY, **shared)
    assert not (tmp_path / "out").exists()
