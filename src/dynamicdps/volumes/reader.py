"""Read an image with what is known of its acquisition."""

from pathlib import Path

from dynamicdps.errors import InputError
from dynamicdps.volumes.dicom import load_dicom
from dynamicdps.volumes.scan import Scan
from dynamicdps.volumes.sidecar import read_acquisition
from dynamicdps.volumes.volume import load


def read_scan(path: str | Path, series: int | None = None) -> Scan:
    """Read an image file with its sidecar, or a folder of DICOM files.

    Args:
        path: file or folder.
        series: series number, for a folder that holds several.

    Raises:
        InputError: as `load`, `read_acquisition` and `load_dicom`; or a series number for a file.
    """
    path = Path(path)
    if path.is_dir():
        return load_dicom(path, series)
    if series is not None:
        raise InputError(f"series {series} was asked for, but {path} is a file; expected a folder of DICOM files; leave the series out")
    return Scan(load(path), read_acquisition(path))
