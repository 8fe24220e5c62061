from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynamicdps.evaluation.benchmark import Cell, Results, write_benchmark, write_slices
from dynamicdps.evaluation.benchmark.examples import median_subject
from dynamicdps.evaluation.benchmark.folder import read_slice
from dynamicdps.evaluation.benchmark.plotting import LARGEST_BYTES, looks
from dynamicdps.evaluation.benchmark.summary import REFERENCES, measured
from tests.evaluation.benchmark.made import CONDITION, benchmark, lesion, row

SOLVERS = ("conditional", "data-step", "dynamicdps", "tv")


@pytest.fixture
def results() -> Results:
    rng = np.random.default_rng(0)
    found = benchmark(
        {solver: (20 + i + rng.normal(size=5)).tolist() for i, solver in enumerate(SOLVERS)},
        {solver: rng.uniform(0.01, 0.2, 5).tolist() for solver in SOLVERS},
    )
    found.lesions = [lesion(f"sub-{i}", solver, float(rng.uniform(0, 1)), number=1 + i) for i in range(5) for solver in SOLVERS]
    return found


def keep_slices(folder: Path, subject: str) -> None:
    rng = np.random.default_rng(1)
    truth = np.zeros((60, 50), np.float32)
    truth[10:50, 8:42] = rng.uniform(0.2, 1, (40, 34))
    for solver in SOLVERS:
        noisy = (truth + rng.normal(0, 0.05, truth.shape)).astype(np.float32)
        pictures = {"truth": truth, "measurement": truth, solver: noisy}
        write_slices(folder, Cell((subject, CONDITION, solver), Results(), pictures), REFERENCES)


def test_figures_are_small_and_the_same_every_time(results: Results, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    subject = median_subject(measured(results), CONDITION)
    assert subject is not None
    for folder in folders:
        keep_slices(folder, subject)
        write_benchmark(folder, results)
    names = sorted(path.name for path in (folders[0] / "figures").iterdir())
    assert names == ["cost.png", "example-unet_iqt-out.png", "lesions.png", "paired.png", "volumes.png"]
    for name in names:
        first, again = (folder / "figures" / name for folder in folders)
        assert first.read_bytes() == again.read_bytes()
        assert first.stat().st_size < LARGEST_BYTES
        with Image.open(first) as image:
            assert image.width == 1000


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    """Rows of older versions have neither volumes nor slices; one solver has nothing to compare with."""
    write_benchmark(tmp_path, Results([row("a", "x", 20.0, nfe=3), row("b", "x", 21.0, nfe=3)]))
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["cost.png"]


def test_solvers_are_told_apart() -> None:
    names = [*SOLVERS, *(f"solver-{i}" for i in range(40))]
    found = looks(names)
    assert len({(look.colour, look.marker) for look in found.values()}) == len(names)
    assert found["dynamicdps"] == looks(["other", "dynamicdps"])["dynamicdps"]


def test_the_median_subject(results: Results) -> None:
    values = {r.subject: r.psnr for r in results.rows if r.solver == "dynamicdps"}
    subject = median_subject(measured(results), CONDITION)
    assert values[str(subject)] == np.median(list(values.values()))
    alone = Results([row(f"sub-{i}", "conditional", psnr) for i, psnr in enumerate((3.0, 1.0, 2.0, 4.0))])
    assert median_subject(measured(alone), CONDITION) == "sub-2"
    assert median_subject(measured(Results([row("a", "tv", 1.0)])), CONDITION) is None


def test_slices_are_kept_of_the_references_alone(tmp_path: Path) -> None:
    keep_slices(tmp_path, "sub-1")
    kept = sorted(path.name for path in (tmp_path / "slices" / "unet_iqt-out").iterdir())
    assert kept == [f"sub-1_{name}.npz" for name in ("conditional", "data-step", "dynamicdps", "measurement", "truth")]
    truth = read_slice(tmp_path, "sub-1", CONDITION, "truth")
    assert truth is not None
    assert truth.shape == (60, 50)
    assert read_slice(tmp_path, "sub-1", CONDITION, "tv") is None
    wild = np.array([[np.inf, -np.inf], [1e9, 0.5]], np.float32)
    write_slices(tmp_path, Cell(("sub-1", CONDITION, "dynamicdps"), Results(), {"dynamicdps": wild}), REFERENCES)
    again = read_slice(tmp_path, "sub-1", CONDITION, "dynamicdps")
    np.testing.assert_array_equal(again, [[1e4, -1e4], [1e4, 0.5]])
