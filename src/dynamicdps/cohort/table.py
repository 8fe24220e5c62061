"""The table of a study: cohort.tsv with its data dictionary cohort.json, and timing.tsv."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynamicdps.atomic_file import write_text
from dynamicdps.cohort.bids import BETWEEN, LeftOut
from dynamicdps.cohort.state import ScanState
from dynamicdps.evaluation import TISSUES
from dynamicdps.json_file import write_json
from dynamicdps.report.run_folder import HIGH_MISFIT

MISSING = "n/a"
ENTITIES = {"participant_id": "sub", "session_id": "ses", "acquisition": "acq", "run": "run"}
# Iglewicz and Hoaglin (1993): beyond this a value is looked at.
OUTLIER = 3.5
# Fewer tell nothing about what is usual.
MIN_SCANS = 5
MEASURES = (*TISSUES, "data_misfit", "start_sigma")

VALUES: dict[str, dict[str, Any]] = {
    **{
        tissue: {"Description": f"Volume of {words} in the enhanced image (hidden Markov random field, three classes)", "Units": "mm3"}
        for tissue, words in (("csf", "cerebrospinal fluid"), ("gm", "grey matter"), ("wm", "white matter"))
    },
    **{
        f"{tissue}_{end}": {
            "Description": f"{words} end of the 95 % interval of {tissue} over posterior samples; n/a with fewer than two samples",
            "Units": "mm3",
        }
        for tissue in TISSUES
        for end, words in (("low", "Lower"), ("high", "Upper"))
    },
    "data_misfit": {"Description": "Root mean square of (y - A x) / sigma_n of the enhanced image; about 1 where it explains the scan"},
    "start_sigma": {"Description": "Median noise level at which sampling started, in image intensities"},
}
DICTIONARY: dict[str, dict[str, Any]] = {
    "scan": {"Description": "Name of the enhanced scan without _T1w, with _T2w or _FLAIR: the rows' key"},
    "participant_id": {"Description": "Subject"},
    "session_id": {"Description": "Session"},
    "acquisition": {"Description": "BIDS entity acq of the scan; n/a where scans that differ in it were enhanced together"},
    "run": {"Description": "BIDS entity run of the scan, likewise"},
    "source": {"Description": f"The scan's place in its dataset; of scans that were enhanced together all, separated by '{BETWEEN}'"},
    "status": {"Description": "What became of the scan", "Levels": {"done": "enhanced", "failed": "not enhanced; see reason"}},
    **VALUES,
    "outlier": {
        "Description": f"Largest absolute modified z-score (0.6745 (x - median) / MAD) of csf, gm, wm, data_misfit and start_sigma "
        f"among the scans of this table; above {OUTLIER} unusual; n/a with fewer than {MIN_SCANS} scans"
    },
    "flags": {
        "Description": "Quality flags separated by commas",
        "Levels": {
            "misfit": f"data_misfit above {HIGH_MISFIT}: the enhanced image does not explain the scan",
            "outlier": f"outlier above {OUTLIER}",
            "warnings": "the enhancement warned; see warnings",
            "volumes": "a tissue volume is unknown",
        },
    },
    "warnings": {"Description": "Sentences separated by ' | '"},
    "reason": {"Description": "Why the scan failed, one sentence"},
    "parameters": {"Description": "First digits of the hash of settings, models and version: rows that differ in it were made differently"},
}
TIMING = ("scan", "seconds")
LEFT_OUT: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Subject"},
    "session_id": {"Description": "Session"},
    "source": {"Description": "Place in the dataset of what is not enhanced: an image, a session or a subject"},
    "reason": {"Description": "Why, one sentence"},
}


def make_rows(states: Sequence[ScanState]) -> list[dict[str, Any]]:
    """Rows by name, with the columns of `DICTIONARY`; `None` where a value is unknown."""
    states = sorted(states, key=lambda state: state.name)
    scores = outlier_scores(states)
    rows = []
    for state, score in zip(states, scores, strict=True):
        entities = dict(part.split("-", 1) for part in state.name.split("_") if "-" in part)
        row: dict[str, Any] = {"scan": state.name} | {column: entities.get(key) for column, key in ENTITIES.items()}
        row["participant_id"] = f"sub-{entities['sub']}"
        row["session_id"] = f"ses-{entities['ses']}" if "ses" in entities else None
        row |= {"source": state.source, "status": state.status} | {name: state.values.get(name) for name in VALUES}
        row |= {"outlier": score, "flags": ",".join(flags(state, score)) or None, "warnings": " | ".join(state.warnings) or None}
        rows.append(row | {"reason": state.reason or None, "parameters": state.parameters[:12]})
    return rows


def flags(state: ScanState, score: float | None) -> list[str]:
    """Quality flags of a scan that is done."""
    if state.status != "done":
        return []
    found = {
        "misfit": (state.values.get("data_misfit") or 0) > HIGH_MISFIT,
        "outlier": score is not None and score > OUTLIER,
        "warnings": bool(state.warnings),
        "volumes": any(state.values.get(tissue) is None for tissue in TISSUES),
    }
    return [name for name, holds in found.items() if holds]


def outlier_scores(states: Sequence[ScanState]) -> list[float | None]:
    """Largest modified z-score of each scan's values: how far it lies from the others' median in their median absolute deviations."""
    table = np.array([[_number(state, name) for name in MEASURES] for state in states], dtype=np.float64).reshape(
        len(states), len(MEASURES)
    )
    known = np.isfinite(table)
    scores = np.full(table.shape, np.nan)
    for column in range(table.shape[1]):
        values = table[known[:, column], column]
        if len(values) < MIN_SCANS:
            continue
        deviations = np.abs(values - np.median(values))
        spread = float(np.median(deviations))
        if spread > 0:
            scores[known[:, column], column] = 0.6745 * deviations / spread
    return [None if not np.isfinite(row).any() else round(float(np.nanmax(row)), 2) for row in scores]


def write_table(out: Path, states: Sequence[ScanState]) -> list[dict[str, Any]]:
    """Write cohort.tsv, cohort.json and timing.tsv; times are apart, since they alone differ from run to run.

    Returns:
        The rows.
    """
    rows = make_rows(states)
    write_text(out / "cohort.tsv", tsv(list(DICTIONARY), rows))
    write_json(out / "cohort.json", DICTIONARY)
    times = [{"scan": state.name, "seconds": state.seconds} for state in sorted(states, key=lambda state: state.name)]
    write_text(out / "timing.tsv", tsv(TIMING, times))
    return rows


def write_left_out(out: Path, left_out: Sequence[LeftOut]) -> None:
    """Write not_enhanced.tsv with its data dictionary not_enhanced.json."""
    rows = []
    for each in left_out:
        labels = [next((part for part in Path(each.source).parts if part.startswith(f"{key}-")), None) for key in ("sub", "ses")]
        rows.append(dict(zip(LEFT_OUT, (*labels, each.source, each.reason), strict=True)))
    write_text(out / "not_enhanced.tsv", tsv(list(LEFT_OUT), rows))
    write_json(out / "not_enhanced.json", LEFT_OUT)


def tsv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as BIDS has its tables: tabs between, n/a for what is unknown."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(_cell(row[name]) for name in columns) for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return MISSING
    # Shortest text that is read back as the same number.
    return " ".join(str(value).split()) or MISSING


def _number(state: ScanState, name: str) -> float:
    value = state.values.get(name) if state.status == "done" else None
    return float("nan") if value is None else float(value)
