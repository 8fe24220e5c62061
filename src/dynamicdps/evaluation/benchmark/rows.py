"""The tables that a benchmark fills: what a line of each holds, and how it is written and read."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from dynamicdps.atomic_file import atomic_write
from dynamicdps.errors import InputError

TRUTH = "truth"
CellKey = tuple[str, str, str]


@dataclass(frozen=True)
class Row:
    """One image under one condition and solver: a line of results.csv.

    Attributes:
        slice: number of the slice in its scan.
        psnr: dB, of the whole slice; likewise `ssim` and `nrmse`.
        data_misfit: root mean square of ``(y - A x) / noise_std`` as the solver gives it.
        seconds: of the solver, an image.
        batch_size: slices that were solved together; 1 for a volume.
    """

    subject: str
    slice: int
    condition: str
    solver: str
    psnr: float
    ssim: float
    nrmse: float
    data_misfit: float
    nfe: int
    nbackward: int
    start_sigma: float
    seconds: float
    batch_size: int


@dataclass(frozen=True)
class VolumeRow:
    """Tissue volumes in a subject's slices: a line of volumes.csv. The truth is the solver ``truth``.

    Attributes:
        csf: mm3; likewise `gm` and `wm`. NaN where the image could not be segmented.
        csf_error: ``(v - v_truth) / v_truth``; likewise the others.
        dice: mean over tissues of the overlap with the truth, from 0 to 1.
    """

    subject: str
    condition: str
    solver: str
    csf: float
    gm: float
    wm: float
    csf_error: float
    gm_error: float
    wm_error: float
    dice: float
    csf_dice: float
    gm_dice: float
    wm_dice: float


@dataclass(frozen=True)
class HallucinationRow:
    """What a subject's reconstruction invents or loses: a line of hallucination.csv; NaN where a number does not exist.

    Attributes:
        null_rms: root mean square of the error in what the operator cannot see (`null_space_split`), image intensities.
        measurement_rms: of the error in what it sees.
        high_frequency_error: above the measurement's Nyquist frequency, mean over slices.
        sfrc_share: share of patches that do not follow the truth up to that frequency.
        false_count: structures that are not in the truth; `false_mm3` their volume. Likewise lost ones.
        hallucination_index: mean over slices, of the Gaussian with the estimate and the samples' spread; NaN for a single image.
        residual_rms: root mean square of ``(y - A x) / noise_std``, of the estimate itself.
        psnr_brain: dB, mean over slices with brain; likewise `ssim_brain`.
    """

    subject: str
    condition: str
    solver: str
    null_rms: float
    measurement_rms: float
    high_frequency_error: float
    sfrc_share: float
    false_count: float
    false_mm3: float
    lost_count: float
    lost_mm3: float
    hallucination_index: float
    residual_rms: float
    psnr_brain: float
    ssim_brain: float


@dataclass(frozen=True)
class LesionRow:
    """One inserted lesion under one condition and solver: a line of lesions.csv.

    Attributes:
        lesion: number within the subject, from 1, the largest first.
        slice: number in the scan of the slice at its centre.
        contrast: that was added, image intensities; below 0 darker than its surroundings.
        truth_contrast: lesion against its ring in the truth with it; `shown_contrast` in the reconstruction.
        kept: the second over the first.
        snr: of the lesion in the measurement; see `resolvable`.
        measured: share of its contrast that survives the measurement.
        resolvable: whether it may be asked of a reconstruction.
    """

    subject: str
    condition: str
    solver: str
    lesion: int
    slice: int
    diameter_mm: float
    contrast: float
    truth_contrast: float
    shown_contrast: float
    kept: float
    snr: float
    measured: float
    resolvable: bool


Line = TypeVar("Line", Row, VolumeRow, HallucinationRow, LesionRow)


@dataclass
class Results:
    """All rows of a benchmark, or of a part of it."""

    rows: list[Row] = field(default_factory=list)
    volumes: list[VolumeRow] = field(default_factory=list)
    hallucination: list[HallucinationRow] = field(default_factory=list)
    lesions: list[LesionRow] = field(default_factory=list)

    @property
    def cells(self) -> set[CellKey]:
        """Subject, condition and solver of what has been done."""
        return {key(row) for row in self.rows}

    def add(self, other: "Results") -> None:
        """Append rows of another part."""
        self.rows += other.rows
        self.volumes += other.volumes
        self.hallucination += other.hallucination
        self.lesions += other.lesions

    def complete(self) -> "Results":
        """Without the cells that are not in all tables: an interruption came between two of them."""
        done = self.cells & {key(row) for row in self.volumes} & {key(row) for row in self.hallucination}
        truths = {(subject, condition, TRUTH) for subject, condition, _ in done}
        return Results(
            [row for row in self.rows if key(row) in done],
            [row for row in self.volumes if key(row) in done | truths],
            [row for row in self.hallucination if key(row) in done],
            [row for row in self.lesions if key(row) in done],
        )


def merged(parts: Iterable[Results]) -> Results:
    """Several benchmarks as one; of a cell that several have, and of a subject's truth, the first one's rows."""
    whole = Results()
    for part in parts:
        known = whole.cells | {key(row) for row in whole.volumes if row.solver == TRUTH}
        whole.add(
            Results(
                [row for row in part.rows if key(row) not in known],
                [row for row in part.volumes if key(row) not in known],
                [row for row in part.hallucination if key(row) not in known],
                [row for row in part.lesions if key(row) not in known],
            )
        )
    return whole


def key(row: Row | VolumeRow | HallucinationRow | LesionRow) -> CellKey:
    """The cell that a row belongs to."""
    return row.subject, row.condition, row.solver


def write_table(path: Path, rows: Iterable[Line], kind: type[Line]) -> None:
    """Write rows as CSV; the file is complete or the old one stays. Booleans are yes and no."""
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[f.name for f in fields(kind)])
        writer.writeheader()
        writer.writerows({name: _to_text(value) for name, value in asdict(row).items()} for row in rows)


def read_table(path: Path, kind: type[Line]) -> list[Line]:
    """Rows that `write_table` wrote.

    Raises:
        InputError: the file is something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not {f.name for f in fields(kind)} <= set(reader.fieldnames or ()):
                raise ValueError("columns are missing")
            return [kind(**{f.name: _KINDS[f.type](line[f.name]) for f in fields(kind)}) for line in reader]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read; expected a table of a benchmark; choose another folder") from error


def read_rows(path: Path) -> list[Row]:
    """Rows of a results.csv; errors as `read_table`."""
    return read_table(path, Row)


_BOOLEANS = {"yes": True, "no": False}
_KINDS: dict[Any, Callable[[str], Any]] = {str: str, int: int, float: float, bool: _BOOLEANS.__getitem__}


def _to_text(value: Any) -> Any:
    return {value: text for text, value in _BOOLEANS.items()}[value] if isinstance(value, bool) else value
