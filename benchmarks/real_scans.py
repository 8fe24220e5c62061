"""Real scans at 0.055 T against 3 T scans of the same patients: does the enhanced image come nearer to what a good scanner shows?

    python benchmarks/real_scans.py FOLDER... --out DIR

Each folder holds one patient: NAME_0.055T_GRE.nii.gz and NAME_3T_T1w.nii.gz with slices that lie at the same places (such as
https://github.com/bispmri/Ultra-low-field-MRI-Scanner, CC0). The operator is fitted to the scan alone. The 3 T slices are registered
to the measurement, not to any result (in the plane, affine, mutual information, dipy), so that no result is favoured. Printed and
written to real_scans.csv: correlation and SSIM against 3 T inside the brain for the measurement, the measurement smoothed in the plane (a
Gaussian of 1 mm, as the cheapest way to take noise away), the conditional model and DynamicDPS, each averaged over the thickness of the
slice. Both are said twice: of the images as they are, after the best gain and offset, and (`_matched`) after the increasing curve that
brings each slice nearest to the 3 T one, as in heads.py: results have the contrast that the prior has learned, which neither scanner has.
NAME.png shows all of them. About two minutes a patient on one core.

With --kspace the folders hold NAME_0.055T_GRE_kspace_postEMI.npz too, and DynamicDPS explains the k-space instead of the image. What is
compared with 3 T are the voxels of the image, inside its brain mask, so that the rows (real_scans_kspace.csv; the phase-corrected image is
"real") stand beside those of the run without.

With --contrast T2w the scans are NAME_0.055T_FSE.nii.gz and NAME_3T_T2w.nii.gz, enhanced as T2w ones; the rows are in real_scans_T2w.csv.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from heads import increasing_match
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.calibration.fit import FITTED
from dynamicdps.evaluation import data_misfit, ssim_brain
from dynamicdps.operators.kspace_measurement import kspace_noise, measure_kspace
from dynamicdps.pipeline.fit import FittedScan, fit_scan
from dynamicdps.pipeline.kspace_scan import KSpaceScan
from dynamicdps.priors import load_prior
from dynamicdps.solvers import make_config, solve
from dynamicdps.volumes import BrainScan, RawScan, Volume, load, open_brain, read_kspace, sample
from dynamicdps.volumes.brain_scan import cut_brain
from dynamicdps.volumes.grids import Grid, native_grid
from dynamicdps.volumes.scan import Scan

Image = NDArray[np.float64]
# Standard deviation of the Gaussian that a measurement is smoothed with.
SMOOTHED_MM = 1.0
# The poor scan, the good one and the conditional model.
SCANS = {"T1w": ("0.055T_GRE", "3T_T1w", "unet-scanners"), "T2w": ("0.055T_FSE", "3T_T2w", "unet-scanners")}


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


def agreement(image: Image, reference: Image, mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Correlation, and SSIM after the best gain and offset, inside the brain; then both after the best increasing curve."""
    return (*linear_agreement(image, reference, mask), *linear_agreement(increasing_match(image, reference, mask), reference, mask))


def linear_agreement(image: Image, reference: Image, mask: NDArray[np.bool_]) -> tuple[float, float]:
    inside = image[mask], reference[mask]
    gain, offset = np.polyfit(inside[0], inside[1], 1)
    scale = float(np.percentile(inside[1], 99))
    pair = [torch.from_numpy(x / scale)[None, None].float() for x in (gain * image + offset, reference)]
    return float(np.corrcoef(*inside)[0, 1]), float(ssim_brain(pair[0], pair[1], torch.from_numpy(mask)[None, None])[0])


def smoothed(head: BrainScan) -> list[Image]:
    """The slices of a measurement through a Gaussian in the plane, with what surrounds the brain, 0 outside of it."""
    assert head.weights is not None
    stack = ndimage.gaussian_filter(head.around.data.astype(np.float64), [SMOOTHED_MM / edge for edge in head.brain.spacing[:2]] + [0.0])
    return list(np.moveaxis(stack * head.weights, 2, 0))


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


def open_raw(path: Path, image: Volume) -> RawScan:
    """The k-space of these scans: their images show its two axes swapped, one turned, on 1 mm, with the middle one voxel off."""
    with np.load(path) as file:
        (name,) = file.files
        nx, ny = file[name].shape[:2]
    size = np.array(image.shape[1::-1]) * image.spacing[1::-1] / (nx, ny)
    affine = np.zeros((4, 4))
    affine[1, 0], affine[0, 1], affine[2, 2], affine[3, 3] = size[0], -size[1], image.spacing[2], 1.0
    middle = np.array([image.shape[0] // 2, image.shape[1] // 2 - 1, 0, 1])
    affine[:3, 3] = (image.affine @ middle)[:3] - affine[:3, :3] @ (nx // 2, ny // 2, 0)
    return read_kspace(path, array=name, affine=affine).with_square_voxels()


def enhance_kspace(raw: RawScan, head: BrainScan, mask: Path, samples: int) -> tuple[dict[str, Volume], Volume, float]:
    """Phase-corrected image, initial image and result from k-space, the magnitude of all of it, and the contrast."""
    own = cut_brain(Scan(raw.magnitude(), raw.acquisition), str(mask))
    noise = kspace_noise(raw)
    opened = KSpaceScan(raw, own, noise)
    measured = measure_kspace(raw, float(noise.std[0]), weights=own.weights, box=opened.box, generator=torch.Generator().manual_seed(0))
    print(f"  noise {measured.noise_std:.4g}, not explained by a real image {measured.unexplained:.2f} times the noise", flush=True)
    fitted = fit_scan(own, None, SCANS["T1w"][2], FITTED, {}, noise)
    print(f"  {fitted.fit.operator}", flush=True)
    operator = replace(fitted.fit.scan_operator, kspace=measured)
    denoiser = load_prior("brain", "cpu", torch.bfloat16)
    config = make_config("dynamicdps", {"samples": samples})
    result = solve("dynamicdps", own.brain, operator, denoiser, initial=fitted.initial.volume, config=config)
    misfits = [data_misfit(image, own.brain, operator, result.scale) for image in (result.initial, result.volume)]
    print(f"  start level {result.start_sigma:.3f}, misfit {misfits[0]:.2f} to {misfits[1]:.2f}, {result.seconds:.0f} s", flush=True)
    assert own.weights is not None
    real = own.brain.with_data(measured.image * own.weights)
    grid = native_grid(head.brain)
    images = {"real": sample(real, grid), "conditional": result.initial, "dynamicdps": result.volume}
    return images, own.whole, gamma_of(fitted)


def enhance(head: BrainScan, samples: int, contrast: str) -> tuple[dict[str, Volume], float]:
    """Initial image and result of a user who has nothing but the scan, and the contrast."""
    fitted = fit_scan(head, None, SCANS[contrast][2], FITTED, {}, contrast=contrast)
    print(f"  {fitted.fit.operator}", flush=True)
    operator = fitted.fit.scan_operator
    assert head.weights is not None
    denoiser = load_prior("brain", "cpu", torch.bfloat16, contrast)
    config = make_config("dynamicdps", {"samples": samples})
    result = solve("dynamicdps", head.brain, operator.weighted(head.weights), denoiser, initial=fitted.initial.volume, config=config)
    print(f"  start level {result.start_sigma:.3f}, {result.seconds:.0f} s", flush=True)
    misfits = [data_misfit(x, head.brain, operator.weighted(head.weights), result.scale) for x in (result.initial, result.volume)]
    print(f"  misfit {misfits[0]:.2f} to {misfits[1]:.2f}", flush=True)
    return {"conditional": fitted.initial.volume, "dynamicdps": result.volume}, gamma_of(fitted)


def gamma_of(fitted: FittedScan) -> float:
    return float(fitted.fit.estimate.mean["gamma"]) if fitted.fit.estimate is not None else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--lesion", nargs="*", default=[], help="patients whose largest dark region is measured in each image")
    parser.add_argument("--kspace", action="store_true", help="from k-space instead of the image")
    parser.add_argument("--contrast", choices=SCANS, default="T1w")
    arguments = parser.parse_args()
    if arguments.kspace and arguments.contrast != "T1w":
        parser.error("the k-space is that of the T1w scans; leave one of --kspace and --contrast out")
    poor, best, _ = SCANS[arguments.contrast]
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    rows = []
    for folder in arguments.folders:
        name = folder.name
        print(name, flush=True)
        path = folder / f"{name}_{poor}.nii.gz"
        # Told, because `auto` takes one of the T2w scans for a skull-stripped one.
        head = open_brain(path, mask="auto" if arguments.contrast == "T1w" else "classical")
        good = load(folder / f"{name}_{best}.nii.gz").data.astype(np.float64)
        images = {"measurement": head.brain}
        slices = {"measurement": list(np.moveaxis(head.brain.data.astype(np.float64), 2, 0)), "smoothed": smoothed(head)}
        if arguments.kspace:
            mask = head.mask.soft(head.whole, 0.0).save(arguments.out / f"{name}_mask.nii.gz")
            raw = open_raw(folder / f"{name}_0.055T_GRE_kspace_postEMI.npz", head.whole)
            found, magnitude, gamma = enhance_kspace(raw, head, mask, arguments.samples)
            same = np.corrcoef(sample(magnitude, native_grid(head.whole)).data.ravel(), head.whole.data.ravel())[0, 1]
            print(f"  correlation of the magnitude with the image: {same:.4f}", flush=True)
            slices["real"] = list(np.moveaxis(found["real"].data.astype(np.float64), 2, 0))
        else:
            found, gamma = enhance(head, arguments.samples, arguments.contrast)
        images |= found
        for stage, volume in images.items():
            volume.save(arguments.out / f"{name}_{stage}.nii.gz")
        assert head.weights is not None
        slices |= {stage: by_slice(volume, head.brain) for stage, volume in images.items() if stage not in slices}
        references, masks = [], []
        for z, measured in enumerate(slices["measurement"]):
            inside = head.weights[:, :, z] > 0
            whole = registered(good[:, :, z], head.whole.data[:, :, z].astype(np.float64))
            x, y = np.round(np.linalg.inv(head.whole.affine) @ head.brain.affine @ [0, 0, 0, 1])[:2].astype(int)
            reference = whole[x : x + measured.shape[0], y : y + measured.shape[1]]
            references.append(reference * inside)
            masks.append(inside)
            for stage, found in slices.items():
                rows.append([name, z, stage, *(f"{value:.4f}" for value in agreement(found[z], reference, inside))])
        for stage in slices:
            mine = np.array([[float(v) for v in row[3:]] for row in rows if row[0] == name and row[2] == stage]).mean(0)
            print(f"| {name} | {stage} | " + " | ".join(f"{value:.3f}" for value in mine) + " |", flush=True)
        if name in arguments.lesion:
            seed = seed_of(slices["measurement"], masks)
            scale = float(np.percentile(head.brain.data[head.weights > 0], 99)) / 0.95**gamma
            for stage, found in slices.items():
                # In the measurement's contrast, which the other two have undone.
                alike = (
                    found if stage in ("measurement", "smoothed", "real") else [scale * np.clip(x / scale, 0, None) ** gamma for x in found]
                )
                size, contrast = dark_lesion(alike, masks, seed)
                print(f"| {name} | {stage} | lesion {size:.0f} voxels | contrast {contrast:.3f} |", flush=True)
        picture(arguments.out / f"{name}.png", slices | {"3 T, registered": references})
    suffix = "_kspace" if arguments.kspace else "" if arguments.contrast == "T1w" else f"_{arguments.contrast}"
    with (arguments.out / f"real_scans{suffix}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patient", "slice", "stage", "correlation", "ssim", "correlation_matched", "ssim_matched"])
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
