"""Numbers that were written down, for what has no closed form to be checked against.

A golden number says that a result is what it was when it was looked at, no more: properties are tested elsewhere. Here a changed
constant, sign or bound shows. ``pytest --write-golden`` writes the numbers anew; it is right only when a change was meant to change them,
and the change of the file then belongs into the same commit.

The numbers hold on every processor: a case writes down what does not hang on rounding, images and misfits rather than the branch that a
search took at a tie, and its tolerance is no finer than the arithmetic behind it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

Plain = bool | int | float | str | None
# Entries that are written down one by one; of longer arrays the mean, the root mean square and a weighted sum.
FEW = 6


def flat(value: Any, name: str = "") -> dict[str, Plain]:
    """Numbers, words and truth values of a result by their place in it: of tensors, arrays, sequences, mappings and dataclasses."""
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_conj().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        return _flat_array(np.asarray(value), name)
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}.{key}").items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {k: v for key, part in enumerate(value) for k, v in flat(part, f"{name}.{key}").items()}
    if value is not None and not isinstance(value, bool | int | float | str):
        raise TypeError(f"{name} is a {type(value).__name__}; expected something with numbers")
    return {name.removeprefix("."): _plain(value)}


def _flat_array(array: np.ndarray[Any, Any], name: str) -> dict[str, Plain]:
    if np.iscomplexobj(array):
        return _flat_array(np.stack([array.real, array.imag]), name)
    if array.size <= FEW:
        return {f"{name}{list(i)}".removeprefix("."): _plain(array[i].item()) for i in np.ndindex(array.shape)} | _shape(array, name)
    numbers = array.astype(np.float64).ravel()
    finite = np.isfinite(numbers)
    kept = np.where(finite, numbers, 0.0)
    # Weights that no symmetry of an image has.
    weights = np.cos(1.7 * np.arange(kept.size) + 0.3)
    found = {"mean": kept.mean(), "rms": np.sqrt(np.square(kept).mean()), "weighted": (weights * kept).sum() / np.sqrt(kept.size)}
    if not finite.all():
        found["not finite"] = int((~finite).sum())
    return {f"{name} {key}".removeprefix("."): _plain(number) for key, number in found.items()} | _shape(array, name)


def _shape(array: np.ndarray[Any, Any], name: str) -> dict[str, Plain]:
    return {f"{name} shape".removeprefix("."): " x ".join(map(str, array.shape))} if array.ndim > 1 else {}


def _plain(value: Any) -> Plain:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.9g}") if math.isfinite(value) else str(float(value))
    return int(value) if isinstance(value, np.integer) else value


def differs(found: Plain, golden: Plain, rtol: float, atol: float) -> bool:
    """Whether a number is another than the one that was written down."""
    if isinstance(found, float | int) and isinstance(golden, float | int) and float in (type(found), type(golden)):
        return not math.isclose(found, golden, rel_tol=rtol, abs_tol=atol)
    return found != golden


class Golden:
    """The golden numbers of a package's tests: a JSON file beside them.

    Args:
        path: of the file.
        write: write numbers instead of comparing.
    """

    def __init__(self, path: Path, write: bool) -> None:
        self.path, self.write = path, write

    def check(self, case: str, value: Any, *, rtol: float = 1e-4, atol: float = 1e-7) -> None:
        """All numbers of `value` are those that were written down for the case."""
        found = flat(value)
        kept: dict[str, dict[str, Plain]] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        if self.write:
            # A line a case: a change shows which.
            lines = [f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in sorted({**kept, case: found}.items())]
            self.path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
            return
        assert case in kept, f"nothing was written down for {case}: pytest --write-golden"
        golden = kept[case]
        assert found.keys() == golden.keys()
        wrong = {name: (found[name], golden[name]) for name in found if differs(found[name], golden[name], rtol, atol)}
        assert not wrong, f"{case}: found and golden {wrong}"
