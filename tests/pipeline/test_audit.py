"""An image against its scan: one that is right is not contradicted, lesions that it lost or invented are found where they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dynamicdps as dd
from dynamicdps.operators import LowField, Noise, ScanOperator, simulate
from dynamicdps.output_names import AUDITED
from dynamicdps.volumes import Volume
from tests.pipeline.head_scans import one_head
from tests.properties import input_error

SCANNER = ScanOperator(LowField(in_plane_factor=1.5, slice_thickness=4.0, gamma=0.7), Noise(0.03))
# In white matter and at its border, in voxels of the phantom; diameters in mm.
LESIONS = (((40, 26, 20), 6.0), ((14, 30, 24), 8.0))


def scan_of(head: Volume, seed: int = 0) -> tuple[Volume, ScanOperator]:
    return simulate(head, SCANNER, seed=seed)


def with_ball(head: Volume, centre: tuple[int, int, int], diameter: float, contrast: float) -> Volume:
    x, y, z = np.meshgrid(*map(np.arange, head.shape), indexing="ij")
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < (diameter / 2) ** 2
    return head.with_data(head.data + contrast * inside)


def place_of(head: Volume, centre: tuple[int, int, int]) -> Any:
    return (head.affine @ [*centre, 1])[:3]


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_is_not_contradicted(seed: int) -> None:
    head = one_head(seed)
    measurement, operator = scan_of(head, seed)
    found = dd.audit(head, measurement, operator=operator, mask="none")
    assert found.regions == ()
    assert found.data_misfit == pytest.approx(1, abs=0.03)
    assert found.warnings == ()


@pytest.mark.parametrize(("centre", "diameter"), LESIONS)
@pytest.mark.parametrize("contrast", [-0.3, 0.3])
def test_lesions_that_an_image_lost_or_invented_are_found(centre: tuple[int, int, int], diameter: float, contrast: float) -> None:
    head = one_head()
    lesioned = with_ball(head, centre, diameter, contrast)
    for image, truth, words in ((head, lesioned, "lost"), (lesioned, head, "invented")):
        measurement, operator = scan_of(truth)
        found = dd.audit(image, measurement, operator=operator, mask="none")
        (region,) = found.regions
        assert np.linalg.norm(np.array(region.place_mm) - place_of(head, centre)) < 3
        brighter = contrast > 0 if words == "lost" else contrast < 0
        assert region.scan_is == ("brighter" if brighter else "darker")
        assert (region.difference > 0) is brighter
        assert region.image in (words, "changed")
        assert 30 < region.mm3 < 700
        # The data step leads the image the right way there.
        assert np.sign(found.correction.data[centre]) == (1 if brighter else -1)
        if centre == LESIONS[0][0]:
            assert region.image == words


def test_what_is_finer_than_the_scan_is_not_contradicted_but_shown(tmp_path: Path) -> None:
    """Stripes within a slice."""
    head = one_head()
    measurement, operator = scan_of(head)
    stripes = np.where(np.arange(head.shape[2]) % 2, 0.1, -0.1)[None, None, :] * (head.data > 0.5)
    plain, striped = (dd.audit(x, measurement, operator=operator, mask="none") for x in (head, head.with_data(head.data + stripes)))
    assert striped.regions == ()
    assert striped.hallucination is not None
    assert plain.hallucination is not None
    assert striped.unsupported_share is not None
    assert plain.unsupported_share is not None
    assert striped.unsupported_share > plain.unsupported_share + 0.005
    seen = (striped.hallucination.data - plain.hallucination.data)[10:-10, 10:-10, 10:-10]
    assert np.corrcoef(seen.ravel(), stripes[10:-10, 10:-10, 10:-10].ravel())[0, 1] > 0.8
    written = striped.write(tmp_path / "out")
    assert {path.name for path in written.parent.iterdir()} == set(AUDITED)
    assert (tmp_path / "out" / "contradictions.tsv").read_text().splitlines() == [
        "region\timage\tscan_is\tx_mm\ty_mm\tz_mm\tmm3\tdifference\tstrength"
    ]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["data_misfit"] == pytest.approx(striped.data_misfit)


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = one_head()
    measurement, operator = scan_of(with_ball(head, *LESIONS[0], 0.3))
    found = dd.audit(head, measurement, operator=operator, mask="none")
    found.write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len((tmp_path / "contradictions.tsv").read_text().splitlines()) == 2
    assert "What the scan contradicts" in (tmp_path / "report.html").read_text()

    def fails(*given: Any) -> None:
        raise OSError("full")

    monkeypatch.setattr("dynamicdps.pipeline.audited.write_report", fails)
    other = dd.audit(head, scan_of(head)[0], operator=operator, mask="none")
    with pytest.raises(OSError, match="full"):
        other.write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_an_operator_it_is_fitted_to_the_pair() -> None:
    """A lesion is found all the same, in an image of another contrast and other units."""
    head, centre = one_head(), LESIONS[0][0]
    measurement = scan_of(with_ball(head, *LESIONS[0], -0.4))[0]
    found = dd.audit(head.with_data(700 * head.data**1.2), measurement, mask="none", contrast="T1w")
    assert found.fit is not None
    assert found.fit.scan_operator is found.operator
    assert any(np.linalg.norm(np.array(each.place_mm) - place_of(head, centre)) < 3 and each.scan_is == "darker" for each in found.regions)


def test_what_is_no_image_of_the_scan_is_refused() -> None:
    head = one_head()
    measurement, operator = scan_of(head)
    given = {"operator": operator, "mask": "none"}
    moved = head.affine.copy()
    moved[:2, 3] += 14
    with input_error("does not show what array shows"):
        dd.audit(Volume(head.data, moved), measurement, **given)
    moved[:3, 3] += 300
    with input_error("shows 0% of the brain of the scan"):
        dd.audit(Volume(head.data, moved), measurement, **given)
    with pytest.raises(TypeError, match="the image is of type ndarray"):
        dd.audit(head.data, measurement, **given)
    with pytest.raises(TypeError, match="there is no option 'solver'"):
        dd.audit(head, measurement, solver="dps")
    with input_error("comes without its noise"):
        dd.audit(head, measurement, operator=operator.operator)  # type: ignore[arg-type]
