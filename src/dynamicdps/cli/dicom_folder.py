"""The folder of --dicom."""

from collections.abc import Callable
from pathlib import Path

from dynamicdps.errors import InputError
from dynamicdps.volumes.dicom import OpenSeries


def check_dicom_folder(
    check: Callable[[Path, Path, int | None], OpenSeries], scan: Path, dicom: Path, out: Path, series: int | None
) -> None:
    """Refuse DICOM files that could not be written at the end.

    Args:
        check: of what is written, such as `check_dicom_out`.
        scan: the folder of DICOM files that was given.
        dicom: where to write.
        out: where the other results go.
        series: number of the scan's series.

    Raises:
        InputError: as `check`; or the folder is that of the other results.
    """
    if dicom.resolve() == out.resolve():
        raise InputError(f"{dicom} is that of the other results, which name no patient; expected another; change --dicom")
    check(scan, dicom, series)
