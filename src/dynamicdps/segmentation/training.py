"""Training of the network that finds the brain, on images made of label maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet
from dynamicdps.models.model_file import read_model, write_model
from dynamicdps.segmentation.classes import BRAIN, CLASSES
from dynamicdps.segmentation.synthetic_heads import LabelMap, SyntheticHeads
from dynamicdps.training import TrainingConfig, TrainingState
from dynamicdps.training.loop import train, training_card
from dynamicdps.training.patches import split_held_out
from dynamicdps.training.processes import Processes

SEGMENTER_CONFIG = VolumeConfig(channels=(16, 32, 64), blocks=(1, 2, 2), unshuffle=2, planes=0, outputs=len(CLASSES))
SEGMENTER_TRAINING = TrainingConfig(learning_rate=1e-3, warmup=100, decay_from=3000, checkpoint_every=250, optimiser="muon")
VALIDATION_HEADS = 12
# Voxels of a synthetic head, of 2 mm.
SHAPE = (96, 112, 112)


@dataclass(frozen=True)
class SegmentationLoss:
    """Cross entropy and one minus the mean Dice of the classes that are there.

    Attributes:
        heads: what to learn from.
    """

    heads: SyntheticHeads

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Images and classes."""
        return self.heads.draw(generator)

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """See `dynamicdps.training.loop.Objective`."""
        image, classes = batch
        logits: Tensor = network(image).float()
        # Sums by class, without an image of zeros and ones for each of them.
        logs = logits.log_softmax(1)
        true_logs = logs.gather(1, classes[:, None])[:, 0].flatten(1)
        labels, zeros = classes.flatten(1), logits.new_zeros(logits.shape[:2])
        counts = zeros.scatter_add(1, labels, torch.ones_like(true_logs))
        both = zeros.scatter_add(1, labels, true_logs.exp())
        dice = (2 * both + 1) / (logs.exp().flatten(2).sum(-1) + counts + 1)
        there = counts > 0
        return 1 - true_logs.mean() - (dice * there).sum() / there.sum().clamp_min(1)


@torch.inference_mode()
def validate(network: nn.Module, heads: SyntheticHeads) -> dict[str, float]:
    """Dice of the brain, and mean Dice of the classes, over fixed draws."""
    brain, parts = [], []
    for seed in range(VALIDATION_HEADS):
        image, classes = heads.pair(np.random.default_rng(seed))
        found = network(torch.from_numpy(image)[None, None]).argmax(1)[0].numpy()
        brain.append(_dice(np.isin(found, BRAIN), np.isin(classes, BRAIN)))
        parts += [_dice(found == c, classes == c) for c in range(1, len(CLASSES)) if (classes == c).sum() > 20]
    return {"dice_brain": float(np.mean(brain)), "dice_classes": float(np.mean(parts))}


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def train_segmenter(
    label_files: Sequence[str | Path],
    out: Path,
    *,
    validation_files: Sequence[str | Path] = (),
    network_config: VolumeConfig = SEGMENTER_CONFIG,
    config: TrainingConfig = SEGMENTER_TRAINING,
    resume: bool = False,
    weights: str | Path | None = None,
    data_name: str = "unnamed",
    processes: Processes = Processes(),
    on_step: Callable[[int, float], None] | None = None,
) -> Path:
    """Train a network that finds the brain in heads of any contrast, and write ``brain-mask.safetensors`` with its model card.

    Args:
        label_files: label maps of whole heads with FreeSurfer's numbers.
        out: folder of the training.
        validation_files: maps of other heads; without them the last tenth of `label_files` is held out.
        network_config: size of the network; without planes, with an output for each of `CLASSES`.
        config: how to train.
        resume: continue from the checkpoint in `out`.
        weights: a network of the same kind, by bundled name or file, that a new training starts from.
        data_name: what the model card says about the data.
        processes: that train together.
        on_step: called with step and loss.

    Returns:
        The model file.

    Raises:
        InputError: a map cannot be read or has no brain; otherwise as `dynamicdps.training.loop.train`.
    """
    files, held_out = split_held_out(label_files, validation_files)
    loss = SegmentationLoss(SyntheticHeads([LabelMap.from_file(f) for f in files], SHAPE))
    held = SyntheticHeads([LabelMap.from_file(f) for f in held_out], SHAPE) if held_out else None
    torch.manual_seed(config.seed)
    network = VolumeUNet(network_config)
    if weights is not None:
        read_model(weights, "segmenter").load_into(network)
    path = out / "brain-mask.safetensors"

    def finish(state: TrainingState) -> dict[str, float]:
        average = VolumeUNet(network_config)
        average.load_state_dict(state.average)
        found = validate(average.eval(), held) if held is not None else {}
        card = training_card("segmenter", network_config, config, state.step, data_name, len(files))
        card |= {"contrast": "any", "spacing_mm": [2.0, 2.0, 2.0], "normalisation": "99th percentile at 1", "classes": list(CLASSES)}
        write_model(path, state.average, card | {f"validation_{name}": round(value, 4) for name, value in found.items()})
        return found

    train(network, loss, out, config, resume=resume, processes=processes, on_step=on_step, on_checkpoint=finish)
    return path
