"""Models are data: safetensors weights with a JSON model card beside them. Nothing is ever unpickled."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dynamicdps.atomic_file import atomic_write
from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import read_json, write_json
from dynamicdps.models.model_cache import held
from dynamicdps.models.names import model_path

MAX_BYTES = 2 * 1024**3
# Functions of torch.nn.init and methods of tensors that draw random weights.
DRAWS = ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_")

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class ModelFile:
    """A network's weights and its model card.

    Attributes:
        weights: tensors by name.
        card: what it is, how it was trained and what it fits; see docs/models.md.
        path: where the weights lie.
    """

    weights: dict[str, Tensor]
    card: dict[str, Any]
    path: Path

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".safetensors")

    def build(self, make: Callable[[dict[str, Any]], NetworkT]) -> NetworkT:
        """Build the network and load the weights as float32, for inference.

        Args:
            make: the network from what the card says of its size.

        Raises:
            InputError: the card describes no network, or one that the weights do not fit.
        """
        try:
            # Without memory, for a card may promise any size, and without random numbers, which the weights replace.
            with torch.device("meta"), _WithoutDraws():
                network = make(self.card["network"])
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"the model card of {self.path} describes no network; expected that of its training; copy both again"
            ) from error
        self.load_into(network, assign=True)
        network = network.eval().requires_grad_(False)
        # A network of volumes has no such order of memory.
        if any(value.ndim == 5 for value in self.weights.values()):
            return network
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def load_into(self, network: nn.Module, *, assign: bool = False) -> None:
        """Load the weights into a network, as float32.

        Args:
            network: of their size.
            assign: let them take the place of the network's own, which may be without memory.

        Raises:
            InputError: they do not fit it.
        """
        try:
            network.load_state_dict({name: value.float() for name, value in self.weights.items()}, assign=assign)
        except RuntimeError as error:
            raise InputError(f"{self.path} does not fit the network; expected one of the same size; check its model card") from error


class _WithoutDraws(TorchFunctionMode):
    """Leaves weights as they come: drawing them for a network without memory would load torch's compiler, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = kwargs or {}
        if getattr(func, "__name__", "") in DRAWS:
            return args[0] if args else values["tensor"]
        return func(*args, **values)


@held
def read_model(name: str | Path, kind: str | tuple[str, ...]) -> ModelFile:
    """Read a model by its name, bundled or added, or by its file.

    Args:
        name: ``"brain"`` or a path that ends in ``.safetensors``.
        kind: what the card must say it is, ``"prior"``, ``"unet"`` or ``"esrgan"``, or several of them.

    Raises:
        InputError: there is no such model, a file is damaged or its hash differs from the card's, or it is of another kind.
    """
    kinds = (kind,) if isinstance(kind, str) else kind
    path = model_path(name, kinds)
    card_path = path.with_suffix(".json")
    try:
        check_size(path)
        card = read_json(card_path)
        found, digest = str(card["kind"]), str(card["sha256"])
        weights = real_numbers(load_file(path))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as a model ({reason_of(error)}); expected weights with their model card {card_path.name} beside them"
        ) from error
    if found not in kinds:
        wanted = " or ".join(repr(kind) for kind in kinds)
        raise InputError(f"{path} is a model of kind {found!r}; expected {wanted}; name another file")
    if digest != file_hash(path):
        raise InputError(f"{path} differs from the hash in its model card; expected the file that was trained; copy both again")
    return ModelFile(weights, card, path)


def check_size(path: Path) -> None:
    """Refuse weights that no network of this package has.

    Raises:
        InputError: the file is larger than 2 GB.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size / 1024**3:.1f} GB; expected at most {MAX_BYTES / 1024**3:g} GB of weights; check the file")


def real_numbers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, if they are numbers.

    Raises:
        ValueError: a tensor is of another type, or not finite.
    """
    for name, value in weights.items():
        if value.is_complex() or value.dtype == torch.bool:
            raise ValueError(f"{name[:40]!r} is of type {value.dtype}")
        # Types of 8 bits and less have no test of their own.
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise ValueError(f"{name[:40]!r} holds values that are not finite")
    return weights


def write_model(path: Path, weights: dict[str, Tensor], card: dict[str, Any]) -> ModelFile:
    """Write weights (as float16: half the size, under 0.001 of the error) and the card with their hash."""
    halves = {name: value.detach().cpu().half().contiguous() for name, value in weights.items()}
    with atomic_write(path) as partial:
        save_file(halves, partial)
        # safetensors makes files that only their owner can read.
        partial.chmod(0o644)
        card = card | {"sha256": file_hash(partial), "parameters": sum(v.numel() for v in halves.values())}
    write_json(path.with_suffix(".json"), card)
    return ModelFile(halves, card, path)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
