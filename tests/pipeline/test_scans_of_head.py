"""Several scans of one head: their poses, and the one image that explains them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

import dynamicdps as dd
from dynamicdps.operators import ScanOperator
from dynamicdps.output_names import MEASUREMENT, RESIDUAL, numbered
from dynamicdps.pipeline.plan import Plan
from dynamicdps.pipeline.poses import ScanToAlign, find_poses
from dynamicdps.solvers import StartLevelRule
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import Grid, native_grid, prior_grid, sample
from tests.pipeline.head_scans import movement, one_head, scan_from, scanner_of
from tests.properties import input_error

PLACES = (np.eye(4), movement(3, 2, 1), movement(4, 3, 2))


def to_align(scan: Volume, across: int, contrast: str = "") -> ScanToAlign:
    """With the scan itself, interpolated, as its enhanced image."""
    operator = scanner_of(across)
    shape, affine = ScanOperator(operator, 0.02).grid_for(scan)
    return ScanToAlign(scan, scan.data > 0.1, operator, sample(scan, Grid(shape, affine), order=1), contrast)


def inverted(head: Volume) -> Volume:
    """Bright where the head is dark, black where it is black."""
    return head.with_data(np.where(head.data > 0.05, 1.2 - 0.9 * head.data, 0).astype(np.float32))


def error(pose_a: np.ndarray, pose_b: np.ndarray) -> tuple[float, float]:
    """How far two places of the head lie apart at its middle, mm, and the angle between them, degrees."""
    between = np.linalg.inv(pose_a) @ pose_b
    return float(np.linalg.norm(apply_affine(between, np.zeros(3)))), float(np.rad2deg(Rotation.from_matrix(between[:3, :3]).magnitude()))


@pytest.mark.parametrize(
    "places", [(np.eye(4),) * 3, PLACES, PLACES[:2]], ids=["headers are right", "headers are wrong", "headers of two are wrong"]
)
def test_poses_are_found(places: tuple[np.ndarray, ...]) -> None:
    head, axes = one_head(), (2, 1, 0)[: len(places)]
    scans = [scan_from(head, across, place, seed=across) for across, place in zip(axes, places, strict=True)]
    poses = find_poses([to_align(scan, across) for scan, across in zip(scans, axes, strict=True)])
    # What brings a scan to the head brings its pose there too, but for a movement that all have in common.
    common = [place @ np.linalg.inv(pose.movement) for place, pose in zip(places, poses, strict=True)]
    for other in common[1:]:
        millimetres, degrees = error(common[0], other)
        assert millimetres < 0.3
        assert degrees < 0.5
    assert min(pose.correlation for pose in poses) > 0.9
    shifts = np.mean([pose.shift_mm for pose in poses], axis=0)
    np.testing.assert_allclose(shifts, 0, atol=1e-6)


def test_the_pose_of_another_contrast_is_found() -> None:
    """Against a scan that falls where the other rises and has a shading of its own; what was taken in the first contrast stays."""
    head, place = one_head(), movement(3, 4, 5)
    bright, dark = scan_from(head, 2, np.eye(4), seed=1), scan_from(inverted(head), 2, place, seed=2)
    shade = np.linspace(0.85, 1.15, dark.shape[0], dtype=np.float32)[:, None, None]
    found = find_poses([to_align(bright, 2, "T1w"), to_align(dark.with_data(dark.data * shade), 2, "T2w")])
    np.testing.assert_allclose(found[0].movement, np.eye(4), atol=1e-9)
    millimetres, degrees = error(np.eye(4), place @ np.linalg.inv(found[1].movement))
    assert millimetres < 0.5
    assert degrees < 0.8
    assert min(pose.correlation for pose in found) > 0.75


def test_scans_that_share_nothing_are_not_alike() -> None:
    head, halves = one_head(), []
    for first, last in ((0, 18), (30, 48)):
        shift = np.eye(4)
        shift[2, 3] = first
        halves.append(to_align(scan_from(Volume(head.data[:, :, first:last], head.affine @ shift), 2, np.eye(4)), 2))
    for pose in find_poses(halves):
        np.testing.assert_allclose(pose.movement, np.eye(4), atol=1e-9)
        assert pose.correlation == 0
        assert pose.to_json()["error_mm"] == [None] * 3


def test_the_order_of_scans_changes_no_pose() -> None:
    head = one_head()
    scans = [to_align(scan_from(head, across, place, seed=across), across) for across, place in zip((2, 1, 0), PLACES, strict=True)]
    poses, swapped = find_poses(scans), find_poses([scans[2], scans[0], scans[1]])
    for pose, other in zip(poses, (swapped[1], swapped[2], swapped[0]), strict=True):
        millimetres, degrees = error(pose.movement, other.movement)
        assert millimetres < 0.1
        assert degrees < 0.1


@pytest.fixture
def stacks(tmp_path: Path) -> list[Path]:
    """Three orthogonal stacks of one head with their operators, in units of their own."""
    head, paths = one_head(), []
    for number, (across, place) in enumerate(zip((2, 1, 0), PLACES, strict=True)):
        path = tmp_path / f"stack-{number}_T1w.nii.gz"
        scan_from(head, across, place, scale=100.0 + 40 * number, seed=across).save(path)
        ScanOperator(scanner_of(across), 0.02, intensity_scale=100.0 + 40 * number).save(tmp_path / f"stack-{number}_T1w.operator.json")
        paths.append(path)
    return paths


@pytest.fixture
def settings(quick: dict[str, Any]) -> dict[str, Any]:
    models = {name: quick[name] for name in ("prior", "conditional")}
    return models | {"solver": "data-step", "contrast": "T1w", "mask": "none"}


def misalignment(image: Volume, head: Volume, smooth: float = 0.0) -> float:
    """Root mean square difference from the head inside it, units of the head; the image's own are matched first, and both smoothed."""
    found = sample(image, native_grid(head), order=1).data
    found, truth = (ndimage.gaussian_filter(data, smooth) if smooth else data for data in (found, head.data))
    inside = head.data > 0.1
    gain = float((found[inside] * truth[inside]).sum() / (found[inside] ** 2).sum())
    return float(np.sqrt(np.mean((gain * found - truth)[inside] ** 2)))


def test_three_stacks_make_one_image_that_explains_them(stacks: list[Path], settings: dict[str, Any], tmp_path: Path) -> None:
    found = dd.enhance(stacks, **settings)
    one = dd.enhance(stacks[0], **settings)
    assert found.image.spacing == pytest.approx((1, 1, 1))
    assert len(found.others) == 2
    assert found.metrics["data-step"].data_misfit is not None
    assert found.metrics["data-step"].data_misfit < 2.5
    shares = [scan["share_of_information"] for scan in found.facts["scans"]]
    assert sum(shares) == pytest.approx(1, abs=0.01)
    # All have one noise and about as many voxels.
    assert min(shares) > 0.2
    # Of what lies across its slices a scan knows least; along each axis they know all that is known.
    along = np.array([scan["share_along_axes"] for scan in found.facts["scans"]])
    np.testing.assert_allclose(along.sum(0), 1, atol=0.01)
    assert along.argmin(1).tolist() == [2, 1, 0]
    assert along.min() < 0.2
    # The image lies in the mean place of the scans: put there, the head is what it shows, better than by one stack.
    movements = [np.array(scan["pose"]["movement"]) for scan in found.facts["scans"]]
    to_head = [place @ np.linalg.inv(m) for place, m in zip(PLACES, movements, strict=True)]
    head = one_head()
    together = Volume(head.data, np.linalg.inv(to_head[0]) @ head.affine)
    assert misalignment(found.image, together) < 0.9 * misalignment(one.image, head)

    folder = tmp_path / "out"
    found.write(folder)
    for number in (2, 3):
        shown, residual = (dd.load(folder / numbered(name, number)) for name in (MEASUREMENT, RESIDUAL))
        assert shown.shape == residual.shape == dd.load(stacks[number - 1]).shape
    assert json.loads((folder / "run.json").read_text())["arguments"]["scan"] == [str(path) for path in stacks]
    # What one scan leaves in the same place has no second one.
    one.write(folder)
    assert not list(folder.glob("measurement-*"))


def test_all_scans_are_announced_with_their_time(stacks: list[Path], settings: dict[str, Any]) -> None:
    known = settings | {"solver": "dynamicdps", "samples": 2, "steps": 1, "start_sigma": 0.05}
    plans: list[Plan] = []
    for scans in (stacks[:2], stacks[0]):
        dd.enhance(scans, announce=plans.append, **known)
    two, one = plans
    assert [words.split(",")[0] for name, words in two.rows if name == "scan"] == [str(path) for path in stacks[:2]]
    assert two.seconds["initial"] > one.seconds["initial"]


def test_the_page_says_where_each_scan_lies(stacks: list[Path], settings: dict[str, Any], tmp_path: Path) -> None:
    page = dd.enhance(stacks[:2], **settings).write(tmp_path / "out").read_text()
    for words in ("stack-0_T1w.nii.gz", "stack-1_T1w.nii.gz", "turned by, degrees", "share of the information", "details of 2 mm"):
        assert words in page


def test_the_order_of_scans_does_not_matter(stacks: list[Path], settings: dict[str, Any]) -> None:
    first, other = dd.enhance(stacks, **settings), dd.enhance(stacks[::-1], **settings)
    np.testing.assert_array_equal(first.image.data, other.image.data)
    np.testing.assert_array_equal(first.measurement.data, other.others[-1].measurement.data)
    np.testing.assert_array_equal(first.residual.data, other.others[-1].residual.data)


def test_the_mean_of_several_images_starts_lower_than_one(stacks: list[Path], settings: dict[str, Any]) -> None:
    """By the root of their number; an image that is given is one."""
    known = settings | {"solver": "dynamicdps", "samples": 2, "steps": 1}
    three = dd.enhance(stacks, **known)
    given = dd.enhance(stacks, initial=three.result.initial, **known)
    (lowered, calibrated) = (each.start_rule for each in (three, given))
    assert isinstance(lowered, StartLevelRule)
    assert isinstance(calibrated, StartLevelRule)
    np.testing.assert_allclose(lowered.sigma, np.array(calibrated.sigma) / 3**0.5, rtol=0.05)


def test_a_copy_counts_once(stacks: list[Path], settings: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy_T1w.nii.gz"
    copy.write_bytes(stacks[1].read_bytes())
    (tmp_path / "copy_T1w.operator.json").write_bytes((tmp_path / "stack-1_T1w.operator.json").read_bytes())
    two, three = dd.enhance(stacks[:2], **settings), dd.enhance([*stacks[:2], copy], **settings)
    np.testing.assert_array_equal(two.image.data, three.image.data)
    assert any("counts once" in warning for warning in three.warnings)
    with input_error("give it once"):
        dd.enhance([stacks[1], copy], **settings)


def test_a_slab_of_thin_slices_beside_a_thick_stack(settings: dict[str, Any], tmp_path: Path) -> None:
    """The image covers both, also where one reaches beyond the other, and is better where both are."""
    head, paths, scans = one_head(), [], []
    for name, first, last, thickness in (("stack", 0, 42, 6.0), ("slab", 18, 50, 1.0)):
        shift = np.eye(4)
        shift[2, 3] = first
        part = Volume(head.data[:, :, first:last], head.affine @ shift)
        scan = scan_from(part, 2, np.eye(4), scale=100.0, seed=first, thickness=thickness)
        paths.append(scan.save(tmp_path / f"{name}_T1w.nii.gz"))
        scans.append(scan)
        ScanOperator(scanner_of(2, thickness), 0.02, intensity_scale=100.0).save(tmp_path / f"{name}_T1w.operator.json")
    both, one = dd.enhance(paths, **settings), dd.enhance(paths[0], **settings)
    movements = [np.array(scan["pose"]["movement"]) for scan in both.facts["scans"]]
    for scan, brought in zip(scans, movements, strict=True):
        seen = apply_affine(np.linalg.inv(both.image.affine) @ brought @ scan.affine, np.argwhere(scan.data > 20))
        assert (seen.min(0) >= -0.5).all()
        assert (seen.max(0) <= np.array(both.image.shape) - 0.5).all()
    shift[2, 3] = 22
    shared = Volume(head.data[:, :, 22:38], head.affine @ shift)
    there = Volume(shared.data, movements[0] @ shared.affine)
    # Edges in the plane, which neither scan shows as sharp as the phantom has them, would drown what thick slices miss.
    assert misalignment(both.image, there, 1.0) < 0.8 * misalignment(one.image, shared, 1.0)
    # Thin slices are many: most of the information is theirs.
    shares = [scan["share_of_information"] for scan in both.facts["scans"]]
    assert shares[1] > shares[0]


def test_what_does_not_belong_together_is_refused(stacks: list[Path], settings: dict[str, Any], tmp_path: Path) -> None:
    noise = dd.load(stacks[1])
    rng = np.random.default_rng(0)
    other = noise.with_data(np.where(noise.data > 5, 60 + 25 * rng.standard_normal(noise.shape), 0).clip(0).astype(np.float32))
    path = other.save(tmp_path / "other_T1w.nii.gz")
    (tmp_path / "other_T1w.operator.json").write_bytes((tmp_path / "stack-1_T1w.operator.json").read_bytes())
    with input_error("other_T1w.nii.gz does not show what the other scans show"):
        dd.enhance([*stacks[:1], *stacks[2:], path], **settings)
    kept = dd.enhance([*stacks[:1], *stacks[2:], path], keep_all=True, **settings)
    assert any("--keep-all" in warning for warning in kept.warnings)


@pytest.mark.parametrize(("first", "units"), [(0, 1e-3), (1, 1.0)], ids=["units of its own", "units of the scan"])
def test_an_initial_image_lies_in_the_space_of_the_first_scan(
    first: int, units: float, stacks: list[Path], settings: dict[str, Any]
) -> None:
    """Wherever the scans are brought to, the image goes with the first one; the solver starts from it."""
    head, order = one_head(), [stacks[first], stacks[1 - first]]
    scale = (100.0 + 40 * first) * units
    # On a grid of its own, in the place that the first scan's header says.
    there = Volume(head.data * scale, np.linalg.inv(PLACES[first]) @ head.affine)
    own = sample(there, prior_grid(there, 0.9), order=3)
    known = settings | {"solver": "conditional"}
    found = dd.enhance(order, initial=own, **known)
    without = dd.enhance(order, **known)
    assert found.facts["initial"].startswith("volume array")
    assert not any("initial image" in warning for warning in found.warnings)
    movement = np.array(found.facts["scans"][0]["pose"]["movement"])
    place = movement @ np.linalg.inv(PLACES[first])
    expected = Volume(head.data, place @ head.affine)
    assert misalignment(found.image, expected) < 0.6 * misalignment(without.image, expected)
    # In the units of the others' images, whichever scan comes first.
    inside = without.image.data > 0.3 * without.image.data.max()
    assert np.median(found.image.data[inside]) == pytest.approx(np.median(without.image.data[inside]), rel=0.1)


def test_an_initial_image_from_elsewhere(stacks: list[Path], settings: dict[str, Any]) -> None:
    head, known = one_head(), settings | {"solver": "conditional"}
    shifted = np.eye(4)
    shifted[0, 3] = 15
    found = dd.enhance(stacks[:2], initial=Volume(head.data, shifted @ head.affine), **known)
    assert any("is given first; check its affine" in warning for warning in found.warnings)
    shifted[0, 3] = 500
    with input_error("do not overlap"):
        dd.enhance(stacks[:2], initial=Volume(head.data, shifted @ head.affine), **known)
