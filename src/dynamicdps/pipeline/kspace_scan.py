"""A raw scan, its brain and its noise."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynamicdps.errors import InputError
from dynamicdps.operators.kspace_measurement import kspace_noise
from dynamicdps.paths import RAW_SUFFIXES
from dynamicdps.pipeline.inputs import name_of
from dynamicdps.pipeline.options import ReadOptions
from dynamicdps.segmentation import brain_finder
from dynamicdps.volumes import BrainScan, RawScan, Volume, read_kspace
from dynamicdps.volumes.brain_scan import cut_brain
from dynamicdps.volumes.noise_estimate import NoiseEstimate
from dynamicdps.volumes.scan import Scan


@dataclass(frozen=True)
class KSpaceScan:
    """A raw scan and its brain.

    Attributes:
        raw: the k-space, with square voxels.
        head: its magnitude and the brain in it.
        noise: of the real and of the imaginary part of each sample.
    """

    raw: RawScan
    head: BrainScan
    noise: NoiseEstimate

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the brain's part is in the whole grid."""
        corner = np.rint((np.linalg.inv(self.head.whole.affine) @ self.head.brain.affine)[:3, 3]).astype(int).tolist()
        x, y, z = (slice(start, start + size) for start, size in zip(corner, self.head.brain.shape, strict=True))
        return x, y, z


def is_kspace(scan: Path) -> bool:
    return scan.suffix.lower() in RAW_SUFFIXES


def refuse_raw_options(scan: Path | Volume, options: ReadOptions) -> None:
    """Refuse options for k-space with another scan.

    Raises:
        InputError: one is given.
    """
    for name in ("voxel_size", "orientation", "array"):
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise InputError(
                f"--{flag} is given, but {name_of(scan)} is no file of raw k-space; expected {', '.join(RAW_SUFFIXES)}; leave it out"
            )


def open_kspace(scan: Path, options: ReadOptions, mask: str, *, cropped: bool = True) -> KSpaceScan:
    """Read a raw scan, find its brain in the magnitude, and measure its noise.

    Args:
        scan: the file.
        options: what it does not say.
        mask: as `extract_brain`.
        cropped: as `open_brain`.

    Raises:
        InputError: as `read_kspace`, `extract_brain` and `kspace_noise`; or an option does not fit a file of k-space.
    """
    if options.series is not None:
        raise InputError(f"series {options.series} was asked for, but {scan} is a file; expected a folder; leave the series out")
    if options.volume is not None:
        raise InputError(f"volume {options.volume} was asked for, but {scan} is raw k-space; expected an image file; leave --volume out")
    size = None if options.voxel_size is None else _numbers(options.voxel_size)
    raw = read_kspace(scan, array=options.array, voxel_size_mm=size, orientation=options.orientation).with_square_voxels()
    head = cut_brain(Scan(raw.magnitude(), raw.acquisition), mask, cropped=cropped, network=brain_finder())
    return KSpaceScan(raw, head, kspace_noise(raw))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--voxel-size is {text!r}; expected three numbers in mm such as 2,2,5") from None
