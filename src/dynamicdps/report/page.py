"""One HTML page that shows a run: warnings, a viewer of its volumes, numbers, charts, and what was done."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from dynamicdps import __version__
from dynamicdps.atomic_file import write_text
from dynamicdps.output_names import REPORT
from dynamicdps.report.contents import Report
from dynamicdps.report.curves import residual_charts, run_charts
from dynamicdps.report.numbers import metrics_table, structures_table, volumes_chart, volumes_table
from dynamicdps.report.viewer import OUTLINE, make_viewer

STATIC = files("dynamicdps.report") / "static"


@dataclass(frozen=True)
class Asset:
    """Text inside a style or script element, with the hash that the Content-Security-Policy allows it by."""

    text: Markup
    digest: str

    @classmethod
    def of(cls, text: str) -> "Asset":
        return cls(Markup(text), f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")  # noqa: S704


def write_report(folder: Path, report: Report) -> Path:
    """Write ``report.html``: one file that needs no other and asks no network.

    The same report gives the same file, byte by byte.

    Args:
        folder: made if missing.
        report: what to show.

    Returns:
        The file.

    Raises:
        ValueError: no stage has a volume.
    """
    return write_html(folder / REPORT, render(report))


def write_html(path: Path, page: str) -> Path:
    """Write a page; see `atomic_write`."""
    write_text(path, page)
    return path


def render(report: Report) -> str:
    """The page as text.

    Raises:
        ValueError: no stage has a volume.
    """
    if not any(stage.volume is not None for stage in report.stages):
        raise ValueError("the report has no stage with a volume; expected at least one image")
    viewer = make_viewer(report)
    style, *scripts = (static_asset(name) for name in ("report.css", "niivue/niivue.umd.js", "slices.js", "viewer.js"))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            viewer=viewer,
            settings=htmlsafe_json_dumps(viewer.settings),
            numbers=metrics_table(report.stages),
            volumes=volumes_table(report.stages),
            volumes_chart=volumes_chart(report.stages, report.slab),
            structures=structures_table(report.structures),
            run_charts=run_charts(report),
            residual_charts=residual_charts(report.residual),
            style=style,
            scripts=scripts,
            policy=policy(style, scripts),
            outline=OUTLINE,
            licences=[(STATIC / "niivue" / name).read_text(encoding="utf-8") for name in ("LICENSE", "NOTICE.txt")],
            version=__version__,
        )
    )


def policy(style: Asset, scripts: list[Asset]) -> str:
    """Content-Security-Policy: the page's own style and scripts by their hashes, pictures from inside it, and nothing else."""
    allowed = " ".join(script.digest for script in scripts)
    return f"default-src 'none'; img-src data:; style-src {style.digest}; script-src {allowed}; base-uri 'none'; form-action 'none'"


@cache
def static_asset(name: str) -> Asset:
    """A file of the folder ``static``."""
    return Asset.of((STATIC / name).read_text(encoding="utf-8"))


@cache
def environment() -> Environment:
    return Environment(
        loader=PackageLoader("dynamicdps.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
