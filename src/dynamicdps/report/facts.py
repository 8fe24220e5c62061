"""What was done, from run.json: steps in plain words, and tables of parameters with their units, models and versions."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from dynamicdps.evaluation import StageMetrics
from dynamicdps.report.contents import Facts
from dynamicdps.report.trace import Rows
from dynamicdps.volumes import Volume
from dynamicdps.volumes.preparation import in_words

TIMES = "\N{MULTIPLICATION SIGN}"
# Longer lists are maps; their values belong into the operator's file, not on a page.
MAX_LISTED = 8
UNITS = {
    "gamma": "(exponent of the contrast)",
    "in_plane_factor": "image voxels",
    "blur": "image voxels",
    "slice_thickness": "mm",
    "slice_spacing": "mm",
    "image_spacing": "mm",
    "noise_std": "of the intensity range",
    "intensity_scale": "scanner units",
    "field_strength": "T",
    "image_shape": "voxels",
}
CARD = {
    "name": "name",
    "contrast": "contrast",
    "degradation": "trained on the degradation",
    "data": "trained on",
    "subjects": "subjects",
    "spacing_mm": "voxels in mm",
    "steps": "training steps",
    "sha256": "SHA-256",
}
HIDDEN = {"type", "image_affine", "intervals", "warnings"}
MODELS = {"prior": "prior", "conditional": "conditional model", "segmenter": "model of structures"}
SAMPLE = (
    "One sample is one image that the measurement and the prior both allow, drawn from noise of its own; "
    "where samples differ, the measurement leaves open what is there."
)


def steps_of(run: Mapping[str, Any], metrics: StageMetrics | None, starts: Rows, measurement: Volume | None, truth: bool) -> list[str]:
    """What was done, a sentence a step.

    Args:
        run: of run.json.
        metrics: of the estimate.
        starts: of starts.csv.
        measurement: the scan.
        truth: whether there is one.
    """
    steps = []
    if measurement is not None:
        source = scan_name(run)
        of = f" {source}" if source else ", simulated from the bundled scan" if run.get("command") == "demo" else ""
        steps.append(f"Measurement{of}: {_by(measurement.shape)} voxels of {_by(measurement.spacing)} mm.")
    steps += [f"Preparation, {in_words(step)}." for step in run.get("preparation") or []]
    operator = run.get("operator")
    if isinstance(operator, Mapping):
        steps.append(f"Forward model of the scanner: {operator.get('type', 'unknown')}; its parameters are below.")
    if run.get("initial"):
        steps.append(f"Initial image: {run['initial']}.")
    solver = run.get("solver")
    if solver:
        steps.append(f"Solver: {solver}{_settings_in_words(run.get('settings'))}.")
    levels = sorted(row["start_sigma"] for row in starts if row.get("start_sigma", 0) > 0)
    if levels:
        spread = f"{levels[0]:.3g}" if levels[0] == levels[-1] else f"{levels[0]:.3g} to {levels[-1]:.3g}, median {_median(levels):.3g}"
        count = "the volume" if len(starts) == 1 else f"{len(levels)} of {len(starts)} slices"
        steps.append(f"Start: {count} noised to levels of {spread} (share of the intensity range).")
    if metrics is not None and metrics.nfe is not None:
        seconds = "" if metrics.seconds is None else f", {metrics.seconds:.1f} s"
        steps.append(f"Cost: {metrics.nfe:g} network passes an image forward, {metrics.nbackward or 0:g} backward{seconds}.")
    if truth:
        steps.append("Compared with the truth.")
    return steps


def made_of(run: Mapping[str, Any]) -> str:
    """What the image is, how long it took and by which models, in sentences for the top of the page; empty where nothing says it.

    Args:
        run: of run.json.
    """
    settings, cards, durations = (run.get(key) or {} for key in ("settings", "cards", "durations"))
    parts = []
    if isinstance(settings, Mapping) and settings.get("estimate") == "deterministic":
        parts.append("One run without noise")
    elif isinstance(settings, Mapping) and isinstance(settings.get("samples"), int):
        samples = settings["samples"]
        parts.append("One posterior sample" if samples == 1 else f"Mean of {samples} posterior samples")
    if isinstance(durations, Mapping) and isinstance(total := durations.get("total", durations.get("solve")), int | float):
        parts.append(f"made in {_clock(total)}")
    if isinstance(cards, Mapping):
        named = [(MODELS.get(kind, kind), card["name"]) for kind, card in cards.items() if isinstance(card, Mapping) and card.get("name")]
        parts += [f"{kind} {name}" for kind, name in named]
    if not parts:
        return ""
    made = ", ".join(parts)
    about = f" {SAMPLE}" if "posterior sample" in parts[0] else ""
    return f"{made[0].upper()}{made[1:]}.{about}"


def facts_of(run: Mapping[str, Any]) -> list[Facts]:
    """Tables of the operator's parameters, the solver's settings, the models and the run.

    Args:
        run: of run.json.
    """
    tables = []
    operator = run.get("operator")
    if isinstance(operator, Mapping):
        tables.extend(operator_facts(operator))
    scans = run.get("scans")
    if isinstance(scans, list):
        tables += [Facts(f"Scan {number}", _scan_rows(scan)) for number, scan in enumerate(scans, 1) if isinstance(scan, Mapping)]
    settings = run.get("settings")
    if isinstance(settings, Mapping) and settings:
        tables.append(Facts(f"Solver {run.get('solver', '')}", [(_words(name), text_of(value)) for name, value in settings.items()]))
    cards = run.get("cards")
    if isinstance(cards, Mapping):
        for kind, card in cards.items():
            rows = [(label, text_of(card[key])) for key, label in CARD.items() if card.get(key) is not None]
            tables.append(Facts(f"Model: {kind}", rows))
    arguments, versions, durations = (run.get(key) or {} for key in ("arguments", "versions", "durations"))
    rows = [("dynamicdps", str(run.get("version", "unknown")))] + [(name, str(value)) for name, value in versions.items()]
    rows += [(_words(name), text_of(arguments[name])) for name in ("seed", "device", "precision") if arguments.get(name) is not None]
    rows += [(f"time: {name}", f"{value:g} s") for name, value in durations.items()]
    tables.append(Facts("Run", rows))
    return tables


def _scan_rows(scan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One of several scans: its voxels, where it was found to lie, and what it tells."""
    rows = [("name", PurePath(str(scan.get("scan", ""))).name), ("voxels in mm", text_of(scan.get("spacing_mm")))]
    rows += [("contrast", str(scan["contrast"]))] if "contrast" in scan else []
    pose = scan.get("pose")
    if isinstance(pose, Mapping):
        for name, label in (
            ("shift_mm", "moved by, mm"),
            ("error_mm", "error of that, mm"),
            ("rotation_degrees", "turned by, degrees"),
            ("error_degrees", "error of that, degrees"),
            ("correlation", "correlation with what the other scans foretell"),
        ):
            rows.append((label, text_of(pose.get(name))))
        rows += _slice_rows(pose.get("slices"))
    if "unexplained_share" in scan:
        rows.append(("share of the brain that no curve explains", text_of(scan["unexplained_share"])))
    rows.append(("share of the information", text_of(scan.get("share_of_information"))))
    if scan.get("share_along_axes"):
        rows.append(("share of what is known of details of 2 mm along right, front, up", text_of(scan["share_along_axes"])))
    return rows


def _slice_rows(slices: Any) -> list[tuple[str, str]]:
    """How far a head moved between the slices of a scan."""
    if not isinstance(slices, Mapping):
        return []
    rows = []
    for name, label in (("shift_mm", "slices moved by, mm"), ("rotation_degrees", "slices turned by, degrees")):
        lengths = [math.hypot(*each) for each in slices.get(name) or []]
        if lengths:
            typical = math.sqrt(sum(length**2 for length in lengths) / len(lengths))
            rows.append((label, f"{typical:.2f} root mean square, {max(lengths):.2f} at most"))
    return rows


def operator_facts(values: Mapping[str, Any], heading: str = "Operator") -> list[Facts]:
    """An operator's parameters with units, and 95 % intervals where they were fitted; parts of a composition one by one."""
    intervals = values.get("intervals") or {}
    rows, parts = [], []
    for name, value in values.items():
        if name in HIDDEN or value is None:
            continue
        nested = [value] if isinstance(value, Mapping) else value if isinstance(value, list) else []
        if nested and all(isinstance(part, Mapping) for part in nested):
            parts += [table for number, part in enumerate(nested, 1) for table in operator_facts(part, f"{heading}, part {number}")]
            continue
        unit = f" {UNITS[name]}" if name in UNITS else ""
        interval = intervals.get(name)
        known = f" (95 %: {interval[0]:.4g} to {interval[1]:.4g})" if isinstance(interval, Sequence) and len(interval) == 2 else ""
        rows.append((_words(name), f"{text_of(value)}{unit}{known}"))
    return [Facts(f"{heading}: {values.get('type', 'unknown')}", rows), *parts]


def scan_name(run: Mapping[str, Any]) -> str:
    """File name of the first scan without its folders, which may say more than a page should; empty where there is none."""
    scan = (run.get("arguments") or {}).get("scan")
    first = scan[0] if isinstance(scan, list) and scan else scan
    return PurePath(first).name if isinstance(first, str) else ""


def _settings_in_words(settings: Any) -> str:
    known = settings if isinstance(settings, Mapping) else {}
    counted = (("samples", "posterior sample"), ("steps", "noise level"))
    parts = [f"{known[name]} {word}{'' if known[name] == 1 else 's'}" for name, word in counted if name in known]
    if known.get("estimate"):
        parts.append(f"estimate: {known['estimate']}")
    return "".join(f", {part}" for part in parts)


def _by(numbers: Sequence[float]) -> str:
    return f" {TIMES} ".join(f"{n:.4g}" for n in numbers)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s" if seconds < 10 else f"{rest} s"


def _median(values: Sequence[float]) -> float:
    # The lower of the two middle ones, as torch's.
    return values[(len(values) - 1) // 2]


def _words(name: str) -> str:
    return name.replace("_", " ")


def text_of(value: Any) -> str:
    """A value of a card or a record on one line; of long lists only their length."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return (
            ", ".join(map(text_of, value))
            if len(value) <= MAX_LISTED and not any(isinstance(v, list) for v in value)
            else f"{len(value)} values"
        )
    return str(value)
