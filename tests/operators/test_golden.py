"""What operators, curves, noise and fits gave when they were looked at (tests/golden.py)."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicdps.calibration import fit_operator
from dynamicdps.calibration.estimator_training import ScannerRange, calibrate_intervals, fit_network, simulate_scan, weigh_image
from dynamicdps.calibration.fit import contrast_from_image, fit_profiles
from dynamicdps.calibration.least_squares import Prior, fit_least_squares, profile_likelihood
from dynamicdps.calibration.parameter_estimator import load_estimator
from dynamicdps.calibration.scan_statistics import scan_statistics
from dynamicdps.calibration.shading import find_shading
from dynamicdps.operators import (
    MPRAGE_3T,
    AnisotropicBlur,
    BiasField,
    IterativeModel,
    LowField,
    MonotoneCurve,
    MotionBlur,
    Noise,
    PowerLaw,
    ScanOperator,
    SpectralModel,
    SpinEcho,
    SpoiledGradientEcho,
    add_noise,
    centre_mask,
    contrast_between,
    inverse_power_law,
    partial_fourier_mask,
    simulate,
    tissue_curve,
    to_image_grid,
    uniform_mask,
    variable_density_mask,
)
from dynamicdps.operators.field_strength import Mprage, PulseSequence, tissue, tissue_signals
from dynamicdps.operators.image_grid import voxel_factors
from dynamicdps.operators.kspace_measurement import kspace_noise, measure_kspace, real_image, smooth_maps
from dynamicdps.operators.resample import AffineResample
from dynamicdps.operators.sampling import axis_matrix, interpolate, interpolation_matrix
from dynamicdps.operators.slice_motion import SliceMotion
from dynamicdps.volumes import Volume, estimate_noise, open_brain, to_slices
from dynamicdps.volumes.noise_estimate import background_noise, image_noise, independent_share, scan_noise
from tests.conftest import make_phantom
from tests.golden import Golden
from tests.operators.every_operator import CASES, in_plane, turned
from tests.operators.raw_scans import make_raw
from tests.properties import measured_shape, placed
from tests.volumes.head import make_head


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


def slab(shape: tuple[int, int, int] = (48, 56, 12), seed: int = 0) -> Tensor:
    """``(1, 1, depth, height, width)``."""
    return to_slices(make_phantom(shape, seed=seed).data).movedim(0, 1)[None]


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str, golden: Golden) -> None:
    operator, shape, _ = CASES[name]
    x, p = uniform(*shape, seed=1), normal(*shape, seed=2)
    spread = torch.tensor([0.05, 0.2], dtype=torch.float64).view(-1, *[1] * (x.ndim - 1))
    near, secant = operator.linearise(x), operator.linearise(x, spread)
    w = normal(*near.value.shape, seed=3)
    point, velocity = operator.search_curve(x, 0.1 * p, spread)(torch.full_like(spread, 0.7))
    size = (shape[-1], shape[-2], shape[-3] if len(shape) == 5 else 1)
    found = {
        "value": operator(x),
        "products": [near.jvp(p), near.vjp(w), secant.jvp(p), secant.vjp(w)],
        "curve": [point, velocity],
        "counted": operator.measured_fraction(w),
        "typical": [operator.typical_value(v) for v in (0.1, 0.5, 1.0)],
        "flags": [operator.is_linear, operator.is_straight_along_search, operator.couples_slices, operator.is_pointwise],
    }
    if "kspace" not in name:
        measured = measured_shape(operator, size)
        found["grid"] = [measured, operator.covered_shape(measured), voxel_factors(operator), placed(operator, size)]
    spectrum = operator.data_spectrum(shape, w)
    if spectrum is not None:
        solve = spectrum.preconditioner(secant.jvp(secant.vjp(torch.ones_like(w))), spread, 0.1)
        found["spectrum"] = [spectrum.values.sort().values, spectrum.row_sums, solve(w)]
    if operator.is_linear:
        model = operator.linear_problem(w, shape, 0.01).model
        c = torch.full((len(x),), 0.5, dtype=torch.float64)
        found["model"] = [model.solve_normal(x, c), model.solve_dual(w, c)]
        # Conjugate gradients keep only the digits that small singular values leave, which can be none.
        if isinstance(model, SpectralModel):
            found["model"].append(model.pseudo_inverse(w))
    # Some operators make their weights in float32: a sum that cancels has the absolute error of what it sums.
    golden.check(f"operator {name}", found, rtol=1e-5, atol=1e-6)


BLURS = {
    "blur 0": AnisotropicBlur(0.0, 0.0, 0.0),
    "blur 0.2": AnisotropicBlur(0.2, 0.3, 0.25),
    "blur 45": AnisotropicBlur(1.5, 0.4, 0.0, 45.0),
    "blur -100": AnisotropicBlur(3.5, 1.1, 0.0, -100.0),
    "blur 180": AnisotropicBlur(0.5, 2.5, 1.5, 180.0),
    "motion 0": MotionBlur(0.0, 30.0),
    "motion 1": MotionBlur(1.0, 45.0),
    "motion 4.5": MotionBlur(4.5, -60.0),
    "motion 12": MotionBlur(12.0, 91.0),
    "slices move": SliceMotion(15 * normal(7, seed=5), 3 * normal(7, 2, seed=6)),
    "affine up": AffineResample(turned(-0.7, (-3.0, 2.0, 1.5)), (14, 8, 9)),
    "affine in the plane": AffineResample(in_plane(1.2), (12, 10, 1)),
    "bias": BiasField(0.2 * normal(3, 4, 5, seed=7)),
}


@pytest.mark.parametrize("name", BLURS)
def test_operators_of_other_sizes(name: str, golden: Golden) -> None:
    x = uniform(1, 1, *(() if name == "affine in the plane" else (7,)), 14, 11, seed=4)
    operator = BLURS[name]
    y = operator(x)
    golden.check(f"other {name}", [y, operator.linearise(x).vjp(normal(*y.shape, seed=8)), str(operator)], rtol=1e-5)


@pytest.mark.parametrize("profile", ["box", "gaussian", "sinc"])
@pytest.mark.parametrize(
    ("factor", "blur", "width"), [(1.0, 0.0, None), (1.5, 0.7, None), (4.0, 0.3, 2.0), (2.0, 3.0, 5.5), (0.7, 0.1, 1.0)]
)
def test_rows_of_one_axis(profile: str, factor: float, blur: float, width: float | None, golden: Golden) -> None:
    wide = None if width is None else torch.tensor([width])
    found = axis_matrix(23, torch.tensor([factor]), math.floor(23 / factor), torch.tensor([blur]), profile, wide)
    golden.check(f"axis {profile} {factor:g} {blur:g} {width}", found, rtol=1e-5)


def test_interpolation(golden: Golden) -> None:
    y = uniform(2, 1, 6, 9, 7, seed=9).float()
    golden.check(
        "interpolation",
        [interpolation_matrix(13, 2.5, 5), interpolation_matrix(8, 1.0, 8), interpolate(y, (1.5, 2.0, 3.0), (2, 1, 17, 18, 11))],
        rtol=1e-5,
    )


X = torch.linspace(-0.3, 1.4, 41, dtype=torch.float64)
CURVES = {
    **{f"power {gamma:g}": PowerLaw(gamma) for gamma in (0.05, 0.3, 0.65, 1.0, 1.25, 2.5, 5.0)},
    "power per image": PowerLaw(torch.tensor([0.4, 1.7], dtype=torch.float64)),
    "two knots": MonotoneCurve(torch.tensor([0.1, 0.9]), torch.tensor([0.0, 1.2])),
    "knots": MonotoneCurve(torch.tensor([0.0, 0.2, 0.5, 0.9, 1.1]).double(), torch.tensor([0.05, 0.1, 0.6, 0.7, 1.5]).double()),
    "knots per image": MonotoneCurve(torch.tensor([0.0, 0.4, 1.0]).double(), torch.tensor([[0.0, 0.7, 1.0], [0.1, 0.2, 1.3]]).double()),
    "tissues": tissue_curve([0.2, 0.6, 0.9], [0.3, 0.5, 0.95]),
    "tissues per image": tissue_curve([0.2, 0.6, 0.9], torch.tensor([[0.3, 0.5, 0.95], [0.1, 0.7, 0.8]])),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves(name: str, golden: Golden) -> None:
    curve = CURVES[name]
    x = X.repeat(2, 1)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((curve.inverse(y) * torch.cos(5 * x)).sum(), y)
    found = [curve(x), curve.slope(x), curve.inverse(x).detach(), gradient, curve.steep_when_dark(x), curve.is_identity]
    golden.check(f"curve {name}", found, rtol=1e-6)


@pytest.mark.parametrize("iterations", [0, 1, 2, 3])
def test_newton_steps_of_an_inverse(iterations: int, golden: Golden) -> None:
    found = [inverse_power_law(X, torch.tensor(gamma, dtype=torch.float64), iterations) for gamma in (0.4, 0.9, 1.0, 1.8)]
    golden.check(f"newton {iterations}", found, rtol=1e-6)


MPRAGE = Mprage(1.9, 0.9, 0.003, 9.0, 0.007, 151)
SEQUENCES: dict[str, PulseSequence] = {
    "spin echo": SpinEcho(0.5, 0.015),
    "gradient echo": SpoiledGradientEcho(0.025, 0.005, 25.0),
    "mprage": MPRAGE,
    "mprage 3T": MPRAGE_3T,
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("field", [0.055, 0.3, 1.5, 3.0])
def test_signals(name: str, field: float, golden: Golden) -> None:
    golden.check(f"signal {name} {field:g}", tissue_signals(SEQUENCES[name], field), rtol=1e-6)


@pytest.mark.parametrize("field", [0.05, 0.2, 1.0, 1.5, 3.0])
def test_tissues(field: float, golden: Golden) -> None:
    golden.check(f"tissue {field:g}", {name: tissue(name, field) for name in ("csf", "grey", "white")}, rtol=1e-6)


def test_contrast_of_two_scanners(golden: Golden) -> None:
    curve = contrast_between(MPRAGE_3T, 3.0, SpoiledGradientEcho(0.04, 0.006, 40.0), 0.064)
    golden.check("contrast of two scanners", [curve.positions, curve.values], rtol=1e-6)


@pytest.mark.parametrize(("kind", "coils"), [("gaussian", 1), ("rician", 1), ("noncentral-chi", 4), ("poisson", 1)])
def test_noise(kind: str, coils: int, golden: Golden) -> None:
    y = add_noise(uniform(2, 1, 9, 8), 0.07, [seeded(1), seeded(2)], kind, coils)
    golden.check(f"noise {kind}", y, rtol=1e-5)


def test_masks(golden: Golden) -> None:
    shape = (32, 40)
    found = {
        "uniform": [uniform_mask(shape, a, generator=seeded(3), centre=c).nonzero() for a, c in ((2, 0.08), (3.5, 0.2), (1, 0.1))],
        "variable": [variable_density_mask(shape, a, generator=seeded(4), centre=c).nonzero() for a, c in ((2, 0.08), (4, 0.15))],
        "partial": [partial_fourier_mask(shape, f).nonzero() for f in (0.55, 0.75, 1.0)]
        + [partial_fourier_mask(shape, 0.7, generator=seeded(5)).nonzero()],
        "centre": [centre_mask(shape, f).nonzero() for f in (0.1, 0.33, 1.0)],
    }
    golden.check("masks", found)


# -- noise of scans


def filtered(y: Tensor, width: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(y[0].movedim(1, 0), (1, width), 1, (0, width // 2)).movedim(0, 1)[None]


def coarse(y: Tensor) -> Tensor:
    return LowField(in_plane_factor=3.0, blur=0.5)(y)


HEAD = slab((96, 112, 6))
SCANS = {
    "air, rician": add_noise(HEAD, 0.03, [seeded(1)], "rician"),
    "air, signed": add_noise(HEAD, 0.03, [seeded(2)]),
    "air, four coils": add_noise(HEAD, 0.02, [seeded(3)], "noncentral-chi", 4),
    "air, integers": (100 * add_noise(HEAD, 0.03, [seeded(4)], "rician")).round(),
    "air, ghost": add_noise(HEAD + 0.1 * HEAD.roll(50, -1), 0.02, [seeded(5)], "rician"),
    "air, smooth": filtered(add_noise(HEAD, 0.05, [seeded(6)]), 3),
    "stripped": torch.where(HEAD > 0.01, add_noise(HEAD, 0.05, [seeded(7)], "rician"), 0.0),
    "stripped, signed": torch.where(HEAD > 0.01, add_noise(HEAD, 0.3, [seeded(8)]), 0.0),
    "stripped, coarse": torch.where(coarse(HEAD) > 0.01, add_noise(coarse(HEAD), 0.004, [seeded(9)]), 0.0),
    "low signal": add_noise(torch.full((1, 1, 100, 90), 0.06), 0.05, [seeded(10)], "rician"),
}


@pytest.mark.parametrize("name", SCANS)
def test_noise_of_scans(name: str, golden: Golden) -> None:
    y = SCANS[name]
    coils = 4 if "coils" in name else 1
    mask = y > 0.3 * float(y.max())
    found = {
        "auto": estimate_noise(y, coils=coils),
        "image": image_noise(y),
        "inside": image_noise(y, mask),
        "share": independent_share(y[0]),
    }
    if "air" in name:
        found["background"] = background_noise(y, coils=coils)
        found["outside"] = background_noise(
            y, torch.nn.functional.max_pool2d(mask[0].float().movedim(1, 0), 21, 1, 10).movedim(0, 1)[None] == 0, coils
        )
    # The estimates choose their places in the scan: rounding of its float32 numbers moves the fourth digit.
    golden.check(f"noise of {name}", found, rtol=1e-3)


def test_noise_of_a_head(tmp_path: Path, golden: Golden) -> None:
    found = []
    for clean_air in (False, True):
        head = make_head(noise=0.03, clean_air=clean_air)
        mask = head.volume.with_data(head.brain.astype(np.float32)).save(tmp_path / "mask.nii.gz")
        smooth = head.volume.with_data(np.asarray(filtered(torch.from_numpy(head.volume.data)[None, None], 3)[0, 0]))
        files = [volume.save(tmp_path / name) for volume, name in ((head.volume, "head.nii.gz"), (smooth, "smooth.nii.gz"))]
        found += [scan_noise(open_brain(file, mask=str(mask))) for file in files]
    golden.check("noise of a head", found)


# -- parameters of scanners


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_statistics_of_scans(noise: float, golden: Golden) -> None:
    operator = LowField(gamma=0.7, in_plane_factor=1.5, blur=0.8, slice_thickness=3.0, slice_spacing=2.0)
    y = operator(slab((60, 70, 16)))
    y = add_noise(y, noise, [seeded(1)], "rician") if noise else y
    found = scan_statistics(y[0, 0], (1.5, 1.5, 2.0), max(noise, 1e-3))
    golden.check(f"statistics {noise:g}", [found.top, *found.values.tolist()])


def test_scanners_drawn_at_random(golden: Golden) -> None:
    random = np.random.default_rng(1)
    head = slab((64, 72, 40))[0, 0]
    found = []
    for _ in range(6):
        scan = simulate_scan(head, random, ScannerRange())
        found.append(None if scan is None else [str(scan.scanner), scan.y, scan.noise, scan.targets, scan.statistics.values])
    golden.check("scanners drawn at random", found, rtol=1e-3, atol=1e-5)


def test_a_small_estimator(golden: Golden) -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(64, load_estimator().network.centre.numel()))
    x[::3, 5], x[:, 7] = np.nan, 1.5
    t = x[:, :4].cumsum(1) + 0.1 * generator.normal(size=(64, 4))
    network = fit_network(x, t, epochs=3, members=2, seed=1)
    with torch.inference_mode():
        mean, std = network(torch.from_numpy(x).float())
    stretch, errors = calibrate_intervals(network, x, t)
    golden.check("a small estimator", [network.centre, network.spread, mean, std, stretch, errors], rtol=2e-3, atol=1e-3)


def test_worth_of_an_image(golden: Golden) -> None:
    random = np.random.default_rng(3)
    head = slab((64, 72, 24))[0, 0]
    drawn = [simulate_scan(head, random, ScannerRange(gamma=(0.5, 1.2), snr=(30.0, 60.0))) for _ in range(8)]
    scans = [scan for scan in drawn if scan is not None]

    def enhance(y: Tensor, operator: LowField, shape: torch.Size) -> Tensor:
        return to_image_grid(y, operator, shape).clamp_min(0) ** 0.8

    weight, error = weigh_image(load_estimator(), scans, enhance, lambda k: None)
    golden.check("worth of an image", [weight, error], rtol=2e-2, atol=2e-3)


SCANNERS = {
    "thick": ScanOperator(LowField(gamma=0.6, in_plane_factor=1.5, blur=1.0, slice_thickness=4.0, slice_spacing=2.0), 0.03),
    "thin": ScanOperator(LowField(gamma=1.2, blur=0.5), Noise(0.01, "rician")),
    "coarse": ScanOperator(LowField(gamma=0.4, in_plane_factor=4.0, blur=1.0), 0.002),
}


@pytest.mark.parametrize("name", SCANNERS)
def test_fits(name: str, golden: Golden) -> None:
    head = make_phantom((72, 84, 24))
    scan, _ = simulate(head, SCANNERS[name], seed=1)
    found = fit_operator(scan)
    known = fit_operator(scan, head, fit=("blur", "gamma"), known={"slice_thickness": 3.0} if name == "thick" else {})
    parts = [(f.to_json(), f.estimate, None if f.least_squares is None else f.least_squares.values) for f in (found, known)]
    # Correlations come with three decimals: the last may be one up or down.
    golden.check(f"fit {name}", parts, rtol=5e-3, atol=2e-3)


def test_profiles_of_a_fit(golden: Golden) -> None:
    head = make_phantom((48, 56, 16))
    scan, _ = simulate(head, SCANNERS["thick"], seed=1)
    rows = fit_profiles(scan, head, fit_operator(scan), ["blur", "gamma"], 3)
    # Far from the best fit the thickness is barely determined, and the images are float32.
    golden.check("profiles of a fit", rows, rtol=1e-2, atol=1e-3)


def test_contrast_from_an_image(golden: Golden) -> None:
    x = slab()
    operator = SCANNERS["thick"].operator
    found = contrast_from_image(replace(operator, gamma=0.8), add_noise(operator(x), 0.01, [seeded(3)]), x)
    golden.check("contrast from an image", [found.values, found.intervals, found.residual_std, found.warnings], rtol=1e-3)


@pytest.mark.parametrize("starts", [1, 3])
def test_least_squares(starts: int, golden: Golden) -> None:
    x = slab((40, 48, 8))
    true = LowField(gamma=0.7, blur=0.8, in_plane_factor=1.5)
    y = 1.3 * add_noise(true(x), 0.01, [seeded(4)])
    first = replace(true, gamma=1.0, blur=0.3)
    bounds = {"gamma": (0.3, 2.0), "blur": (0.0, 3.0)}
    priors = {"blur": Prior(1.2, 0.2), "gamma": Prior(math.log(0.75), 0.1)}
    free = fit_least_squares(first, y, x, bounds, scale=(0.5, 2.0), starts=starts, seed=5)
    pulled = fit_least_squares(first, y, x, bounds, scale=(0.5, 2.0), priors=priors, starts=starts)
    profile = profile_likelihood(first, y, x, "blur", [0.4, 0.8, 1.2], bounds, scale=(0.5, 2.0))
    fits = [(f.values, f.intervals, f.covariance, f.residual_std, f.warnings) for f in (free, pulled)]
    golden.check(f"least squares {starts}", [*fits, profile], rtol=2e-3, atol=1e-5)


# -- shading and k-space


@pytest.mark.parametrize("size", [0.0, 0.2])
def test_shading(size: float, golden: Golden) -> None:
    head = make_head(noise=0.01, shading=size)
    inside = head.brain
    found = find_shading(head.volume, inside, 0.8)
    flat = Volume(found.flat(head.volume).data, head.volume.affine)
    golden.check(f"shading {size:g}", [found.spread, found.limit, found.kept, found.step(), flat.data], rtol=1e-3, atol=1e-5)


SHAPE = (48, 40, 3)
RAW = {
    "all": (1, None),
    "coils": (3, uniform_mask(SHAPE[1::-1], 2, generator=seeded(0), centre=0.25).numpy()),
    "partial": (1, partial_fourier_mask(SHAPE[1::-1], 0.7).numpy()),
}


@pytest.mark.parametrize("name", RAW)
def test_kspace(name: str, golden: Golden) -> None:
    coils, mask = RAW[name]
    image = make_phantom(SHAPE, (3.0, 3.0, 5.0))
    raw = make_raw(image, coils=coils, mask=mask, noise=0.02, orientation="LAS", seed=1)
    weights = (image.data > 0.1).astype(np.float32)
    box = (slice(4, 44), slice(2, 38), slice(0, 3))
    found = measure_kspace(raw, 0.02, weights=weights[box], box=box, generator=seeded(2))
    operator = found.operator(LowField(gamma=0.8, blur=0.4, in_plane_factor=1.0))
    x = to_slices(image.data[box]).movedim(0, 1)[None]
    residual = found.data / 1.1 - operator(x)
    near = operator.linearise(x)
    spectrum = operator.data_spectrum(x.shape, residual)
    assert spectrum is not None
    solve = spectrum.preconditioner(torch.ones_like(residual), torch.tensor(0.1).view(1, 1, 1, 1, 1), 0.02)
    golden.check(
        f"k-space {name}",
        {
            "measurement": found,
            "noise": kspace_noise(raw),
            "maps": np.abs(smooth_maps(raw, 0.02)),
            "operator": [operator(x), near.vjp(residual), operator.measured_fraction(residual), str(operator)],
            "preconditioned": solve(residual),
            "residual": [found.residual_image(residual), found.slice_misfits(residual)],
            "image": real_image(found.encoding, residual),
        },
        rtol=1e-3,
        atol=1e-6,
    )


def test_damped_least_squares_of_kspace(golden: Golden) -> None:
    a = normal(6, 4, seed=11)
    model = IterativeModel(torch.full((1,), 0.1, dtype=torch.float64), lambda x: x @ a.T, lambda w: w @ a)
    b, c = normal(2, 4, seed=12), torch.tensor([0.1, 1.0], dtype=torch.float64)
    w = normal(2, 6, seed=13)
    golden.check("iterative model", [model.solve_normal(b, c), model.solve_dual(w, c), model.pseudo_inverse(w)], rtol=1e-4)
