"""How well the network of brains and structures finds them: in images made of label maps, and its brain mask against deepbet's.

    python benchmarks/segmentation.py OUT [--labels MAP ...] [--scans SCAN ...] [--segmenter NAME] [--heads-per-map 1] [--repeats 0]
        [--card CARD]

MAP is a label map of a whole head at about 1 mm with FreeSurfer's numbers that the network was not trained on: T1w-, T2w- and FLAIR-like
images of random intensities are made of it at its own resolution and at 1.6 x 1.6 x 5 mm, and the labels that are found are compared
with it on its own grid. Its brain mask is the brain's classes with sulci closed and holes filled, as masks of a brain have them
(row `brain mask`); the same mask against the classes alone, whose sulci are open, stands beside it (`brain mask, open sulci`), and so do
the brain's classes as they are labelled (`brain tissue`). SCAN is a scan of a head without labels: where deepbet is installed and the scan
covers a head, both brain masks are compared.

With --card the mean Dice of each class and tissue is written into a model card of these weights, as `structure_dice`, by which
`segment` and `enhance` say how reliable a structure is.

Written into OUT: `classes.csv` (a row a map, image and class: Dice of the network alone and of what its user gets, volume, truth's
volume, interval), `classes.md` (means), `masks.csv` (a row a scan) and for each scan a picture of its outlines in three planes, the
network's yellow and deepbet's blue.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.conditional.scanner_draws import smooth_field
from dynamicdps.errors import InputError
from dynamicdps.evaluation.tissue_intervals import prediction_intervals
from dynamicdps.json_file import read_json, write_json
from dynamicdps.pipeline.segmentation import COVERAGE, halves_of, noise_of, open_network
from dynamicdps.segmentation import BrainNetwork, refine_chances, repeated_volumes, without_thick_slices
from dynamicdps.segmentation.class_chances import CLOSING_MM
from dynamicdps.segmentation.classes import BRAIN, CLASSES, TISSUES, class_of, structures
from dynamicdps.segmentation.synthetic_heads import COMMON, TISSUE_OF_CLASS
from dynamicdps.volumes import Volume, deepbet, load, native_grid, sample
from dynamicdps.volumes.brain_extraction import covers_head
from dynamicdps.volumes.grids import Grid
from dynamicdps.volumes.morphology import Mask, close, depth

Array = NDArray[np.float32]
THICK = (1.6, 1.6, 5.0)
# Standard deviation of the noise at the map's resolution and of thick slices, as a share of the brightest tissue.
NOISE = {"1 mm": 0.03, "1.6 x 1.6 x 5 mm": 0.05}
# What is further outside of deepbet's brain than this is eyes, nose or neck rather than an outline drawn elsewhere.
FAR_MM = 6.0


def painted(labels: NDArray[np.int64], contrast: str, rng: np.random.Generator) -> Array:
    """An image of a label map: a mean for each label, texture, partial volume and shading."""
    _, ranges = COMMON[contrast]
    of_tissue = [rng.uniform(*limits) for limits in ranges]
    numbers, index = np.unique(labels, return_inverse=True)
    means = [0.0 if n == 0 else of_tissue[TISSUE_OF_CLASS[class_of(n)]] if class_of(n) else rng.uniform(0, 1.2) for n in numbers.tolist()]
    image = np.array(means, np.float32)[index.reshape(labels.shape)]
    image *= 1 + 0.03 * rng.standard_normal(labels.shape, dtype=np.float32)
    shading = np.exp(0.15 * smooth_field(labels.shape, rng, 5))
    return np.asarray(ndimage.gaussian_filter(image, 0.5) * shading, dtype=np.float32)


def measured(image: Volume, edges: tuple[float, float, float] | None, noise: float, rng: np.random.Generator) -> Volume:
    """A magnitude image, as it is or with longer voxels."""
    if edges is not None:
        widths = [np.sqrt(max(0.0, (e / s) ** 2 - 1)) / 2.355 for e, s in zip(edges, image.spacing, strict=True)]
        smooth = image.with_data(ndimage.gaussian_filter(image.data, widths))
        x, y, z = (int(n * s / e) for n, s, e in zip(image.shape, image.spacing, edges, strict=True))
        affine = image.affine @ np.diag([*(e / s for e, s in zip(edges, image.spacing, strict=True)), 1.0])
        image = sample(smooth, Grid((x, y, z), affine))
    parts = (noise * rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    return image.with_data(np.hypot(image.data + next(parts), next(parts)))


def dice(a: Mask, b: Mask) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def of_map(path: Path, network: BrainNetwork, seed: int, repeats: int) -> list[dict[str, Any]]:
    """Rows of a label map: every class, and the brain, in two images of it."""
    truth = load(path)
    labels = np.rint(truth.data).astype(np.int64)
    table = np.array([class_of(n) for n in range(int(labels.max()) + 1)])
    classes = table[labels]
    mm3 = float(np.prod(truth.spacing))
    to_class = np.zeros(256, int)
    for structure in structures(sided=True):
        to_class[structure.label] = CLASSES.index(structure.name)
    rows = []
    rng = np.random.default_rng(seed)
    contrast = list(COMMON)[seed % len(COMMON)]
    image = truth.with_data(painted(labels, contrast, rng))
    for name, edges in (("1 mm", None), ("1.6 x 1.6 x 5 mm", THICK)):
        scan = measured(image, edges, NOISE[name], rng)
        grid = native_grid(truth)
        coarse = network.chances(scan)
        plane = halves_of(coarse)
        finer = without_thick_slices(scan, coarse)
        chances = refine_chances(coarse, finer)
        brains = [each.brain_on(grid) for each in (coarse, chances)]
        alone, found = (
            to_class[each.labels_on(grid, brain, plane).astype(int)] for each, brain in zip((coarse, chances), brains, strict=True)
        )
        volumes = {s.name: float(slices.sum()) for s, slices in chances.volumes(None).items()}
        again = (
            repeated_volumes(network, scan, finer, coarse, None, count=repeats, noise_std=noise_of(scan)[0], seed=seed) if repeats else []
        )
        ends = prediction_intervals([{s.name: v for s, v in each.items()} for each in again], COVERAGE, 0.0, volumes)
        head = {"map": path.name, "image": name, "contrast": contrast}
        tissue = np.isin(classes, BRAIN)
        mask = ndimage.binary_fill_holes(close(tissue, CLOSING_MM, truth.spacing))
        labelled = [np.isin(each, BRAIN) for each in (alone, found)]
        for label, masks, there in (
            ("brain mask", brains, mask),
            ("brain mask, open sulci", brains, tissue),
            ("brain tissue", labelled, tissue),
        ):
            rows.append(head | {"class": label} | {key: dice(each, there) for key, each in zip(("network", "dice"), masks, strict=True)})
        # Only where any of them has something: most of a head is nothing.
        somewhere = (classes > 0) | (alone > 0) | (found > 0)
        before, after, real = (each[somewhere] for each in (alone, found, classes))
        for label, members in ({name: (index,) for index, name in enumerate(CLASSES) if index} | TISSUES).items():
            is_member = np.isin(np.arange(len(CLASSES)), members)
            there, (low, high) = is_member[real], ends.get(label, (float("nan"),) * 2)
            numbers = {"mm3": volumes[label], "truth_mm3": there.sum() * mm3, "low": low, "high": high}
            pairs = (("network", before), ("dice", after))
            overlaps = {key: dice(is_member[each], there) if there.any() else float("nan") for key, each in pairs}
            rows.append(head | {"class": label} | overlaps | numbers)
    return rows


def means(rows: list[dict[str, Any]]) -> str:
    """A table of the rows' means by class and image."""
    lines = ["| class | " + " | ".join(f"Dice, {image} | of the network alone | volume error | in interval" for image in NOISE) + " |"]
    lines.append("|---" * (1 + 4 * len(NOISE)) + "|")
    for label in dict.fromkeys(row["class"] for row in rows):
        cells = [label]
        for image in NOISE:
            chosen = [row for row in rows if (row["class"], row["image"]) == (label, image) and np.isfinite(row["dice"])]
            errors = [row["mm3"] / row["truth_mm3"] - 1 for row in chosen if row.get("truth_mm3")]
            held = [row["low"] <= row["truth_mm3"] <= row["high"] for row in chosen if np.isfinite(row.get("low", np.nan))]
            cells += [f"{np.mean([row[key] for row in chosen]):.3f}" if chosen else "" for key in ("dice", "network")]
            cells.append(f"{100 * np.mean(errors):+.0f} %" if errors else "")
            cells.append(f"{100 * np.mean(held):.0f} %" if held else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def into_card(card: Path, rows: list[dict[str, Any]]) -> None:
    """Write mean Dice coefficients by the longest edge of a voxel into a model card, and how many maps they are of."""
    found: dict[str, dict[str, float]] = {}
    for image, edge in (("1 mm", "1"), ("1.6 x 1.6 x 5 mm", "5")):
        for label in (*CLASSES[1:], *TISSUES):
            values = [row["dice"] for row in rows if (row["class"], row["image"]) == (label, image) and np.isfinite(row["dice"])]
            found.setdefault(edge, {})[label] = round(float(np.mean(values)), 3)
    write_json(card, read_json(card) | {"structure_dice": found, "structure_dice_maps": len({row["map"] for row in rows})})


def of_scan(path: Path, network: BrainNetwork, out: Path) -> dict[str, Any]:
    """The row of a scan, and its picture."""
    scan = load(path)
    millilitre = float(np.prod(scan.spacing)) / 1000
    row: dict[str, Any] = {"scan": path.name}
    try:
        inside = network.find(scan)
    except InputError:
        inside = np.zeros(scan.shape, bool)
    row["ml"] = float(inside.sum()) * millilitre
    other = None
    if deepbet.weights() is not None and covers_head(scan):
        other = deepbet.find_brain_by_deepbet(scan)
        around, within = depth(~other, scan.spacing), depth(other, scan.spacing)
        row["deepbet_ml"] = float(other.sum()) * millilitre
        row["dice"] = dice(inside, other)
        row["far_outside_ml"] = float((inside & (around > FAR_MM)).sum()) * millilitre
        row["far_missed_ml"] = float((~inside & (within > FAR_MM)).sum()) * millilitre
    outlines(scan, inside, other, out / f"{path.name.split('.')[0]}.png")
    return row


def outlines(scan: Volume, inside: Mask, other: Mask | None, path: Path) -> None:
    """Three slices of each plane with the outlines of the masks."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 3, figsize=(12, 12), facecolor="black")
    top = float(np.percentile(scan.data[scan.data > 0.05 * scan.data.max()], 97))
    for row, axis in zip(axes, range(3), strict=True):
        across = [a for a in range(3) if a != axis]
        reached = np.flatnonzero(inside.any(tuple(across))) if inside.any() else np.arange(scan.shape[axis])
        for place, share in zip(row, (0.25, 0.5, 0.75), strict=True):
            at = int(reached[0] + share * (reached[-1] - reached[0]))
            aspect = scan.spacing[across[1]] / scan.spacing[across[0]]
            place.imshow(scan.data.take(at, axis).T, origin="lower", cmap="gray", vmin=0, vmax=top, aspect=aspect)
            for mask, colour in ((other, "deepskyblue"), (inside, "yellow")):
                if mask is not None and mask.take(at, axis).any():
                    place.contour(mask.take(at, axis).T, [0.5], colors=colour, linewidths=0.9)
            place.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=80, facecolor="black")
    pyplot.close(figure)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", type=Path, nargs="*", default=[])
    parser.add_argument("--scans", type=Path, nargs="*", default=[])
    parser.add_argument("--segmenter", default="brain-mask")
    parser.add_argument("--heads-per-map", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--card", type=Path, help="model card that the Dice coefficients are written into")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    network, _ = open_network(given.segmenter)
    rows: list[dict[str, Any]] = []
    for number, path in enumerate(given.labels):
        for head in range(given.heads_per_map):
            rows += of_map(path, network, number * given.heads_per_map + head, given.repeats)
        print(
            path.name,
            *(f"{row['image']}: {row['dice']:.3f}" for row in rows if (row["map"], row["class"]) == (path.name, "brain mask")),
            flush=True,
        )
        write(given.out / "classes.csv", rows)
        if given.card is not None:
            into_card(given.card, rows)
    if rows:
        (given.out / "classes.md").write_text(means(rows))
        print(means(rows))
    masks = []
    for path in given.scans:
        masks.append(of_scan(path, network, given.out))
        print(", ".join(f"{name} {value:.3g}" if isinstance(value, float) else str(value) for name, value in masks[-1].items()), flush=True)
        write(given.out / "masks.csv", masks)


if __name__ == "__main__":
    main()
