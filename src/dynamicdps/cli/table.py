"""The table of stages that demo and evaluate print."""

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


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
