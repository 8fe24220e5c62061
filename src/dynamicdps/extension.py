"""A user's own solvers and operators: a Python file outside of the package that registers them."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from dynamicdps.errors import InputError, reason_of

# Files that were run, by the name of their module.
_LOADED: dict[str, Path] = {}


def load_extension(path: Path | None) -> None:
    """Run a Python file once in this process, so that what it registers can be named.

    Args:
        path: the file; `None` for none.

    Raises:
        InputError: there is no such file, or it fails.
    """
    if path is None or path.resolve() in _LOADED.values():
        return
    spec = spec_from_file_location(f"dynamicdps_extension_{len(_LOADED)}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"there is no Python file {path}; expected one that registers solvers or operators; change --extension")
    module = module_from_spec(spec)
    # Dataclasses look their module up while it runs.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise InputError(f"{path} fails ({reason}); expected Python that registers solvers or operators; correct it") from error
    _LOADED[spec.name] = path.resolve()
