"""The conditional U-Net: its pairs, its training and what an untrained one returns."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dynamicdps.conditional import ConditionalUNet, DegradationRange, load_unet, train_unet
from dynamicdps.conditional.unet import draw_pair
from dynamicdps.networks import NetworkConfig, SliceUNet
from dynamicdps.operators import LowField, ScanOperator, preset, to_image_grid
from dynamicdps.operators.sampling import interpolate
from dynamicdps.priors import load_prior
from dynamicdps.training import Patches, TrainingConfig
from dynamicdps.volumes import Volume, to_slices
from tests.conftest import make_phantom
from tests.properties import assert_batch_independent, input_error

TWO_STEPS = TrainingConfig(steps=2, warmup=1, checkpoint_every=2)


@pytest.fixture(scope="module")
def patches() -> Patches:
    return Patches([to_slices(make_phantom(shape).data) for shape in [(48, 56, 12), (40, 48, 6)]])


@pytest.fixture
def unet(tiny_network: NetworkConfig) -> ConditionalUNet:
    torch.manual_seed(0)
    network = SliceUNet(tiny_network)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return ConditionalUNet(network.eval().requires_grad_(False))


def test_pairs_of_one_degradation(patches: Patches) -> None:
    (inputs, truth), again = (draw_pair(patches, preset("iqt-in"), torch.Generator().manual_seed(3)) for _ in range(2))
    assert inputs.shape == truth.shape
    assert truth.shape[1] == 1
    assert torch.equal(inputs, again[0])
    assert torch.equal(truth, again[1])
    other, _ = draw_pair(patches, preset("iqt-in"), torch.Generator().manual_seed(4))
    assert other.shape != inputs.shape or not torch.equal(other, inputs)
    expected = interpolate(preset("iqt-in").operator(truth), (4.0, 4.0, 1.0), truth.shape)
    assert float((inputs - expected).std()) < 2 * preset("iqt-in").noise.std


def test_each_image_has_its_own_noise(patches: Patches) -> None:
    inputs, truth = draw_pair(patches, ScanOperator(LowField(), 0.1), torch.Generator().manual_seed(0))
    noise = (inputs - truth).flatten(1)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    correlation = torch.corrcoef(noise) - torch.eye(len(noise))
    assert correlation.abs().max() < 0.15


def test_pairs_of_a_range(patches: Patches) -> None:
    (inputs, truth), again = (draw_pair(patches, DegradationRange(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert inputs.shape == truth.shape
    assert truth.shape[:2] == (16, 1)
    assert torch.equal(inputs, again[0])
    assert torch.equal(truth, again[1])
    assert inputs.isfinite().all()


def test_pairs_are_not_rounded_by_the_autocast_of_the_training(patches: Patches) -> None:
    plain, _ = draw_pair(patches, preset("iqt-in"), torch.Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inputs, truth = draw_pair(patches, preset("iqt-in"), torch.Generator().manual_seed(3))
    assert inputs.dtype == truth.dtype == torch.float32
    assert torch.equal(inputs, plain)


def test_range_draws_within_its_limits(generator: torch.Generator) -> None:
    limits = DegradationRange()
    drawn = [limits.draw(generator).to_json() for _ in range(300)]
    assert {o["in_plane_factor"] for o in drawn} == set(limits.in_plane_factor)
    assert {o["slice_thickness"] for o in drawn} == {None, 3.0, 5.0}
    for name in ("gamma", "blur", "noise_std"):
        low, high = getattr(limits, name)
        values = torch.tensor([o[name] for o in drawn])
        assert low <= values.min()
        assert values.max() <= high
        spread = values.log() if name == "noise_std" else values
        ends = torch.tensor([low, high]).log() if name == "noise_std" else torch.tensor([low, high])
        assert float((spread.mean() - ends.mean()).abs()) < 0.1 * float(ends[1] - ends[0])


@pytest.mark.parametrize("name", ["iqt-in", "thick-5mm"])
def test_untrained_model_is_interpolation(name: str, tiny_network: NetworkConfig, phantom: Volume, generator: torch.Generator) -> None:
    """A fresh network returns 0: what is left is the interpolated measurement, never below 0."""
    operator = preset(name).operator
    volume = to_slices(phantom.data).movedim(0, 1)[None]
    y = operator(volume)
    y = y + 0.1 * torch.randn(y.shape, generator=generator)
    expected = to_image_grid(y, operator, volume.shape).clamp_min(0)
    out = ConditionalUNet(SliceUNet(tiny_network).eval()).enhance(y, operator, volume.shape)
    assert out.shape == volume.shape
    torch.testing.assert_close(out, expected)
    assert (out == 0).any()


def test_enhancement_does_not_depend_on_chunks(unet: ConditionalUNet, phantom: Volume) -> None:
    operator = LowField(in_plane_factor=2.0)
    slices = to_slices(phantom.data)[2:9]
    y = operator(slices)
    whole = unet.enhance(y, operator, slices.shape, chunk=7)
    assert (whole - to_image_grid(y, operator, slices.shape)).abs().max() > 0.01
    for chunk in (1, 3):
        torch.testing.assert_close(unet.enhance(y, operator, slices.shape, chunk=chunk), whole, rtol=1e-4, atol=1e-5)
    as_volume = unet.enhance(y.movedim(0, 1)[None], operator, slices.movedim(0, 1)[None].shape)
    torch.testing.assert_close(as_volume[0].movedim(0, 1), whole, rtol=1e-4, atol=1e-5)


def test_images_do_not_depend_on_batch_mates(unet: ConditionalUNet, generator: torch.Generator) -> None:
    def forward(x: Tensor) -> Tensor:
        out: Tensor = unet(x)
        return out

    assert_batch_independent(forward, torch.rand(3, 1, 18, 22, generator=generator), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("degradation", ["iqt-in", "range"])
def test_training_writes_a_usable_model(degradation: str, tmp_path: Path, scan_files: list[Path], tiny_network: NetworkConfig) -> None:
    losses: list[float] = []
    path = train_unet(
        scan_files,
        tmp_path / "out",
        degradation=degradation,
        network_config=tiny_network,
        config=TWO_STEPS,
        data_name="phantoms",
        on_step=lambda step, loss: losses.append(loss),
    )
    assert path == tmp_path / "out" / "unet.safetensors"
    assert len(losses) == 2
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (card["kind"], card["degradation"], card["data"], card["subjects"], card["steps"]) == ("unet", degradation, "phantoms", 2, 2)
    assert 5 < card["validation_psnr"] < 60
    unet = load_unet(path)
    assert not unet.training
    operator = LowField(in_plane_factor=4.0)
    assert unet.enhance(torch.rand(2, 1, 5, 6), operator, (2, 1, 20, 24)).shape == (2, 1, 20, 24)
    with input_error("of kind 'unet'"):
        load_prior(path)


def test_resumed_training_is_the_uninterrupted_one(tmp_path: Path, scan_files: list[Path], tiny_network: NetworkConfig) -> None:
    def run(out: str, steps: int, resume: bool = False) -> bytes:
        config = TrainingConfig(steps=steps, warmup=1, checkpoint_every=2)
        path = train_unet(scan_files[:1], tmp_path / out, network_config=tiny_network, config=config, resume=resume)
        return path.read_bytes()

    whole = run("whole", 3)
    assert run("parts", 1) != whole
    assert run("parts", 3, resume=True) == whole


def test_one_scan_has_no_validation(tmp_path: Path, scan_files: list[Path], tiny_network: NetworkConfig) -> None:
    """The card stays valid JSON, whose numbers are finite."""
    path = train_unet(scan_files[:1], tmp_path / "out", network_config=tiny_network, config=TWO_STEPS)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(path.with_suffix(".json").read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize(("degradation", "message"), [("thick-5mm", "thick slices"), ("iqt", "there is no degradation")])
def test_unusable_degradations_are_refused(degradation: str, message: str, tmp_path: Path, scan_files: list[Path]) -> None:
    with input_error(message):
        train_unet(scan_files, tmp_path / "out", degradation=degradation)
    assert not (tmp_path / "out").exists()
