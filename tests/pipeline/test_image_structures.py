"""Structures of enhanced images: where there is a model, and what posterior samples say of them."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

import dynamicdps as dd
from dynamicdps.cli import main
from dynamicdps.pipeline.image_structures import image_structures
from dynamicdps.segmentation import BrainNetwork
from dynamicdps.volumes import Volume
from tests.segmentation.coded_heads import PAIRS, Shells, code, coded_head, coded_network

FILES = {"dseg.nii.gz", "dseg.tsv", "structures.tsv"}


def use(network: BrainNetwork | None, monkeypatch: pytest.MonkeyPatch, dice: dict[str, dict[str, float]] | None = None) -> None:
    """Make it the only model of brains; `None` for none."""
    home = "dynamicdps.pipeline.image_structures"
    monkeypatch.setattr(f"{home}.NETWORK_MM", 0.0)
    monkeypatch.setattr(f"{home}.known_models", lambda kinds: {} if network is None else {"brain-mask": Path("brain-mask.safetensors")})
    monkeypatch.setattr(f"{home}.load_brain_network", lambda name, device: network)
    card = {"sha256": "of a test", "structure_dice": dice or {}}
    monkeypatch.setattr(f"{home}.read_model", lambda name, kind: SimpleNamespace(card=card))


def resized(head: Volume, name: str, by: float) -> Volume:
    """The head with the left one of a pair larger or smaller by millimetres."""
    (px, py, pz), size = PAIRS[name]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in head.shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(index * 2.0 + head.affine[:3, 3], -1, 0)
    distance = np.sqrt((x + px) ** 2 + (y - py) ** 2 + (z - pz) ** 2)
    data = np.where(distance < size, code("white matter"), head.data)
    return head.with_data(np.where(distance < size + by, code(name), data))


def test_samples_that_differ_in_one_structure_have_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    use(coded_network(), monkeypatch)
    head = coded_head()
    samples = [resized(head, "thalamus", by) for by in (-1.0, 1.0)]
    found = image_structures(head, iter([*samples, head]), None, sided=True, edge_mm=2.0, device="cpu")
    ends = {each.structure.full_name: (each.interval, each.mm3) for each in found.volumes}
    (low, high), mm3 = ends["left thalamus"]  # type: ignore[misc]
    assert low < mm3 < high
    assert high - low > 0.3 * mm3
    (low, high), mm3 = ends["left hippocampus"]  # type: ignore[misc]
    assert high - low < 0.01 * mm3
    assert found.models == {"segmenter": "of a test"}


def finer(head: Volume) -> Volume:
    """The same on voxels of half the edge."""
    affine = head.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, 0.5)
    return Volume(np.kron(head.data, np.ones((2, 2, 2), head.data.dtype)), affine)


def test_samples_of_fine_images_have_intervals_from_their_own_intensities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one of them shows less of the head."""
    use(coded_network(), monkeypatch)
    head = coded_head()
    samples = [resized(head, "thalamus", by) for by in (-1.0, 1.0)]
    cut = samples[0].with_data(np.where(np.arange(head.shape[2]) < head.shape[2] - 4, samples[0].data, 0))
    for drawn in (samples, [cut, samples[1]]):
        found = image_structures(finer(head), map(finer, drawn), None, sided=True, edge_mm=1.0, device="cpu")
        ends = {each.structure.full_name: (each.interval, each.mm3) for each in found.volumes}
        (low, high), mm3 = ends["left thalamus"]  # type: ignore[misc]
        assert low < mm3 < high
        assert high - low > 0.2 * mm3
        (low, high), mm3 = ends["left hippocampus"]  # type: ignore[misc]
        assert high - low < 0.05 * mm3


def test_without_samples_there_are_no_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    use(coded_network(), monkeypatch)
    found = image_structures(coded_head(), [], None, sided=False, edge_mm=2.0, device="cpu")
    assert {each.interval for each in found.volumes} == {None}
    assert not found.sided


def test_poor_structures_are_marked_and_a_model_of_none_but_poor_ones_reports_none(monkeypatch: pytest.MonkeyPatch) -> None:
    use(coded_network(), monkeypatch, {"5": {"thalamus": 0.8, "caudate": 0.6}})
    found = image_structures(coded_head(), [], None, sided=True, edge_mm=5.0, device="cpu")
    assert {each.structure.name for each in found.volumes if not each.reliable} == {"caudate"}
    assert "caudate (0.60)" in found.warnings[0]
    use(coded_network(), monkeypatch, {"5": {"thalamus": 0.5, "caudate": 0.6}})
    assert image_structures(coded_head(), [], None, sided=True, edge_mm=5.0, device="cpu").labels is None


def test_a_thin_slab_has_no_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    use(coded_network(), monkeypatch)
    head = coded_head()
    slab = Volume(head.data[:, :, 20:36].copy(), head.affine)
    assert image_structures(slab, [], None, sided=True, edge_mm=2.0, device="cpu").labels is not None
    monkeypatch.setattr("dynamicdps.pipeline.image_structures.NETWORK_MM", 80.0)
    assert image_structures(slab, [], None, sided=True, edge_mm=2.0, device="cpu").labels is None


def test_an_enhanced_scan_has_structures_where_there_is_a_model(
    poor: Path, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    use(BrainNetwork(Shells()), monkeypatch)
    with_model = dd.enhance(poor, **quick)
    page = with_model.write(out).read_text(encoding="utf-8")
    assert {p.name for p in out.iterdir()} >= FILES
    labels = nibabel.load(out / "dseg.nii.gz")
    np.testing.assert_allclose(labels.affine, nibabel.load(out / "enhanced.nii.gz").affine)
    assert labels.shape == with_model.image.shape
    with (out / "structures.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert sum(float(row["mm3"]) for row in rows) > 0
    assert all(float(row["low"]) <= float(row["mm3"]) <= float(row["high"]) for row in rows)
    assert json.loads((out / "run.json").read_text())["models"]["segmenter"] == "of a test"
    assert "Volumes of structures" in page
    use(None, monkeypatch)
    without = dd.enhance(poor, **quick)
    np.testing.assert_array_equal(without.image.data, with_model.image.data)
    assert without.volumes == with_model.volumes
    page = without.write(out).read_text(encoding="utf-8")
    assert not FILES & {p.name for p in out.iterdir()}
    assert "Volumes of structures" not in page
    assert "segmenter" not in json.loads((out / "run.json").read_text())["models"]


def test_what_is_no_brain_is_a_warning(poor: Path, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(coded_network(), monkeypatch)
    result = dd.enhance(poor, **quick)
    assert any(warning.startswith("the structures are unknown: ") for warning in result.warnings)
    words = ["enhance", str(poor), "--out", str(tmp_path / "out"), "--samples", "1", "--steps", "1", "--mask", "none"]
    assert main([*words, "--prior", quick["prior"], "--conditional", quick["conditional"]]) == 0
    assert not FILES & {p.name for p in (tmp_path / "out").iterdir()}
