"""How well the network of brains and structures finds them: in images made of label maps, and its brain mask against deepbet's.

    python benchmarks/segmentation.py OUT [--labels MAP ...] [--scans SCAN ...] [--segmenter NAME] [--heads-per-map 1]
        [--calibrate MAP ...] [--intervals MAP ...] [--repeats 8] [--card CARD]

MAP is a label map of a whole head at about 1 mm with FreeSurfer's numbers that the network was not trained on: T1w-, T2w- and FLAIR-like
images of random intensities are made of it at its own resolution and at 1.6 x 1.6 x 5 mm, and the labels that are found are compared
with it on its own grid. Its brain mask is the brain's classes with sulci closed and holes filled, as masks of a brain have them
(row `brain mask`); the same mask against the classes alone, whose sulci are open, stands beside it (`brain mask, open sulci`), and so do
the brain's classes as they are labelled (`brain tissue`). SCAN is a scan of a head without labels: where deepbet is installed and the scan
covers a head, both brain masks are compared.

With --intervals volumes and their intervals are found in such images as `segment` finds them, of both sides together and, of maps that tell
them apart, of each side; the table says how many intervals hold the true volume, with the errors that the model's card tells and by the
draws of the scan alone. With --calibrate these errors are measured: root mean squares of true volume / volume - 1, both sides together, by
class and tissue. Maps of the training will do for it, in images that it has not seen; those of --intervals must be others.

With --card the mean Dice of each class and tissue is written into a model card of these weights, as `structure_dice`, by which
`segment` and `enhance` say how reliable a structure is, and the errors of --calibrate as `volume_error`.

Written into OUT: `classes.csv` (a row a map, image and class: Dice of the network alone and of what its user gets, volume, truth's
volume), `classes.md` (means), `calibration.csv` and `intervals.csv` (a row a map, image, class and side), `intervals.md`, `masks.csv` (a
row a scan) and for each scan a picture of its outlines in three planes, the network's yellow and deepbet's blue.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.conditional.scanner_draws import smooth_field
from dynamicdps.errors import InputError
from dynamicdps.json_file import read_json, write_json
from dynamicdps.pipeline.segmentation import COVERAGE, halves_of, noise_of, open_network
from dynamicdps.pipeline.structure_volumes import volume_intervals
from dynamicdps.segmentation import BrainNetwork, refine_chances, repeated_volumes, without_thick_slices
from dynamicdps.segmentation.class_chances import CLOSING_MM
from dynamicdps.segmentation.classes import BRAIN, CLASSES, TISSUES, Structure, class_of, structures, tissues
from dynamicdps.segmentation.reliability import VolumeErrors, volume_errors
from dynamicdps.segmentation.synthetic_heads import COMMON, TISSUE_OF_CLASS
from dynamicdps.volumes import Volume, deepbet, load, native_grid, sample
from dynamicdps.volumes.brain_extraction import covers_head
from dynamicdps.volumes.grids import Grid
from dynamicdps.volumes.morphology import Mask, close, depth

Array = NDArray[np.float32]
THICK = (1.6, 1.6, 5.0)
# Standard deviation of the noise at the map's resolution and of thick slices, as a share of the brightest tissue.
NOISE = {"1 mm": 0.03, "1.6 x 1.6 x 5 mm": 0.05}
# Longest edges of their voxels, as a model's card names them.
EDGES = ("1", "5")
# What is further outside of deepbet's brain than this is eyes, nose or neck rather than an outline drawn elsewhere.
FAR_MM = 6.0
# Number in FreeSurfer's table by which a map with both sides apart is known.
RIGHT_CORTEX = 42
# Seed of the first map of a calibration: its images are others than those that are judged.
FIRST_CALIBRATION = 1000


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


def scans_of(truth: Volume, labels: NDArray[np.int64], seed: int) -> tuple[str, Iterator[tuple[str, Volume]]]:
    """A contrast, and scans of a label map with it at both resolutions, by name."""
    rng = np.random.default_rng(seed)
    contrast = list(COMMON)[seed % len(COMMON)]
    image = truth.with_data(painted(labels, contrast, rng))
    return contrast, ((name, measured(image, edges, NOISE[name], rng)) for name, edges in (("1 mm", None), ("1.6 x 1.6 x 5 mm", THICK)))


def true_volumes(labels: NDArray[np.int64], mm3: float, *, sided: bool) -> dict[Structure, float]:
    """Volumes of a label map in mm3; of both sides apart only what has one number on each, which the ventricles have not."""
    counts = np.bincount(labels.ravel())
    of_class = np.bincount([class_of(n) for n in range(len(counts))], counts, len(CLASSES))
    found = {s: float(of_class[list(s.classes)].sum()) * mm3 for s in (*structures(sided=False), *tissues())}
    if sided:
        found |= {s: float(counts[s.label]) * mm3 for s in structures(sided=True) if s.side and s.name != "ventricles"}
    return found


def with_both(found: Mapping[Structure, float]) -> dict[Structure, float]:
    """Volumes of both sides together as well as of each side."""
    return {**found, **{whole: sum(v for s, v in found.items() if s.name == whole.name) for whole in structures(sided=False)}}


def volumes_of_map(path: Path, network: BrainNetwork, card: Mapping[str, Any], seed: int, repeats: int) -> list[dict[str, Any]]:
    """Volumes of structures in both scans of a label map, with intervals unless there are no repeats, beside the true ones."""
    truth = load(path)
    labels = np.rint(truth.data).astype(np.int64)
    sided = bool((labels == RIGHT_CORTEX).any())
    real = true_volumes(labels, float(np.prod(truth.spacing)), sided=sided)
    rows = []
    contrast, scans = scans_of(truth, labels, seed)
    for name, scan in scans:
        coarse = network.chances(scan)
        plane = halves_of(coarse) if sided else None
        finer = without_thick_slices(scan, coarse)
        found = with_both({s: float(slices.sum()) for s, slices in refine_chances(coarse, finer).volumes(plane).items()})
        again = (
            repeated_volumes(network, scan, finer, coarse, plane, count=repeats, noise_std=noise_of(scan)[0], seed=seed) if repeats else []
        )
        drawn = [with_both(each) for each in again]
        head = {"map": path.name, "image": name, "contrast": contrast}
        ends = {
            kind: volume_intervals(found, drawn, errors, COVERAGE)
            for kind, errors in (("", volume_errors(card, max(scan.spacing))), ("_of_draws", VolumeErrors()))
        }
        for structure, mm3 in real.items():
            if structure in found and mm3:
                row = head | {"class": structure.name, "side": structure.side, "mm3": found[structure], "truth_mm3": mm3}
                for kind, of_kind in ends.items():
                    if structure in of_kind:
                        row |= dict(zip((f"low{kind}", f"high{kind}"), of_kind[structure], strict=True))
                rows.append(row)
    return rows


def coverage(rows: list[dict[str, Any]]) -> str:
    """A table of how many intervals hold the true volume, by class, those of both sides together before those of each side."""
    lines = ["| volume | " + " | ".join(f"{image}: held | half width | held by draws alone | half width" for image in NOISE) + " |"]
    lines.append("|---" * (1 + 4 * len(NOISE)) + "|")
    names = [(row["class"], bool(row["side"])) for row in rows]
    groups = [(f"{name}, each side" if side else name, [(name, side)]) for name, side in sorted(dict.fromkeys(names), key=lambda n: n[1])]
    for label, members in (
        *groups,
        ("all of both sides", [n for n in names if not n[1]]),
        ("all of each side", [n for n in names if n[1]]),
    ):
        cells = [label]
        for image in NOISE:
            chosen = [row for row, name in zip(rows, names, strict=True) if name in members and row["image"] == image]
            for kind in ("", "_of_draws"):
                held = [row[f"low{kind}"] <= row["truth_mm3"] <= row[f"high{kind}"] for row in chosen]
                widths = [row[f"high{kind}"] / row["mm3"] - 1 for row in chosen]
                cells += [f"{sum(held)} of {len(held)}", f"{100 * np.median(widths):.0f} %" if held else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def of_map(path: Path, network: BrainNetwork, seed: int) -> list[dict[str, Any]]:
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
    contrast, scans = scans_of(truth, labels, seed)
    for name, scan in scans:
        grid = native_grid(truth)
        coarse = network.chances(scan)
        plane = halves_of(coarse)
        chances = refine_chances(coarse, without_thick_slices(scan, coarse))
        brains = [each.brain_on(grid) for each in (coarse, chances)]
        alone, found = (
            to_class[each.labels_on(grid, brain, plane).astype(int)] for each, brain in zip((coarse, chances), brains, strict=True)
        )
        volumes = {s.name: float(slices.sum()) for s, slices in chances.volumes(None).items()}
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
            there = is_member[real]
            numbers = {"mm3": volumes[label], "truth_mm3": there.sum() * mm3}
            pairs = (("network", before), ("dice", after))
            overlaps = {key: dice(is_member[each], there) if there.any() else float("nan") for key, each in pairs}
            rows.append(head | {"class": label} | overlaps | numbers)
    return rows


def means(rows: list[dict[str, Any]]) -> str:
    """A table of the rows' means by class and image."""
    lines = ["| class | " + " | ".join(f"Dice, {image} | of the network alone | volume error" for image in NOISE) + " |"]
    lines.append("|---" * (1 + 3 * len(NOISE)) + "|")
    for label in dict.fromkeys(row["class"] for row in rows):
        cells = [label]
        for image in NOISE:
            chosen = [row for row in rows if (row["class"], row["image"]) == (label, image) and np.isfinite(row["dice"])]
            errors = [row["mm3"] / row["truth_mm3"] - 1 for row in chosen if row.get("truth_mm3")]
            cells += [f"{np.mean([row[key] for row in chosen]):.3f}" if chosen else "" for key in ("dice", "network")]
            cells.append(f"{100 * np.mean(errors):+.0f} %" if errors else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def into_card(card: Path, rows: list[dict[str, Any]]) -> None:
    """Write mean Dice coefficients by the longest edge of a voxel into a model card, and how many maps they are of."""
    found: dict[str, dict[str, float]] = {}
    for image, edge in zip(NOISE, EDGES, strict=True):
        for label in (*CLASSES[1:], *TISSUES):
            values = [row["dice"] for row in rows if (row["class"], row["image"]) == (label, image) and np.isfinite(row["dice"])]
            found.setdefault(edge, {})[label] = round(float(np.mean(values)), 3)
    write_json(card, read_json(card) | {"structure_dice": found, "structure_dice_maps": len({row["map"] for row in rows})})


def errors_into_card(card: Path, rows: list[dict[str, Any]]) -> None:
    """Write root mean square errors of volumes of both sides by the longest edge of a voxel into a model card, with the number of maps."""
    found: dict[str, dict[str, float]] = {}
    for image, edge in zip(NOISE, EDGES, strict=True):
        for label in (*CLASSES[1:], *TISSUES):
            errors = [row["truth_mm3"] / row["mm3"] - 1 for row in rows if (row["class"], row["image"], row["side"]) == (label, image, "")]
            found.setdefault(edge, {})[label] = round(float(np.sqrt(np.mean(np.square(errors)))), 3)
    write_json(card, read_json(card) | {"volume_error": found, "volume_error_maps": len({row["map"] for row in rows})})


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
    parser.add_argument("--repeats", type=int, default=8, help="draws of a scan for its intervals")
    parser.add_argument("--calibrate", type=Path, nargs="*", default=[], help="label maps that may be of the training")
    parser.add_argument("--intervals", type=Path, nargs="*", default=[], help="label maps that are held out")
    parser.add_argument("--card", type=Path, help="model card that the Dice coefficients are written into")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    network, card = open_network(given.segmenter)
    rows: list[dict[str, Any]] = []
    for number, path in enumerate(given.labels):
        for head in range(given.heads_per_map):
            rows += of_map(path, network, number * given.heads_per_map + head)
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
    errors: list[dict[str, Any]] = []
    for number, path in enumerate(given.calibrate):
        errors += volumes_of_map(path, network, card, FIRST_CALIBRATION + number, 0)
        write(given.out / "calibration.csv", errors)
        print(path.name, flush=True)
    if errors and given.card is not None:
        errors_into_card(given.card, errors)
    held: list[dict[str, Any]] = []
    for number, path in enumerate(given.intervals):
        held += volumes_of_map(path, network, card, number, given.repeats)
        write(given.out / "intervals.csv", held)
        print(path.name, flush=True)
    if held:
        (given.out / "intervals.md").write_text(coverage(held))
        print(coverage(held))
    masks = []
    for path in given.scans:
        masks.append(of_scan(path, network, given.out))
        print(", ".join(f"{name} {value:.3g}" if isinstance(value, float) else str(value) for name, value in masks[-1].items()), flush=True)
        write(given.out / "masks.csv", masks)


if __name__ == "__main__":
    main()
