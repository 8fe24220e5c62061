"""What an enhancement is about to do, in words, and how long it will take: said before it starts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynamicdps.networks.precision import has_bfloat16
from dynamicdps.operators import ScanOperator
from dynamicdps.pipeline.cost import image_shape, measure_pace, quicker, stage_seconds, work_of
from dynamicdps.pipeline.inputs import name_of
from dynamicdps.pipeline.kspace_scan import is_kspace
from dynamicdps.pipeline.options import EnhanceOptions
from dynamicdps.pipeline.scan_contrast import contrast_of, sequence_contrast
from dynamicdps.priors import Prior
from dynamicdps.volumes import BrainScan, Volume

PLANES = ("sagittal", "coronal", "axial")
PASSES_AT_ONCE = 8
# What another scan of the head adds to the solver's time.
SOLVE_SHARE = 0.3


@dataclass(frozen=True)
class Plan:
    """What an enhancement will do.

    Attributes:
        rows: a subject and what is to be said of it, such as ``("mask", "a network, 1524 ml of brain")``.
        seconds: expected, by stage, for those that are still to come; empty where nobody knows.
    """

    rows: tuple[tuple[str, str], ...]
    seconds: Mapping[str, float] = field(default_factory=dict)


def make_plan(
    scan: Path | Volume,
    head: BrainScan,
    scanner: ScanOperator | None,
    prior: Prior,
    config: Any,
    options: EnhanceOptions,
    start: str | None,
    others: Sequence[tuple[Path | Volume, BrainScan, object]] = (),
) -> Plan:
    """The plan for a scan that has been opened; a small part of the work is done to see how long all of it takes.

    Args:
        scan: as it was given.
        head: the scan and its brain.
        scanner: its forward model; `None` where it is to be fitted.
        prior: the prior.
        config: of the solver.
        options: how.
        start: name of the initial image that is given; `None` where the conditional model makes one.
        others: scans of the same head, with their brains.
    """
    shape = image_shape(head.brain, scanner)
    # Of several scans it makes an image each, by which their poses are found.
    conditional, fitted = start is None or bool(others), scanner is None
    work = work_of(shape, config, conditional=conditional, fitted=fitted)
    pairs = [(each, brain) for each, brain, _ in others]
    rows = [
        *(("scan", f"{name_of(s)}, {_by(h.whole.shape)} voxels of {_by(h.whole.spacing)} mm") for s, h in [(scan, head), *pairs]),
        ("recognised", ", ".join(recognised(scan, head, options.contrast))),
        (
            "brain",
            f"found by {head.mask.method}, {head.mask.millilitres(head.whole):.0f} ml" if head.weights is not None else "no mask needed",
        ),
        ("scanner", _scanner(scanner, head, options)),
        ("initial image", f"conditional model {options.conditional}" if start is None else str(start)),
        ("prior", f"{options.prior} ({prior.domain.suffix})"),
        ("solver", _solver(options, config, shape)),
    ]
    if work is None:
        return Plan((*rows, ("time", f"not known beforehand for {options.solver}")))
    pace = measure_pace(prior, head.brain, shape, getattr(config, "chunk", PASSES_AT_ONCE))
    seconds = _of_several(stage_seconds(work, pace), len(others))
    rows.append(("time", f"about {in_minutes(sum(seconds.values()))} on this machine"))
    faster = []
    fast = work_of(shape, quicker(config), conditional=conditional, fitted=fitted)
    if fast is not None and fast.passes < work.passes:
        needed = sum(_of_several(stage_seconds(fast, pace), len(others)).values())
        faster.append(f"--quality fast (about {in_minutes(needed)}, without an uncertainty)")
    if options.precision == "float32" and has_bfloat16(options.device):
        faster.append("--precision bfloat16 (the network two to four times as fast)")
    if faster:
        rows.append(("faster", " or ".join(faster)))
    return Plan(tuple(rows), seconds)


def _of_several(seconds: Mapping[str, float], others: int) -> dict[str, float]:
    """The seconds of one scan as those of several: each is fitted, and explained in every data step; the network's passes stay."""
    factors = {"initial": 1 + others, "solve": 1 + SOLVE_SHARE * others}
    return {stage: value * factors.get(stage, 1) for stage, value in seconds.items()}


def recognised(scan: Path | Volume, head: BrainScan, asked: str = "auto") -> list[str]:
    """What kind of scan it is, as far as the user, its files and its image say; `asked` is the contrast of the options."""
    path = scan.path if isinstance(scan, Volume) else scan
    facts = []
    if path is not None:
        facts.append("raw k-space" if is_kspace(path) else "a folder of DICOM files" if path.is_dir() else "an image file")
    facts.append("a head with its skull" if head.weights is not None else "a brain without its skull")
    acquisition = head.acquisition
    sources = (
        (None if asked == "auto" else asked, "as you say"),
        (None if path is None else contrast_of(path), "by its name"),
        (sequence_contrast(acquisition), "by its sequence"),
    )
    known = (f"{'another contrast' if name == 'unknown' else name} {source}" for name, source in sources if name is not None)
    facts.append(next(known, "its contrast is seen from its intensities"))
    if acquisition.field_strength_t is not None:
        facts.append(f"{acquisition.field_strength_t:g} T")
    if acquisition.slice_axis is not None:
        facts.append(f"{PLANES[acquisition.slice_axis]} slices {head.whole.spacing[acquisition.slice_axis]:.3g} mm apart")
    return facts


def in_minutes(seconds: float) -> str:
    """A time as one says it."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.1f} hours"


def _scanner(scanner: ScanOperator | None, head: BrainScan, options: EnhanceOptions) -> str:
    if scanner is not None:
        place = options.operator if options.operator is not None else "beside the scan"
        # What is not set says nothing.
        return f"given ({place}): {re.sub(', [a-z_]+=None', '', str(scanner))}"
    thickness = head.acquisition.slice_thickness_mm
    known = f"; slices are {thickness:g} mm thick by the header" if thickness is not None else ""
    return f"its contrast, blur, slice thickness and noise are found from the scan{known}"


def _solver(options: EnhanceOptions, config: Any, shape: tuple[int, int, int]) -> str:
    samples, steps = getattr(config, "samples", None), getattr(config, "steps", None)
    if samples is None or steps is None:
        return options.solver
    if getattr(config, "estimate", "") == "deterministic":
        runs = "one run without noise"
    else:
        runs = f"{samples} posterior sample{'s' * (samples > 1)}"
    return f"{options.solver}, {runs} of {steps} noise level{'s' * (steps > 1)} each, an image of {_by(shape)} voxels"


def _by(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
