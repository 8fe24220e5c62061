"""Do lesions of T2w and FLAIR scans keep their contrast and volume when the scans are enhanced?

    python benchmarks/lesions.py BRAIN_T2w.nii.gz T1W --flair FLAIR --simulator PROGRAM --out DIR [-- ENHANCE OPTIONS]

BRAIN is a good skull-stripped brain at 1 mm of a patient whom no model has seen, its name ending in its BIDS suffix; T1W and FLAIR are the
same patient's on the same grid (FLAIR may be BRAIN itself). The T1w scan says where white matter is. Ellipsoids of 3 to 12 mm are put into
it, brighter than it by what real lesions are (`BRIGHTER`, measured on both patients of Lesjak et al. 2017), before PROGRAM makes a poor
scan: `python PROGRAM BRAIN SCAN --contrast same --seed N --snr S`. The patient's own lesions are what the FLAIR scan shows bright in or
beside white matter. A second scan, without noise, shows what the measurement holds of each lesion.

Images are put on the brain's grid by cubic interpolation. Contrast is the mean inside a lesion's core less that in the white matter around
it, as a share of the latter, so that neither units nor shading matter. Volume is what hangs together with a lesion's core above half of
the true contrast, up to 2 mm around it and without fluid. Written into DIR: `lesions.csv`, a row a lesion and
image. Printed: the means by kind and size, of the truth's. Three minutes of one core.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.evaluation import Lesion, insert_lesion, place_lesions, segment
from dynamicdps.pipeline.scan_contrast import contrast_of
from dynamicdps.volumes import Volume, load
from dynamicdps.volumes.grids import native_grid, sample

# Median brightness of lesions of multiple sclerosis over the white matter around them, less 1.
BRIGHTER = {"FLAIR": 0.45, "T2w": 0.85}
DIAMETERS_MM = (3.0, 12.0)
SIZES_MM = (3.0, 5.0, 8.0, 12.5)
WITHOUT_NOISE = 1e5
# A patient's own lesions lie deeper in (closed) white matter than cortex does, and are brighter by this and larger than a ball of 3 mm.
CLOSING_MM, DEPTH_MM, OWN_BRIGHTER, SPREADS = 4, 3.0, 1.3, 4.0
FLUID, WHITE = 1, 3
IMAGES = ("measurement", "scan", "initial", "enhanced")


def box_around(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The voxels up to 6 away from a mask along each axis."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(0, part.start - 6), part.stop + 6) for part in box)


def own_lesions(flair: NDArray[np.float32], tissue: NDArray[np.uint8]) -> list[Lesion]:
    """Lesions that a FLAIR scan at 1 mm shows in or beside white matter."""
    white = tissue == WHITE
    middle = float(np.median(flair[white]))
    smooth = ndimage.gaussian_filter(flair, 0.7)
    deep = ndimage.distance_transform_edt(ndimage.binary_closing(white, iterations=CLOSING_MM)) > DEPTH_MM
    spread = 1.48 * float(np.median(np.abs(smooth[white & deep] - middle)))
    bright = deep & (smooth > middle + SPREADS * spread) & (smooth > OWN_BRIGHTER * middle)
    labels, count = ndimage.label(bright)
    found = []
    for number in range(1, count + 1):
        mask, ring = labels == number, np.zeros(labels.shape, bool)
        diameter = (6 * float(mask.sum()) / np.pi) ** (1 / 3)
        if diameter < DIAMETERS_MM[0]:
            continue
        box = box_around(mask)
        away = ndimage.distance_transform_edt(~mask[box])
        ring[box] = (away > 1) & (away <= 4) & white[box] & ~bright[box]
        if ring.sum() >= mask.sum() / 4:
            x, y, z = (float(c) for c in np.argwhere(mask).mean(0))
            found.append(Lesion((x, y, z), diameter, OWN_BRIGHTER - 1, mask.astype(np.float32), ring))
    return found


def relative_contrast(data: NDArray[Any], lesion: Lesion) -> float:
    """Mean inside a lesion's core over that in its ring, less 1."""
    return float(data[lesion.core].mean() / data[lesion.ring].mean() - 1)


def bright_volume(data: NDArray[Any], lesion: Lesion, truth: float, region: NDArray[np.bool_]) -> int:
    """Voxels of a region that are brighter than the ring by more than half of the true contrast, and hang together with the core."""
    labels, _ = ndimage.label(region & (data > (1 + truth / 2) * data[lesion.ring].mean()))
    touching = np.unique(labels[lesion.core])
    return int(np.isin(labels, touching[touching > 0]).sum())


def simulated(program: Path, brain: Path, scan: Path, seed: int, snr: float) -> Volume:
    """A poor scan by the program, which is made once."""
    if not scan.exists():
        command = [sys.executable, str(program), str(brain), str(scan), "--contrast", "same", "--seed", str(seed), "--snr", str(snr)]
        subprocess.run(command, check=True)  # noqa: S603 (the user's program)
    return load(scan)


def rows_of(kind: str, lesions: Sequence[Lesion], truth: NDArray[Any], images: dict[str, NDArray[Any]], fluid: NDArray[np.bool_]) -> Any:
    """A row for each lesion and image: contrast and volume there, and in the truth."""
    for number, lesion in enumerate(lesions):
        box = box_around(lesion.mask > 0)
        near = Lesion(lesion.centre, lesion.diameter_mm, lesion.contrast, lesion.mask[box], lesion.ring[box])
        true = relative_contrast(truth[box], near)
        region = ndimage.binary_dilation(near.mask > 0, iterations=2) & ~fluid[box]
        volume = bright_volume(truth[box], near, true, region)
        for name, data in images.items():
            yield {
                "kind": kind,
                "lesion": number,
                "diameter_mm": round(lesion.diameter_mm, 2),
                "image": name,
                "contrast_true": round(true, 4),
                "contrast": round(relative_contrast(data[box], near), 4),
                "volume_true": volume,
                "volume": bright_volume(data[box], near, true, region),
            }


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a table: mean share of the true contrast that each image keeps, what that is of the measurement's, and of the volume."""
    columns = [f"{what}, {name}" for what in ("contrast", "volume") for name in IMAGES]
    lines = [f"| lesions | mm | number | {' | '.join(columns)} | enhanced over measurement |", f"|{'---|' * (len(columns) + 4)}"]
    bins = [*pairwise(SIZES_MM), (SIZES_MM[0], np.inf)]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        for low, high in bins:
            mine = [row for row in rows if row["kind"] == kind and low <= row["diameter_mm"] < high]
            if not mine:
                continue
            by_image = {name: [row for row in mine if row["image"] == name] for name in IMAGES}
            kept = {name: np.mean([row["contrast"] / row["contrast_true"] for row in own]) for name, own in by_image.items()}
            volume = {name: sum(r["volume"] for r in own) / sum(r["volume_true"] for r in own) for name, own in by_image.items()}
            numbers = [f"{each[name]:.2f}" for each in (kept, volume) for name in IMAGES]
            size = "all" if high == np.inf else f"{low:g} to {high:g}"
            count = len(by_image[IMAGES[0]])
            lines.append(f"| {kind} | {size} | {count} | {' | '.join(numbers)} | {kept['enhanced'] / kept['measurement']:.2f} |")
    return lines


def main() -> None:
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brain", type=Path)
    parser.add_argument("t1w", type=Path)
    parser.add_argument("--flair", type=Path, required=True)
    parser.add_argument("--simulator", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--snr", type=float, default=18.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(sys.argv[1:at])
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    contrast = str(contrast_of(arguments.brain))
    brain, t1w, flair = (load(path) for path in (arguments.brain, arguments.t1w, arguments.flair))
    tissue = segment(t1w.data, (t1w.data > 0) & (brain.data > 0))
    own = own_lesions(flair.data, tissue)
    # What is inserted keeps clear of the patient's own.
    free = tissue.copy()
    free[ndimage.binary_dilation(np.any([lesion.mask > 0 for lesion in own], axis=0), iterations=3)] = 0
    added = float(np.median(brain.data[tissue == WHITE])) * BRIGHTER[contrast]
    generator = np.random.default_rng(arguments.seed)
    x, y, z = brain.spacing
    inserted = place_lesions(free, (x, y, z), generator, count=arguments.count, diameters_mm=DIAMETERS_MM, contrasts=(added,))
    data = brain.data
    for lesion in inserted:
        data = insert_lesion(data, lesion)
    with_lesions = brain.with_data(data)
    path = with_lesions.save(out / f"brain_{contrast}.nii.gz")
    clean = simulated(arguments.simulator, path, out / f"measurement_{contrast}.nii.gz", arguments.seed, WITHOUT_NOISE)
    scan_path = out / f"scan_{contrast}.nii.gz"
    scan = simulated(arguments.simulator, path, scan_path, arguments.seed, arguments.snr)
    folder = out / "enhanced"
    if not (folder / "run.json").exists():
        command = [sys.executable, "-m", "dynamicdps.cli", "enhance", str(scan_path), "--out", str(folder), *sys.argv[at + 1 :]]
        subprocess.run(command, check=True)  # noqa: S603 (the package itself)
    shown = (clean, scan, load(folder / "initial.nii.gz"), load(folder / "enhanced.nii.gz"))
    images = {name: sample(image, native_grid(with_lesions), order=3).data for name, image in zip(IMAGES, shown, strict=True)}
    rows = [
        row
        for kind, lesions in (("inserted", inserted), ("own", own))
        for row in rows_of(kind, lesions, with_lesions.data, images, tissue == FLUID)
    ]
    with (out / "lesions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
