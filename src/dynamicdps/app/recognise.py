"""What a scan is, from reading it; and how it looks, for the page."""

from pathlib import Path

import numpy as np

from dynamicdps.app.job import Recognised
from dynamicdps.errors import InputError
from dynamicdps.pipeline.kspace_scan import is_kspace
from dynamicdps.pipeline.scan_contrast import contrast_of
from dynamicdps.report.embed import pack
from dynamicdps.report.viewer import LEVELS
from dynamicdps.volumes import Scan, read_kspace, read_scan
from dynamicdps.volumes.brain_extraction import covers_head, is_skull_stripped

BRIGHT_PERCENTILE = 99.5


def read(path: Path) -> Scan:
    """A scan as an image; of raw k-space its magnitude.

    Raises:
        InputError: as `read_scan` and `read_kspace`.
    """
    if is_kspace(path):
        raw = read_kspace(path).with_square_voxels()
        return Scan(raw.magnitude(), raw.acquisition)
    return read_scan(path)


def recognise(path: Path) -> tuple[Recognised, bytes]:
    """What a scan is.

    Args:
        path: file or folder.

    Returns:
        What was found, and a small gzipped NIfTI file of it for the page.

    Raises:
        InputError: it cannot be read as a scan.
    """
    scan = read(path)
    volume, known = scan.volume, scan.acquisition.to_json()
    warnings = known.pop("warnings", ())
    found = Recognised(
        kind=_kind(path),
        shape=volume.shape,
        spacing_mm=tuple(round(s, 3) for s in volume.spacing),  # type: ignore[arg-type]
        orientation=volume.orientation,
        contrast=contrast_of(path),
        skull=_skull(scan),
        whole_head=covers_head(volume),
        acquisition=known,
        warnings=tuple(warnings),
    )
    bright = float(np.percentile(volume.data, BRIGHT_PERCENTILE)) or float(np.ptp(volume.data))
    # What is far brighter than the rest would only make the file larger.
    shown = volume.with_data(np.clip(volume.data, -bright, 2 * bright))
    return found, pack(shown, bright / LEVELS)[0]


def _skull(scan: Scan) -> bool | None:
    try:
        return not is_skull_stripped(scan.volume)
    except InputError:
        return None


def _kind(path: Path) -> str:
    if path.is_dir():
        count = sum(1 for each in path.rglob("*") if each.is_file())
        return f"DICOM, {count} file{'' if count == 1 else 's'}"
    if is_kspace(path):
        return "raw k-space"
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    return {"nii": "NIfTI", "mgh": "MGH", "mgz": "MGH", "img": "Analyze"}.get(ending, ending)
