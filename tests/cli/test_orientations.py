"""One scan, stored in every way a scanner or converter may choose: the result is the same image at the same place."""

import json
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

from dynamicdps.cli import main
from tests.volumes.head import make_head, rotation

EVERY = ["".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)]
LOW_FIELD = {"type": "LowField", "gamma": 0.8, "noise_std": 0.05}
QUICK = ("--samples", "1", "--steps", "1", "--start-sigma", "0.05", "--mask", "none")


def stored(data: NDArray[Any], affine: NDArray[np.float64], codes: str) -> nib.Nifti1Image:
    """RAS data as a file whose axes run as `codes` say."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return nib.Nifti1Image(apply_orientation(data, turn), affine @ inv_ornt_aff(turn, data.shape))


def upright(path: Path) -> nib.Nifti1Image:
    """A result in RAS order."""
    return nib.as_closest_canonical(nib.load(path))


def brain(
    spacing: tuple[float, float, float], field_of_view: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A skull-stripped head on a grid that is not parallel to the room's axes."""
    volume = make_head(spacing, field_of_view, stripped=True).volume
    return volume.data / volume.data.max(), rotation((4.0, -3.0, 6.0), (-12.0, 8.5, 3.25)) @ volume.affine


def enhance(image: nib.Nifti1Image, folder: Path, tiny: tuple[str, str], **operator: Any) -> Path:
    """Run the command on an image; the folder of its results."""
    folder.mkdir()
    nib.save(image, folder / "scan.nii.gz")
    (folder / "scan.operator.json").write_text(json.dumps(operator if "type" in operator else LOW_FIELD | operator))
    command = ["enhance", str(folder / "scan.nii.gz"), "--out", str(folder / "out"), "--prior", tiny[0], "--conditional", tiny[1], *QUICK]
    assert main(command) == 0
    return folder / "out"


def compare(tmp_path: Path, tiny: tuple[str, str], orientations: list[str]) -> None:
    data, affine = brain((3.0, 3.0, 10.0), (90.0, 105.0, 20.0))
    voxels = {"in_plane_factor": 3.0, "slice_thickness": 10.0}
    expected = enhance(stored(data, affine, "RAS"), tmp_path / "first", tiny, **voxels)
    for codes in orientations:
        out = enhance(stored(data, affine, codes), tmp_path / codes, tiny, **voxels)
        for name in ("enhanced", "initial", "measurement", "residual"):
            found, wanted = upright(out / f"{name}.nii.gz"), upright(expected / f"{name}.nii.gz")
            np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)
            np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(wanted.dataobj))
            # As it came: a viewer lays both over each other without turning anything.
            assert "".join(nib.aff2axcodes(nib.load(out / f"{name}.nii.gz").affine)) == codes


def test_some_orientations(tmp_path: Path, tiny_models: tuple[str, str]) -> None:
    compare(tmp_path, tiny_models, ["LPS", "SAR"])


@pytest.mark.slow
def test_every_orientation(tmp_path: Path, tiny_models: tuple[str, str]) -> None:
    assert len(set(EVERY)) == 48
    compare(tmp_path, tiny_models, EVERY)


def scaled(data: NDArray[np.float32], affine: NDArray[np.float64]) -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.round(data * 20000 + 300).astype(np.int16), affine)
    image.header.set_slope_inter(1 / 20000, -0.015)
    return image


KINDS = {
    "int16": lambda data, affine: nib.Nifti1Image(np.round(data * 4000).astype(np.int16), affine),
    "float64": lambda data, affine: nib.Nifti1Image(data.astype(np.float64) * 123.4, affine),
    "scaled": scaled,
}


@pytest.mark.parametrize("kind", KINDS)
def test_type_and_scaling_of_the_file_change_nothing(kind: str, tmp_path: Path, tiny_models: tuple[str, str]) -> None:
    data, affine = brain((3.0, 3.0, 10.0), (90.0, 105.0, 20.0))
    results = [
        upright(enhance(image, tmp_path / name, tiny_models, in_plane_factor=3.0, slice_thickness=10.0) / "enhanced.nii.gz")
        for name, image in (("plain", nib.Nifti1Image(data, affine)), (kind, KINDS[kind](data, affine)))
    ]
    plain, other = (np.asarray(image.dataobj) / np.percentile(np.asarray(image.dataobj), 99) for image in results)
    np.testing.assert_allclose(results[1].affine, results[0].affine, atol=1e-4)
    # Whole numbers round the scan by half a thousandth of its range.
    assert np.abs(plain - other).max() < 5e-3


@pytest.mark.parametrize(
    ("spacing", "field_of_view"),
    [
        ((0.5, 0.5, 2.0), (40.0, 50.0, 4.0)),
        ((8.0, 8.0, 8.0), (88.0, 104.0, 24.0)),
        ((1.7, 1.7, 7.3), (81.6, 90.1, 14.6)),
        ((2.0, 2.0, 5.0), (82.0, 90.0, 5.0)),
        ((5.0, 2.0, 2.0), (15.0, 90.0, 82.0)),
    ],
    ids=["fine", "coarse", "odd", "one-slice", "sagittal"],
)
def test_the_result_lies_where_the_scan_lies(
    spacing: tuple[float, float, float], field_of_view: tuple[float, float, float], tmp_path: Path, tiny_models: tuple[str, str]
) -> None:
    """The middle of the scan's field of view is the middle of the result's, to a tenth of a millimetre, and so are the corners."""
    data, affine = brain(spacing, field_of_view)
    across = int(np.argmax(spacing)) if spacing[0] != spacing[2] else 2
    thick = {"in_plane_factor": max(1.0, spacing[1]), "slice_thickness": spacing[across]}
    operator: dict[str, Any] = (
        thick
        if across == 2
        else {"type": "SwapSliceAxis", "axis": across, "inner": {"type": "LowField", "gamma": 0.8, "noise_std": 0.05, **thick}}
    )
    if spacing[0] < 1:
        operator |= {"in_plane_factor": 1.0, "slice_thickness": None}
    found = upright(enhance(nib.Nifti1Image(data, affine), tmp_path / "run", tiny_models, **operator) / "enhanced.nii.gz")

    def corners(shape: tuple[int, ...], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the field of view: the outer edges of the outermost voxels."""
        edges = np.array(list(product(*[(-0.5, n - 0.5) for n in shape])))
        return edges @ matrix[:3, :3].T + matrix[:3, 3]

    ours, theirs = corners(found.shape, found.affine), corners(data.shape, affine)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.1)
    # Voxels of 1 mm do not divide every field of view.
    assert np.abs(ours - theirs).max() < 1.5 * max(1.0, min(spacing))
    assert np.isfinite(np.asarray(found.dataobj)).all()
