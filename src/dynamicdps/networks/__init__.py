"""The networks of priors and conditional models of slices, as modules."""

from dynamicdps.networks.neighbour_unet import NeighbourConfig, NeighbourUNet
from dynamicdps.networks.slice_unet import NetworkConfig, SliceUNet

__all__ = ["NeighbourConfig", "NeighbourUNet", "NetworkConfig", "SliceUNet"]
