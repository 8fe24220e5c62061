"""A scan in batches of slices is the scan as a whole."""

import numpy as np
import pytest
import torch

from dynamicdps.operators import LowField, ScanOperator, simulate
from dynamicdps.solvers import DynamicDPSConfig, Result, make_config, register, solve
from dynamicdps.volumes import Volume
from tests.conftest import make_phantom
from tests.solvers.test_solve_kspace import Smoother

SCANNER = ScanOperator(LowField(gamma=0.7, in_plane_factor=2.0), 0.02)
PER_IMAGE = ("image", "misfit", "nfe", "nbackward", "start_sigma", "uncertainty", "samples")


@pytest.fixture(scope="module")
def truth() -> Volume:
    """Slices of different anatomy, so that their start levels differ."""
    return make_phantom((32, 40, 5), (1.0, 1.0, 6.0))


def solved(truth: Volume, batch_size: int, progress: list[tuple[int, int]] | None = None, name: str = "dynamicdps") -> Result:
    scan, operator = simulate(truth, SCANNER, seed=0)
    initial = truth.with_data(truth.data * np.linspace(0.7, 1.1, truth.shape[2], dtype=np.float32))
    config = DynamicDPSConfig(samples=2, steps=3, keep_samples=True) if name == "dynamicdps" else make_config(name, {})
    return solve(
        name,
        scan,
        operator,
        Smoother(),
        initial=initial,
        seed=4,
        config=config,
        batch_size=batch_size,
        progress=None if progress is None else lambda done, planned: progress.append((done, planned)),
    )


@pytest.fixture(scope="module")
def whole(truth: Volume) -> Result:
    return solved(truth, 5)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_change_nothing(truth: Volume, whole: Result, batch_size: int) -> None:
    parts = solved(truth, batch_size)
    for name in PER_IMAGE:
        found, expected = getattr(parts.reconstruction, name), getattr(whole.reconstruction, name)
        assert found.shape == expected.shape, name
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(parts.volume.data, whole.volume.data, rtol=0, atol=2e-4 * whole.scale.scale)
    assert len(parts.samples) == 2
    assert parts.reconstruction.operator_calls <= whole.reconstruction.operator_calls
    assert len(parts.trace) == len(whole.trace)
    for one, other in zip(parts.trace, whole.trace, strict=True):
        assert one.step == other.step
        torch.testing.assert_close(one.sigma, other.sigma, rtol=1e-3, atol=1e-5)
        assert len(one.misfit) == truth.shape[2]


def test_progress_counts_all_slices(truth: Volume) -> None:
    seen: list[tuple[int, int]] = []
    solved(truth, 2, seen)
    assert len({planned for _, planned in seen}) == 1
    done = [count for count, _ in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1]


def test_a_solver_without_steps_has_no_trace_to_join(truth: Volume) -> None:
    found = solved(truth, 2, name="conditional")
    assert found.trace == []
    assert (found.reconstruction.nfe == 0).all()
    assert len(found.reconstruction.image) == truth.shape[2]


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="there is a solver 'dps' already"):
        register("dps", config=DynamicDPSConfig)(lambda *arguments, **settings: None)  # type: ignore[type-var]
