"""Which contrast the intensities of scans say, against the one in their names.

    python benchmarks/contrasts.py SCAN_T1w.nii.gz SCAN_T2w.nii.gz ... --out contrasts.csv [--slices slices.npz] [--simulator PROGRAM]

The names of the scans end in their BIDS suffix, or in what `OTHER_NAMES` lists; the brain is found as `enhance` does. Of `--slices`,
single FLAIR slices `(slices, rows, columns)` with the front in the first row, all are looked at. With `--simulator`, scans at 1 mm are also
looked at as a scanner at low field shows them: `python PROGRAM SCAN POOR --contrast t1|same --seed N`. The numbers of each scan are written
into `--out`, and read from there where it exists.

Printed: what is not taken for what it is; a row for each kind of scan and contrast with how many scans are taken for what, by the package's
thresholds; and the same by thresholds that were set on one half of the subjects, for the other half: those with the fewest errors, unsure
ones counted as half of one, in the middle of the interval where that is so. All scans of a subject, simulated ones too, are in one half.
A few seconds a scan.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dynamicdps.pipeline.scan_contrast import contrast_of
from dynamicdps.volumes import Volume, extract_brain, load
from dynamicdps.volumes.contrast import SURE, T1_RISE, T2_TAIL, contrast_likelihood, look_at_contrast

COLUMNS = ("T1w", "T2w", "FLAIR", "unsure")
FIELDS = ("kind", "contrast", "subject", "name", "bright_tail", "deep_rise")
# Ends of names of public scans that are none of BIDS.
OTHER_NAMES = {"_GRE": "T1w", "_FSE": "T2w"}
TAILS, RISES = np.geomspace(1.0, 2.2, 121), np.linspace(-0.02, 0.12, 141)

Row = dict[str, str]


def row_of(kind: str, contrast: str, name: str, volume: Volume, stripped: bool = False) -> Row:
    """The two numbers of a scan; empty where too little brain is left to tell."""
    look = look_at_contrast(volume, volume.data > 0 if stripped else extract_brain(volume).inside)
    tail, rise = (None, None) if look is None else (look.bright_tail, look.deep_rise)
    numbers = ["" if value is None else f"{value:.4f}" for value in (tail, rise)]
    return dict(zip(FIELDS, (kind, contrast, name.partition("_")[0], name, *numbers), strict=True))


def looked_at(scans: Sequence[Path], slices: Path | None, simulator: Path | None) -> Iterator[Row]:
    """A row for each scan, for its simulated version, and for each of the slices."""
    for number, path in enumerate(scans):
        name, volume = path.name.removesuffix(".gz").removesuffix(".nii"), load(path)
        contrast = contrast_of(path) or next((own for end, own in OTHER_NAMES.items() if name.endswith(end)), "unknown")
        thick = max(volume.spacing) > 2
        kind = path.parent.name if not thick else "3 T, few slices" if "3T" in name else "low field"
        yield row_of(kind, contrast, name, volume)
        if simulator is not None and not thick and min(volume.shape) > 64:
            with tempfile.TemporaryDirectory() as folder:
                poor = Path(folder) / "poor.nii.gz"
                curve = "t1" if contrast == "T1w" else "same"
                command = [sys.executable, str(simulator), str(path), str(poor), "--contrast", curve, "--seed", str(number)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (the user's program)
                yield row_of(f"{kind}, simulated at 64 mT", contrast, name, load(poor))
    if slices is not None:
        for number, rows in enumerate(np.load(slices)["slices"][:, ::-1].astype(np.float32)):
            single = Volume(np.ascontiguousarray(rows.T[:, :, None]), np.eye(4))
            yield row_of("single slices", "FLAIR", f"slice{number:03d}", single, stripped=True)


def said(row: Row, t2_tail: float = T2_TAIL, t1_rise: float = T1_RISE) -> str:
    """The contrast that a row's numbers are sure of, or ``unsure``."""
    if not row["bright_tail"]:
        return "unsure"
    rise = float(row["deep_rise"]) if row["deep_rise"] else None
    likelihood = contrast_likelihood(float(row["bright_tail"]), rise, t2_tail, t1_rise)
    best = max(likelihood, key=lambda name: likelihood[name])
    return best if likelihood[best] >= SURE else "unsure"


def best_thresholds(rows: Sequence[Row]) -> tuple[float, float]:
    """Thresholds of tail and rise with the fewest errors, each in the middle of the longest interval of them.

    Every contrast counts alike, however many scans there are of it.
    """
    counts = Counter(row["contrast"] for row in rows)

    def loss(tail: float, rise: float) -> float:
        cost = {row["name"] + row["kind"]: (said(row, tail, rise), row["contrast"]) for row in rows}
        return sum((0.5 if found == "unsure" else float(found != true)) / counts[true] for found, true in cost.values())

    def middle(places: np.ndarray, losses: list[float]) -> float:
        best = np.flatnonzero(np.array(losses) <= min(losses) + 1e-9)
        runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
        longest = max(runs, key=len)
        return float(places[longest].mean())

    tail = middle(TAILS, [loss(float(t), T1_RISE) for t in TAILS])
    return tail, middle(RISES, [loss(tail, float(r)) for r in RISES])


def table(rows: Sequence[Row], t2_tail: float = T2_TAIL, t1_rise: float = T1_RISE) -> str:
    """How many scans of each kind and contrast are taken for what."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["kind"], row["contrast"]][said(row, t2_tail, t1_rise)] += 1
    lines = [f"| scans | contrast | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 2)}"]
    lines += [f"| {kind} | {contrast} | {' | '.join(str(count[c]) for c in COLUMNS)} |" for (kind, contrast), count in counts.items()]
    right, unsure = (sum(count[name(key)] for key, count in counts.items()) for name in (lambda key: key[1], lambda key: "unsure"))
    return "\n".join([*lines, f"right {right}, unsure {unsure}, wrong {len(rows) - right - unsure} of {len(rows)}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="*", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--slices", type=Path)
    parser.add_argument("--simulator", type=Path)
    arguments = parser.parse_args()
    if not arguments.out.exists():
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            for row in looked_at(arguments.scans, arguments.slices, arguments.simulator):
                writer.writerow(row)
                file.flush()
    with arguments.out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if said(row) != row["contrast"]:
            print(f"{row['kind']}, {row['name']}: tail {row['bright_tail'] or '-'}, rise {row['deep_rise'] or '-'}: {said(row)}")
    print(f"thresholds of the package: tail {T2_TAIL}, rise {T1_RISE}\n{table(rows)}")
    halves: dict[str, int] = {subject: number % 2 for number, subject in enumerate(sorted({row["subject"] for row in rows}))}
    for tested in (0, 1):
        tail, rise = best_thresholds([row for row in rows if halves[row["subject"]] != tested])
        print(f"\nthresholds of the other half: tail {tail:.2f}, rise {rise:.3f}")
        print(table([row for row in rows if halves[row["subject"]] == tested], tail, rise))


if __name__ == "__main__":
    main()
