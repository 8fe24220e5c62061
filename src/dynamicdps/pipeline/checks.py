"""Options that no scan can be enhanced with are refused before the work at whose end they are needed."""

from pathlib import Path
from typing import Any

import torch

from dynamicdps.conditional import load_conditional
from dynamicdps.errors import InputError
from dynamicdps.operators import read_operator
from dynamicdps.pipeline.cross_contrast import check_to
from dynamicdps.pipeline.options import EnhanceOptions, StudyOptions
from dynamicdps.priors import level_of_step
from dynamicdps.segmentation import brain_finder
from dynamicdps.solvers import available, make_config, read_start_level
from dynamicdps.solvers.dynamicdps import QUALITIES
from dynamicdps.volumes import Volume, deepbet, load
from dynamicdps.volumes.brain_extraction import METHODS
from dynamicdps.volumes.grids import check_grid

FIT = "fit"


def check_device(name: str) -> str:
    """The device, if this machine has it.

    Raises:
        InputError: it has not.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device_kind(name), False):
        raise InputError(
            f"the device {name!r} is not on this machine; expected one of {', '.join(d for d, ok in here.items() if ok)}; change --device"
        )
    return name


def device_kind(name: str) -> str:
    """The kind of a device, which may be on another machine: cpu, cuda or mps.

    Raises:
        InputError: it is no device.
    """
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda", "mps"):
        raise InputError(f"there is no device {name!r}; expected cpu, cuda or mps, or one of several such as cuda:1; change --device")
    return kind


def start_level(options: EnhanceOptions) -> float | None:
    """The start level that is asked for in either way, or `None`.

    Raises:
        InputError: both are given, or one is out of its range.
    """
    sigma, step = options.start_sigma, options.start_step
    if sigma is not None and step is not None:
        raise InputError("both --start-sigma and --start-step are given; expected one of them; leave one out")
    if step is not None:
        if not 1 <= step <= 1000:
            raise InputError(f"--start-step is {step}; expected 1 to 1000")
        sigma = level_of_step(step)
    if sigma is not None and not 0.001 <= sigma <= 40:
        raise InputError(f"the start level is {sigma:g}; expected 0.001 to 40; change --start-sigma")
    return sigma


def solver_config(options: StudyOptions) -> Any:
    """The solver's configuration from the options that are given.

    Raises:
        InputError: an option does not fit the solver, or a value is wrong.
    """
    for name in ("samples", "steps"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= 1000:
            raise InputError(f"--{name} is {value}; expected 1 to 1000")
    values: dict[str, Any] = {}
    for text in options.settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r} has no value; expected NAME=VALUE such as steps=10")
        values[key.strip().replace("-", "_")] = value.strip()
    given = {name: getattr(options, name) for name in ("samples", "steps", "estimate", "start_quantile")}
    if isinstance(options, EnhanceOptions):
        given |= {"gradient": options.gradient, "start_sigma": start_level(options)}
    if options.start_calibration is not None:
        given["start_rule"] = read_start_level(options.start_calibration)
    if options.quality != "default" and options.solver != "dynamicdps":
        raise InputError(
            f"--quality {options.quality} is given with --solver {options.solver}; expected it with dynamicdps; leave it out, or set "
            "--samples and --steps"
        )
    chosen = {name: value for name, value in given.items() if value is not None}
    return make_config(options.solver, QUALITIES[options.quality] | chosen | values)


def check_options(options: StudyOptions) -> Any:
    """Refuse what no scan can be enhanced with.

    Returns:
        The solver's configuration.

    Raises:
        InputError: an option is wrong, or a file that it names cannot be used.
    """
    if options.solver not in available():
        raise InputError(f"there is no solver {options.solver!r}; expected one of {', '.join(available())}; change --solver")
    check_to(options.to)
    check_shading(options.shading, fitted=options.operator in (None, FIT))
    config = solver_config(options)
    if options.operator not in (None, FIT):
        read_operator(options.operator)
    check_mask(options.mask)
    check_grid(options.grid)
    return config


def check_shading(shading: str, *, fitted: bool) -> None:
    """Refuse to find the shading of a scan whose forward model is given.

    Raises:
        InputError: it is asked for.
    """
    if shading == "on" and not fitted:
        raise InputError("--shading on is given without --operator fit; expected both, or an operator with its BiasField; change one")


def check_mask(mask: str) -> None:
    """Refuse a mask that no scan can have.

    Raises:
        InputError: there is no such method or file, or it cannot be used.
    """
    if mask == "deepbet" and deepbet.weights() is None:
        raise InputError("deepbet is not installed; expected its weights for this mask; run: pip install --no-deps deepbet")
    if mask == "network" and brain_finder() is None:
        raise InputError("there is no model that finds brains; expected one named brain-mask; train and add one, or change --mask")
    if mask in METHODS:
        return
    if not Path(mask).exists():
        raise InputError(f"there is no mask {mask!r}; expected {', '.join(METHODS)} or an image file; change --mask")
    load(mask)


def find_start(initial: Path | None, conditional: str) -> Volume | None:
    """The initial image that is given; without one the conditional model must be usable.

    Raises:
        InputError: as `load` and `load_conditional`.
    """
    if initial is None:
        load_conditional(conditional)
        return None
    return load(initial)
