"""table.md: what a benchmark found, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

Summary = Mapping[str, Any]

WINNERS_NOTE = """\
Means over subjects. "Trained": whether the conditional model's training had the degradation. Volume error: mean over CSF, grey and white
matter of the absolute error relative to the truth's volume. Null-space error: root mean square of the error in what the measurement cannot
show. False structures: connected regions of wrong tissue, mm3 a subject. Changes are against `conditional` on the same subjects, with
95 % bootstrap intervals and p values of Wilcoxon's signed-rank test, adjusted (Holm) for all solvers and conditions of this table. Bold:
best mean of its condition. NFE: denoiser passes an image, and passes back."""

HALLUCINATION_NOTE = """\
Means over subjects. Errors: root mean square of the error's part in the null space and in the measurement space, in image intensities.
High frequencies: energy of the error over the truth's above the measurement's Nyquist frequency. sFRC: share of patches that do not follow
the truth up to that frequency. False and lost: structures a subject and their mm3. HI: Hallucination Index of the posterior, where there
are samples. Residual: root mean square of `(y - A x) / noise`."""

LESIONS_NOTE = """\
Share of each inserted lesion's contrast that the reconstruction shows (1: as in the truth), of resolvable lesions, means over subjects.
Measured: the share that the measurement holds at its resolution; of it: how much of that the reconstruction shows. Lost: share of lesions
of which less than half is shown. Error: distance of the share from 1; its change is the paired difference to `conditional`.
Unresolvable ones are those that the measurement does not show: nothing can be asked of a reconstruction there."""


def markdown_tables(summary: Summary) -> str:
    """All tables: who wins, everything about fidelity and cost, hallucination, lesions."""
    parts = ["# Who wins", winners_table(summary), WINNERS_NOTE, "# All solvers", markdown_table(summary)]
    if any("null_rms" in entry for solvers in summary["conditions"].values() for entry in solvers.values()):
        parts += ["# Hallucination", hallucination_table(summary), HALLUCINATION_NOTE]
    if summary.get("lesions"):
        parts += ["# Lesions", lesions_table(summary), LESIONS_NOTE]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def winners_table(summary: Summary) -> str:
    """One line a condition and solver: what matters, against the conditional model."""
    header = ["condition", "trained", "solver", "PSNR dB", "SSIM", "volume error", "change", "null-space error, change"]
    header += ["false structures mm3", "change", "NFE + back"]
    rows = []
    for condition, solvers in summary["conditions"].items():
        best = {name: _best(solvers, name, larger) for name, larger in (("psnr", True), ("ssim", True), ("abs_volume_error", False))}
        for solver, e in solvers.items():
            against = e.get("against_conditional", {})
            shown = {
                "psnr": f"{e['psnr']['mean']:.2f}" if "psnr" in e else "",
                "ssim": f"{e['ssim']['mean']:.4f}" if "ssim" in e else "",
                "abs_volume_error": percent(e.get("abs_volume_error")),
            }
            marked = {name: f"**{text}**" if best[name] == solver and len(solvers) > 1 else text for name, text in shown.items()}
            rows.append(
                [
                    condition,
                    summary.get("training", {}).get(condition, ""),
                    solver,
                    marked["psnr"],
                    marked["ssim"],
                    marked["abs_volume_error"],
                    change(against.get("abs_volume_error")),
                    change(against.get("null_rms")),
                    f"{e['false_mm3']['mean']:.0f}" if "false_mm3" in e else "",
                    difference(against.get("false_mm3"), 0, with_p=True),
                    cost(e),
                ]
            )
    return _table(header, rows)


def markdown_table(summary: Summary) -> str:
    """Fidelity and cost of every solver, against conditional, data-step and dynamicdps: the table of docs/results.md."""
    header = ["condition", "solver", "subjects", "PSNR dB", "SSIM", "data misfit", "PSNR against conditional", "better (PSNR / SSIM)"]
    header += ["PSNR against data-step", "PSNR against dynamicdps", "NFE", "backward", "start sigma", "s a slice"]
    rows = []
    for condition, solvers in summary["conditions"].items():
        for solver, e in solvers.items():
            against, step, ours = (e.get(f"against_{name}", {}) for name in ("conditional", "data-step", "dynamicdps"))
            shares = [against[name]["share_better"] for name in ("psnr", "ssim") if name in against]
            rows.append(
                [
                    condition,
                    solver,
                    str(e["subjects"]),
                    _number(e, "psnr", 2),
                    _number(e, "ssim", 4),
                    _number(e, "data_misfit", 2),
                    difference(against.get("psnr"), 2),
                    " / ".join(f"{share:.0%}" for share in shares),
                    difference(step.get("psnr"), 2),
                    difference(ours.get("psnr"), 2),
                    *(_number(e, name, digits) for name, digits in (("nfe", 0), ("nbackward", 0), ("start_sigma", 3), ("seconds", 2))),
                ]
            )
    return _table(header, rows)


def hallucination_table(summary: Summary) -> str:
    """What every solver invents and loses."""
    header = ["condition", "solver", "null-space error", "measured error", "high frequencies", "sFRC", "false", "lost", "HI", "residual"]
    header += ["PSNR brain", "SSIM brain", "Dice", "CSF error", "GM error", "WM error"]
    rows = [
        [
            condition,
            solver,
            _number(e, "null_rms", 4),
            _number(e, "measurement_rms", 4),
            _number(e, "high_frequency_error", 3),
            _share(e, "sfrc_share"),
            *(f"{_number(e, f'{kind}_count', 1)} ({_number(e, f'{kind}_mm3', 0)})" for kind in ("false", "lost")),
            _number(e, "hallucination_index", 3),
            _number(e, "residual_rms", 2),
            _number(e, "psnr_brain", 2),
            _number(e, "ssim_brain", 4),
            _number(e, "dice", 3),
            *(_signed_share(e, f"{tissue}_error") for tissue in ("csf", "gm", "wm")),
        ]
        for condition, solvers in summary["conditions"].items()
        for solver, e in solvers.items()
    ]
    return _table(header, rows)


def lesions_table(summary: Summary) -> str:
    """What every solver keeps of inserted lesions."""
    header = [
        "condition",
        "solver",
        "lesions (resolvable)",
        "kept",
        "measured",
        "of it",
        "dark",
        "bright",
        "lost",
        "error",
        "change",
        "unresolvable, shown",
    ]
    rows = [
        [
            condition,
            solver,
            f"{e['lesions']} ({e['resolvable']})",
            *(_number(e, name, 2) for name in ("kept", "measured", "kept_of_measured", "kept_dark", "kept_bright")),
            _share(e, "lost"),
            _number(e, "kept_error", 2),
            difference(e.get("against_conditional"), 2, with_p=True),
            _number(e, "kept_unresolvable", 2),
        ]
        for condition, solvers in summary["lesions"].items()
        for solver, e in solvers.items()
    ]
    return _table(header, rows)


def change(entry: Mapping[str, Any] | None) -> str:
    """A change of a mean in percent with interval and p value: ``-32 % (-40 to -25), p 0.001``."""
    if entry is None or entry.get("change_percent") is None:
        return ""
    low, high = entry["change_percent_interval"]
    return f"{entry['change_percent']:+.0f} % ({low:+.0f} to {high:+.0f}), p {p_value(entry['p_holm'])}"


def difference(entry: Mapping[str, Any] | None, digits: int, *, with_p: bool = False) -> str:
    """A paired difference with its interval."""
    if entry is None:
        return ""
    low, high = entry["interval"]
    text = f"{entry['mean']:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
    return f"{text}, p {p_value(entry['p_holm'])}" if with_p else text


def p_value(p: float) -> str:
    """Two digits that count; small ones as a limit."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def percent(entry: Mapping[str, Any] | None) -> str:
    """A mean share in percent."""
    return "" if entry is None else f"{100 * entry['mean']:.1f} %"


def cost(entry: Mapping[str, Any]) -> str:
    """Passes through the denoiser, and back where there are any: ``40`` or ``74 + 74``."""
    if "nfe" not in entry:
        return ""
    back = entry["nbackward"]["mean"]
    return f"{entry['nfe']['mean']:.0f}" + (f" + {back:.0f}" if back > 0 else "")


def _best(solvers: Mapping[str, Any], name: str, larger: bool) -> str | None:
    means = {solver: e[name]["mean"] for solver, e in solvers.items() if name in e}
    return (max if larger else min)(means, key=lambda solver: means[solver]) if means else None


def _number(entry: Mapping[str, Any], name: str, digits: int) -> str:
    return f"{entry[name]['mean']:.{digits}f}" if name in entry else ""


def _share(entry: Mapping[str, Any], name: str) -> str:
    return f"{entry[name]['mean']:.0%}" if name in entry else ""


def _signed_share(entry: Mapping[str, Any], name: str) -> str:
    return f"{100 * entry[name]['mean']:+.1f} %" if name in entry else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Without the columns that are empty in every row: what was not measured."""
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [f"| {' | '.join(row[i] for i in used)} |" for row in (header, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(used)}", *lines[1:]]) + "\n"
