"""A prior and a conditional model with random weights: what commands need to run, and no more."""

from pathlib import Path
from typing import Any

import torch

from dynamicdps.models.model_file import write_model
from dynamicdps.networks import NetworkConfig, SliceUNet

TINY = NetworkConfig(channels=(16, 16), residual_blocks=(1, 1), attention=(False, False), norm_groups=8)


def write_tiny(path: Path, kind: str, **card: Any) -> Path:
    """Write a model; words of its card may be given."""
    torch.manual_seed(0)
    facts = {
        "kind": kind,
        "contrast": "T1w, skull-stripped, axial",
        "spacing_mm": [1.0, 1.0, 1.0],
        "network": TINY.to_json(),
        "data": "nothing",
    }
    numbers = {"data_mean": 0.4, "data_std": 0.3, "denoising_rmse": {"0.1": 0.05}, "degradation": "iqt-in"}
    return write_model(path, SliceUNet(TINY).state_dict(), facts | numbers | card).path
