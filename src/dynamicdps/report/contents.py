"""What a page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dynamicdps.evaluation import StageMetrics
from dynamicdps.report.trace import Rows
from dynamicdps.solvers import StartLevelRule
from dynamicdps.volumes import IntensityScale, Volume

Interval = tuple[float, float]


@dataclass(frozen=True)
class Stage:
    """One image on the way.

    Attributes:
        name: what the page calls it.
        volume: scanner units; `None` where only its numbers are known, or another field of the report holds it.
        metrics: its numbers, where known.
        ranges: 5th and 95th percentile over slices of ``psnr``, ``ssim``, ``nrmse``, ``data_misfit``, where known.
        volume_intervals: 95 % intervals of ``csf``, ``gm``, ``wm`` in mm3, where known.
    """

    name: str
    volume: Volume | None
    metrics: StageMetrics | None = None
    ranges: Mapping[str, Interval] = field(default_factory=dict)
    volume_intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """A table of two columns: what it is about, and names with their values."""

    heading: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Report:
    """What the page shows. What is not given is left out.

    Attributes:
        title: heading.
        stages: images in their order, at least one with a volume; the last one's grid is the page's where there is no truth.
        warnings: sentences, shown first.
        truth: scanner units.
        measurement: scanner units, scanner's grid.
        residual: ``(y - A(x)) / noise_std``, scanner's grid.
        uncertainty: standard deviation over samples, scanner units.
        hallucination: what the measurement could not have shown (null space), scanner units.
        correction: what a data step adds to the last stage to explain the measurement, scanner units, its grid.
        contradictions: rows of contradictions.tsv; `None` where nobody looked for them.
        labels: number of the structure of each voxel of the last stage, 0 where there is none.
        label_names: name and colour, as ``#rrggbb``, by number.
        brain_mask: share of each voxel of the scan that is brain, scan's grid.
        structures: rows of structures.tsv.
        trace: a row a step, as `trace_rows` gives them.
        starts: a row an image, as `start_rows` gives them.
        start_rule: the calibration that chose the starts.
        made: what the image is, how long it took and by which models, in sentences.
        steps: what was done, a sentence a step.
        facts: settings, parameters, models and versions.
        command: how to get the same again.
        slab: whether the images hold a part of the brain only, and so its volumes.
        scale: to image intensities, for every picture; by default robust, of the truth or else of the last stage.
    """

    title: str
    stages: Sequence[Stage]
    warnings: Sequence[str] = ()
    truth: Volume | None = None
    measurement: Volume | None = None
    residual: Volume | None = None
    uncertainty: Volume | None = None
    hallucination: Volume | None = None
    correction: Volume | None = None
    contradictions: Sequence[Mapping[str, str]] | None = None
    labels: Volume | None = None
    label_names: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    brain_mask: Volume | None = None
    structures: Sequence[Mapping[str, str]] = ()
    trace: Rows = field(default_factory=list)
    starts: Rows = field(default_factory=list)
    start_rule: StartLevelRule | None = None
    made: str = ""
    steps: Sequence[str] = ()
    facts: Sequence[Facts] = ()
    command: str = ""
    slab: bool = False
    scale: IntensityScale | None = None
