"""The product as a function: what it takes, what it gives, and that the command line does the same."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import dynamicdps as dd
from dynamicdps.cli import main
from dynamicdps.operators import read_operator
from dynamicdps.output_names import RESULTS, RUN
from dynamicdps.pipeline.options import as_words
from tests.cli.tiny import write_tiny
from tests.properties import input_error
from tests.volumes.test_contrast import scan_of


def test_a_path_an_image_a_volume_and_a_list_of_one_are_the_same_scan(poor: Path, quick: dict[str, Any]) -> None:
    image = nib.load(poor)
    in_memory = nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine)
    operator = str(poor.with_name("poor.operator.json"))
    first = dd.enhance(str(poor), **quick)
    for scan in (poor, [poor], image, in_memory, dd.load(poor), dd.load(poor).with_data(dd.load(poor).data)):
        again = dd.enhance(scan, operator=operator, **quick)
        np.testing.assert_array_equal(again.image.data, first.image.data)
        np.testing.assert_array_equal(again.image.affine, first.image.affine)
        assert again.volumes == first.volumes


def test_an_operator_beside_the_file_is_used_and_another_is_fitted(poor: Path, quick: dict[str, Any]) -> None:
    for scan in (poor, dd.load(poor), nib.load(poor)):
        assert dd.enhance(scan, **quick).fit is None
    computed = dd.load(poor).with_data(dd.load(poor).data)
    fitted = dd.enhance(computed, **quick)
    assert fitted.fit is not None
    assert fitted.operator is fitted.fit.scan_operator


@pytest.mark.parametrize(
    ("scan", "error", "words"),
    [
        (np.zeros((4, 4, 4)), TypeError, "the scan is of type ndarray; expected a path, a nibabel image or a Volume"),
        (None, TypeError, "the scan is of type NoneType"),
        ([], dd.InputError, "no scan is given; expected one or more"),
        (["missing.nii.gz", "other.nii.gz"], dd.InputError, "missing.nii.gz does not exist"),
        ("missing.nii.gz", dd.InputError, "does not exist"),
        (nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), dd.InputError, "constant"),
        (nib.Nifti1Image(np.ones((4, 4, 4, 2), np.float32), np.eye(4)), dd.InputError, "pick one volume"),
    ],
)
def test_what_is_no_scan(scan: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        dd.enhance(scan)


def test_what_is_chosen_and_mended_is_the_same_scan_and_said(poor: Path, quick: dict[str, Any]) -> None:
    """One volume of several, and a background without numbers."""
    image, operator = nib.load(poor), str(poor.with_name("poor.operator.json"))
    data = image.get_fdata(dtype=np.float32)
    data[0, 0, :3] = 0
    plain, several, masked = (poor.with_name(f"{name}.nii.gz") for name in ("plain", "several", "masked"))
    nib.save(nib.Nifti1Image(data, image.affine), plain)
    nib.save(nib.Nifti1Image(np.stack([data[::-1], data], -1), image.affine), several)
    data[0, 0, :3] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), masked)
    expected = dd.enhance(plain, operator=operator, **quick)
    for scan, options in ((several, {"volume": 2}), (masked, {})):
        found = dd.enhance(scan, operator=operator, **options, **quick)
        np.testing.assert_array_equal(found.image.data, expected.image.data)
    (new,) = set(found.warnings) - set(expected.warnings)
    assert "hold no number (NaN)" in new
    assert new in found.facts["warnings"]


def test_an_initial_image_of_any_kind(poor: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    del quick["conditional"]
    start = dd.load(poor)
    path = start.save(tmp_path / "start.nii.gz")
    results = [dd.enhance(poor, initial=initial, **quick) for initial in (path, str(path), dd.load(path), nib.load(path))]
    for result in results:
        np.testing.assert_array_equal(result.image.data, results[0].image.data)
        assert result.facts["initial"].startswith(f"volume {path}")
    assert "conditional" not in results[0].facts["models"]
    with pytest.raises(TypeError, match="the initial image is of type ndarray"):
        dd.enhance(poor, initial=start.data, **quick)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"samples": "3"}, "samples is '3' (str); expected a whole number or None"),
        ({"samples": True}, "samples is True (bool)"),
        ({"quality": "good"}, "expected 'fast' or 'default' or 'best'"),
        ({"settings": "chunk=2"}, "expected a list of words"),
        ({"mask": 3}, "mask is 3 (int); expected a word"),
        ({"start_sigma": 100}, "0.001 to 40"),
        ({"device": "abacus"}, "there is no device"),
        ({"shading": "on", "operator": "iqt-in"}, "--operator fit"),
        ({"series": 1}, "series 1"),
        ({"array": "kspace"}, "--array is given"),
    ],
)
def test_wrong_options(values: dict[str, Any], words: str, poor: Path) -> None:
    with input_error(re.escape(words)):
        dd.enhance(poor, **values)


def test_an_operator_as_an_object(poor: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    tied = read_operator(poor.with_name("poor.operator.json"))
    given = dd.enhance(poor, operator=tied, **quick)
    np.testing.assert_array_equal(given.image.data, dd.enhance(poor, **quick).image.data)
    assert given.operator is tied
    # No word of the command line stands for an object.
    assert given.argv == ()
    with input_error("comes without its noise"):
        dd.enhance(poor, operator=tied.operator, **quick)  # type: ignore[arg-type]
    with input_error("operator is 3"):
        dd.enhance(poor, operator=3, **quick)  # type: ignore[arg-type]


def test_shading_is_found_only_where_the_operator_is(poor: Path, quick: dict[str, Any]) -> None:
    with input_error("--operator fit"):
        dd.enhance(poor, shading="on", **quick)


def test_what_an_image_does_not_explain_is_named(poor: Path, quick: dict[str, Any]) -> None:
    """Of a scan that is brighter on one side, by a solver that must stay at the initial image."""
    scan = dd.load(poor)
    slope = np.linspace(0.5, 1.5, scan.shape[1], dtype=np.float32)[None, :, None]
    held = {"settings": {"spread_scale": 1e-4}, "operator": read_operator(poor.with_name("poor.operator.json"))}
    found = dd.enhance(scan.with_data(scan.data * slope), initial=dd.load(poor), **quick | held)
    assert any("has the pattern of" in warning for warning in found.warnings)


def test_an_option_that_there_is_not(poor: Path) -> None:
    with pytest.raises(TypeError, match=r"there is no option 'sampels' \(did you mean samples\?\); expected some of"):
        dd.enhance(poor, sampels=3)


def test_values_of_related_types(poor: Path, quick: dict[str, Any]) -> None:
    """Numbers of numpy, strings for paths, lists and dictionaries."""
    values = quick | {"samples": np.int64(1), "start_sigma": np.float32(0.5), "prior": Path(quick["prior"]), "settings": {"chunk": 2}}
    result = dd.enhance(poor, **values)
    kept = result.arguments
    assert (kept["samples"], kept["start_sigma"], kept["prior"], kept["settings"]) == (1, 0.5, quick["prior"], ("chunk=2",))
    assert result.facts["settings"]["chunk"] == 2
    with input_error("start_sigma"):
        dd.enhance(poor, start_sigma="high")


def test_options_as_an_object_and_by_name(poor: Path, quick: dict[str, Any]) -> None:
    options = dd.EnhanceOptions(**{**quick, "seed": 3})
    both = dd.enhance(poor, options, seed=4)
    np.testing.assert_array_equal(both.image.data, dd.enhance(poor, **{**quick, "seed": 4}).image.data)
    assert not np.array_equal(both.image.data, dd.enhance(poor, options).image.data)


def test_progress_is_told_and_nothing_is_printed(poor: Path, quick: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, int, int]] = []
    dd.enhance(poor, progress=lambda *step: told.append(step), **quick)
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["open", "prepare", "initial", "solve", "volumes"]
    for stage in ("open", "prepare", "initial", "solve", "volumes"):
        steps = [(done, planned) for name, done, planned in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
    assert capfd.readouterr() == ("", "")


def test_the_folder_is_that_of_the_command(poor: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    """The same bytes but for times, and the same names."""
    result = dd.enhance(poor, **quick)
    page = result.write(tmp_path / "python")
    assert page == tmp_path / "python" / "report.html"
    assert main(["enhance", str(poor), "--out", str(tmp_path / "command"), *as_words(dd.EnhanceOptions(**quick))]) == 0
    python, command = ({path.name: path for path in (tmp_path / name).iterdir()} for name in ("python", "command"))
    assert python.keys() == command.keys()
    assert python.keys() <= set(RESULTS)
    for name in python:
        if not name.endswith((".json", ".html")):
            assert python[name].read_bytes() == command[name].read_bytes()
    records = [json.loads(paths[RUN].read_text()) for paths in (python, command)]
    assert set(records[0]) == set(records[1])
    for key in set(records[0]) - {"argv", "durations", "arguments"}:
        assert records[0][key] == records[1][key], key
    # In Python a DICOM series is a call of its own.
    assert (records[1]["arguments"].pop("dicom"), records[1]["arguments"].pop("dicom_stamp")) == (None, False)
    assert records[0]["arguments"] == records[1]["arguments"] | {"out": str(tmp_path / "python")}
    # What was enhanced in Python can be repeated, too.
    assert main(["rerun", str(python[RUN]), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "enhanced.nii.gz").read_bytes() == python["enhanced.nii.gz"].read_bytes()


def test_a_scan_without_a_file_is_written_and_not_repeated(poor: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    scan = dd.load(poor)
    result = dd.enhance(scan.with_data(scan.data), **quick)
    result.write(tmp_path / "out")
    record = json.loads((tmp_path / "out" / RUN).read_text())
    assert (record["arguments"]["scan"], record["argv"]) == ("array", [])
    assert (tmp_path / "out" / "operator.json").is_file()
    assert main(["rerun", str(tmp_path / "out" / RUN), "--out", str(tmp_path / "again")]) == 2


def test_an_earlier_result_leaves_nothing_behind(poor: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    dd.enhance(poor, **{**quick, "grid": "native", "settings": ["keep_samples=true"]}).write(tmp_path)
    left = {"uncertainty.nii.gz", "samples.nii.gz", "enhanced_brain.nii.gz", "brain_mask.nii.gz"}
    assert left <= {path.name for path in tmp_path.iterdir()}
    others = {"measurement-2.nii.gz", "residual-2.nii.gz", "measurement-3.nii.gz", "residual-3.nii.gz", "operator-3.json"}
    mine = {"operator-3T.json", "operator-mine.json", "measurement-of-mine.nii.gz"}
    for name in others | mine:
        (tmp_path / name).touch()
    dd.enhance(poor, **{**quick, "samples": 1}).write(tmp_path)
    assert mine <= {path.name for path in tmp_path.iterdir()}
    assert not (left | others) & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["measurement.nii.gz", "measurement-2.nii.gz"])
def test_no_result_takes_the_place_of_the_scan(name: str, poor: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    scan = dd.load(poor).save(tmp_path / "out" / name)
    before = scan.read_bytes()
    result = dd.enhance(scan, operator=str(poor.with_name("poor.operator.json")), **quick)
    with input_error("would be written over"):
        result.write(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [scan.name]
    assert scan.read_bytes() == before
    assert result.write(tmp_path / "other").is_file()


def test_what_is_shown(poor: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    named = dd.load(poor).save(tmp_path / "<b>&.nii.gz")
    result = dd.enhance(named, operator=str(poor.with_name("poor.operator.json")), **quick)
    assert repr(result).startswith(f"Enhanced({named} by dynamicdps: 48 x 56 x 12 voxels of 1 x 1 x 1 mm, data misfit ")
    assert "\n" not in repr(result)
    page = result._repr_html_()
    assert page.count("<img ") == 3
    assert "grey matter (cm³)" in page
    assert "&lt;b&gt;&amp;.nii.gz" in page
    assert "<b>&" not in page
    assert "<script" not in page
    assert all(warning in page.replace("&#39;", "'") for warning in result.warnings)
    assert result.image.save(tmp_path / "enhanced.nii.gz").is_file()
    assert set(result.volumes) == set(result.intervals) == {"csf", "gm", "wm"}
    assert result.uncertainty is not None
    assert result.uncertainty.shape == result.image.shape
    assert set(result.metrics) == {"conditional", "dynamicdps"}


def test_tab_shows_the_public_names() -> None:
    assert {"enhance", "load", "Volume", "solvers", "__version__"} <= set(dir(dd))
    assert not {"import_module", "TYPE_CHECKING", "Any", "_HOMES"} & set(dir(dd))
    assert all(hasattr(dd, name) for name in dir(dd))


def test_a_t2w_scan_keeps_its_contrast_and_has_no_tissue_volumes(
    quick: dict[str, Any], tiny_models: tuple[str, str], tmp_path: Path
) -> None:
    """Its curve is the identity, its shading is not looked for, and the prior is that of its contrast."""
    volume, _ = scan_of("T2w", 0.02)
    named = volume.save(tmp_path / "sub-1_T2w.nii.gz")
    with pytest.raises(dd.InputError, match=r"the scan is T2w, the model .* was trained on T1w"):
        dd.enhance(named, **quick)
    both = {
        "prior": str(write_tiny(tmp_path / "both.safetensors", "prior", suffix="T1w", contrasts={"T2w": {"denoising_rmse": {"0.1": 0.08}}}))
    }
    both["conditional"] = str(write_tiny(tmp_path / "any.safetensors", "unet", contrast="any"))
    found = dd.enhance(named, **quick | both)
    assert found.facts["contrast"] == "T2w"
    assert found.volumes == {}
    assert sum("tissue volumes" in warning for warning in found.warnings) == 1
    assert found.fit is not None
    assert found.fit.scanner.gamma == 1.0
    steps = {step.name: step for step in found.steps}
    assert steps["contrast"].found["source"] == "name"
    assert steps["shading"].found["kept"] is False
    assert "--shading on" in steps["shading"].found["remark"]
    assert found.result.scale.scale == pytest.approx(np.percentile(found.initial.data[found.initial.data > 0], 99) / 0.95, rel=0.02)
    # The user is right, whatever the name and the intensities say.
    other = dd.enhance(named, contrast="T1w", **quick | both)
    assert other.facts["contrast"] == "T1w"
    assert any("look T2w" in warning for warning in other.warnings)
    assert set(other.volumes) == {"csf", "gm", "wm"}
    assert "--contrast" in other.argv
    with input_error("contrast is 'PDw'"):
        dd.enhance(named, contrast="PDw", **quick | both)
