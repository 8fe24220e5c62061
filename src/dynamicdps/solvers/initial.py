"""The initial image: from a conditional model of ours, or from anyone's volume."""

from dataclasses import dataclass

from dynamicdps.conditional import InitialModel
from dynamicdps.operators import ScanOperator
from dynamicdps.solvers.solve import measurement_scale
from dynamicdps.volumes import IntensityScale, Volume, from_slices, resample_to

SAME_UNITS = 1.5


@dataclass(frozen=True)
class Initial:
    """An initial image on the image grid in the scan's units, with how it came there.

    Attributes:
        volume: the image.
        source: one line for logs and reports.
    """

    volume: Volume
    source: str


def initial_from_model(scan: Volume, operator: ScanOperator, model: InitialModel, name: str, mask: Volume | None = None) -> Initial:
    """Run a conditional model on a measurement.

    Args:
        scan: the measurement, scanner units.
        operator: its forward model, for voxel sizes and intensity scale.
        model: the network.
        name: its name, for the record.
        mask: brain with a soft edge, 0 to 1, on the grid of the scan, where the scan shows more than the brain.
    """
    affine = operator.grid_for(scan)[1]
    brain = scan if mask is None else scan.with_data(scan.data * (mask.data >= 1))
    scale = measurement_scale(brain, operator)
    x = model.enhance_scan(scan, operator, scale.scale, mask)
    return Initial(Volume(from_slices(x) * scale.scale, affine, scan.native), f"conditional model {name}")


def initial_from_volume(scan: Volume, operator: ScanOperator, volume: Volume, name: str) -> Initial:
    """Take any other model's output: resampled to the image grid, brought to the units of the scan if it is in its own.

    Units are taken to be the scan's when the robust intensity scales agree within a factor of 1.5; otherwise the volume is scaled
    so that they do.
    """
    shape, affine = operator.grid_for(scan)
    target = measurement_scale(scan, operator).scale
    own = IntensityScale.robust(volume.data).scale
    on_grid = resample_to(volume, shape, affine)
    if 1 / SAME_UNITS <= own / target <= SAME_UNITS:
        return Initial(on_grid, f"volume {name}")
    return Initial(on_grid.with_data(on_grid.data * (target / own)), f"volume {name}, intensities scaled by {target / own:.4g}")
