"""Parameters found without the truth, and what their errors cost.

    python benchmarks/operator_recovery.py SCAN... --out FOLDER

Each scan is measured with scanners drawn at random (gamma 0.3 to 1.5, blur 0 to 3 pixels, slices of 2 to 6 mm every 2 mm, signal to
noise 10 to 50, voxels of 1, 1.5 or 2 mm in the plane). Its operator is fitted from the measurement and the output of the conditional
model; the truth is only compared with. Then DynamicDPS runs with the fitted and with the true operator, and on --degradations too.
Writes recovery.csv, reconstruction.csv and summary.md; a rerun goes on where it was stopped.
"""

import argparse
import csv
import math
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynamicdps.calibration.fit import OperatorFit, fit_operator
from dynamicdps.conditional import ConditionalUNet, load_unet
from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation.fidelity import psnr, ssim
from dynamicdps.operators import LowField, ScanOperator, preset, simulate
from dynamicdps.priors import load_prior
from dynamicdps.solvers import DynamicDPSConfig, solve_tensors
from dynamicdps.solvers.initial import initial_from_model
from dynamicdps.volumes import IntensityScale, Volume, load, resample_to, to_slices

WHITE_MATTER = 0.85
PARAMETERS = ("gamma", "blur", "slice_thickness", "noise_std")


def draw(random: np.random.Generator) -> ScanOperator:
    gamma = float(random.uniform(0.3, 1.5))
    scanner = LowField(
        gamma=gamma,
        in_plane_factor=float(random.choice([1.0, 1.5, 2.0])),
        blur=float(random.uniform(0.0, 3.0)),
        slice_thickness=float(random.uniform(2.0, 6.0)),
        slice_spacing=2.0,
    )
    return ScanOperator(scanner, WHITE_MATTER**gamma / math.exp(random.uniform(math.log(10), math.log(50))))


def fit(measurement: Volume, unet: ConditionalUNet) -> tuple[OperatorFit, OperatorFit, Volume, float]:
    """What a user does who has only the scan: first without, then with the conditional model's image."""
    began = time.monotonic()
    first = fit_operator(measurement)
    seconds = time.monotonic() - began
    initial = initial_from_model(measurement, first.scan_operator, unet, "unet").volume
    began = time.monotonic()
    found = fit_operator(measurement, initial)
    return first, found, initial, seconds + time.monotonic() - began


def recover(scan: Volume, subject: str, number: int, unet: ConditionalUNet) -> dict[str, Any]:
    random = np.random.default_rng([zlib.crc32(subject.encode()), number])
    true = draw(random)
    # The scanner's own units: the fit must not profit from ours.
    measurement, _ = simulate(scan, true, seed=int(random.integers(2**31)))
    first, found, _, seconds = fit(measurement, unet)
    known, fitted = true.to_json(), found.to_json()
    row: dict[str, Any] = {"subject": subject, "draw": number, "in_plane_factor": known["in_plane_factor"], "seconds": round(seconds, 2)}
    scale = IntensityScale.robust(scan.data).scale
    row["scale_ratio"] = float(found.scan_operator.intensity_scale or math.nan) / scale
    for name in PARAMETERS:
        low, high = found.intervals[name]
        row |= {
            name: float(known[name]),
            f"{name}_fit": float(fitted[name]),
            f"{name}_low": low,
            f"{name}_high": high,
        }
    assert found.least_squares is not None
    assert first.estimate is not None
    # What least squares on the conditional model's image says, and what the statistics said before.
    row |= {f"{name}_image": found.least_squares.values[name] for name in PARAMETERS[:3]}
    return row | {"gamma_statistics": first.estimate.mean["gamma"], "warnings": len(found.warnings)}


def reconstruct(
    scan: Volume, subject: str, true: ScanOperator, condition: str, unet: ConditionalUNet, prior: Any, samples: int
) -> list[dict[str, Any]]:
    """PSNR of the conditional model and of DynamicDPS with the true and the fitted operator, over the middle slices."""
    measurement, tied = simulate(scan, true, seed=zlib.crc32(subject.encode()))
    _, found, initial, fit_seconds = fit(measurement, unet)
    # On the truth's grid, so that the images can be compared; the parameters are those found without it.
    fitted = replace(found.scan_operator, image_shape=tied.image_shape, image_affine=tied.image_affine)
    assert tied.image_shape is not None
    assert tied.image_affine is not None
    initial = resample_to(initial, tied.image_shape, tied.image_affine)
    truth = to_slices(IntensityScale.robust(scan.data).apply(scan).data)
    coupled = true.couples_slices
    rows = []
    for name, operator in (("true", tied), ("fitted", fitted)):
        scale = operator.intensity_scale or 1.0
        y, x = to_slices(measurement.data / scale), to_slices(initial.data / scale)
        if coupled:
            y, x = y.movedim(0, 1)[None], x.movedim(0, 1)[None]
        else:
            middle = [len(truth) // 2]
            y, x = y[middle], x[middle]
        began = time.monotonic()
        forward = operator.operator
        result = solve_tensors(
            "dynamicdps",
            [DataTerm(y, forward, operator.noise)],
            prior,
            x,
            generator=torch.Generator().manual_seed(0),
            config=DynamicDPSConfig(samples=samples),
        )
        seconds = time.monotonic() - began
        # Both in units of the true image, so that an error of the fitted scale counts.
        images = {"conditional": x, "dynamicdps": result.image}
        for solver, image in images.items():
            slices = (image[0].movedim(0, 1) if coupled else image) * scale / (tied.intensity_scale or 1.0)
            against = truth[: len(slices)] if coupled else truth[[len(truth) // 2]]
            rows.append(
                {
                    "subject": subject,
                    "condition": condition,
                    "operator": name,
                    "solver": solver,
                    "psnr": float(psnr(slices, against).mean()),
                    "ssim": float(ssim(slices, against).mean()),
                    "misfit": float(result.misfit.mean()) if solver == "dynamicdps" else math.nan,
                    "gamma": float(forward.gamma),
                    "blur": float(forward.blur),
                    "noise_std": operator.noise.std,
                    "fit_seconds": round(fit_seconds, 2),
                    "seconds": round(seconds, 2),
                }
            )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(recovered: list[dict[str, Any]], reconstructed: list[dict[str, Any]]) -> str:
    def column(rows: list[dict[str, Any]], name: str) -> Any:
        return np.array([float(r[name]) for r in rows])

    lines = [f"{len(recovered)} scans of {len({r['subject'] for r in recovered})} subjects", ""]
    lines += ["| parameter | median relative error | 90th percentile | in the 95 % interval |", "|---|---|---|---|"]
    for name in PARAMETERS:
        true, found = column(recovered, name), column(recovered, f"{name}_fit")
        inside = (column(recovered, f"{name}_low") <= true) & (true <= column(recovered, f"{name}_high"))
        relative = np.abs(found / true - 1)
        lines.append(f"| {name} | {np.median(relative):.1%} | {np.quantile(relative, 0.9):.1%} | {inside.mean():.0%} |")
    lines.append(f"| scale | {np.median(np.abs(column(recovered, 'scale_ratio') - 1)):.1%} | | |")
    for name in PARAMETERS[:3]:
        alone = np.abs(column(recovered, f"{name}_image") / column(recovered, name) - 1)
        lines.append(f"| {name}, least squares on the image alone | {np.median(alone):.1%} | {np.quantile(alone, 0.9):.1%} | |")
    statistics = np.abs(column(recovered, "gamma_statistics") / column(recovered, "gamma") - 1)
    lines.append(f"| gamma, statistics alone | {np.median(statistics):.1%} | {np.quantile(statistics, 0.9):.1%} | |")
    lines.append(f"\nseconds of a fit: {np.median(column(recovered, 'seconds')):.1f} (median)\n")
    lines += ["| condition | subjects | conditional | true operator | fitted | loss (median) | above conditional | fit s | solve s |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for condition in dict.fromkeys(r["condition"] for r in reconstructed):
        here = [r for r in reconstructed if r["condition"] == condition]

        def of(operator: str, solver: str, name: str = "psnr", here: list[dict[str, Any]] = here) -> Any:
            return column([r for r in here if r["operator"] == operator and r["solver"] == solver], name)

        start, best, own = of("fitted", "conditional"), of("true", "dynamicdps"), of("fitted", "dynamicdps")
        lines.append(
            f"| {condition} | {len(own)} | {start.mean():.2f} | {best.mean():.2f} | {own.mean():.2f} | {np.median(best - own):+.2f} | "
            f"{(own > start).mean():.0%} | {of('fitted', 'dynamicdps', 'fit_seconds').mean():.1f} | "
            f"{of('fitted', 'dynamicdps', 'seconds').mean():.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--degradations", default="iqt-out,blur-mismatch,random")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--volume-samples", type=int, default=2, help="of the random scanners, whose thick slices need whole volumes")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    broad, narrow = load_unet("unet-range"), load_unet("unet-iqt-in")
    prior = load_prior("brain", "cpu", torch.bfloat16)
    table, pictures = arguments.out / "recovery.csv", arguments.out / "reconstruction.csv"
    recovered, reconstructed = read(table), read(pictures)
    for path in arguments.scans:
        scan, subject = load(path), path.name.split("_")[0]
        for number in range(arguments.draws):
            if not any(r["subject"] == subject and int(r["draw"]) == number for r in recovered):
                recovered.append(recover(scan, subject, number, broad))
                write(table, recovered)
    for condition in filter(None, arguments.degradations.split(",")):
        for path in arguments.scans:
            subject = path.name.split("_")[0]
            if any(r["subject"] == subject and r["condition"] == condition for r in reconstructed):
                continue
            if condition == "random":
                true, unet, samples = draw(np.random.default_rng([zlib.crc32(subject.encode()), 0])), broad, arguments.volume_samples
            else:
                true, unet, samples = preset(condition), narrow, arguments.samples
            reconstructed += reconstruct(load(path), subject, true, condition, unet, prior, samples)
            write(pictures, reconstructed)
    text = summary(recovered, reconstructed)
    (arguments.out / "summary.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
