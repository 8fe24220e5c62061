"""Real scans at 0.055 T against 3 T scans of the same patients: does the enhanced image come nearer to what a good scanner shows?

    python benchmarks/real_scans.py FOLDER... --out DIR

Each folder holds one patient: NAME_0.055T_GRE.nii.gz and NAME_3T_T1w.nii.gz with slices that lie at the same places (such as
https://github.com/bispmri/Ultra-low-field-MRI-Scanner, CC0). The operator is fitted to the scan alone. The 3 T slices are registered
to the measurement, not to any result (in the plane, affine, mutual information, dipy), so that no result is favoured. Printed and
written to real_scans.csv: correlation and SSIM against 3 T inside the brain for the measurement, the conditional model and DynamicDPS,
each averaged over the thickness of the slice. NAME.png shows all of them. About two minutes a patient on one core.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.cli.run_fit import fit_scan
from dynamicdps.diffusion import load_denoiser
from dynamicdps.evaluation import ssim_brain
from dynamicdps.operators.fit import FITTED
from dynamicdps.solvers import make_config, solve
from dynamicdps.volumes import BrainScan, Volume, load, open_brain, sample
from dynamicdps.volumes.grids import Grid

Image = NDArray[np.float64]


def registered(moving: Image, static: Image) -> Image:
    """A 3 T slice in the place of a measured one: affine in the plane by mutual information."""
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric, transform_centers_of_mass
    from dipy.align.transforms import AffineTransform2D, RigidTransform2D, TranslationTransform2D

    search = AffineRegistration(metric=MutualInformationMetric(nbins=32), level_iters=[400, 200, 100], verbosity=0)
    here, there = np.eye(3), np.diag([static.shape[0] / moving.shape[0], static.shape[1] / moving.shape[1], 1.0])
    found = transform_centers_of_mass(static, here, moving, there)
    for transform in (TranslationTransform2D(), RigidTransform2D(), AffineTransform2D()):
        found = search.optimize(
            static, moving, transform, None, static_grid2world=here, moving_grid2world=there, starting_affine=found.affine
        )
    return np.asarray(found.transform(moving))


def by_slice(volume: Volume, scan: Volume) -> list[Image]:
    """An image of thin slices as the scan's slices: the mean over the thickness of each."""
    thick = round(scan.spacing[2] / volume.spacing[2])
    parts = []
    for shift in (np.arange(thick) - (thick - 1) / 2) * volume.spacing[2]:
        moved = scan.affine.copy()
        moved[:3, 3] += shift * moved[:3, 2] / scan.spacing[2]
        parts.append(sample(volume, Grid(scan.shape, moved)).data)
    return list(np.moveaxis(np.mean(parts, axis=0), 2, 0).astype(np.float64))


def agreement(image: Image, reference: Image, mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Correlation, and SSIM after the best gain and offset, inside the brain."""
    inside = image[mask], reference[mask]
    gain, offset = np.polyfit(inside[0], inside[1], 1)
    scale = float(np.percentile(inside[1], 99))
    pair = [torch.from_numpy(x / scale)[None, None].float() for x in (gain * image + offset, reference)]
    return float(np.corrcoef(*inside)[0, 1]), float(ssim_brain(pair[0], pair[1], torch.from_numpy(mask)[None, None])[0])


def dark_lesion(slices: list[Image], brain: list[NDArray[np.bool_]], seed: NDArray[np.bool_]) -> tuple[float, float]:
    """Volume in voxels and contrast of a dark lesion: between its core and its surroundings, and of what lies below their middle.

    Args:
        slices: of one image.
        brain: where there is brain.
        seed: ``(slices, x, y)``, about where the lesion is.
    """
    stack, inside = np.stack(slices), np.stack(brain)
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = True
    core = ndimage.binary_erosion(seed, plane, iterations=3)
    near = ndimage.binary_dilation(seed, plane, iterations=9) & ~ndimage.binary_dilation(seed, plane, iterations=3) & inside
    low, high = float(np.median(stack[core])), float(np.median(stack[near]))
    dark = (ndimage.gaussian_filter(stack, (0, 1, 1)) < (low + high) / 2) & ndimage.binary_dilation(seed, plane, iterations=4) & inside
    labels, _ = ndimage.label(dark)
    return float((labels == np.bincount(labels[core]).argmax()).sum()), (high - low) / high


def seed_of(slices: list[Image], brain: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The largest dark region of a measurement that is not a furrow or the rim."""
    stack, inside = np.stack(slices), np.stack(brain)
    smooth = ndimage.gaussian_filter(stack, (0, 3, 3))
    dark = (smooth < 0.7 * np.median(stack[inside])) & ndimage.binary_erosion(inside, iterations=2, border_value=1)
    labels, _ = ndimage.label(ndimage.binary_opening(dark, np.ones((1, 7, 7), bool)))
    return np.asarray(labels == np.bincount(labels[labels > 0]).argmax())


def enhance(head: BrainScan, samples: int) -> tuple[dict[str, Volume], float]:
    """Measurement, initial image and result of a user who has nothing but the scan."""
    fitted = fit_scan(head, None, "unet-range", FITTED, {})
    print(f"  {fitted.fit.operator}", flush=True)
    operator = fitted.fit.scan_operator
    assert head.weights is not None
    denoiser = load_denoiser("brain-t1w", "cpu", torch.bfloat16)
    config = make_config("dynamicdps", {"samples": samples})
    result = solve("dynamicdps", head.brain, operator.weighted(head.weights), denoiser, initial=fitted.initial.volume, config=config)
    print(f"  start level {result.start_sigma:.3f}, {result.seconds:.0f} s", flush=True)
    images = {"measurement": head.brain, "conditional": fitted.initial.volume, "dynamicdps": result.volume}
    return images, float(fitted.fit.estimate.mean["gamma"]) if fitted.fit.estimate is not None else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--lesion", nargs="*", default=[], help="patients whose largest dark region is measured in each image")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    rows = []
    for folder in arguments.folders:
        name = folder.name
        print(name, flush=True)
        head = open_brain(folder / f"{name}_0.055T_GRE.nii.gz")
        good = load(folder / f"{name}_3T_T1w.nii.gz").data.astype(np.float64)
        images, gamma = enhance(head, arguments.samples)
        for stage, volume in images.items():
            volume.save(arguments.out / f"{name}_{stage}.nii.gz")
        assert head.weights is not None
        slices = {"measurement": list(np.moveaxis(head.brain.data.astype(np.float64), 2, 0))}
        slices |= {stage: by_slice(images[stage], head.brain) for stage in ("conditional", "dynamicdps")}
        references, masks = [], []
        for z, measured in enumerate(slices["measurement"]):
            mask = head.weights[:, :, z] > 0
            whole = registered(good[:, :, z], head.whole.data[:, :, z].astype(np.float64))
            x, y = np.round(np.linalg.inv(head.whole.affine) @ head.brain.affine @ [0, 0, 0, 1])[:2].astype(int)
            reference = whole[x : x + measured.shape[0], y : y + measured.shape[1]]
            references.append(reference * mask)
            masks.append(mask)
            for stage, found in slices.items():
                correlation, similarity = agreement(found[z], reference, mask)
                rows.append([name, z, stage, f"{correlation:.4f}", f"{similarity:.4f}"])
        for stage in slices:
            mine = np.array([[float(v) for v in row[3:]] for row in rows if row[0] == name and row[2] == stage]).mean(0)
            print(f"| {name} | {stage} | {mine[0]:.3f} | {mine[1]:.3f} |", flush=True)
        if name in arguments.lesion:
            seed = seed_of(slices["measurement"], masks)
            scale = float(np.percentile(head.brain.data[head.weights > 0], 99)) / 0.95**gamma
            for stage, found in slices.items():
                # In the measurement's contrast, which the other two have undone.
                alike = found if stage == "measurement" else [scale * np.clip(x / scale, 0, None) ** gamma for x in found]
                size, contrast = dark_lesion(alike, masks, seed)
                print(f"| {name} | {stage} | lesion {size:.0f} voxels | contrast {contrast:.3f} |", flush=True)
        picture(arguments.out / f"{name}.png", slices | {"3 T, registered": references})
    with (arguments.out / "real_scans.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patient", "slice", "stage", "correlation", "ssim"])
        writer.writerows(rows)


def picture(path: Path, slices: dict[str, list[Image]]) -> None:
    count = len(next(iter(slices.values())))
    figure, axes = plt.subplots(count, len(slices), figsize=(2.6 * len(slices), 3.1 * count), squeeze=False)
    for column, (stage, images) in enumerate(slices.items()):
        for row, image in enumerate(images):
            axes[row, column].imshow(image.T[::-1], cmap="gray", vmin=0, vmax=np.percentile(image[image > 0], 99.5))
            axes[row, column].set_axis_off()
            axes[row, column].set_title(stage if row == 0 else "", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


if __name__ == "__main__":
    main()
