"""The files that enhance and demo write, and the page made from them."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.diffusion import ModelFile, Prior
from dynamicdps.evaluation import StageMetrics, nrmse, psnr, residual_map, ssim, unsupported_map
from dynamicdps.evaluation.evaluate import MIN_BRAIN_SHARE
from dynamicdps.json_file import write_json
from dynamicdps.operators import ScanOperator
from dynamicdps.report import read_report, write_report
from dynamicdps.report.run_folder import START_RULE
from dynamicdps.report.trace import STARTS, TRACE, Rows, trace_rows, write_rows
from dynamicdps.solvers import DynamicDPSConfig, Result, start_rule_of
from dynamicdps.volumes import BrainScan, IntensityScale, Volume, brain_mask, to_slices
from dynamicdps.volumes.brain_scan import EDGE_MM
from dynamicdps.volumes.stack import save_stack

Ranges = dict[str, tuple[float, float]]
RANGE_PERCENTILES = (5, 95)


def write_volumes(
    out: Path, measurement: Volume, operator: ScanOperator, result: Result, truth: Volume | None = None, head: BrainScan | None = None
) -> None:
    """The enhanced scan with its initial image, measurement, residual, uncertainty, null-space part and truth as NIfTI files.

    Where a head lies around the brain, the maps end at the brain: outside nothing was measured, and a map says nothing.
    """
    measurement.save(out / "measurement.nii.gz")
    result.initial.save(out / "initial.nii.gz")
    result.residual.save(out / "residual.nii.gz")
    uncertainty, unsupported = result.uncertainty, unsupported_map(result.volume, operator, result.scale)
    if head is not None and head.weights is not None:
        inside = head.inside_on(result.volume)
        uncertainty, unsupported = (v if v is None else v.with_data(v.data * inside) for v in (uncertainty, unsupported))
    for name, volume in (("uncertainty", uncertainty), ("truth", truth), ("hallucination", unsupported)):
        # What an earlier run left must not be taken for this one's.
        if volume is None:
            (out / f"{name}.nii.gz").unlink(missing_ok=True)
        else:
            volume.save(out / f"{name}.nii.gz")
    if result.samples:
        save_stack(result.samples, out / "samples.nii.gz")
    else:
        (out / "samples.nii.gz").unlink(missing_ok=True)
    # Last: whoever finds it finds the others too.
    result.volume.save(out / "enhanced.nii.gz")


def write_head(out: Path, head: BrainScan, result: Result, grid: str) -> None:
    """The enhanced brain in its head as enhanced.nii.gz, beside enhanced_brain.nii.gz and brain_mask.nii.gz; on its own as it is.

    A skull-stripped scan has no surroundings: only a grid of its own choice changes what `write_volumes` wrote.
    """
    brain, mask = out / "enhanced_brain.nii.gz", out / "brain_mask.nii.gz"
    if head.weights is None and grid == "prior":
        brain.unlink(missing_ok=True)
        mask.unlink(missing_ok=True)
        return
    soft = head.mask.soft(head.whole, EDGE_MM)
    # Outside of the brain nothing was measured: what the solver leaves there is no result.
    inside = head.inside_on(result.volume) if head.weights is not None else 1
    result.volume.with_data(result.volume.data * inside).save(brain)
    soft.save(mask)
    head.in_head(result.volume, grid).save(out / "enhanced.nii.gz")


def write_steps(out: Path, starts: Rows, result: Result, config: Any, prior: Prior) -> None:
    """trace.csv, starts.csv with the rows given, and the calibration that chose the starts as start-level.json."""
    write_rows(out / TRACE, trace_rows(result))
    write_rows(out / STARTS, starts)
    if isinstance(config, DynamicDPSConfig) and config.start_sigma is None:
        write_json(out / START_RULE, (config.start_rule or start_rule_of(prior, result.volume.shape[2])).to_json())
    else:
        (out / START_RULE).unlink(missing_ok=True)


def write_metrics(
    out: Path,
    stages: Mapping[str, StageMetrics],
    ranges: Mapping[str, Ranges] | None = None,
    intervals: Mapping[str, Ranges] | None = None,
) -> None:
    """metrics.json: one object a stage, with the 5th and 95th percentile over slices where they are given.

    Args:
        out: folder.
        stages: numbers by stage.
        ranges: over slices, by stage and measure.
        intervals: 95 %, of the tissue volumes in mm3, by stage and tissue.
    """
    known = ranges or {}
    values = {name: metrics.to_json() for name, metrics in stages.items()}
    for name, stage in values.items():
        if known.get(name):
            stage["range_over_slices"] = {key: list(ends) for key, ends in known[name].items()}
        if intervals and intervals.get(name):
            stage["volumes_interval_mm3"] = {tissue: list(ends) for tissue, ends in intervals[name].items()}
    write_json(out / "metrics.json", values)


def write_page(out: Path) -> Path:
    """report.html from the other files: what `dynamicdps report` does too, so that both pages are the same."""
    return write_report(out, read_report(out))


def quality_ranges(reconstruction: Volume, truth: Volume, scale: IntensityScale) -> Ranges:
    """5th and 95th percentile of PSNR, SSIM and NRMSE over the slices that hold brain."""
    brain = torch.from_numpy(brain_mask(truth).mean((0, 1)) >= MIN_BRAIN_SHARE)
    x, t = (to_slices(scale.apply(volume).data)[brain] for volume in (reconstruction, truth))
    return {name: _range(measure(x, t).double().numpy()) for name, measure in (("psnr", psnr), ("ssim", ssim), ("nrmse", nrmse))}


def misfit_range(volume: Volume, scan: Volume, operator: ScanOperator, scale: IntensityScale) -> Ranges:
    """The same of the data misfit over measured slices, each over the voxels that count: the residual of the others is exactly 0."""
    residual = residual_map(volume, scan, operator, scale).data.astype(np.float64)
    counted = np.count_nonzero(residual, axis=(0, 1))
    return {"data_misfit": _range(np.sqrt(np.square(residual).sum((0, 1))[counted > 0] / counted[counted > 0]))}


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values[np.isfinite(values)], RANGE_PERCENTILES) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high)


def run_facts(solver: str, config: Any, result: Result, operator: ScanOperator, models: Mapping[str, ModelFile]) -> dict[str, Any]:
    """What run.json says of a reconstruction."""
    return {
        "models": {kind: model.card["sha256"] for kind, model in models.items()},
        "cards": {kind: {"name": model.name, **model.card} for kind, model in models.items()},
        "operator": operator.to_json(),
        "solver": solver,
        "settings": settings_of(config),
        "intensity_scale": result.scale.scale,
        "start_sigma": result.start_sigma,
        "warnings": result.reconstruction.warnings,
    }


def settings_of(config: Any) -> dict[str, Any]:
    """A solver's settings as plain values, calibrations by their source; what is not set is left out."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {name: getattr(value, "source", value) for name, value in values.items() if value is not None}
