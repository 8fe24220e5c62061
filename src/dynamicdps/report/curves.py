"""The charts of a run: its steps, its starts on the calibration curve, and what its residual looks like."""

import math

import numpy as np

from dynamicdps.report.charts import Axis, Chart, Series, line_chart
from dynamicdps.report.contents import Report
from dynamicdps.report.residuals import LIMIT, histogram, spectrum
from dynamicdps.report.trace import Rows
from dynamicdps.solvers import StartLevelRule
from dynamicdps.volumes import Volume

# As the trace's band: 10th to 90th percentile.
BAND = "The line is the mean over slices, the band their 10th to 90th percentile."


def run_charts(report: Report) -> list[Chart]:
    """The charts that the report's data allow."""
    return [*trace_charts(report.trace), *start_charts(report.starts, report.start_rule)]


def trace_charts(trace: Rows) -> list[Chart]:
    """Data misfit, noise level and step length by step; those that have a finite value."""
    said = f"over {len(trace)} steps"
    wanted = (
        (
            "misfit",
            "Data misfit by step",
            "Root mean square of the residual in standard deviations of the noise after each step. At 1 (dashed) the image explains the "
            "measurement as well as the noise allows.",
            "data misfit in noise std",
        ),
        (
            "sigma",
            "Noise level by step",
            "How much noise the diffusion still assumes in the image, as a share of the intensity range.",
            "noise level",
        ),
        (
            "step_length",
            "Step length",
            "Length that the line search accepted; 1 is the full Gauss-Newton step.",
            "step length",
        ),
    )
    charts = []
    for key, heading, caption, label in wanted:
        rows = [row for row in trace if math.isfinite(row.get(key, math.nan))]
        if not rows:
            continue
        steps = [row.get("step", float(index)) for index, row in enumerate(rows)]
        low, high = ([row.get(f"{key}_{end}", math.nan) for row in rows] for end in ("low", "high"))
        series = [Series("mean over slices", steps, [row[key] for row in rows], low, high)]
        if key == "misfit":
            series.append(Series("the noise alone", [steps[0], steps[-1]], [1.0, 1.0], kind="rule"))
        axis = Axis(label, log=None if key != "step_length" else False, low=0.0 if key == "step_length" else None)
        charts.append(line_chart(heading, f"{caption} {BAND}", f"{heading}, {said}.", Axis("step", whole=True), axis, series))
    return charts


def start_charts(starts: Rows, rule: StartLevelRule | None) -> list[Chart]:
    """The slices' start levels by the excess misfit of their initial image, on the calibration curve where it is known."""
    chosen = [row for row in starts if row.get("start_sigma", 0) > 0 and row.get("excess_misfit", 0) > 0]
    if not chosen or rule is None:
        return []
    curve = [Series("calibration", rule.misfit, rule.sigma)]
    if len(rule.quantiles) > 1:
        safe, faithful = rule.quantile_sigma[-1], rule.quantile_sigma[0]
        middle = len(rule.quantiles) // 2
        curve = [
            Series("calibration: lowest mean error", rule.misfit, rule.sigma),
            Series(
                f"best levels of single images ({rule.quantiles[0]:.0%} to {rule.quantiles[-1]:.0%})",
                rule.misfit,
                rule.quantile_sigma[middle],
                faithful,
                safe,
                kind="rule",
            ),
        ]
    points = Series("slices of this scan", [r["excess_misfit"] for r in chosen], [r["start_sigma"] for r in chosen], kind="points")
    return [
        line_chart(
            "Start level",
            "Each point is a slice: how badly its initial image explains the measurement, and the noise level from which it was sampled "
            "for that. Points right of the curve's end lie outside of the calibration.",
            f"{len(chosen)} start levels from {min(points.y):.3g} to {max(points.y):.3g} on the calibration curve.",
            Axis("excess misfit of the initial image", log=True),
            Axis("start level", log=True),
            [*reversed(curve), points],
        )
    ]


def residual_charts(residual: Volume | None) -> list[Chart]:
    """Distribution and spectrum of the residual; none where it has no finite value."""
    if residual is None or not np.isfinite(residual.data).any():
        return []
    found, power = histogram(residual), spectrum(residual)
    edges, centres = found.edges.tolist(), np.linspace(-LIMIT, LIMIT, 121)
    normal = np.exp(-0.5 * centres**2) / math.sqrt(2 * math.pi)
    beyond = f"{found.outside:.2%} of the values lie beyond ±{LIMIT:g} and are not drawn."
    charts = [
        line_chart(
            "Distribution of the residual",
            f"Of all measured voxels, in standard deviations of the noise. Noise alone follows the dashed curve; narrower means that part "
            f"of the noise was fitted, wider or shifted that something is not explained. {beyond}",
            f"Histogram of the residual beside the normal distribution. {beyond}",
            Axis("residual in noise std", low=-LIMIT, high=LIMIT),
            Axis("density", low=0.0),
            [
                Series("residual", edges, found.density.tolist(), kind="steps"),
                Series("noise alone", centres.tolist(), normal.tolist(), kind="rule"),
            ],
        )
    ]
    shown = [(f, p) for f, p in zip(power.frequency.tolist(), power.power.tolist(), strict=True) if p > 0]
    if shown:
        frequency, values = zip(*shown, strict=True)
        charts.append(
            line_chart(
                "Spectrum of the residual",
                "Power by spatial frequency in the plane, in units of the noise's. Noise alone is flat at 1 (dashed); a rise at low "
                "frequencies is a wrong contrast or bias, one at high frequencies a wrong resolution.",
                f"Power of the residual at {len(shown)} frequencies, from {min(values):.2g} to {max(values):.2g} of the noise's.",
                Axis("spatial frequency in cycles per mm", low=0.0),
                Axis("power", log=True),
                [Series("residual", frequency, values), Series("noise alone", [0.0, frequency[-1]], [1.0, 1.0], kind="rule")],
            )
        )
    return charts
