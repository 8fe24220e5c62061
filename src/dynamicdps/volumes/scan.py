"""An image with what is known of its acquisition."""

from dataclasses import dataclass

from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.volume import Volume


@dataclass(frozen=True)
class Scan:
    """What a scanner gave.

    Attributes:
        volume: the image on the scanner's grid.
        acquisition: how it was made.
    """

    volume: Volume
    acquisition: Acquisition
