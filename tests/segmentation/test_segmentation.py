"""Synthetic heads, and the network that finds the brain in real ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynamicdps.conditional import VolumeConfig
from dynamicdps.segmentation import BrainNetwork, LabelMap, SyntheticHeads, brain_finder, load_brain_network, train_segmenter
from dynamicdps.segmentation.brain_network import FLUID_MM
from dynamicdps.segmentation.classes import BRAIN, CLASSES, LABELS, class_of
from dynamicdps.segmentation.training import SegmentationLoss
from dynamicdps.training import TrainingConfig
from dynamicdps.volumes import Volume, extract_brain
from tests.properties import input_error
from tests.segmentation.labels import make_labels

SMALL = VolumeConfig(channels=(8, 8), blocks=(1, 1), planes=0, outputs=len(CLASSES))


@pytest.fixture(scope="module")
def label_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("labels")
    return [Path(make_labels((44, 48, 40)).save(folder / f"{k}.nii.gz")) for k in range(2)]


@pytest.fixture(scope="module")
def heads(label_files: list[Path]) -> SyntheticHeads:
    return SyntheticHeads([LabelMap.from_file(f) for f in label_files], (40, 44, 36))


def test_every_label_has_one_class() -> None:
    found = [label for labels in LABELS.values() for label in labels]
    assert len(found) == len(set(found))
    assert class_of(2) == class_of(41) == CLASSES.index("white matter")
    assert class_of(507) == class_of(0) == 0
    assert {class_of(label) for label in found} == set(range(1, len(CLASSES)))


def test_a_map_is_read_on_coarser_voxels(tmp_path: Path) -> None:
    fine = make_labels((60, 64, 56), spacing=1.0)
    path = fine.save(tmp_path / "fine.nii.gz")
    found = LabelMap.from_file(path)
    assert found.tissues.shape == (30, 32, 28)
    brain = np.isin(found.classes[found.tissues], BRAIN).mean()
    assert brain == pytest.approx(np.isin(fine.data, [2, 3, 4, 8, 47]).mean(), rel=0.03)


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    plain = make_labels((20, 20, 20))
    with input_error("whole numbers"):
        LabelMap.from_file(plain.with_data(plain.data + 0.5).save(tmp_path / "half.nii.gz"))
    with input_error("no brain"):
        LabelMap.from_file(plain.with_data(np.where(plain.data > 100, plain.data, 0)).save(tmp_path / "skin.nii.gz"))
    (tmp_path / "text.nii.gz").write_text("no image")
    with input_error("cannot be read as a label map"):
        LabelMap.from_file(tmp_path / "text.nii.gz")


@pytest.mark.parametrize("seed", range(12))
def test_images_fit_their_classes(heads: SyntheticHeads, seed: int) -> None:
    image, classes = heads.pair(np.random.default_rng(seed))
    assert image.shape == classes.shape == heads.shape
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert classes.max() < len(CLASSES)
    again = heads.pair(np.random.default_rng(seed))
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(classes, again[1])


def test_the_brain_lies_inside_the_head(heads: SyntheticHeads) -> None:
    """Whatever is drawn, the middle of the brain is where its classes say: deformation moves image and labels together."""
    shares = []
    for seed in range(8):
        image, classes = heads.pair(np.random.default_rng(seed))
        brain = np.isin(classes, BRAIN)
        if brain.any():
            shares.append(float((image[brain] > 0).mean()))
    assert min(shares) > 0.8


def test_the_loss_is_least_where_the_classes_are_right(heads: SyntheticHeads) -> None:
    _, classes = SegmentationLoss(heads).draw(torch.Generator().manual_seed(0))
    right = 20.0 * nn.functional.one_hot(classes, len(CLASSES)).movedim(-1, 1).float()

    class Answer(nn.Module):
        def __init__(self, logits: Tensor) -> None:
            super().__init__()
            self.logits = logits

        def forward(self, image: Tensor) -> Tensor:
            return self.logits

    image = torch.zeros(1, 1, *heads.shape)
    loss = SegmentationLoss(heads)
    best = float(loss(Answer(right), (image, classes)))
    assert best < 0.05
    assert float(loss(Answer(right.roll(3, 2)), (image, classes))) > best + 0.2


def test_resumed_training_is_the_uninterrupted_one(label_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamicdps.segmentation.training.VALIDATION_HEADS", 1)
    monkeypatch.setattr("dynamicdps.segmentation.training.SHAPE", (24, 24, 24))

    def run(folder: str, steps: int, resume: bool = False) -> bytes:
        config = TrainingConfig(steps=steps, checkpoint_every=1, bfloat16=False, optimiser="muon", warmup=1)
        return train_segmenter(label_files, tmp_path / folder, network_config=SMALL, config=config, resume=resume).read_bytes()

    once = run("once", 2)
    run("twice", 1)
    assert run("twice", 2, resume=True) == once
    assert isinstance(load_brain_network(tmp_path / "once" / "brain-mask.safetensors"), BrainNetwork)


class Bright(nn.Module):
    """Takes what is brighter than half of the scale for white matter."""

    def forward(self, x: Tensor) -> Tensor:
        inside = (x > 0.5).float()
        logits = torch.zeros(1, len(CLASSES), *x.shape[2:])
        logits[:, 0] = 20 * (1 - inside[:, 0])
        logits[:, CLASSES.index("white matter")] = 20 * inside[:, 0]
        return logits


class Nothing(nn.Module):
    """Finds no brain anywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * torch.eye(len(CLASSES))[0].view(1, -1, 1, 1, 1).expand(1, -1, *x.shape[2:])


class OfMiddleBrightness(Bright):
    """Takes what is neither dark nor the brightest for white matter."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(((x > 0.25) & (x < 0.95)).float())


@pytest.mark.parametrize("scalp", [1.3, 3.0])
def test_a_bright_scalp_hides_no_brain(scalp: float) -> None:
    """Scaled by the brightest of the head the outer half of this brain would be too dark to be found."""
    index = np.stack(np.meshgrid(*(2.0 * np.arange(60) - 59 for _ in range(3)), indexing="ij"))
    radius = np.sqrt((index**2).sum(0))
    head = np.select([radius < 36, radius < 44, radius < 48, radius < 56], [1.0, 0.6, 0.0, scalp], 0.0)
    found = BrainNetwork(OfMiddleBrightness()).find(Volume(head.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0])))
    brain = radius < 44 + FLUID_MM
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.97


@pytest.mark.parametrize("edges", [(2.0, 2.0, 2.0), (1.3, 1.3, 5.0)])
def test_the_brain_is_found_on_the_grid_of_the_scan(edges: tuple[float, float, float]) -> None:
    shape = tuple(int(140 / edge) for edge in edges)
    grid = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * e for n, e in zip(shape, edges, strict=True)), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    scan = Volume(np.where(radius < 50, 100.0, 20.0 * (radius < 60)).astype(np.float32), np.diag([*edges, 1.0]))
    found = extract_brain(scan, "network", BrainNetwork(Bright()).find)
    assert found.method == "network"
    both = (found.inside & (radius < 50)).sum()
    assert 2 * both / (found.inside.sum() + (radius < 50).sum()) > 0.95


def test_without_a_brain_or_a_network_there_is_a_sentence() -> None:
    empty = Volume(np.zeros((20, 20, 20), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    with input_error("the scan is empty"):
        BrainNetwork(Bright()).find(empty)
    with input_error("no brain is found"):
        BrainNetwork(Nothing()).find(empty.with_data(empty.data + 1))
    with input_error("no model that finds brains"):
        extract_brain(empty.with_data(empty.data + 1), "network")
    assert brain_finder("none-such") is None
