"""Files are whole or the ones before, and a link that lies in the way leads nowhere."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dynamicdps.atomic_file import atomic_folder, atomic_write
from dynamicdps.cli.pictures import write_sheet
from dynamicdps.cohort.derivatives import write_text
from dynamicdps.evaluation.benchmark import Cell, Results, Row, write_slices, write_table
from dynamicdps.evaluation.benchmark.folder import slice_path
from dynamicdps.evaluation.benchmark.plotting import new_figure, save
from dynamicdps.json_file import read_json, write_json
from dynamicdps.models.model_file import write_model
from dynamicdps.operators import preset
from dynamicdps.report.page import write_html
from dynamicdps.report.trace import write_rows
from dynamicdps.training.loop import TrainingConfig, TrainingState
from dynamicdps.volumes.stack import save_stack
from tests.conftest import make_phantom
from tests.evaluation.benchmark.made import row

PACKAGE = Path(__file__).parents[1] / "src" / "dynamicdps"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_is_there_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(path) as partial:
        assert partial == path.with_name(".partial-a.txt")
        partial.write_text("a")
        assert not path.exists()
    assert names(path.parent) == ["a.txt"]
    assert path.read_text() == "a"


def test_the_file_before_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write() -> None:
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "before"


def test_leftovers_are_not_written_on(tmp_path: Path) -> None:
    (tmp_path / ".partial-a.txt").write_text("of an earlier run")
    with atomic_write(tmp_path / "a.txt") as partial:
        assert not partial.exists()
        partial.write_text("a")
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("leftover", [None, "folder", "link", "file"])
def test_a_folder_is_there_at_the_end_and_not_before(leftover: str | None, tmp_path: Path) -> None:
    path, partial, theirs = tmp_path / "out" / "a", tmp_path / "out" / ".partial-a", tmp_path / "theirs"
    for folder in (theirs, path):
        folder.mkdir(parents=True)
    (theirs / "b.txt").write_text("kept")
    if leftover == "folder":
        partial.mkdir()
        (partial / "old.txt").write_text("of an earlier run")
    elif leftover == "link":
        partial.symlink_to(theirs)
    elif leftover == "file":
        partial.write_text("of an earlier run")
    with atomic_folder(path) as given:
        assert (given, names(given), names(path)) == (partial, [], [])
        (given / "b.txt").write_text("b")
    assert (names(path.parent), names(path)) == (["a"], ["b.txt"])
    assert (theirs / "b.txt").read_text() == "kept"


def test_a_folder_stays_as_it_was_where_writing_fails(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        with atomic_folder(path) as partial:
            (partial / "half.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a")
    assert names(tmp_path) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("before")
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "full"):
        pass
    assert (names(tmp_path), names(tmp_path / "full")) == (["full"], ["a.txt"])


def test_what_is_set_of_the_file_is_kept(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt") as partial:
        partial.write_text("a")
        partial.chmod(0o604)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o604


def test_json_comes_back_and_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, 2.5, None, "\N{MINUS SIGN}"]})
    assert read_json(path) == {"a": [1, 2.5, None, "\N{MINUS SIGN}"]}
    assert path.read_text().startswith('{\n  "a": [\n')
    with pytest.raises(TypeError):
        write_json(path, {"b": object()})
    assert "a" in json.loads(path.read_text())
    assert names(tmp_path) == ["a.json"]


def save_figure(path: Path) -> None:
    save(new_figure(1.0), path)


def save_slices(path: Path) -> None:
    folder, key = path.parents[2], ("sub-01", "condition", "solver")
    assert slice_path(folder, "sub-01", "condition", "truth") == path
    write_slices(folder, Cell(key, Results(), {"truth": np.zeros((4, 4), np.float32)}), ())


def save_checkpoint(path: Path) -> None:
    TrainingState.start(nn.LayerNorm(2), TrainingConfig()).save(path)


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "volume": ("a.nii.gz", lambda path: make_phantom((8, 8, 4)).save(path)),
    "stack": ("a.nii", lambda path: save_stack([make_phantom((8, 8, 4))], path)),
    "json": ("a.json", lambda path: write_json(path, {})),
    "operator": ("a.json", preset("iqt-in").save),
    "model": ("a.safetensors", lambda path: write_model(path, {"a": torch.ones(2)}, {})),
    "checkpoint": ("checkpoint.safetensors", save_checkpoint),
    "table": ("results.csv", lambda path: write_table(path, [row("a", "x", 1.0)], Row)),
    "slices": ("slices/condition/sub-01_truth.npz", save_slices),
    "figure": ("a.png", save_figure),
    "sheet": ("a.png", lambda path: write_sheet(path, torch.zeros(2, 1, 8, 8), "a")),
    "rows": ("a.csv", lambda path: write_rows(path, [{"a": 1.0}])),
    "page": ("a.html", lambda path: write_html(path, "a")),
    "text": ("a.txt", lambda path: write_text(path, "a")),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_links_are_replaced(kind: str, tmp_path: Path) -> None:
    name, write = WRITERS[kind]
    path, theirs = tmp_path / "out" / name, tmp_path / "theirs"
    theirs.write_text("kept")
    write(path)
    content = path.read_bytes()
    path.unlink()
    for link in (path, path.with_name(f".partial-{path.name}")):
        link.symlink_to(theirs)
    write(path)
    assert theirs.read_text() == "kept"
    assert not path.is_symlink()
    assert path.read_bytes() == content
    assert not list(path.parent.glob(".partial-*"))


def test_all_use_it() -> None:
    """Nobody else names partial files: each would have to think of links and leftovers anew."""
    found = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if ".partial-" in path.read_text(encoding="utf-8")]
    assert found == ["atomic_file.py"]
