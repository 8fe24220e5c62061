"""What may be enhanced: a file, a folder, an image of nibabel, or a volume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nibabel.spatialimages import SpatialImage

from dynamicdps.errors import InputError
from dynamicdps.operators import ScanOperator, read_operator
from dynamicdps.volumes import Acquisition, Scan, Volume, from_nibabel, load, read_acquisition

ACCEPTED = "a path, a nibabel image or a Volume"


def scans_of(scan: Any) -> list[Path | Volume]:
    """What is given as a scan, or as a list of scans of one head, as paths and volumes.

    Raises:
        TypeError: one is something else.
        InputError: there is none, or an image cannot be used.
    """
    given = list(scan) if isinstance(scan, Sequence) and not isinstance(scan, str) else [scan]
    if not given:
        raise InputError("no scan is given; expected one or more of one head; name it")
    return [Path(each) if isinstance(each, str | Path) else as_volume(each, "the scan") for each in given]


def one_scan(scan: Any) -> Path | Volume:
    """What is given as a scan, or as a list of one.

    Raises:
        TypeError: it is something else.
        InputError: there are several scans, or none, or the image cannot be used.
    """
    found = scans_of(scan)
    if len(found) > 1:
        raise InputError(f"{len(found)} scans are given; expected one; give them one by one")
    return found[0]


def as_volume(image: Any, what: str) -> Volume:
    """A path, an image of nibabel or a volume as a volume.

    Args:
        image: any of these.
        what: it is called in messages.

    Raises:
        TypeError: it is something else.
        InputError: as `load` and `from_nibabel`.
    """
    if isinstance(image, Volume):
        return image
    if isinstance(image, str | Path):
        return load(image)
    if isinstance(image, SpatialImage):
        return from_nibabel(image, what)
    raise TypeError(
        f"{what} is of type {type(image).__name__}; expected {ACCEPTED}; convert it, for example with nibabel.Nifti1Image(array, affine)"
    )


def as_scan(volume: Volume) -> Scan:
    """A volume with what its file, where it is one, says of the acquisition.

    Raises:
        InputError: as `read_acquisition`.
    """
    return Scan(volume, Acquisition() if volume.path is None else read_acquisition(volume.path))


def name_of(scan: Path | Volume) -> str:
    """A scan's path, or ``array`` where it has none."""
    path = scan.path if isinstance(scan, Volume) else scan
    return "array" if path is None else str(path)


def operator_beside(scan: Path) -> Path:
    """Where a scan's own forward model lies, if it has one."""
    return scan.with_name(scan.name.removesuffix(".gz").removesuffix(".nii") + ".operator.json")


def find_operator(scan: Path | Volume, given: ScanOperator | str | None) -> ScanOperator | None:
    """The operator that is given, or the one that lies beside the scan; `None` where it is to be fitted.

    Raises:
        InputError: as `read_operator`.
    """
    if isinstance(given, ScanOperator):
        return given
    if given == "fit":
        return None
    if given is not None:
        return read_operator(given)
    path = scan.path if isinstance(scan, Volume) else scan
    beside = None if path is None else operator_beside(path)
    return read_operator(beside) if beside is not None and beside.is_file() else None
