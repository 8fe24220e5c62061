"""One image behind scans of two contrasts: the curve that leads to the other one, its shading, and where it is not believed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dynamicdps as dd
from dynamicdps.data_term import DataTerm, data_step, join
from dynamicdps.operators import BiasField, HermiteCurve, LinearOperator, LowField, Scanner, ScanOperator, operator_from_json
from dynamicdps.output_names import RESIDUAL, numbered
from dynamicdps.pipeline.other_contrast import explain
from dynamicdps.volumes import Volume, to_batch
from tests.pipeline.head_scans import movement, one_head, scan_from, scanner_of
from tests.properties import input_error

NOISE = 0.02
# Black where nothing is, then bright fluid, grey and white matter.
FALLING = HermiteCurve(torch.tensor([0.0, 0.1, 0.2, 0.6, 0.95]), torch.tensor([0.0, 0.6, 1.0, 0.65, 0.4]))


def head() -> torch.Tensor:
    return to_batch(one_head().data.clip(0))


def linear() -> LinearOperator:
    return LowField(in_plane_factor=1.2, slice_thickness=3.0).linear


def scan_of(image: torch.Tensor, seed: int = 0) -> torch.Tensor:
    y = linear()(FALLING(image))
    return y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))


def term_of(y: torch.Tensor) -> DataTerm:
    return DataTerm(y, linear(), NOISE)  # type: ignore[arg-type]


def test_a_falling_curve_is_found_from_image_and_scan() -> None:
    found = explain(term_of(scan_of(head())), head(), (1.2, 1.2, 3.0), shading=False)
    x = torch.linspace(0.25, 0.9, 50)
    torch.testing.assert_close(found.curve(x.double()).float(), FALLING(x), atol=0.03, rtol=0)
    assert found.shading is None
    assert (found.weights > 0.95).float().mean() > 0.99


def test_shading_of_the_other_scan_is_its_own() -> None:
    coefficients = torch.zeros(2, 2, 2)
    coefficients[0, 0, 1], coefficients[1, 0, 0] = 0.2, -0.1
    y = scan_of(head())
    gain = BiasField(coefficients).gain(y)
    found = explain(term_of(gain * y), head(), (1.2, 1.2, 3.0))
    assert found.shading is not None
    bright = linear()(head()) > 0.3
    ratio = (found.shading.gain(y) / gain)[bright].log()
    assert float((ratio - ratio.mean()).abs().quantile(0.95)) < 0.03


def test_weights_fall_where_no_curve_explains_the_scan_and_nowhere_else() -> None:
    image = head()
    seen = FALLING(image)
    lesion = torch.zeros_like(image, dtype=torch.bool)
    lesion[..., 20:30, 24:36, 20:32] = True
    y = linear()(torch.where(lesion & (image > 0.3), 1.3, seen))
    y = y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    found = explain(term_of(y), image, (1.2, 1.2, 3.0), shading=False)
    inside, far = linear()(lesion.float())[0, 0], linear()(torch.nn.functional.max_pool3d(lesion.float(), 21, 1, 10))[0, 0]
    assert float(found.weights[inside > 0.9].median()) < 0.5
    assert float(found.weights[far == 0].min()) > 0.9


def test_a_falling_line_gives_the_exact_posterior(generator: torch.Generator) -> None:
    """Where the curve is a straight line all is linear and Gaussian: the data step of both scans is the solution of its equations."""
    shape, r, noises = (1, 1, 6, 5, 4), 0.3, (0.05, 0.1)
    near, other = (LowField(in_plane_factor=f, slice_thickness=t) for f, t in ((1.0, 2.0), (1.5, 3.0)))
    fall = HermiteCurve(torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([1.2, 0.3], dtype=torch.float64))
    scanners = [near, Scanner(other.linear, fall)]
    truth, centre = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    terms = []
    for scanner, noise in zip(scanners, noises, strict=True):
        y = scanner(truth)
        terms.append(DataTerm(y + noise * torch.randn(y.shape, generator=generator, dtype=y.dtype), scanner, noise))  # type: ignore[arg-type]
    columns = torch.eye(truth.numel(), dtype=torch.float64).view(-1, *shape[1:])
    zero = torch.zeros(shape, dtype=torch.float64)
    normal = torch.eye(truth.numel(), dtype=torch.float64) / r**2
    pull = torch.zeros(truth.numel(), dtype=torch.float64)
    for term in terms:
        jacobian = (term.scanner(columns) - term.scanner(zero)).flatten(1).T / term.noise_std
        normal += jacobian.T @ jacobian
        pull += jacobian.T @ (term.residual(centre) / term.noise_std).flatten()
    exact = centre + torch.linalg.solve(normal, pull).view(shape)
    for ordered in (terms, terms[::-1]):
        step = data_step(join(ordered), centre, torch.tensor([r]), cg_tolerance=1e-9, cg_iterations=200)
        torch.testing.assert_close(step.x, exact, atol=1e-5, rtol=0)


def in_other_contrast(head: Volume) -> Volume:
    return head.with_data(FALLING(torch.from_numpy(head.data)).numpy())


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """A T1w and a T2w stack of one head, the second elsewhere and with a lesion that the first does not show."""
    head = one_head()
    dark = in_other_contrast(head)
    lesion = np.zeros(head.shape, bool)
    lesion[22:32, 24:34, 20:30] = True
    dark = dark.with_data(np.where(lesion & (head.data > 0.3), 1.6, dark.data).astype(np.float32))
    paths = []
    for name, volume, place in (("T1w", head, np.eye(4)), ("T2w", dark, movement(3, 2, 1))):
        paths.append(scan_from(volume, 2, place, scale=100.0, seed=len(name + name[1])).save(tmp_path / f"sub-01_{name}.nii.gz"))
        ScanOperator(scanner_of(2), 0.02, intensity_scale=100.0).save(tmp_path / f"sub-01_{name}.operator.json")
    return paths


@pytest.fixture
def settings(quick: dict[str, Any]) -> dict[str, Any]:
    # The prior need not know the other contrast; the conditional model, which sees both scans, must.
    path = Path(quick["conditional"]).with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"contrast": "any"}))
    return {name: quick[name] for name in ("prior", "conditional")} | {"solver": "data-step", "mask": "none"}


def test_t1w_and_t2w_of_one_head_make_one_t1w_image(pair: list[Path], settings: dict[str, Any], tmp_path: Path) -> None:
    found, other = dd.enhance(pair, **settings), dd.enhance(pair[::-1], **settings)
    np.testing.assert_array_equal(found.image.data, other.image.data)
    assert found.facts["contrast"] == other.facts["contrast"] == "T1w"
    assert [scan["contrast"] for scan in found.facts["scans"]] == ["T1w", "T2w"]
    # The T1w scan stays where it is, and the other comes to it.
    first, second = (np.array(scan["pose"]["movement"]) for scan in found.facts["scans"])
    np.testing.assert_allclose(first, np.eye(4), atol=1e-6)
    assert np.abs(second - movement(3, 2, 1))[:3, 3].max() < 0.5
    # What run.json says of the scan of the other contrast is an operator that falls where tissue is.
    written = operator_from_json({k: v for k, v in found.facts["scans"][1]["operator"].items() if k != "intensity_scale"})
    assert written.contrast is not None
    grey, white = written.contrast(torch.tensor([0.5, 0.85])).tolist()
    assert white < grey - 0.05


def test_a_lesion_stays_in_the_residual_of_the_scan_that_shows_it(pair: list[Path], settings: dict[str, Any], tmp_path: Path) -> None:
    """It counts less there, and nothing else does."""
    head, folder = one_head(), tmp_path / "out"
    dd.enhance(pair, initial=head.with_data(100 * head.data), **settings).write(folder)
    first, second = (np.abs(dd.load(folder / name).data) for name in (RESIDUAL, numbered(RESIDUAL, 2)))
    assert np.percentile(second, 99.9) > 8 > 1.3 * np.percentile(first, 99.9)
    shown = json.loads((folder / "run.json").read_text())["scans"][1]
    assert 0 < shown["unexplained_share"] < 0.2
    assert "brain that no curve explains" in (folder / "report.html").read_text()


def test_a_t2w_scan_of_another_head_is_refused(pair: list[Path], settings: dict[str, Any]) -> None:
    scan = dd.load(pair[1])
    rng = np.random.default_rng(0)
    scan.with_data(np.where(scan.data > 5, 60 + 25 * rng.standard_normal(scan.shape), 0).clip(0).astype(np.float32)).save(pair[1])
    with input_error("does not show what the other scans show"):
        dd.enhance(pair, **settings)
