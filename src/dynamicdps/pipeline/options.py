"""How a scan is enhanced, as plain values: what the command line, a study and a program in Python can choose."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dynamicdps.errors import InputError

ACCEPTED: dict[Any, Any] = {int: Integral, float: Real, Path: (str, Path), str: (str, Path)}
WORDS = {int: "a whole number", float: "a number", str: "a word", Path: "a path", bool: "true or false", type(None): "None"}


@dataclass(frozen=True, kw_only=True)
class ChoiceOptions:
    """Which of several images a scan is."""

    series: int | None = None
    """Number of the series, where a DICOM folder holds several."""
    volume: int | None = None
    """Number of the volume, from 1, where an image file has several (4-D)."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions(ChoiceOptions):
    """What a scan's own files do not say."""

    voxel_size: str | None = None
    """Voxel size of raw k-space that does not say it: field of view / matrix in mm along x and y, and the distance of slices, as 2,2,5."""
    orientation: str | None = None
    """Orientation of raw k-space without an affine: where x, y and the slices grow to, such as RAS (right, front,
    up; the default) or LPS."""
    array: str | None = None
    """Name of the array of raw k-space (kspace), or of the dataset in an ISMRMRD file (dataset)."""


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What is known of a head and of the scanner before its forward model is fitted."""

    contrast: Literal["auto", "T1w", "T2w", "FLAIR", "unknown"] = "auto"
    """Contrast of the scan: auto takes its BIDS suffix, else its sequence, else what its intensities say; unknown is for all others, such
    as proton density or STIR."""
    mask: str = "auto"
    """Where the brain is: auto, network, deepbet, classical, none (skull-stripped) or a mask file."""
    shading: Literal["auto", "off", "on"] = "auto"
    """Whether a fitted forward model has coil shading: where the scan shows more than anatomy may (auto), never, or always."""


@dataclass(frozen=True, kw_only=True)
class FitOptions(HeadOptions):
    """How the brain is found, and the forward model of the scanner."""

    conditional: str = "unet-scanners"
    """Bundled conditional model or a .safetensors file; it makes the initial image."""


@dataclass(frozen=True, kw_only=True)
class ScannerOptions(HeadOptions):
    """Which forward model a scan has, and where it is computed."""

    operator: str | None = None
    """The scanner: a degradation's name, a JSON file, or fit, which finds it from the scan. Without it the scan's own .operator.json,
    else fit."""
    extension: Path | None = None
    """Python file of your own solvers or operators: docs/architecture.md."""
    device: str = "cpu"
    """cpu, cuda or mps."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions(ScannerOptions, ChoiceOptions):
    """How an image is compared with a scan."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions(FitOptions, ScannerOptions):
    """How every scan of a study is enhanced."""

    to: str | None = None
    """T1w makes the T1w-like image that explains a T2w scan."""
    grid: str = "prior"
    """Grid of the enhanced scan: prior (1 mm), native (the scan's own) or a file whose grid is taken."""
    prior: str = "brain"
    """Bundled prior or a .safetensors file."""
    solver: str = "dynamicdps"
    """How to solve: dynamicdps, one of its peers, data-step or conditional; see docs/solvers.md."""
    quality: Literal["fast", "default", "best"] = "default"
    """Effort of dynamicdps. fast: one run without noise and without uncertainty; default: a pair of samples of opposite noise; best: four
    pairs and more noise levels. The options below override it."""
    samples: int | None = None
    """Posterior samples to average; their spread is the uncertainty. Without it the solver's own number (dynamicdps: 2)."""
    steps: int | None = None
    """Noise levels from the start down. Without it the solver's own number (dynamicdps: 5)."""
    estimate: Literal["mean", "sample", "deterministic"] | None = None
    """What dynamicdps returns: the mean of samples (lowest error, the default), one sample (realistic texture), or a run without noise."""
    start_quantile: float | None = None
    """0 to 1: a higher value replaces more of the initial image (safer), a lower one keeps more; without it the level of lowest
    mean error."""
    start_calibration: Path | None = None
    """File that `calibrate start` wrote; without it the bundled one."""
    settings: tuple[str, ...] = ()
    """More settings of the solver, as NAME=VALUE: see docs/solvers.md."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type in which the prior and the conditional model compute; bfloat16 is about twice as fast on CPUs for it."""
    seed: int = 0
    """Seed of all randomness."""


@dataclass(frozen=True, kw_only=True)
class EnhanceOptions(StudyOptions, ReadOptions):
    """How one scan is enhanced."""

    gradient: Literal["image", "network"] | None = None
    """Where dynamicdps takes its data steps: on the denoised image (the default), or through the network (the paper's)."""
    start_sigma: float | None = None
    """Start level for every slice, in image intensities; without it each slice's misfit decides."""
    start_step: int | None = None
    """Start level as a step number of the paper's 1000-step process."""
    keep_all: bool = False
    """Use all scans, also one that does not show what the others show."""
    slice_motion: bool = False
    """Find where the head was at each slice, where several scans are given."""
    memory: float | None = None
    """Most memory of the whole process in GB, which says how many slices pass the network at once; without it 8."""


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """How a scan is segmented."""

    series: int | None = None
    """Number of the series, where a DICOM folder holds several."""
    mask: str = "network"
    """Where the brain is: network, deepbet, classical, none (skull-stripped) or a mask file."""
    segmenter: str = "brain-mask"
    """Bundled or added model, or a .safetensors file, that finds the structures."""
    repeats: int = 8
    """Slightly different images of the scan that the intervals of the volumes come from; 0 for no intervals."""
    seed: int = 0
    """Seed of these images."""
    device: str = "cpu"
    """cpu, cuda or mps."""


def values_of(options: Any, kind: type[Any]) -> dict[str, Any]:
    """The values of options by name, as far as another kind of options has them too."""
    return {known.name: getattr(options, known.name) for known in fields(kind)}


def checked_values(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of options by name as a call in Python gives them, in the types that the options have.

    A path may be a string, and the solver's settings a dictionary.

    Raises:
        TypeError: there is no option of a name; it says which there are.
        InputError: a value is of another type than its option.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            close = get_close_matches(name, hints, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise TypeError(f"there is no option {name!r}{meant}; expected some of {', '.join(hints)}")
        if not _fits(hints[name], value):
            raise InputError(f"{name} is {value!r} ({type(value).__name__}); expected {' or '.join(_words(hints[name]))}")
    return {name: _converted(hints[name], value) for name, value in values.items()}


def as_words(options: Any) -> list[str]:
    """Options that differ from their defaults, and the seed, as one would type them."""
    words = []
    for known in fields(options):
        value = getattr(options, known.name)
        if value == known.default and known.name != "seed":
            continue
        if known.name == "settings":
            # Once: where it comes twice, the last one counts alone.
            words += ["--set", *map(str, value)]
        elif isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{known.name.replace('_', '-')}")
        else:
            words += [f"--{known.name.replace('_', '-')}", str(value)]
    return words


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(hint: Any, value: Any) -> bool:
    for part in _parts(hint):
        if get_origin(part) is Literal:
            if isinstance(value, str) and value in get_args(part):
                return True
        elif get_origin(part) is tuple:
            if isinstance(value, Mapping) or (isinstance(value, list | tuple) and all(_fits(get_args(part)[0], each) for each in value)):
                return True
        elif isinstance(value, bool):
            if part is bool:
                return True
        elif isinstance(value, ACCEPTED.get(part, part)):
            return True
    return False


def _converted(hint: Any, value: Any) -> Any:
    """A value that fits as the type that its option has."""
    parts = _parts(hint)
    if isinstance(value, Mapping):
        return tuple(f"{name}={each}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(value, str | Path):
        return Path(value) if Path in parts else str(value)
    return next((kind(value) for kind in (int, float) if kind in parts and value is not None), value)


def _words(hint: Any) -> list[str]:
    words: list[str] = []
    for part in _parts(hint):
        if get_origin(part) is Literal:
            words += map(repr, get_args(part))
        else:
            words.append("a list of words or a dictionary" if get_origin(part) is tuple else WORDS[part])
    return words
