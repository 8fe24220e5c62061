"""Results in notebooks and figures."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import dynamicdps as dd
from dynamicdps.operators import LowField, ScanOperator, simulate
from dynamicdps.priors import Denoiser
from dynamicdps.report import plot, show
from dynamicdps.solvers import Result, solve
from tests.conftest import make_phantom


@pytest.fixture(scope="module")
def result() -> Result:
    phantom = make_phantom()
    scan, operator = simulate(phantom, ScanOperator(LowField(gamma=0.8, in_plane_factor=2.0), 0.02))

    class Nothing:
        """The data step asks no prior."""

        def __call__(self, x: Any, sigma: Any) -> Any:
            raise AssertionError

    prior: Denoiser = Nothing()
    solved = solve("data-step", scan, operator, prior, initial=phantom)
    return replace(solved, uncertainty=phantom.with_data(0.01 + 0.02 * np.abs(phantom.data)))


def test_a_figure_has_a_column_an_image_and_a_row_a_slice(result: Result) -> None:
    figure = plot(result, measurement=result.residual, truth=result.initial, slices=2)
    images = [axes for axes in figure.axes if axes.images]
    # Measurement, initial image, enhanced, truth, error, uncertainty; two colour bars.
    assert len(images) == 6 * 2
    assert len(figure.axes) == 6 * 2 + 2
    assert [text.get_text() for text in figure.texts if text.get_rotation() == 0] == [
        "measurement",
        "initial image",
        "enhanced",
        "truth",
        "error",
        "uncertainty",
    ]
    greys = {axes.images[0].get_clim() for axes in images[:8]}
    assert greys == {(0.0, result.scale.scale)}


def test_the_front_of_the_head_is_up_and_its_left_on_the_left(result: Result) -> None:
    (axes, *_) = plot(result, slices=1).axes
    drawn = axes.images[0]
    assert drawn.origin == "lower"
    np.testing.assert_allclose(np.asarray(drawn.get_array()).T.shape, np.asarray(drawn.get_array()).shape[::-1])
    assert np.asarray(drawn.get_array()).shape[0] > np.asarray(drawn.get_array()).shape[1]


@pytest.mark.skipif(find_spec("ipyniivue") is not None, reason="ipyniivue is installed")
def test_without_a_viewer_a_picture_is_shown(result: Result) -> None:
    picture = show(result)
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_a_viewer_gets_every_volume(result: Result) -> None:
    pytest.importorskip("ipyniivue", reason="ipyniivue is not installed; pip install '.[notebook]'")
    widget = show(result, truth=result.initial)
    assert [v.name for v in widget.volumes] == ["truth.nii.gz", "initial.nii.gz", "enhanced.nii.gz", "uncertainty.nii.gz"]
    assert {v.cal_max for v in widget.volumes[:3]} == {result.scale.scale}
    assert [v.opacity for v in widget.volumes] == [1, 1, 1, 0.5]


def test_the_package_offers_it() -> None:
    assert dd.report.show is show
