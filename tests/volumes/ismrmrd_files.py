"""Small ISMRMRD files as scanners write them."""

from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("Zzyzx^Quentina", "QX-99317", "19310704", "Saint Wilgefortis", "STATION-8842", "SN-5521973", "Protocol-Zzyzx")


def transform(image: np.ndarray) -> np.ndarray:
    """Centred orthonormal Fourier transform of the last two axes."""
    plane = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=plane), axes=plane, norm="ortho"), axes=plane)


def write_ismrmrd(
    path: Path,
    image: np.ndarray,
    *,
    field_of_view: tuple[float, float] = (200.0, 240.0),
    thickness: float = 4.0,
    distance: float = 5.0,
    directions: np.ndarray | None = None,
    position: tuple[float, float, float] = (0.0, 0.0, 0.0),
    lines: np.ndarray | None = None,
    oversampling: int = 2,
    averages: int = 1,
    noise: float = 0.0,
    seed: int = 0,
    trajectory: str = "cartesian",
    matrix_z: int = 1,
    **counters: list[int],
) -> Path:
    """A file of complex coil images ``(coils, slices, y, x)``.

    Args:
        path: of the file.
        image: what the coils see.
        field_of_view: along read and phase, mm.
        thickness: of a slice in mm.
        distance: of slices in mm.
        directions: read, phase and slice direction as columns, LPS.
        position: middle of the first slice, LPS mm.
        lines: phase-encoding lines that are sampled; by default all.
        oversampling: of the readout.
        averages: lines are written so often, each with noise of its own.
        noise: standard deviation of each part of a sample of an average.
        seed: of the noise.
        trajectory: what the header says.
        matrix_z: likewise.
        counters: more values of a counter, such as ``contrast=[0, 1]``: everything is written once for each.
    """
    import ismrmrd

    rng = np.random.default_rng(seed)
    directions = np.eye(3) if directions is None else directions
    coils, depth, ny, nx = image.shape
    wide = np.zeros((coils, depth, ny, oversampling * nx), complex)
    first = oversampling * nx // 2 - nx // 2
    wide[..., first : first + nx] = image
    kspace = transform(wide)
    x = ismrmrd.xsd
    header = x.ismrmrdHeader(
        version=1,
        subjectInformation=x.subjectInformationType(patientName=WORDS[0], patientID=WORDS[1]),
        studyInformation=x.studyInformationType(studyID=WORDS[1]),
        measurementInformation=x.measurementInformationType(protocolName=WORDS[6], patientPosition=x.patientPositionType.HFS),
        acquisitionSystemInformation=x.acquisitionSystemInformationType(
            systemFieldStrength_T=0.055, institutionName=WORDS[3], stationName=WORDS[4], deviceSerialNumber=WORDS[5]
        ),
        experimentalConditions=x.experimentalConditionsType(H1resonanceFrequency_Hz=2_340_000),
        sequenceParameters=x.sequenceParametersType(TR=[52.0], TE=[13.0], flipAngle_deg=[40.0]),
        encoding=[
            x.encodingType(
                trajectory=x.trajectoryType(trajectory),
                encodedSpace=_space(x, (oversampling * nx, ny, matrix_z), (oversampling * field_of_view[0], field_of_view[1], thickness)),
                reconSpace=_space(x, (nx, ny, 1), (*field_of_view, thickness)),
                encodingLimits=x.encodingLimitsType(kspace_encoding_step_1=x.limitType(minimum=0, maximum=ny - 1, center=ny // 2)),
            )
        ],
    )
    with ismrmrd.Dataset(str(path), "dataset", mode="w") as file:
        file.write_xml_header(x.ToXML(header))
        beside = ismrmrd.Acquisition.from_array(np.full((coils, 7), 1e6, np.complex64))
        beside.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        file.append_acquisition(beside)
        repeats: list[dict[str, Any]] = [{}]
        for name, values in counters.items():
            repeats = [each | {name: value} for each in repeats for value in values]
        # Interleaved, as slices are excited: the counter follows the place, the order in the file does not.
        for z in [*range(0, depth, 2), *range(1, depth, 2)]:
            for ky in range(ny) if lines is None else lines:
                for extra in [each | {"average": a} for each in repeats for a in range(averages)]:
                    data = kspace[:, z, ky] + noise * (rng.normal(size=(2, coils, oversampling * nx)) * [[[1]], [[1j]]]).sum(0)
                    acquisition = ismrmrd.Acquisition.from_array(data.astype(np.complex64))
                    acquisition.center_sample = oversampling * nx // 2
                    acquisition.idx.kspace_encode_step_1, acquisition.idx.slice = int(ky), z
                    for name, value in extra.items():
                        setattr(acquisition.idx, name, value)
                    acquisition.position[:] = np.array(position) + z * distance * directions[:, 2]
                    for name, column in zip(("read_dir", "phase_dir", "slice_dir"), directions.T, strict=True):
                        getattr(acquisition, name)[:] = column
                    file.append_acquisition(acquisition)
    return path


def _space(x: Any, matrix: tuple[int, int, int], field: tuple[float, float, float]) -> Any:
    sides = ("x", "y", "z")
    return x.encodingSpaceType(
        matrixSize=x.matrixSizeType(**dict(zip(sides, matrix, strict=True))),
        fieldOfView_mm=x.fieldOfViewMm(**dict(zip(sides, field, strict=True))),
    )
