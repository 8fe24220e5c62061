"""What comes of an audit: what a scan contradicts in an image, what it cannot show, and how the image would have to change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dynamicdps import output_names as names
from dynamicdps.calibration.fit import OperatorFit
from dynamicdps.evaluation import StageMetrics
from dynamicdps.evaluation.contradictions import Contradiction, Contradictions
from dynamicdps.evaluation.misfit_causes import MisfitCause
from dynamicdps.json_file import write_json
from dynamicdps.operators import ScanOperator
from dynamicdps.pipeline.named_inputs import refuse_overwriting
from dynamicdps.pipeline.provenance import input_hashes, run_record
from dynamicdps.report import Report, Stage, write_report
from dynamicdps.report.facts import facts_of, steps_of
from dynamicdps.report.run_folder import command_of
from dynamicdps.report.trace import write_rows
from dynamicdps.volumes import IntensityScale, Step, Volume


@dataclass(frozen=True, repr=False)
class Audit:
    """An image beside its scan.

    Attributes:
        scan: path of the scan, or ``array``.
        source: path of the image, or ``array``.
        image: on the image grid, units of the scan.
        measurement: the brain as it was scanned, on the scanner's grid.
        residual: ``(y - A(x)) / noise_std`` on the scanner's grid, 0 where nothing is compared.
        hallucination: the part of the image that the scan could not have shown (null space of the forward model), units of the scan;
            `None` where the forward model has none.
        correction: what a data step would add to the image to explain the scan, on the image grid, units of the scan.
        contradictions: regions where the scan does not show what the image foretells.
        data_misfit: root mean square of `residual`; 1 where only noise is left.
        correlation: of the scan with what the image foretells of it.
        unsupported_share: energy of `hallucination` as a share of the image's, 0 to 1; `None` where it is not known.
        causes: which assumption of the forward model the residual looks like, the likeliest first.
        scale: units of the scan of one image-intensity unit.
        operator: forward model of the scanner.
        fit: how it was fitted; `None` where it was given.
        steps: of the preparation.
        warnings: what the user should know, one sentence each.
        facts: what run.json says of the result.
        durations: seconds by stage.
        arguments: what was asked for, by name.
        argv: the words of the command line that do the same, without the folder; none where no file was read.
    """

    scan: str
    source: str
    image: Volume
    measurement: Volume
    residual: Volume
    hallucination: Volume | None
    correction: Volume
    contradictions: Contradictions
    data_misfit: float
    correlation: float
    unsupported_share: float | None
    causes: Sequence[MisfitCause]
    scale: float
    operator: ScanOperator
    fit: OperatorFit | None
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]
    facts: Mapping[str, Any]
    durations: Mapping[str, float]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    argv: tuple[str, ...] = ()

    @property
    def regions(self) -> tuple[Contradiction, ...]:
        """The contradicted regions, the strongest first."""
        return self.contradictions.regions

    @property
    def metrics(self) -> dict[str, Any]:
        """The contents of metrics.json."""
        found = {
            kind: {"regions": len(own), "mm3": round(sum(each.mm3 for each in own), 1)}
            for kind in ("lost", "invented", "changed")
            for own in [[each for each in self.regions if each.image == kind]]
        }
        return {
            "data_misfit": self.data_misfit,
            "correlation": self.correlation,
            "unsupported_share": self.unsupported_share,
            "contradicted": {"regions": len(self.regions), "mm3": round(sum(each.mm3 for each in self.regions), 1)} | found,
            "threshold": self.contradictions.threshold,
            "spread": self.contradictions.spread,
            "causes": {cause.name: cause.share for cause in self.causes},
        }

    def write(self, folder: str | Path, record: Mapping[str, Any] | None = None) -> Path:
        """Write everything into a folder: maps, contradictions.tsv, metrics.json, run.json and report.html; all of it or nothing.

        Args:
            folder: made if it is missing; what an earlier audit left there is replaced.
            record: contents of run.json; by default what this object knows.

        Returns:
            The page, ``report.html``.

        Raises:
            InputError: a file that was read, such as the scan, would be written over.
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        written = (*names.AUDITED, *((names.OPERATOR,) if self.fit else ()))
        refuse_overwriting(self.arguments, (folder / name for name in written))
        folder.mkdir(parents=True, exist_ok=True)
        run = self._record(folder) if record is None else record
        with TemporaryDirectory(prefix=".audit-", dir=folder) as place:
            partial = Path(place)
            self._write_files(partial, run)
            for name in written:
                if (partial / name).exists():
                    (partial / name).replace(folder / name)
                else:
                    # What an earlier audit left must not be taken for this one's.
                    (folder / name).unlink(missing_ok=True)
        return folder / names.REPORT

    def _write_files(self, folder: Path, run: Mapping[str, Any]) -> None:
        volumes = {
            names.INITIAL: self.image,
            names.MEASUREMENT: self.measurement,
            names.RESIDUAL: self.residual,
            names.CORRECTION: self.correction,
            names.HALLUCINATION: self.hallucination,
        }
        for name, volume in volumes.items():
            if volume is not None:
                volume.save(folder / name)
        if self.fit is not None:
            write_json(folder / names.OPERATOR, self.fit.to_json())
        write_rows(folder / names.CONTRADICTIONS, table_rows(self.regions), COLUMNS)
        write_json(folder / names.METRICS, self.metrics)
        write_json(folder / names.RUN, run)
        write_report(folder, self._report(run))

    def _report(self, run: Mapping[str, Any]) -> Report:
        return Report(
            title=str(self.facts["title"]),
            stages=[Stage("audited image", self.image, StageMetrics(data_misfit=self.data_misfit))],
            warnings=self.warnings,
            measurement=self.measurement,
            residual=self.residual,
            hallucination=self.hallucination,
            correction=self.correction,
            contradictions=table_rows(self.regions),
            steps=steps_of(run, None, [], self.measurement, truth=False),
            facts=facts_of(run),
            command=command_of(run),
            scale=IntensityScale(self.scale),
        )

    def _record(self, folder: Path) -> dict[str, Any]:
        argv = [*self.argv, "--out", str(folder)] if self.argv else []
        arguments = {**self.arguments, "out": folder}
        return run_record("audit", arguments, argv, self.facts, self.durations, inputs=input_hashes(self.arguments))

    def __repr__(self) -> str:
        count = len(self.regions)
        return (
            f"Audit({self.source} against {self.scan}: data misfit {self.data_misfit:.2f}, {count} region{'s' * (count != 1)} contradicted)"
        )


COLUMNS = ("region", "image", "scan_is", "x_mm", "y_mm", "z_mm", "mm3", "difference", "strength")


def table_rows(regions: Sequence[Contradiction]) -> list[dict[str, str]]:
    """The rows of contradictions.tsv."""
    return [
        {
            "region": str(number),
            "image": each.image,
            "scan_is": each.scan_is,
            **{f"{axis}_mm": f"{value:.1f}" for axis, value in zip("xyz", each.place_mm, strict=True)},
            "mm3": f"{each.mm3:.0f}",
            "difference": f"{each.difference:.4g}",
            "strength": f"{each.strength:.1f}",
        }
        for number, each in enumerate(regions, 1)
    ]
