"""Models that stay in memory from one scan to the next, in processes that do many."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dynamicdps.models.names import known_models

P = ParamSpec("P")
T = TypeVar("T")

_holding: ContextVar[bool] = ContextVar("holding", default=False)
_held: dict[Any, tuple[Any, Any]] = {}


@contextmanager
def holding_models() -> Iterator[None]:
    """Inside this block, now or later in this process, a model whose files have not changed is loaded once.

    Whoever loads it is given the same object, which must stay as it is.
    """
    before = _holding.set(True)
    try:
        yield
    finally:
        _holding.reset(before)


def held(load: Callable[P, T]) -> Callable[P, T]:
    """Give a function whose first argument names a model the cache of `holding_models`."""

    @wraps(load)
    def remembering(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _holding.get() or not args:
            return load(*args, **kwargs)
        key = load.__qualname__, str(args[0]), args[1:], tuple(sorted(kwargs.items()))
        stamp = _stamp(str(args[0]))
        known = _held.get(key)
        if known is None or known[0] != stamp:
            known = _held[key] = stamp, load(*args, **kwargs)
        model: T = known[1]
        return model

    return remembering


def _stamp(name: str) -> list[tuple[int, int] | None]:
    """Sizes and times of a model's weights and card; `None` for what is missing."""
    path = known_models().get(name, Path(name))
    stamps: list[tuple[int, int] | None] = []
    for each in (path, path.with_suffix(".json")):
        try:
            stat = each.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((stat.st_size, stat.st_mtime_ns))
    return stamps
