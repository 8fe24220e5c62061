"""The budget decides how many slices pass the network at once, and is kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dynamicdps.errors import InputError
from dynamicdps.solvers.memory import MOST_SLICES, chunk_within
from tests.properties import input_error

CARD = {"network": {"channels": [64, 128, 192]}}
HEAD = (160, 200, 180)


def test_more_memory_more_slices() -> None:
    chunks = [chunk_within(budget, HEAD, True, CARD, "float32") for budget in (2.4, 2.5, 2.7, 3.0, 8.0)]
    assert chunks == sorted(chunks)
    assert chunks[0] >= 1
    assert chunks[-1] == MOST_SLICES
    assert len(set(chunks)) > 3


def test_what_takes_less_leaves_more() -> None:
    plain = chunk_within(2.6, HEAD, True, CARD, "float32")
    assert chunk_within(2.6, HEAD, True, CARD, "bfloat16") > plain
    assert chunk_within(2.6, HEAD, False, CARD, "float32") > plain
    assert chunk_within(2.6, HEAD, True, CARD, "float32", kept=1) < plain
    assert chunk_within(2.6, HEAD, True, CARD, "float32", backward=True) < plain
    assert chunk_within(2.6, HEAD, True, {"network": {"channels": [128]}}, "float32") < plain


def test_too_little_is_said_with_what_is_needed() -> None:
    with input_error("limited to 1 GB; expected at least 2.3 GB .* raise --memory"):
        chunk_within(1.0, HEAD, True, CARD, "float32")
    assert chunk_within(2.4, HEAD, True, CARD, "float32") >= 1


@pytest.mark.parametrize("budget", [float("nan"), 0.0, -3.0])
def test_a_budget_that_is_none(budget: float) -> None:
    with input_error("memory is limited to"):
        chunk_within(budget, HEAD, True, CARD, "float32")
    assert chunk_within(float("inf"), HEAD, True, CARD, "float32") == MOST_SLICES


def test_the_least_that_is_accepted_lets_one_slice_pass() -> None:
    for size in range(100, 160):
        refused, accepted = 0.0, 100.0
        while (middle := (refused + accepted) / 2) not in (refused, accepted):
            try:
                chunk_within(middle, (size, 192, 192), True, CARD, "float32")
                accepted = middle
            except InputError:
                refused = middle
        assert chunk_within(accepted, (size, 192, 192), True, CARD, "float32") == 1


PROGRAM = """
import json, resource, sys
import numpy as np, torch
from dynamicdps.models.model_file import read_model
from dynamicdps.priors import load_prior
from dynamicdps.operators import LowField, ScanOperator, simulate
from dynamicdps.solvers import DynamicDPSConfig, solve
from dynamicdps.solvers.memory import chunk_within
from dynamicdps.volumes import Volume

budget, depth, thick, samples = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "thick", int(sys.argv[4])
operator = LowField(gamma=0.7, in_plane_factor=1.5, slice_thickness=5.0 if thick else None)
image = Volume(np.random.default_rng(0).random((144, 176, depth)).astype(np.float32), np.eye(4))
scan, tied = simulate(image, ScanOperator(operator, 0.03))
card = read_model("brain", "prior").card
chunk = chunk_within(budget, image.shape, thick, card, "float32", samples if samples > 1 else 0)
config = DynamicDPSConfig(samples=samples, steps=1, chunk=chunk, keep_samples=samples > 1)
solve("dynamicdps", scan, tied, load_prior("brain"), initial=image, config=config)
print(json.dumps({"chunk": chunk, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in kilobytes on Linux only")
@pytest.mark.parametrize(
    ("budget", "depth", "kind", "samples"),
    [
        (1.1, 20, "thick", 1),
        (1.5, 20, "thick", 1),
        (1.7, 90, "thick", 1),
        (1.2, 64, "thin", 1),
        (2.0, 90, "thick", 8),
        (1.7, 128, "thin", 16),
    ],
)
def test_the_budget_is_kept(budget: float, depth: int, kind: str, samples: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ran = subprocess.run(
        [sys.executable, str(program), str(budget), str(depth), kind, str(samples)], capture_output=True, text=True, check=True
    )
    found = json.loads(ran.stdout)
    assert found["chunk"] >= 1
    assert found["peak"] <= budget
