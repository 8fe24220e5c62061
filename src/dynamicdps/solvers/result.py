"""What solving a scan gives."""

from dataclasses import dataclass

from dynamicdps.solvers.reconstruction import Reconstruction, TraceStep
from dynamicdps.volumes import IntensityScale, Volume


@dataclass(frozen=True)
class Result:
    """A reconstruction as volumes, in the units of the scan.

    Attributes:
        volume: the estimate on the image grid.
        initial: the initial image it started from.
        residual: ``(y - A(x)) / noise_std`` on the scanner's grid; 1 is one standard deviation of the noise. Of several scans that of the
            first.
        uncertainty: standard deviation over posterior samples, or `None`.
        reconstruction: tensors, counts and the trace.
        scale: scanner units of one image-intensity unit.
        seconds: wall time of the solver.
        samples: posterior samples on the image grid, where they were to be kept.
        other_residuals: residuals of the second scan and further ones, each on its own grid.
        predicted: ``A(x)`` of each scan, image intensities, on its own grid; empty where the measurement is k-space.
    """

    volume: Volume
    initial: Volume
    residual: Volume
    uncertainty: Volume | None
    reconstruction: Reconstruction
    scale: IntensityScale
    seconds: float
    samples: tuple[Volume, ...] = ()
    other_residuals: tuple[Volume, ...] = ()
    predicted: tuple[Volume, ...] = ()

    @property
    def nfe(self) -> int:
        """Denoiser passes of an image (the largest)."""
        return int(self.reconstruction.nfe.max())

    @property
    def nbackward(self) -> int:
        return int(self.reconstruction.nbackward.max())

    @property
    def start_sigma(self) -> float:
        """Median start level."""
        return float(self.reconstruction.start_sigma.median())

    @property
    def trace(self) -> list[TraceStep]:
        return self.reconstruction.trace
