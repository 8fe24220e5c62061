"""What comes of a scan: the enhanced image with everything that says how far to trust it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from dynamicdps import __version__
from dynamicdps import output_names as names
from dynamicdps.calibration.fit import OperatorFit
from dynamicdps.evaluation import StageMetrics
from dynamicdps.json_file import read_json, write_json
from dynamicdps.operators import ScanOperator
from dynamicdps.pipeline.image_structures import ImageStructures
from dynamicdps.pipeline.named_inputs import refuse_overwriting
from dynamicdps.pipeline.provenance import input_hashes, run_record
from dynamicdps.pipeline.ranges import Ranges
from dynamicdps.report import read_report, write_report
from dynamicdps.report.summary import summary_page
from dynamicdps.report.trace import Rows, trace_rows, write_rows
from dynamicdps.solvers import Result
from dynamicdps.solvers.start_level import StartRule
from dynamicdps.volumes import Step, Volume, write_dicom
from dynamicdps.volumes.stack import save_stack


@dataclass(frozen=True)
class OtherScan:
    """A scan beside the first one that the image was made from.

    Attributes:
        measurement: as `Enhanced.measurement`, in its place in the image's space.
        residual: as `Enhanced.residual`.
        fit: as `Enhanced.fit`.
    """

    measurement: Volume
    residual: Volume
    fit: OperatorFit | None


@dataclass(frozen=True, repr=False)
class Enhanced:
    """An enhanced scan.

    Attributes:
        scan: path of the scan, or ``array``; of several scans all of them, with commas.
        image: the enhanced scan in its own units and orientation; of a head with the skull, the brain in it.
        estimate: the solver's estimate, on the image grid; the same volume where there is no head around it.
        brain_mask: share of each voxel of the scan that is brain, 0 to 1; `None` where `image` is the estimate itself.
        measurement: what was measured of the brain, as an image on the scanner's grid.
        uncertainty: standard deviation over posterior samples, units of the scan; `None` with fewer than two.
        hallucination: the part of the estimate that the measurement could not have shown (null space of the forward model), units of the
            scan; `None` where the forward model has none.
        result: of the solver: initial image, residual, trace, numbers of function evaluations.
        solver: its name.
        operator: forward model of the scanner.
        fit: how it was fitted; `None` where it was given.
        metrics: numbers by stage, ``conditional`` and the solver's name.
        ranges: 5th and 95th percentile over slices, by stage and measure.
        intervals: 95 % intervals of the tissue volumes in mm3, by tissue; empty without samples.
        slab: whether the image holds a part of the brain only.
        misfit_space: where the data misfit is counted, as words that follow it; empty where the measurement is an image.
        steps: of the preparation.
        starts: a row an image, as `dynamicdps.report.trace.start_rows` gives them.
        start_rule: the calibration that chose the start levels; `None` where none did.
        others: scans beside the first, in the order in which they were given.
        truth: a good scan of the same head, where there is one.
        structures: of the image; nothing in it where there is no model that finds them.
        facts: what run.json says of the result.
        durations: seconds by stage.
        arguments: what was asked for, by name.
        argv: the words of the command line that do the same, without the folder; none where no file was read.
    """

    scan: str
    image: Volume
    estimate: Volume
    brain_mask: Volume | None
    measurement: Volume
    uncertainty: Volume | None
    hallucination: Volume | None
    result: Result
    solver: str
    operator: ScanOperator
    fit: OperatorFit | None
    metrics: Mapping[str, StageMetrics]
    ranges: Mapping[str, Ranges]
    intervals: Ranges
    slab: bool
    misfit_space: str
    steps: tuple[Step, ...]
    starts: Rows
    start_rule: StartRule | None
    facts: Mapping[str, Any]
    durations: Mapping[str, float]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    others: tuple[OtherScan, ...] = ()
    truth: Volume | None = None
    structures: ImageStructures = field(default_factory=ImageStructures)

    @property
    def initial(self) -> Volume:
        """The initial image, on the image grid, units of the scan."""
        return self.result.initial

    @property
    def residual(self) -> Volume:
        """``(y - A(x)) / noise_std`` on the scanner's grid; 1 is one standard deviation of the noise."""
        return self.result.residual

    @property
    def volumes(self) -> dict[str, float]:
        """Tissue volumes of the estimate in mm3 by ``csf``, ``gm``, ``wm``; empty where they are unknown."""
        return dict(self.metrics[self.solver].volume_mm3)

    @property
    def warnings(self) -> list[str]:
        """What the user should know, one sentence each."""
        return list(self.result.reconstruction.warnings)

    def write(self, folder: str | Path, record: Mapping[str, Any] | None = None) -> Path:
        """Write everything into a folder: images and maps, metrics.json, trace.csv, starts.csv, run.json and report.html.

        Args:
            folder: made if it is missing; what an earlier result left there is replaced.
            record: contents of run.json; by default what this object knows.

        Returns:
            The page, ``report.html``.

        Raises:
            InputError: a file that was read, such as the scan, would be written over.
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        refuse_overwriting(
            self.arguments, (path for name in (*names.RESULTS, *((names.OPERATOR,) if self.fit else ())) for path in folder.glob(name))
        )
        self.write_results(folder)
        write_json(folder / names.RUN, self._record(folder) if record is None else record)
        return write_page(folder)[0]

    def write_results(self, folder: Path) -> None:
        """Write all files but run.json and the page, which shows what run.json says.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self.fit is not None:
            write_json(folder / names.OPERATOR, self.fit.to_json())
        volumes = {
            names.MEASUREMENT: self.measurement,
            names.INITIAL: self.initial,
            names.RESIDUAL: self.residual,
            names.UNCERTAINTY: self.uncertainty,
            names.TRUTH: self.truth,
            names.HALLUCINATION: self.hallucination,
            names.ENHANCED_BRAIN: None if self.brain_mask is None else self.estimate,
            names.BRAIN_MASK: self.brain_mask,
        }
        for name, volume in volumes.items():
            # What an earlier run left must not be taken for this one's.
            if volume is None:
                (folder / name).unlink(missing_ok=True)
            else:
                volume.save(folder / name)
        for number in count(2):
            stale = [path for name in names.NUMBERED if (path := folder / names.numbered(name, number)).exists()]
            for path in stale:
                path.unlink()
            if not stale:
                break
        for number, other in enumerate(self.others, 2):
            other.measurement.save(folder / names.numbered(names.MEASUREMENT, number))
            other.residual.save(folder / names.numbered(names.RESIDUAL, number))
            if other.fit is not None:
                write_json(folder / names.numbered(names.OPERATOR, number), other.fit.to_json())
        if self.result.samples:
            save_stack(self.result.samples, folder / names.SAMPLES)
        else:
            (folder / names.SAMPLES).unlink(missing_ok=True)
        self.structures.write(folder)
        write_rows(folder / names.TRACE, trace_rows(self.result))
        write_rows(folder / names.STARTS, self.starts)
        if self.start_rule is None:
            (folder / names.START_RULE).unlink(missing_ok=True)
        else:
            write_json(folder / names.START_RULE, self.start_rule.to_json())
        write_metrics(folder, self.metrics, self.ranges, {self.solver: self.intervals})
        if (made := self.facts.get("synthesised_contrast")) is None:
            (folder / names.ENHANCED_SIDECAR).unlink(missing_ok=True)
        else:
            write_json(folder / names.ENHANCED_SIDECAR, names.synthesised(made, self.facts["contrast"]))
        # Last: whoever finds it finds the others too.
        self.image.save(folder / names.ENHANCED)

    def write_dicom(self, folder: str | Path, source: str | Path | None = None, *, stamp: bool = False) -> list[Path]:
        """Write the enhanced scan as a DICOM series of the patient and study that it came from; no other output names them.

        Args:
            folder: new or empty, and not in `source`.
            source: folder of the DICOM files; by default the scan, of several the first.
            stamp: whether "DynamicDPS, not for diagnosis" is drawn into the pixels as well.

        Returns:
            The files, by slice.

        Raises:
            InputError: as `dynamicdps.volumes.write_dicom`.
        """
        hashes = ", ".join(f"{kind} {digest[:16]}" for kind, digest in self.facts["models"].items())
        given = self.arguments["scan"]
        image = self.image
        if self.others:
            # Several scans lie in their mean place; the series belongs into the first one's frame of reference.
            movement = np.array(self.facts["scans"][0]["pose"]["movement"])
            image = Volume(image.data, np.linalg.inv(movement) @ image.affine, image.native)
        return write_dicom(
            image,
            (given if isinstance(given, str) else given[0]) if source is None else source,
            folder,
            series=self.arguments.get("series"),
            version=__version__,
            description=f"solver {self.solver}, seed {self.arguments['seed']}, SHA-256 of models: {hashes}",
            stamp=stamp,
        )

    def _record(self, folder: Path) -> dict[str, Any]:
        argv = [*self.argv, "--out", str(folder)] if self.argv else []
        arguments = {**self.arguments, "out": folder}
        return run_record("enhance", arguments, argv, self.facts, self.durations, inputs=input_hashes(self.arguments))

    def __repr__(self) -> str:
        misfit = self.metrics[self.solver].data_misfit
        left = "" if misfit is None else f", data misfit {misfit:.2f}"
        count = len(self.warnings)
        warned = f", {count} warning{'' if count == 1 else 's'}" if count else ""
        sizes = " x ".join(f"{s:.3g}" for s in self.image.spacing)
        return f"Enhanced({self.scan} by {self.solver}: {' x '.join(map(str, self.image.shape))} voxels of {sizes} mm{left}{warned})"

    def _repr_html_(self) -> str:
        return self._page

    @cached_property
    def _page(self) -> str:
        """Drawn once: a notebook asks again whenever it shows the object."""
        stages = {"initial image": self.metrics.get("conditional"), "enhanced": self.metrics[self.solver]}
        known = {name: metrics for name, metrics in stages.items() if metrics is not None}
        return summary_page(repr(self), self.estimate, self.result.scale.scale, known, self.intervals, self.warnings)


def write_page(folder: Path) -> tuple[Path, list[str]]:
    """Write report.html from the files of a folder, and into run.json what only the page warned of.

    Returns:
        The page, and everything that it warns of.

    Raises:
        InputError: as `read_report`.
    """
    report, run = read_report(folder), read_json(folder / names.RUN)
    warnings = list(report.warnings)
    if warnings != run.get("warnings"):
        write_json(folder / names.RUN, run | {"warnings": warnings})
    return write_report(folder, report), warnings


def write_metrics(
    folder: Path,
    stages: Mapping[str, StageMetrics],
    ranges: Mapping[str, Ranges] | None = None,
    intervals: Mapping[str, Ranges] | None = None,
) -> None:
    """metrics.json: one object a stage, with the 5th and 95th percentile over slices where they are given.

    Args:
        folder: its place.
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
    write_json(folder / names.METRICS, values)
