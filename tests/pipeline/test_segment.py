"""Structures of heads whose classes are known."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

import dynamicdps as dd
from dynamicdps.pipeline.segmented import Segmented
from dynamicdps.segmentation import BrainNetwork
from dynamicdps.segmentation.classes import structures
from dynamicdps.volumes import Volume
from tests.properties import input_error
from tests.segmentation.coded_heads import PAIRS, SKIN, Shells, code, coded_head, coded_network

SWAPPED = {
    s.label: o.label
    for s in structures(sided=True)
    for o in structures(sided=True)
    if s.name == o.name and (s.side != o.side or not s.side)
}
Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@pytest.fixture(autouse=True)
def known_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamicdps.pipeline.segmentation.open_network", lambda name, device: (coded_network(), {"sha256": "of a test"}))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def interval(found: Segmented, name: str) -> tuple[float, float]:
    (ends,) = (each.interval for each in found.structures if each.structure.full_name == name)
    assert ends is not None
    return ends


def test_structures_have_their_volumes_and_sides_on_the_grid_of_the_scan() -> None:
    head = coded_head()
    found = dd.segment(head, repeats=0)
    assert found.sided
    assert not found.slab
    assert found.warnings == ()
    np.testing.assert_array_equal(found.labels.affine, head.affine)
    x = np.arange(head.shape[0])[:, None, None] - (head.shape[0] - 1) / 2
    for name in PAIRS:
        there = np.isclose(head.data, code(name))
        assert found.volumes[f"right {name}"] == pytest.approx(float((there & (x > 0)).sum()) * 8, rel=0.01)
        assert found.volumes[f"left {name}"] == pytest.approx(float((there & (x < 0)).sum()) * 8, rel=0.01)
    for each in [s for s in found.structures if s.structure.label]:
        there = found.labels.data == each.structure.label
        assert each.confidence > 0.99 if there.any() else np.isnan(each.confidence)
    for name in ("cortex", "white matter"):
        # A voxel that the plane cuts has one label, and counts for both sides.
        both = [s for s in found.structures if s.structure.name == name]
        counted = float(np.isin(found.labels.data, [s.structure.label for s in both]).sum()) * 8
        assert sum(s.mm3 for s in both) == pytest.approx(counted, rel=0.01)


def test_a_mirrored_head_has_its_sides_swapped() -> None:
    head = coded_head(first=(-49.0, -60.0, -54.0))
    # The mirror image of the grid begins where the grid ends.
    affine = head.affine.copy()
    affine[0, 3] = -(head.affine[0, 3] + 2.0 * (head.shape[0] - 1))
    mirrored = Volume(np.ascontiguousarray(head.data[::-1]), affine)
    found, other = dd.segment(head, repeats=0), dd.segment(mirrored, repeats=0)
    np.testing.assert_array_equal(np.vectorize(lambda label: SWAPPED.get(label, 0))(found.labels.data.astype(int)), other.labels.data[::-1])
    np.testing.assert_array_equal(found.brain_mask.data, other.brain_mask.data[::-1])
    names = {"left": "right", "right": "left"}
    for name, mm3 in found.volumes.items():
        side, _, rest = name.partition(" ")
        assert other.volumes[f"{names[side]} {rest}" if side in names else name] == pytest.approx(mm3, rel=1e-5, abs=0.1)


def test_without_an_orientation_there_are_no_sides(tmp_path: Path) -> None:
    head = coded_head()
    image = nibabel.Nifti1Image(head.data, None)
    image.header.set_zooms((2, 2, 2))
    nibabel.save(image, tmp_path / "plain.nii.gz")
    for scan in (nibabel.load(tmp_path / "plain.nii.gz"), tmp_path / "plain.nii.gz", [tmp_path / "plain.nii.gz"]):
        found = dd.segment(scan, repeats=0)
        assert not found.sided
        assert any("does not say which side is left" in warning for warning in found.warnings)
        assert {each.structure.side for each in found.structures} == {""}
        assert found.volumes["thalamus"] == pytest.approx(float(np.isclose(head.data, code("thalamus")).sum()) * 8, rel=0.01)


def test_half_a_head_has_no_sides() -> None:
    head = coded_head()
    half = Volume(head.data[29:].copy(), head.affine @ np.array([[1, 0, 0, 29], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    found = dd.segment(half, repeats=0)
    assert found.slab
    assert not found.sided
    assert any("both halves" in warning for warning in found.warnings)


def test_a_slab_says_that_it_is_one() -> None:
    head = coded_head()
    found = dd.segment(Volume(head.data[:, :, 20:36].copy(), head.affine), repeats=0)
    assert found.slab
    assert found.sided
    assert any("the scan is a slab" in warning for warning in found.warnings)
    assert not dd.segment(head, repeats=0).slab


def test_intervals_come_from_draws_of_the_scan() -> None:
    head = coded_head()
    found = dd.segment(head, repeats=4, seed=1)
    for each in found.structures:
        assert each.interval is not None
        assert 0 <= each.interval[0] <= each.mm3 <= each.interval[1]
    again, other = dd.segment(head, repeats=4, seed=1), dd.segment(head, repeats=4, seed=2)
    assert interval(again, "left thalamus") == interval(found, "left thalamus") != interval(other, "left thalamus")
    assert found.volumes == other.volumes


def test_intervals_hold_the_errors_that_the_card_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    head = coded_head()
    draws = dd.segment(head, repeats=2)
    card = {"sha256": "of a test", "volume_error": {"1": {"thalamus": 0.3}, "5": {"thalamus": 0.0}}, "volume_error_maps": 12}
    monkeypatch.setattr("dynamicdps.pipeline.segmentation.open_network", lambda name, device: (coded_network(), card))
    found = dd.segment(head, repeats=2)
    assert interval(found, "brain stem") == interval(draws, "brain stem")
    mm3 = found.volumes["left thalamus"]
    reach, of_draws = (interval(each, "left thalamus")[1] - mm3 for each in (found, draws))
    # Student's t of twelve degrees is 2.179.
    assert reach == pytest.approx(np.hypot(of_draws, 2.179 * 0.3 * mm3), rel=1e-3)


def test_a_mask_of_ones_own_bounds_the_brain(tmp_path: Path) -> None:
    head = coded_head()
    x = np.arange(head.shape[0])[:, None, None]
    mask = head.with_data(((head.data > 0) & (head.data < SKIN) & (x < 22)).astype(np.float32))
    found = dd.segment(head, repeats=0, mask=str(mask.save(tmp_path / "mask.nii.gz")))
    np.testing.assert_array_equal(found.brain_mask.data, mask.data)
    brain = sum(s.mm3 for s in found.structures if s.structure.label and s.structure.name != "outer fluid")
    assert brain < 0.6 * sum(s.mm3 for s in dd.segment(head, repeats=0).structures if s.structure.label)


def test_everything_is_written_and_read_again(tmp_path: Path) -> None:
    head = coded_head()
    scan = head.save(tmp_path / "scan.nii.gz")
    found = dd.segment(scan, repeats=2)
    labels = found.write(tmp_path / "out")
    assert sorted(p.name for p in labels.parent.iterdir()) == ["brain_mask.nii.gz", "dseg.nii.gz", "dseg.tsv", "run.json", "volumes.tsv"]
    image = nibabel.load(labels)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.affine, head.affine)
    table = rows(tmp_path / "out" / "dseg.tsv")
    assert list(table[0]) == ["index", "name", "abbreviation", "color"]
    assert set(np.unique(image.dataobj)) - {0} <= {int(row["index"]) for row in table}
    assert len({row["index"] for row in table}) == len({row["abbreviation"] for row in table}) == len(table)
    volumes = rows(tmp_path / "out" / "volumes.tsv")
    assert list(volumes[0]) == ["structure", "side", "mm3", "low", "high", "confidence", "dice", "reliable"]
    for row in volumes:
        name = row["structure"] if row["side"] == "n/a" else f"{row['side']} {row['structure']}"
        assert float(row["mm3"]) == pytest.approx(found.volumes[name], abs=0.06)
        assert float(row["low"]) <= float(row["mm3"]) <= float(row["high"])
        assert (row["dice"], row["reliable"]) == ("n/a", "yes")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["command"], run["exit"], run["slab"]) == ("segment", 0, False)
    with input_error("would be written over"):
        dd.segment(labels.rename(tmp_path / "out" / "scan.nii.gz").rename(labels), repeats=0, mask="none").write(tmp_path / "out")


def test_structures_that_the_model_finds_poorly_are_marked_as_drafts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card = {"sha256": "of a test", "structure_dice": {"1": {"thalamus": 0.9, "caudate": 0.8}, "5": {"thalamus": 0.8, "caudate": 0.6}}}
    monkeypatch.setattr("dynamicdps.pipeline.segmentation.open_network", lambda name, device: (coded_network(), card))
    head = coded_head()
    thin = dd.segment(head, repeats=0)
    assert all(each.reliable for each in thin.structures)
    assert not any("drafts" in warning for warning in thin.warnings)
    thick = dd.segment(Volume(head.data, head.affine @ np.diag([1, 1, 2, 1])), repeats=0)
    assert {each.structure.name for each in thick.structures if not each.reliable} == {"caudate"}
    assert [warning for warning in thick.warnings if "drafts" in warning and "caudate (0.60)" in warning and "thalamus" not in warning]
    thick.write(tmp_path)
    found = {row["structure"]: (row["dice"], row["reliable"]) for row in rows(tmp_path / "volumes.tsv")}
    assert (found["caudate"], found["thalamus"], found["putamen"]) == (("0.60", "no"), ("0.80", "yes"), ("n/a", "yes"))


def test_tissues_are_the_sums_of_their_structures() -> None:
    found = dd.segment(coded_head(), repeats=2)
    volumes = {each.structure.full_name: each for each in found.structures}
    parts = [each for each in found.structures if each.structure.label and each.structure.name in ("caudate", "putamen", "accumbens")]
    assert len(parts) == 6
    assert volumes["striatum"].mm3 == pytest.approx(sum(each.mm3 for each in parts), rel=1e-4)
    assert volumes["striatum"].mm3 > volumes["left caudate"].mm3
    assert volumes["striatum"].interval is not None


def of(shape: Callable[[NDArray[np.float64]], Any], value: float = code("white matter")) -> Volume:
    grid = np.stack(np.meshgrid(*([np.linspace(-70, 70, 71)] * 3), indexing="ij"))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return Volume(np.where(shape(grid), value, 0).astype(np.float32), affine)


def with_bright_corner(volume: Volume) -> Volume:
    """With something that sets the scale of intensities."""
    data = volume.data.copy()
    data[:, :8, :8] = SKIN
    return volume.with_data(data)


BAD: dict[str, tuple[Volume, str]] = {
    "ball": (with_bright_corner(of(lambda p: (p**2).sum(0) < 60**2)), "is no brain"),
    "cube": (with_bright_corner(of(lambda p: np.abs(p).max(0) < 50)), "is no brain"),
    "nothing": (with_bright_corner(of(lambda p: (p**2).sum(0) < 60**2, 0.97 * SKIN)), "no brain is found"),
    "mask": (of(lambda p: (p**2).sum(0) < 60**2), "two values only"),
    "ct": (coded_head().with_data(coded_head().data * 1040 - 1000), "Hounsfield"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_head_is_refused(name: str) -> None:
    scan, words = BAD[name]
    with input_error(words):
        dd.segment(scan, repeats=0)


@pytest.mark.parametrize("shading", [0.0, 0.3])
def test_an_even_phantom_is_refused_whatever_the_network_sees_in_it(shading: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dynamicdps.pipeline.segmentation.open_network", lambda name, device: (BrainNetwork(Shells()), {"sha256": "of a test"})
    )
    ball = of(lambda p: (p**2).sum(0) < 60**2, 1.0)
    noise = 0.05 * np.random.default_rng(0).standard_normal(ball.shape)
    bent = np.exp(shading * np.linspace(-1, 1, ball.shape[0]))[:, None, None]
    with input_error("as in a phantom"):
        dd.segment(ball.with_data(np.abs(ball.data * bent + noise)), repeats=0)


def test_other_bad_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = coded_head()
    empty = head.with_data(np.pad(np.full((2, 2, 2), 0.1, np.float32), [(0, n - 2) for n in head.shape]))
    with input_error("is empty on the scan"):
        dd.segment(head, mask=str(empty.save(tmp_path / "empty.nii.gz")))
    with input_error("--repeats is 1"):
        dd.segment(head, repeats=1)
    with input_error("series 3"):
        dd.segment(head, series=3)
    with input_error("does not exist"):
        dd.segment(tmp_path / "none.nii.gz")
    monkeypatch.undo()
    monkeypatch.setattr("dynamicdps.pipeline.segmentation.known_models", lambda kinds: {})
    with input_error("there is no model that finds structures"):
        dd.segment(head)
