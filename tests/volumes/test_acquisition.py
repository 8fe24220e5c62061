"""Facts of the acquisition are checked, and read from header and sidecar."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from dynamicdps.volumes import Acquisition, read_acquisition, read_scan
from dynamicdps.volumes.acquisition import across_slices, plausible
from tests.properties import input_error


def write(path: Path, sidecar: Any = None, codes: str = "RAS", spacing: tuple[float, ...] = (1.6, 1.6, 5.0)) -> Path:
    """A scan whose third RAS axis runs across the slices, stored in the order of those codes."""
    data = np.random.default_rng(0).random((6, 7, 4), dtype=np.float32)
    affine = np.diag([*spacing, 1.0])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    nib.save(nib.Nifti1Image(apply_orientation(data, turn), affine @ inv_ornt_aff(turn, data.shape)), path)
    if sidecar is not None:
        content = sidecar if isinstance(sidecar, str) else json.dumps(sidecar)
        path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json").write_text(content, encoding="utf-8")
    return path


BIDS = {
    "MagneticFieldStrength": 0.064,
    "EchoTime": 0.0065,
    "RepetitionTime": 1.5,
    "InversionTime": 0.4,
    "FlipAngle": 90,
    "SliceThickness": 4.5,
    "SpacingBetweenSlices": 5.0,
    "ScanningSequence": "SE",
    "PatientName": "not read",
}


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
@pytest.mark.parametrize("codes", ["RAS", "SLP", "PSR"])
def test_sidecar_and_header(tmp_path: Path, name: str, codes: str) -> None:
    scan = read_scan(write(tmp_path / name, BIDS, codes))
    found = scan.acquisition
    assert found.to_json() == pytest.approx(
        {
            "field_strength_t": 0.064,
            "sequence": "SE",
            "echo_time_ms": 6.5,
            "repetition_time_ms": 1500.0,
            "inversion_time_ms": 400.0,
            "flip_angle_deg": 90,
            "slice_thickness_mm": 4.5,
            "slice_spacing_mm": 5.0,
            "slice_axis": 2,
        }
    )
    assert found.slice_gap_mm == pytest.approx(0.5)
    assert scan.volume.spacing[2] == pytest.approx(5)


def test_header_alone(tmp_path: Path) -> None:
    assert read_acquisition(write(tmp_path / "a.nii")).to_json() == {"slice_spacing_mm": 5.0, "slice_axis": 2}
    assert read_acquisition(write(tmp_path / "b.nii", spacing=(1.0, 1.0, 1.2))) == Acquisition()
    assert read_acquisition(write(tmp_path / "c.nii", spacing=(1.0, 6.0, 1.2))).slice_axis == 1


def test_slice_axis_of_the_header_counts(tmp_path: Path) -> None:
    image: Any = nib.load(write(tmp_path / "scan.nii", codes="ASR", spacing=(1.0, 1.0, 1.0)))
    image.header.set_dim_info(slice=0)
    nib.save(image, tmp_path / "again.nii")
    assert read_acquisition(tmp_path / "again.nii").slice_axis == 1


def test_a_sidecar_that_disagrees_with_the_header_gives_a_warning(tmp_path: Path) -> None:
    found = read_acquisition(write(tmp_path / "scan.nii", {"SpacingBetweenSlices": 6.0}))
    assert found.slice_spacing_mm == 5.0
    assert "6 mm apart, the header 5 mm" in found.warnings[0]


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ({"EchoTime": 12.0}, "echo time is 12000.0 ms; .*seconds"),
        ({"MagneticFieldStrength": 64}, "field strength is 64.0 T"),
        ({"MagneticFieldStrength": -1.5}, "field strength"),
        ({"FlipAngle": "90"}, "FlipAngle .* is a str; expected one number"),
        ({"FlipAngle": True}, "FlipAngle"),
        ({"EchoTime": [0.01, 0.02]}, "one number"),
        ({"SliceThickness": 0}, "slice thickness"),
        ({"RepetitionTime": float("nan")}, "repetition time"),
        ([1, 2], "a list"),
        ("{broken", "cannot be read"),
    ],
)
def test_nonsense_in_the_sidecar_is_refused(tmp_path: Path, sidecar: Any, message: str) -> None:
    path = write(tmp_path / "scan.nii.gz", sidecar)
    with input_error(message):
        read_acquisition(path)


def test_files_have_no_series(tmp_path: Path) -> None:
    with input_error("is a file"):
        read_scan(write(tmp_path / "scan.nii"), series=3)
    with input_error("does not exist"):
        read_acquisition(tmp_path / "missing.nii")


@pytest.mark.parametrize("name", ["field_strength_t", "echo_time_ms", "slice_thickness_mm"])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1e6, float("nan"), "much", None])
def test_values_are_checked(name: str, value: Any) -> None:
    if value is None:
        assert getattr(Acquisition(**{name: value}), name) is None
        return
    with input_error("expected"):
        Acquisition(**{name: value})


def test_slice_axis_is_checked() -> None:
    with input_error("slice axis"):
        Acquisition(slice_axis=3)


def test_impossible_values_of_a_header_are_left_out() -> None:
    kept, warnings = plausible({"field_strength_t": 15000.0, "echo_time_ms": 5.0, "flip_angle_deg": 0, "inversion_time_ms": None})
    assert kept == {"echo_time_ms": 5.0}
    assert len(warnings) == 1
    assert "15000" in warnings[0]


@pytest.mark.parametrize(("spacing", "axis"), [((1, 1, 1), None), ((1, 1, 1.2), None), ((1, 4, 1), 1), ((1.5, 1.5, 5), 2)])
def test_across_slices(spacing: tuple[float, ...], axis: int | None) -> None:
    assert across_slices(spacing) == axis
