"""A scan and its geometry: read, write, orient, resample, mask, scale intensities, cut into slices."""

from dynamicdps.volumes.intensity import IntensityScale, brain_mask
from dynamicdps.volumes.slices import from_slices, to_slices
from dynamicdps.volumes.volume import Volume, load, resample_to

__all__ = ["IntensityScale", "Volume", "brain_mask", "from_slices", "load", "resample_to", "to_slices"]
