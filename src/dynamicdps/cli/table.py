"""The tables that demo, evaluate and benchmark print."""

from typing import Any

from rich.table import Table

from dynamicdps.evaluation import StageMetrics


def metrics_table(stages: dict[str, StageMetrics]) -> Table:
    """One row a stage; what was not measured is a dash."""
    table = Table()
    table.add_column("", no_wrap=True)
    for name in ("PSNR dB", "SSIM", "misfit", "CSF %", "GM %", "WM %", "NFE", "s"):
        table.add_column(name, justify="right")
    for name, m in stages.items():
        errors = m.volume_error or {}
        table.add_row(
            name,
            _number(m.psnr, 2),
            _number(m.ssim, 3),
            _number(m.data_misfit, 2),
            *(_number(100 * errors[tissue] if tissue in errors else None, 1, sign=True) for tissue in ("csf", "gm", "wm")),
            "-" if m.nfe is None else str(m.nfe),
            _number(m.seconds, 1),
        )
    return table


def benchmark_table(summary: dict[str, Any]) -> Table:
    """One row a condition and solver: means over subjects; what does not fit on a screen is in table.md."""
    table = Table()
    table.add_column("condition", overflow="fold")
    table.add_column("solver", no_wrap=True)
    for name in ("PSNR dB", "SSIM", "misfit", "vs cond.", "NFE", "back", "s"):
        table.add_column(name, justify="right")
    for condition, solvers in summary["conditions"].items():
        for row, (solver, e) in enumerate(solvers.items()):
            against = e.get("against_conditional")
            table.add_row(
                condition if row == 0 else "",
                solver,
                _number(e["psnr"]["mean"], 2),
                _number(e["ssim"]["mean"], 3),
                _number(e["data_misfit"]["mean"], 2),
                _number(against["psnr"]["mean"] if against else None, 2, sign=True),
                _number(e["nfe"]["mean"], 0),
                _number(e["nbackward"]["mean"], 0),
                _number(e["seconds"]["mean"], 2),
            )
        table.add_section()
    return table


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
