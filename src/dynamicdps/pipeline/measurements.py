"""What is to be explained: an image, or the raw k-space that images are made from."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dynamicdps.data_term import scan_term
from dynamicdps.errors import InputError
from dynamicdps.evaluation import data_misfit, unsupported_map
from dynamicdps.operators import ScanOperator
from dynamicdps.operators.kspace_measurement import SMOOTH_MM, KSpaceMeasurement, measure_kspace
from dynamicdps.pipeline.inputs import as_scan
from dynamicdps.pipeline.kspace_scan import KSpaceScan, is_kspace, open_kspace, refuse_raw_options
from dynamicdps.pipeline.options import ReadOptions
from dynamicdps.pipeline.ranges import RANGE_PERCENTILES, Ranges, misfit_range
from dynamicdps.priors import Denoiser
from dynamicdps.report.trace import Rows, start_rows
from dynamicdps.segmentation import brain_finder
from dynamicdps.solvers import Result, solve
from dynamicdps.volumes import BrainScan, Volume, read_scan, to_batch
from dynamicdps.volumes.brain_scan import cut_brain
from dynamicdps.volumes.noise_estimate import NoiseEstimate

# Of what no real image explains, in standard deviations of the noise: beyond it phase or sensitivities are wrong.
_UNEXPLAINED = 2.0


class Measurement(Protocol):
    """A scan's brain, and how a solver's image is compared with what was measured of it."""

    @property
    def head(self) -> BrainScan:
        """The scan and its brain."""

    @property
    def noise(self) -> NoiseEstimate | None:
        """Noise of the scan, where the measurement knows it better than its image shows."""

    @property
    def space(self) -> str:
        """Where the misfit is counted, as words that follow it."""

    def prepare(self, seed: int) -> None:
        """What takes time and comes before the solver."""

    @property
    def shown(self) -> Volume:
        """The brain's measurement as an image."""

    def solve(self, name: str, operator: ScanOperator, prior: Denoiser, **options: Any) -> Result:
        """As `dynamicdps.solvers.solve`; the operator is what the scanner shows of an image."""

    def misfit(self, image: Volume, operator: ScanOperator, result: Result) -> tuple[float, Ranges]:
        """Data misfit of an image of a result's scale, and its range over slices."""

    def starts(self, operator: ScanOperator, result: Result) -> Rows:
        """The rows of starts.csv."""

    def unsupported(self, result: Result, operator: ScanOperator) -> Volume | None:
        """What of a result the measurement could not have shown; `None` where that is not known."""

    def doubts(self) -> list[str]:
        """Warnings about the measurement itself."""

    def facts(self) -> dict[str, Any]:
        """What run.json says of it."""


def open_measurement(scan: Path | Volume, options: ReadOptions, mask: str, *, cropped: bool) -> Measurement:
    """Read a scan and find its brain.

    Args:
        scan: an image, its file, a folder of DICOM files, or a file of raw k-space.
        options: what its files do not say.
        mask: as `extract_brain`.
        cropped: as `open_brain`.

    Raises:
        InputError: as `read_scan`, `extract_brain` and `open_kspace`; or an option does not fit the scan.
    """
    if isinstance(scan, Path) and is_kspace(scan):
        return KSpaceOfScan(open_kspace(scan, options, mask, cropped=cropped))
    refuse_raw_options(scan, options)
    if isinstance(scan, Volume) and options.series is not None:
        raise InputError(f"series {options.series} was asked for, but the scan is a volume; expected a folder; leave the series out")
    if isinstance(scan, Volume) and options.volume is not None:
        raise InputError(f"volume {options.volume} was asked for, but the scan is one; expected a file of several; leave --volume out")
    opened = as_scan(scan) if isinstance(scan, Volume) else read_scan(scan, options.series, options.volume)
    return ImageOfScan(cut_brain(opened, mask, cropped=cropped, network=brain_finder()))


class ImageOfScan:
    """An image as the scanner made it."""

    noise: NoiseEstimate | None = None
    space = ""

    def __init__(self, head: BrainScan) -> None:
        self.head = head

    def prepare(self, seed: int) -> None:
        del seed

    @property
    def shown(self) -> Volume:
        return self.head.brain

    def solve(self, name: str, operator: ScanOperator, prior: Denoiser, **options: Any) -> Result:
        return solve(name, self.head.brain, self._weighted(operator), prior, **options)

    def misfit(self, image: Volume, operator: ScanOperator, result: Result) -> tuple[float, Ranges]:
        counted = self._weighted(operator)
        whole = data_misfit(image, self.head.brain, counted, result.scale)
        return whole, misfit_range(image, self.head.brain, counted, result.scale)

    def starts(self, operator: ScanOperator, result: Result) -> Rows:
        return start_rows(result, [(self.head.brain, self._weighted(operator))])

    def unsupported(self, result: Result, operator: ScanOperator) -> Volume | None:
        return unsupported_map(result.volume, operator, result.scale)

    def doubts(self) -> list[str]:
        return []

    def facts(self) -> dict[str, Any]:
        return {}

    def _weighted(self, operator: ScanOperator) -> ScanOperator:
        measured = self.head.measured
        return operator if measured is None else operator.weighted(measured)


class KSpaceOfScan:
    """Raw k-space: what the solver explains are the scanner's samples."""

    space = " in k-space"

    def __init__(self, scan: KSpaceScan) -> None:
        self.scan, self.head = scan, scan.head
        self.noise: NoiseEstimate | None = scan.noise
        self._measured: KSpaceMeasurement | None = None

    def prepare(self, seed: int) -> None:
        generator, noise_std = torch.Generator().manual_seed(seed), float(self.scan.noise.std[0])
        self._measured = measure_kspace(self.scan.raw, noise_std, weights=self.head.weights, box=self.scan.box, generator=generator)

    @property
    def measured(self) -> KSpaceMeasurement:
        """What of the k-space the brain is to explain."""
        assert self._measured is not None, "prepare comes first"
        return self._measured

    @property
    def shown(self) -> Volume:
        """What the real image shows of the brain: the magnitude without its bias, which the models were not made for."""
        image = self.measured.image
        return self.head.brain.with_data(image if self.head.weights is None else image * self.head.weights)

    def solve(self, name: str, operator: ScanOperator, prior: Denoiser, **options: Any) -> Result:
        return solve(name, self.head.brain, replace(operator, kspace=self.measured), prior, **options)

    def misfit(self, image: Volume, operator: ScanOperator, result: Result) -> tuple[float, Ranges]:
        tied = replace(operator, kspace=self.measured)
        residual = scan_term(self.head.brain, tied, result.scale.scale).whitened(to_batch(result.scale.apply(image).data))
        low, high = np.nanpercentile(self.measured.slice_misfits(residual), RANGE_PERCENTILES).tolist()
        return data_misfit(image, self.head.brain, tied, result.scale), {"data_misfit": (low, high)}

    def starts(self, operator: ScanOperator, result: Result) -> Rows:
        return start_rows(result, [(self.head.brain, replace(operator, kspace=self.measured))])

    def unsupported(self, result: Result, operator: ScanOperator) -> Volume | None:
        return unsupported_map(result.volume, operator, result.scale)

    def doubts(self) -> list[str]:
        if self.measured.unexplained <= _UNEXPLAINED:
            return list(self.scan.noise.warnings)
        return [
            *self.scan.noise.warnings,
            f"no real image explains the k-space: {self.measured.unexplained:.1f} times the noise is left (1 is noise alone), by "
            "phase that changes over less than a centimetre, movement or interference; it was left out",
        ]

    def facts(self) -> dict[str, Any]:
        """The operator beside it is what the scanner shows before the transform."""
        found = self.measured
        return {
            "kspace": {
                "coils": len(found.encoding.maps),
                "samples": int(found.encoding.mask.sum()),
                "noise_std": found.noise_std,
                "counted": found.share,
                "unexplained": found.unexplained,
                "phase_smooth_mm": SMOOTH_MM,
            }
        }
