"""How networks are trained: one loop with its checkpoints, processes and optimisers, what it learns from, and the prior's objective."""

from dynamicdps.training.layout_fit import fit_layout
from dynamicdps.training.loop import TrainingConfig, TrainingState
from dynamicdps.training.patches import Patches
from dynamicdps.training.prior_training import train_prior

__all__ = ["Patches", "TrainingConfig", "TrainingState", "fit_layout", "train_prior"]
