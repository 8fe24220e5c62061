"""What a cell's rows hold, against reconstructions whose faults are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation import hallucination_index, null_space_split, psnr, segment, tissue_volumes
from dynamicdps.evaluation.benchmark import chosen_slices, middle_slices
from dynamicdps.evaluation.benchmark.cut import Cut, Subject
from dynamicdps.evaluation.benchmark.measures import fidelity_rows, hallucination_row, truth_row, volume_row
from dynamicdps.operators import Inpainting, KSpace, LowField, SameGrid, ScanOperator
from dynamicdps.solvers import Reconstruction
from dynamicdps.volumes import from_slices
from tests.conftest import make_phantom
from tests.properties import input_error

SCANNER = ScanOperator(LowField(gamma=0.5, in_plane_factor=2.0), 0.01)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    path = make_phantom(spacing=(1.0, 1.5, 2.0)).save(tmp_path_factory.mktemp("scan") / "sub-1_T1w.nii.gz")
    return Subject.read(path, 0)


@pytest.fixture(scope="module", params=[[2, 5, 8], [4, 5, 6]], ids=["apart", "neighbours"])
def cut(subject: Subject, request: pytest.FixtureRequest) -> Cut:
    return subject.cut(request.param)


def found(image: Tensor, uncertainty: Tensor | None = None) -> Reconstruction:
    zeros = torch.zeros(len(image))
    return Reconstruction(image, zeros + 1.5, (zeros + 4).long(), (zeros + 2).long(), zeros + 0.1, uncertainty)


def test_slice_numbers() -> None:
    assert chosen_slices(32, 4) == [4, 12, 20, 28]
    assert middle_slices(32, 4) == [14, 15, 16, 17]
    assert chosen_slices(3, 5) == middle_slices(3, 5) == [0, 1, 2]


def test_a_subject_has_its_seed_and_its_grid(subject: Subject) -> None:
    assert (subject.name, subject.spacing) == ("sub-1", (1.0, 1.5, 2.0))
    cut = subject.cut([5])
    assert cut.truth.shape == (1, 1, 56, 48)
    assert torch.equal(cut.mask[:, 0], torch.from_numpy(subject.brain[:, :, [5]].transpose(2, 1, 0).copy()))
    assert bool((cut.truth[~cut.mask].abs() < 0.05).all())


def test_slices_apart_are_segmented_one_by_one(subject: Subject) -> None:
    """Of each by itself, with the same mask; neighbours as a volume."""
    apart, together = subject.cut([2, 5, 8]), subject.cut([4, 5, 6])
    assert (apart.are_neighbours, together.are_neighbours) == (False, True)
    data = from_slices(apart.truth)
    single = [segment(data[:, :, i : i + 1], apart.brain[:, :, i : i + 1]) for i in range(3)]
    np.testing.assert_array_equal(apart.labels, np.concatenate(single, axis=2))
    np.testing.assert_array_equal(together.labels, segment(from_slices(together.truth), together.brain))


def test_the_truth_has_no_error(cut: Cut) -> None:
    row = truth_row(cut, "c")
    volumes = tissue_volumes(cut.labels, (1.0, 1.5, 2.0))
    assert row.solver == "truth"
    assert {"csf": row.csf, "gm": row.gm, "wm": row.wm} == volumes
    assert (row.csf_error, row.gm_error, row.wm_error, row.dice) == (0, 0, 0, 1)
    again = volume_row(cut.tissues(3 * cut.truth + 1), cut, "c", "scaled")
    assert (again.csf_error, again.dice) == (0, 1), "segmentation does not know units"
    y = cut.measure(SCANNER)
    errors = hallucination_row(found(cut.truth), cut.labels, cut, y, SCANNER, "c", "x")
    assert (errors.null_rms, errors.measurement_rms, errors.high_frequency_error, errors.sfrc_share) == (0, 0, 0, 0)
    assert (errors.false_count, errors.false_mm3, errors.lost_count, errors.lost_mm3) == (0, 0, 0, 0)
    assert errors.residual_rms == pytest.approx(1, abs=0.05)
    assert errors.ssim_brain == pytest.approx(1)
    assert math.isnan(errors.hallucination_index)


def test_an_invented_structure_is_counted(cut: Cut) -> None:
    """A block of fluid in white matter, in every slice."""
    invented = cut.truth.clone()
    invented[:, :, 26:32, 10:16] = 0.2
    labels = cut.tissues(invented)
    errors = hallucination_row(found(invented), labels, cut, cut.measure(SCANNER), SCANNER, "c", "x")
    regions = 1 if cut.are_neighbours else 3
    assert errors.false_count == regions
    assert errors.false_mm3 == 3 * 36 * 3.0, "slices of 6 x 6 voxels of 3 mm3"
    assert errors.residual_rms > 5
    row = volume_row(labels, cut, "c", "x")
    assert row.csf_error > 0.05
    assert row.wm_error < 0
    assert row.dice == pytest.approx((row.csf_dice + row.gm_dice + row.wm_dice) / 3)
    split = null_space_split(SCANNER.operator, invented, cut.truth, noise_std=SCANNER.noise.std)
    assert errors.null_rms == pytest.approx(float(split.null.square().mean().sqrt()))
    total = float((invented - cut.truth).double().square().mean())
    assert errors.null_rms**2 + errors.measurement_rms**2 == pytest.approx(total, rel=1e-4)


def test_what_lies_in_the_null_space_is_found_there(cut: Cut) -> None:
    """Checkers change no voxel of twice the length; a shift of all intensities changes every one."""
    checkers = 0.05 * (((torch.arange(56)[:, None] + torch.arange(48)) % 2) * 2 - 1)
    y = cut.measure(SCANNER)
    rows = [hallucination_row(found(image), None, cut, y, SCANNER, "c", "x") for image in (cut.truth + checkers, cut.truth + 0.05)]
    assert rows[0].null_rms == pytest.approx(0.05, rel=1e-3)
    assert rows[0].measurement_rms < 1e-3
    assert rows[0].high_frequency_error > 0.1
    assert rows[1].null_rms < 1e-3
    assert rows[1].high_frequency_error < 1e-3


def test_index_from_mean_and_spread(cut: Cut, generator: torch.Generator) -> None:
    """As of samples with exactly that mean and spread; slices whose samples do not differ are left out."""
    draws = torch.randn(6, *cut.truth.shape, generator=generator)
    samples = cut.truth + 0.1 + 0.05 * draws
    spread = samples.std(0)
    row = hallucination_row(found(samples.mean(0), spread), None, cut, cut.measure(SCANNER), SCANNER, "c", "x")
    expected = hallucination_index(samples, cut.truth, mask=cut.mask).index
    assert row.hallucination_index == pytest.approx(float(expected.mean()), abs=1e-5)
    spread[1:] = 0
    row = hallucination_row(found(samples.mean(0), spread), None, cut, cut.measure(SCANNER), SCANNER, "c", "x")
    assert row.hallucination_index == pytest.approx(float(expected[0]), abs=1e-5)
    row = hallucination_row(found(samples.mean(0), 0 * spread), None, cut, cut.measure(SCANNER), SCANNER, "c", "x")
    assert math.isnan(row.hallucination_index)


def test_a_failed_solver_has_no_numbers(cut: Cut) -> None:
    """Neither a run that ended in NaN nor a flat image ends the benchmark."""
    broken = cut.truth.clone()
    broken[0, 0, 20, 20] = math.nan
    assert cut.tissues(broken) is None
    assert cut.tissues(torch.ones_like(broken)) is None
    row = volume_row(None, cut, "c", "x")
    assert all(math.isnan(value) for value in (row.csf, row.wm_error, row.dice, row.gm_dice))
    errors = hallucination_row(found(broken), None, cut, cut.measure(SCANNER), SCANNER, "c", "x")
    assert all(math.isnan(value) for value in vars(errors).values() if isinstance(value, float))
    flat = hallucination_row(found(torch.ones_like(broken)), None, cut, cut.measure(SCANNER), SCANNER, "c", "x")
    assert math.isnan(flat.false_count)
    assert flat.null_rms > 0


def test_fidelity_of_slices_and_of_a_volume(cut: Cut) -> None:
    image = cut.truth + 0.1
    rows = fidelity_rows(found(image), cut, "c", "x", 0.5)
    assert [row.slice for row in rows] == cut.numbers
    assert [row.psnr for row in rows] == psnr(image, cut.truth).tolist()
    assert {row.batch_size for row in rows} == {3}
    thick = LowField(slice_thickness=4.0, image_spacing=2.0)
    (whole,) = {tuple(vars(row).values())[7:] for row in fidelity_rows(found(cut.as_operand(image, thick)), cut, "c", "x", 0.5)}
    assert whole == (1.5, 4, 2, pytest.approx(0.1), 0.5, 1)


def test_a_volume_that_an_operator_couples(subject: Subject) -> None:
    cut, thick = subject.cut([3, 4, 5, 6]), LowField(slice_thickness=4.0, image_spacing=2.0)
    scanner = ScanOperator(thick, 0.01)
    y = cut.measure(scanner)
    assert y.shape == (1, 1, 2, 56, 48)
    row = hallucination_row(found(cut.as_operand(cut.truth, thick)), cut.labels, cut, y, scanner, "c", "x")
    assert (row.null_rms, row.false_count) == (0, 0)
    assert row.residual_rms == pytest.approx(1, abs=0.05)


class Squared(SameGrid):
    """Not linear, and not by a contrast that it could tell."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


def test_operators_without_a_linear_part_have_no_null_space(cut: Cut) -> None:
    scanner = ScanOperator(Squared(), 0.01)
    row = hallucination_row(found(cut.truth + 0.1), None, cut, cut.measure(scanner), scanner, "c", "x")
    assert math.isnan(row.null_rms)
    assert row.psnr_brain == pytest.approx(20)


def test_measurements_that_no_model_takes(cut: Cut) -> None:
    with input_error("KSpace measures 2 channels"):
        cut.measure(ScanOperator(KSpace(torch.ones(56, 48)), 0.01))


def test_noise_is_the_same_for_the_same_subject(subject: Subject) -> None:
    first, again = (subject.cut(numbers).measure(SCANNER) for numbers in ([4, 5], [4, 5, 6]))
    assert torch.equal(first, again[:2])


def test_an_empty_scan(subject: Subject) -> None:
    cut = subject.cut([5])
    empty = Cut("sub-1", [5], cut.truth, torch.zeros_like(cut.mask), cut.spacing, 0)
    with input_error("show no brain"):
        _ = empty.labels


def test_what_is_not_measured_has_no_noise(subject: Subject) -> None:
    """As `counted` of the operator takes it: the truth's misfit is that of noise alone."""
    cut = subject.cut([2, 5, 8])
    mask = torch.zeros(cut.truth.shape[-2:])
    mask[::2, ::2] = 1
    operator = Inpainting(mask)
    y = cut.measure(ScanOperator(operator, 0.05))
    assert (y[..., mask == 0] == 0).all()
    torch.testing.assert_close(DataTerm(y, operator, 0.05).misfit(cut.truth), torch.ones(3), rtol=0.1, atol=0)
