"""What the measures gave, and what tables and figures showed, when they were looked at (tests/golden.py)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicdps import evaluation as ev
from dynamicdps.evaluation.benchmark import Cell, Results, summarise, write_slices
from dynamicdps.evaluation.benchmark import examples as example_module
from dynamicdps.evaluation.benchmark import figures as figure_module
from dynamicdps.evaluation.benchmark.cut import Subject, chosen_slices, middle_slices
from dynamicdps.evaluation.benchmark.figures import cost_figures, lesion_figures, paired_figures, volume_figures
from dynamicdps.evaluation.benchmark.lesion_pass import insert_lesions, lesion_rows
from dynamicdps.evaluation.benchmark.measures import fidelity_rows, hallucination_row, truth_row, volume_row
from dynamicdps.evaluation.benchmark.summary import REFERENCES, measured
from dynamicdps.evaluation.benchmark.tables import markdown_tables
from dynamicdps.evaluation.slice_doubts import slice_doubts, slice_misfits
from dynamicdps.evaluation.structures import structure_errors
from dynamicdps.operators import AnisotropicBlur, BiasField, Inpainting, LowField, ScanOperator, simulate
from dynamicdps.solvers import Reconstruction
from dynamicdps.volumes import IntensityScale, Volume, from_slices, to_slices
from tests.conftest import make_phantom
from tests.evaluation.benchmark.made import CONDITION, benchmark, lesion, row
from tests.golden import Golden

SOLVERS = ("conditional", "data-step", "dynamicdps", "tv", "dps")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(like: Tensor, size: float, seed: int = 0) -> Tensor:
    return size * torch.randn(like.shape, generator=seeded(seed), dtype=like.dtype)


@pytest.fixture(scope="module")
def head() -> Volume:
    return make_phantom((48, 56, 8))


@pytest.fixture(scope="module")
def truth(head: Volume) -> Tensor:
    return to_slices(head.data).double()


@pytest.fixture(scope="module")
def image(truth: Tensor) -> Tensor:
    return (torch.nn.functional.avg_pool2d(truth, 3, 1, 1) + noise(truth, 0.03)).clamp_min(-0.05)


def test_fidelity(image: Tensor, truth: Tensor, golden: Golden) -> None:
    mask = truth > 0.05
    found: dict[str, Any] = {name: getattr(ev, name)(image, truth) for name in ("psnr", "nrmse", "ssim")}
    found |= {name: getattr(ev, name)(image, truth, mask) for name in ("psnr_brain", "nrmse_brain", "ssim_brain")}
    found["ms_ssim"] = [ev.ms_ssim(image, truth, n) for n in (1, 2)] + [
        ev.scales_that_fit(h, w) for h, w in ((56, 48), (176, 144), (11, 300))
    ]
    found["high frequency"] = [ev.high_frequency_error(image, truth, low=low, high=high) for low, high in ((0.1, 0.2), (0.25, np.inf))]
    found["nyquist"] = [ev.nyquist_frequency(LowField(in_plane_factor=f), 1.2) for f in (1.0, 2.0, 3.5)]
    volume, other = (u.movedim(0, 1)[None] for u in (image, truth))
    inside = mask.movedim(0, 1)[None]
    found["through plane"] = [
        ev.through_plane_roughness(volume, other, inside),
        ev.through_plane_roughness(volume, None, inside),
        ev.through_plane_calibration(volume, other, inside),
    ]
    # MONAI computes the similarity in float32.
    golden.check("fidelity", found, rtol=1e-5)


@pytest.mark.parametrize("patch", [1, 3, 8])
@pytest.mark.parametrize("std", [None, 0.05])
def test_hallucination_index(patch: int, std: float | None, truth: Tensor, golden: Golden) -> None:
    middle = truth[2:5, :, :30, :25]
    samples = torch.stack([middle + 0.02 + noise(middle, 0.03 + 0.02 * i, i) * (1 + middle) for i in range(6)])
    found = ev.hallucination_index(samples, middle, reference_std=std, mask=middle > 0.1, patch=patch)
    golden.check(f"hallucination index {patch} {std}", found, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"patch": 16, "stride": 5, "threshold": 0.8, "floor": 0.0}, {"patch": 24, "spacing": 1.5, "floor": 0.05}]
)
def test_ring_correlation(options: dict[str, Any], image: Tensor, truth: Tensor, golden: Golden) -> None:
    found = ev.scanning_frc(image + noise(image, 0.2, 1), truth, truth > 0.05, frequency=0.15, **options)
    whole = ev.fourier_ring_correlation(image[:, 0, :48], truth[:, 0, :48], 0.02)
    golden.check(f"ring correlation {options}", [found, found.share, whole], rtol=1e-5)


def test_residuals(truth: Tensor, golden: Golden) -> None:
    white = noise(truth, 1.0)
    smooth = torch.nn.functional.avg_pool2d(white, 3, 1, 1) + 0.4 * white
    volume = smooth.movedim(0, 1)[None]
    found = [ev.residual_statistics(r, m) for r, m in ((white, None), (3 * smooth, truth > 0.05), (volume, None), (volume, volume > -0.4))]
    z = [[getattr(s, name).z for name in ("rms", "autocorrelation", "flatness", "outliers")] for s in found]
    golden.check("residuals", [found, z], rtol=1e-6)


def test_doubts_of_slices(golden: Golden) -> None:
    random = np.random.default_rng(1)
    data = random.normal(size=(20, 22, 24)).astype(np.float32)
    data[:, :, 4:7] *= 3
    data[:, :, 15] *= 1.6
    data[:, :, 20] *= 6
    volume = Volume(data, np.eye(4))
    found = [slice_misfits(volume), slice_misfits(volume, 0), slice_doubts(volume), slice_doubts(volume, 1), slice_doubts(volume, None)]
    golden.check("doubts of slices", found, rtol=1e-5)


SCANNERS = {
    "low field": ScanOperator(LowField(gamma=0.7, in_plane_factor=2.0, blur=0.7), 0.02),
    "thick": ScanOperator(LowField(slice_thickness=3.0), 0.02),
    "composed": ScanOperator(AnisotropicBlur(1.2, 0.5, 0.0, 30.0) @ BiasField(0.1 * torch.ones(1, 2, 2)), 0.03),
    "holes": ScanOperator(Inpainting(torch.rand(56, 48, generator=seeded(2)) < 0.7), 0.03),
}


@pytest.mark.parametrize("name", SCANNERS)
def test_null_spaces(name: str, image: Tensor, truth: Tensor, golden: Golden) -> None:
    scanner = SCANNERS[name]
    operator = scanner.operator
    x, t = (u.movedim(0, 1)[None] for u in (image, truth)) if operator.couples_slices else (image, truth)
    found = [ev.null_space_split(operator, x, t, noise_std=scanner.noise.std, signal=s) for s in (0.1, 0.5)]
    volume, scale = Volume(from_slices(image.float()), np.eye(4)), IntensityScale(1.0)
    unsupported = ev.unsupported_map(volume, scanner, scale, signal=0.2)
    linear = operator.linear
    # Elsewhere conjugate gradients end at a residual of 1e-4, on each processor at another one.
    exact = isinstance(operator, LowField | Inpainting)
    golden.check(
        f"null space {name}",
        [found, [f.null_share for f in found], [f.null_rms for f in found], None if unsupported is None else unsupported.data, str(linear)],
        rtol=1e-4 if exact else 5e-3,
        atol=1e-6 if exact else 2e-5,
    )


def test_tissues(head: Volume, image: Tensor, golden: Golden) -> None:
    mask = head.data > 0.05
    blurred = from_slices(image.float())
    labels = ev.segment(head.data, mask)
    others = [ev.segment(blurred, mask, beta=b, max_iter=n) for b, n in ((0.0, 5), (0.1, 40), (0.5, 3))] + [ev.segment(blurred, mask, 4)]
    volumes = [ev.tissue_volumes(u, (1.0, 0.9, 2.0)) for u in (labels, *others[:3])]
    samples = [blurred + 0.05 * np.random.default_rng(i).normal(size=blurred.shape).astype(np.float32) for i in range(4)]
    found = {
        "labels": [labels, *others],
        "volumes": volumes,
        "errors": ev.volume_errors(volumes[1], volumes[0]),
        "dice": ev.dice(others[1], labels),
        "structures": structure_errors(np.roll(others[1], 4, 0), labels, (1.0, 1.0, 2.0), 20.0),
        "intervals": [
            ev.tissue_intervals(samples, mask, (1.0, 1.0, 1.0), labels),
            ev.tissue_intervals(samples[:2], mask, (1.0, 1.0, 1.0), estimate=volumes[1], coverage=0.8),
        ],
    }
    golden.check("tissues", found, rtol=1e-4)


def test_lesions(head: Volume, golden: Golden) -> None:
    big = make_phantom((96, 112, 20))
    labels = ev.segment(big.data, big.data > 0.05)
    found = []
    for seed, options in enumerate(
        ({}, {"count": 2, "diameters_mm": (4.0, 12.0), "contrasts": (0.1, -0.3, 0.2), "elongation": 1.8}, {"count": 1, "elongation": 1.0})
    ):
        lesions = ev.place_lesions(labels, (1.0, 1.2, 1.5), np.random.default_rng(seed), **options)  # type: ignore[arg-type]
        with_them = big.data
        for each in lesions:
            with_them = ev.insert_lesion(with_them, each)
        kept = [
            [ev.lesion_contrast(with_them, each), ev.contrast_kept(0.8 * with_them, with_them, each), int(each.core.sum())]
            for each in lesions
        ]
        seen = [ev.resolvable(each, LowField(in_plane_factor=f), big.data, noise_std=0.03) for each in lesions[:1] for f in (1.0, 3.0)]
        found.append([lesions, with_them, kept, seen])
    flat = ev.place_lesions(
        ev.segment(head.data[:, :, 4:5], head.data[:, :, 4:5] > 0.05), (1.0, 1.0, 3.0), np.random.default_rng(9), count=1
    )
    ball = ev.make_lesion(labels, (1.0, 1.0, 1.0), (30.2, 50.7, 9.0), 5.5, 0.3, (0.8, 1.0, 1.3))
    golden.check("lesions", [found, flat, ball], rtol=1e-5)


def test_statistics(golden: Golden) -> None:
    random = np.random.default_rng(3)
    ours, theirs = random.normal(1, 1, 14).round(1), random.normal(0.5, 1, 14).round(1)
    names = [f"s{i}" for i in range(14)]
    errors = [random.normal(0, 1 + 0.3 * i, (30,)) for i in range(9)]
    heuristics = [np.abs(random.normal(1, 0.2, 30)) + 0.1 for _ in range(9)]
    samples = torch.rand(5, 3, 1, 6, 7, generator=seeded(4), dtype=torch.float64)
    found = {
        "mean": ev.by_subject([*zip(names, ours, strict=True), *zip(names[:5], theirs[:5], strict=True)]),
        "bootstrap": [ev.bootstrap_interval(list(u), np.random.default_rng(5)) for u in (ours, ours[:1], ours[:3])],
        "paired": ev.paired_comparison(
            dict(zip(names, ours, strict=True)), dict(zip(names[2:], theirs[2:], strict=True)), np.random.default_rng(6)
        ),
        "signed rank": [
            ev.signed_rank(u)
            for u in (ours - theirs, [1.0, 2.0, -0.5], np.r_[np.zeros(3), ours], random.normal(0.2, 1, 60), np.ones(51), np.ones(50))
        ],
        "holm": ev.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5, "e": 0.011}),
        "conformal": [
            ev.ConformalErrorMap.fit(errors[:n], heuristics[:n], coverage, lost)
            for n, coverage, lost in ((9, 0.9, 1.0), (9, 0.8, 1.0), (9, 0.7, 0.6), (4, 0.8, 1.0), (9, 0.9, 0.4))
        ],
        "covered": [ev.covered_share(errors[0], 0.8 * heuristics[0]), ev.covered_share(errors[1], heuristics[1], errors[1] > 0)],
        "heuristic": [ev.error_heuristic(heuristics[0]), ev.error_heuristic(heuristics[0], errors[0], 0.1)],
        "spread": ev.sample_spread(samples),
        "restart": [ev.restart_disagreement(samples[0], samples[1], mask=m, floor=0.1) for m in (None, samples[0, 0] > 0.3)],
    }
    golden.check("statistics", found, rtol=1e-5)


def test_evaluation_of_a_volume(golden: Golden) -> None:
    head = make_phantom((48, 56, 12))
    poor, operator = simulate(head, ScanOperator(LowField(gamma=0.8, in_plane_factor=1.5, blur=0.4), 0.02), seed=1)
    wrong = head.with_data((head.data**1.1 + 0.02 * np.random.default_rng(2).normal(size=head.data.shape)).astype(np.float32))
    scale = IntensityScale.robust(head.data)
    found = [ev.evaluate_volume(wrong, head, scale, poor, operator), ev.residual_map(wrong, poor, operator, scale).data]
    golden.check("evaluation of a volume", [found[0].to_json(), found[0].truth_mm3, found[1]], rtol=1e-4)


# -- the benchmark


def made() -> Results:
    random = np.random.default_rng(7)
    conditions = (CONDITION, "esrgan/thick-5mm")
    results = Results()
    for condition in conditions:
        part = benchmark(
            {s: (20 + i + random.normal(size=6)).tolist() for i, s in enumerate(SOLVERS)},
            {s: (random.uniform(0.01, 0.2, 6) / (1 + 3 * i)).tolist() for i, s in enumerate(SOLVERS)},
        )
        for table in (part.rows, part.volumes, part.hallucination):
            table[:] = [type(each)(**{**vars(each), "condition": condition}) for each in table]  # type: ignore[misc, call-overload]
        results.add(part)
    costs = {"dynamicdps": 40, "dps": 1000, "tv": 0}
    results.rows[:] = [
        type(each)(**{**vars(each), "nfe": costs.get(each.solver, 0), "nbackward": costs.get(each.solver, 0) // 50})
        for each in results.rows
    ]
    results.rows.append(row("sub-7", "tv", float("nan")))
    results.lesions = [
        lesion(f"sub-{i % 6}", s, float(random.uniform(-0.2, 1.3)), number=1 + i % 10, contrast=(-0.2, 0.2)[i % 2], resolvable=i % 3 > 0)
        for i in range(24)
        for s in SOLVERS
    ]
    return results


def test_tables(golden: Golden) -> None:
    for name, results in {"tables": made(), "tables of one row": Results([row("a", "x", 20.0, nfe=3)])}.items():
        summary = summarise(results, seed=8)
        golden.check(name, [markdown_tables(summary).splitlines(), summary], rtol=1e-6)


def seen(figure: Any) -> list[Any]:
    """What a figure shows: words, places, colours and limits."""
    return [figure.get_size_inches().tolist(), [text.get_text() for text in figure.texts], *map(seen_in, figure.axes)]


def seen_in(axes: Any) -> dict[str, Any]:
    lines, points = axes.lines, [found for found in axes.collections if len(found.get_offsets()) > 1]
    return {
        "words": [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale(), axes.get_yscale()],
        "limits": [*axes.get_xlim(), *axes.get_ylim(), *axes.get_position().bounds],
        "labels": [[text.get_text() for text in labels] for labels in (axes.get_xticklabels(), axes.get_yticklabels())],
        "labelled": [axes.xaxis.get_tick_params().get("labelbottom"), axes.yaxis.get_tick_params().get("labelleft")],
        "lines": [
            [u.get_xydata(), str(u.get_color()), str(u.get_marker()), u.get_linestyle(), u.get_linewidth(), u.get_label()] for u in lines
        ],
        "points": [[np.asarray(u.get_offsets()), u.get_facecolor(), u.get_edgecolor(), u.get_sizes(), u.get_alpha()] for u in points],
        "pictures": [[np.asarray(u.get_array()), u.get_clim()] for u in axes.images],
    }


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden) -> None:
    pages: dict[str, Any] = {}

    def save(figure: Any, path: Path) -> Path:
        figure.draw_without_rendering()
        pages[path.name] = seen(figure)
        return path

    for module in (figure_module, example_module):
        monkeypatch.setattr(module, "save", save)
    results = made()
    numbers = measured(results)
    for draw in (paired_figures, volume_figures, cost_figures):
        draw(numbers, tmp_path)
    lesion_figures(results, tmp_path)
    random = np.random.default_rng(9)
    picture = np.zeros((60, 50), np.float32)
    picture[12:48, 9:40] = random.uniform(0.2, 1, (36, 31))
    for subject in (f"sub-{i}" for i in range(6)):
        for solver in SOLVERS:
            noisy = (picture + random.normal(0, 0.05, picture.shape)).astype(np.float32)
            pictures = {"truth": picture, "measurement": 0.9 * picture, solver: noisy}
            write_slices(tmp_path, Cell((subject, CONDITION, solver), Results(), pictures), REFERENCES)
    example_module.example_figures(numbers, [tmp_path], tmp_path)
    # Where text ends depends on fonts, and with it where axes are placed.
    golden.check("figures", pages, rtol=0.1, atol=0.02)


def test_measures_of_subjects(tmp_path: Path, golden: Golden) -> None:
    path = make_phantom((72, 80, 12)).save(tmp_path / "sub-01_T1w.nii.gz")
    subject = Subject.read(path, seed=3)
    scanner = ScanOperator(LowField(gamma=0.8, in_plane_factor=1.5), 0.02)
    found: list[Any] = [
        [chosen_slices(n, w) for n, w in ((12, 3), (5, 9), (30, 4))],
        [middle_slices(n, w) for n, w in ((12, 3), (5, 9), (31, 4))],
    ]
    for numbers in ([2, 5, 8], [4, 5, 6, 7]):
        cut = subject.cut(numbers)
        y = cut.measure(scanner)
        x = cut.truth + noise(cut.truth, 0.03, 1)
        samples = torch.stack([x + noise(x, 0.02, 2 + i) for i in range(3)], 1)
        count = torch.full((len(numbers),), 5)
        done = Reconstruction(
            x, torch.full((len(numbers),), 1.1), count, count, 0.1 * torch.ones(len(numbers)), samples.std(1), operator_calls=7
        )
        labels = cut.tissues(x)
        rows = [*fidelity_rows(done, cut, CONDITION, "tv", 3.0), volume_row(labels, cut, CONDITION, "tv"), truth_row(cut, CONDITION)]
        found.append([y, rows, hallucination_row(done, labels, cut, y, scanner, CONDITION, "tv")])
        if len(numbers) == 4:
            lesioned = insert_lesions(cut, 2)
            verdicts = lesioned.resolvability(scanner)
            found.append([lesioned.cut.truth, verdicts, lesion_rows(0.9 * lesioned.cut.truth, lesioned, verdicts, CONDITION, "tv")])
    golden.check("measures of subjects", found, rtol=1e-4, atol=1e-6)
