"""A scan and its geometry: read, write, orient, resample, mask, scale intensities, cut into slices, prepare."""

from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.alignment import align_to_template
from dynamicdps.volumes.bias_estimate import BiasEstimate, estimate_bias
from dynamicdps.volumes.blending import blend
from dynamicdps.volumes.brain_extraction import BrainMask, extract_brain
from dynamicdps.volumes.brain_scan import BrainScan, open_brain
from dynamicdps.volumes.crop import bounding_box, crop, swap_axes
from dynamicdps.volumes.dicom import load_dicom
from dynamicdps.volumes.dicom_writer import write_dicom
from dynamicdps.volumes.grids import Grid, covering, like, native_grid, prior_grid, sample, target_grid
from dynamicdps.volumes.intensity import IntensityScale, brain_mask
from dynamicdps.volumes.kspace_file import read_kspace
from dynamicdps.volumes.noise_estimate import NoiseEstimate, estimate_noise
from dynamicdps.volumes.preparation import Step
from dynamicdps.volumes.raw_scan import RawScan
from dynamicdps.volumes.reader import read_scan
from dynamicdps.volumes.scan import Scan
from dynamicdps.volumes.sidecar import read_acquisition
from dynamicdps.volumes.slices import from_slices, to_batch, to_slices
from dynamicdps.volumes.volume import Volume, from_nibabel, load, resample_to

__all__ = [
    "Acquisition",
    "BiasEstimate",
    "BrainMask",
    "BrainScan",
    "Grid",
    "IntensityScale",
    "NoiseEstimate",
    "RawScan",
    "Scan",
    "Step",
    "Volume",
    "align_to_template",
    "blend",
    "bounding_box",
    "brain_mask",
    "covering",
    "crop",
    "estimate_bias",
    "estimate_noise",
    "extract_brain",
    "from_nibabel",
    "from_slices",
    "like",
    "load",
    "load_dicom",
    "native_grid",
    "open_brain",
    "prior_grid",
    "read_acquisition",
    "read_kspace",
    "read_scan",
    "resample_to",
    "sample",
    "swap_axes",
    "target_grid",
    "to_batch",
    "to_slices",
    "write_dicom",
]
