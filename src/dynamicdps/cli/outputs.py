"""The files that enhance and demo write."""

from pathlib import Path

from dynamicdps.diffusion.model_file import write_json
from dynamicdps.evaluation import StageMetrics
from dynamicdps.report import Report, Stage, write_report
from dynamicdps.solvers import Result
from dynamicdps.volumes import Volume


def write_volumes(out: Path, measurement: Volume, result: Result) -> None:
    """The enhanced scan with its initial image, measurement, residual and uncertainty as NIfTI files."""
    measurement.save(out / "measurement.nii.gz")
    result.initial.save(out / "initial.nii.gz")
    result.residual.save(out / "residual.nii.gz")
    if result.uncertainty is not None:
        result.uncertainty.save(out / "uncertainty.nii.gz")
    else:
        (out / "uncertainty.nii.gz").unlink(missing_ok=True)
    # Last: whoever finds it finds the others too.
    result.volume.save(out / "enhanced.nii.gz")


def write_metrics(out: Path, stages: dict[str, StageMetrics]) -> None:
    """metrics.json: one object a stage."""
    write_json(out / "metrics.json", {name: metrics.to_json() for name, metrics in stages.items()})


def trace_rows(result: Result) -> list[dict[str, float]]:
    """The trace as rows of numbers: means over slices."""
    return [
        {
            "step": float(t.step),
            "sigma": float(t.sigma.mean()),
            "misfit": float(t.misfit.mean()),
            "step_length": float(t.step_length.mean()),
        }
        for t in result.trace
    ]


__all__ = ["Report", "Stage", "trace_rows", "write_metrics", "write_report", "write_volumes"]
