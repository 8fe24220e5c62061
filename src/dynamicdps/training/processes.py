"""The processes that train one network together: each computes its share of every batch, and all take the same step."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed

from dynamicdps.errors import InputError

# The others wait while the first one judges the model and writes it.
TIMEOUT = timedelta(hours=2)
# Set by torchrun, and by accelerate for several processes.
VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        count: of all.
        device: that it computes on.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, which are the same bits in each."""
        if self.count == 1:
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(together)
        for tensor, total in zip(tensors, torch.split(together, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


@contextmanager
def join(device: str = "cpu") -> Iterator[Processes]:
    """Meet the other processes that torchrun or ``accelerate launch`` has started; without them there is this one alone.

    Both say by the same environment variables who is who, so that neither is needed here.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``; of several processes each takes the GPU of its own number on its machine.

    Raises:
        InputError: a variable is missing or no number, or the machine has fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        yield Processes(device=torch.device(device))
        return
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} without {', '.join(missing)}; expected the variables of torchrun or accelerate "
            "launch; start the training with one of them"
        )
    rank, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    own = torch.device(device)
    if own.type == "cuda":
        if local >= torch.cuda.device_count():
            raise InputError(
                f"there are {torch.cuda.device_count()} GPUs for process {local} of this machine; expected one each; start fewer processes"
            )
        own = torch.device("cuda", local)
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Processes(rank, count, own)
    finally:
        distributed.destroy_process_group()
