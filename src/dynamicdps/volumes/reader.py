"""Read an image with what is known of its acquisition."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dynamicdps.errors import InputError
from dynamicdps.volumes.dicom import load_dicom
from dynamicdps.volumes.input_checks import choose_volume, interpolation_warnings, position_warnings, refuse_ct, without_nan_around
from dynamicdps.volumes.scan import Scan
from dynamicdps.volumes.sidecar import read_acquisition
from dynamicdps.volumes.volume import load


def read_scan(path: str | Path, series: int | None = None, volume: int | None = None) -> Scan:
    """Read an image file with its sidecar, or a folder of DICOM files.

    What a file leaves open, or what was mended in it, is a warning of the acquisition.

    Args:
        path: file or folder.
        series: series number, for a folder that holds several.
        volume: number of the volume, from 1, for a file that holds several.

    Raises:
        InputError: as `load`, `choose_volume`, `refuse_ct`, `read_acquisition` and `load_dicom`; or a series is asked of a file, a
            volume of a folder.
    """
    path = Path(path)
    if path.is_dir():
        if volume is not None:
            raise InputError(f"volume {volume} was asked for, but {path} is a folder; expected a file of several; leave --volume out")
        return load_dicom(path, series)
    if series is not None:
        raise InputError(f"series {series} was asked for, but {path} is a file; expected a folder of DICOM files; leave the series out")
    warnings: list[str] = []

    def mend(image: Any) -> Any:
        mended, found = without_nan_around(choose_volume(image, str(path), volume))
        warnings.extend([*position_warnings(image), *found])
        return mended

    scan = load(path, mend)
    refuse_ct(scan, str(path))
    acquisition = read_acquisition(path)
    return Scan(scan, replace(acquisition, warnings=(*acquisition.warnings, *warnings, *interpolation_warnings(scan))))
