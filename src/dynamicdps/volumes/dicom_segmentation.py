"""Labels as a DICOM segmentation of the study that they came from (DICOM PS3.3 A.51), by highdicom."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.atomic_file import atomic_write
from dynamicdps.errors import InputError
from dynamicdps.volumes.dicom import OpenSeries
from dynamicdps.volumes.dicom_frames import quiet_pydicom
from dynamicdps.volumes.dicom_writer import EMPTY, MOST_NUMBER, WORDS, check_dicom_out, turned
from dynamicdps.volumes.volume import Volume

NAME = "segmentation.dcm"
# Of names that no list of codes has.
SCHEME = "99DYNAMICDPS"


def check_segmentation_out(source: Path, folder: Path, series: int | None = None) -> OpenSeries:
    """Refuse what `write_segmentation` cannot do, before there is anything to write.

    Raises:
        InputError: highdicom is not installed; or as `check_dicom_out`.
    """
    if find_spec("highdicom") is None:
        raise InputError("DICOM segmentations need highdicom; expected it to be installed; run: pip install 'dynamicdps[dicom-seg]'")
    return check_dicom_out(source, folder, series)


def write_segmentation(
    labels: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
    names: Mapping[int, str],
    source: str | Path,
    folder: str | Path,
    *,
    series: int | None = None,
    version: str = "",
) -> Path:
    """Write labels as a DICOM segmentation, one segment a name, for the patient and study of a series.

    Args:
        labels: ``(x, y, z)``; 0 and labels without a name are background.
        affine: their indices to RAS mm; axes at right angles.
        names: of the segments by label.
        source: folder of the DICOM files that were segmented, or of what `write_dicom` made of them.
        folder: new or empty, and not in `source`; gets ``segmentation.dcm``.
        series: number of the source's series where `source` holds several.
        version: of the program.

    Raises:
        InputError: as `check_segmentation_out`; the labels are no whole numbers or none of them has a name; or the source lacks what a
            segmentation needs.
    """
    source, folder = Path(source), Path(folder)
    opened = check_segmentation_out(source, folder, series)
    import highdicom

    present = [label for label in sorted(names) if label > 0 and (labels == label).any()]
    if labels.ndim != 3 or labels.dtype.kind not in "iu" or not present:
        raise InputError(
            f"the labels are {labels.dtype} of shape {labels.shape}, {len(present)} of them named; expected whole numbers (x, y, z)"
        )
    # Segments are counted from 1 without gaps.
    numbers = np.zeros(labels.shape, np.float32)
    for number, label in enumerate(present, 1):
        numbers[labels == label] = number
    numbered, to_lps = turned(Volume(numbers, affine), opened)
    with quiet_pydicom() as pydicom:
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in dict.fromkeys(frame.path for frame in opened.frames)]
        for header, name in product(headers, EMPTY):
            header.setdefault(name, None)
        contents = repr((affine.tolist(), [names[label] for label in present], version)).encode() + numbered.tobytes()
        seed = [str(headers[0].SeriesInstanceUID), hashlib.sha256(contents).hexdigest()]
        try:
            image = highdicom.seg.Segmentation(
                source_images=headers,
                # Frames are (slice, row, column).
                pixel_array=highdicom.Volume(numbered.transpose(2, 1, 0).astype(np.uint8), to_lps[:, [2, 1, 0, 3]], "PATIENT"),
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_segment(highdicom, number, names[label], version) for number, label in enumerate(present, 1)],
                series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=[*seed, "series"]),
                series_number=min(100 * abs(opened.number or 0) + 98, MOST_NUMBER),
                sop_instance_uid=pydicom.uid.generate_uid(entropy_srcs=seed),
                instance_number=1,
                manufacturer="DynamicDPS",
                manufacturer_model_name="DynamicDPS",
                software_versions=version or "unknown",
                device_serial_number="none",
                content_description=WORDS,
                series_description=WORDS,
            )
        except (AttributeError, ValueError, TypeError) as error:
            # Its words may quote the header.
            raise InputError(
                f"{opened.name} cannot be referred to by a segmentation ({type(error).__name__}); expected what DICOM asks of a series, "
                "and labels on a grid at right angles; export it again"
            ) from None
        with atomic_write(folder / NAME) as partial:
            image.save_as(partial)
    return folder / NAME


def _segment(highdicom: Any, number: int, name: str, version: str) -> Any:
    code = highdicom.sr.CodedConcept
    made_by = highdicom.AlgorithmIdentificationSequence(
        "DynamicDPS", code("123109", "DCM", "Artificial Intelligence"), version or "unknown"
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=code("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=code(name.replace(" ", "-")[:16], SCHEME, name),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=made_by,
    )
