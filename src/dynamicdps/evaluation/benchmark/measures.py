"""From a reconstruction to its rows."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.errors import InputError
from dynamicdps.evaluation.benchmark.cut import Cut, Labels
from dynamicdps.evaluation.benchmark.rows import TRUTH, HallucinationRow, Row, VolumeRow
from dynamicdps.evaluation.fidelity import nrmse, psnr, psnr_brain, ssim, ssim_brain
from dynamicdps.evaluation.hallucination_index import hallucination_index
from dynamicdps.evaluation.high_frequency import high_frequency_error, nyquist_frequency
from dynamicdps.evaluation.null_space import null_space_split
from dynamicdps.evaluation.sfrc import SMALLEST_PATCH, scanning_frc
from dynamicdps.evaluation.structures import StructureErrors, structure_errors
from dynamicdps.evaluation.tissue import TISSUES, dice, tissue_volumes, volume_errors
from dynamicdps.operators import ScanOperator
from dynamicdps.solvers import Reconstruction

PATCH = 32


def fidelity_rows(found: Reconstruction, cut: Cut, condition: str, solver: str, seconds: float) -> list[Row]:
    """A row a slice; the slices of a volume share what was spent on it."""
    image = cut.as_slices(found.image)
    measured = psnr(image, cut.truth), ssim(image, cut.truth), nrmse(image, cut.truth)
    misfit, nfe, nbackward, start = (getattr(found, name).expand(len(image)) for name in ("misfit", "nfe", "nbackward", "start_sigma"))
    return [
        Row(
            subject=cut.subject,
            slice=number,
            condition=condition,
            solver=solver,
            psnr=float(measured[0][i]),
            ssim=float(measured[1][i]),
            nrmse=float(measured[2][i]),
            data_misfit=float(misfit[i]),
            nfe=int(nfe[i]),
            nbackward=int(nbackward[i]),
            start_sigma=float(start[i]),
            seconds=seconds,
            batch_size=len(found.image),
        )
        for i, number in enumerate(cut.numbers)
    ]


def volume_row(labels: Labels | None, cut: Cut, condition: str, solver: str) -> VolumeRow:
    """Tissue volumes of a tissue map of `Cut.tissues`; of the truth where the solver is ``truth``."""
    truth = tissue_volumes(cut.labels, cut.spacing)
    found = dict.fromkeys(TISSUES, math.nan) if labels is None else tissue_volumes(labels, cut.spacing)
    overlap = dict.fromkeys(TISSUES, math.nan) if labels is None else dice(labels, cut.labels)
    error = volume_errors(found, truth)
    numbers = {**found, **{f"{t}_error": error[t] for t in TISSUES}, **{f"{t}_dice": overlap[t] for t in TISSUES}}
    return VolumeRow(subject=cut.subject, condition=condition, solver=solver, dice=_mean(torch.tensor(list(overlap.values()))), **numbers)


def truth_row(cut: Cut, condition: str) -> VolumeRow:
    """The truth's own tissue volumes."""
    return volume_row(cut.labels, cut, condition, TRUTH)


def hallucination_row(
    found: Reconstruction, labels: Labels | None, cut: Cut, y: Tensor, scanner: ScanOperator, condition: str, solver: str
) -> HallucinationRow:
    """What a reconstruction invents or loses.

    Args:
        found: the reconstruction.
        labels: its tissue map, of `Cut.tissues`.
        cut: the slices and their truth.
        y: the measurement.
        scanner: how it came about.
        condition: name of the condition.
        solver: of the solver.
    """
    image = cut.as_slices(found.image)
    if not bool(torch.isfinite(image).all()):
        return HallucinationRow(cut.subject, condition, solver, *[math.nan] * 12)
    null, measured = _split(image, cut, scanner)
    spacing = cut.spacing[0]
    nyquist = nyquist_frequency(scanner.operator, spacing)
    patch = max(SMALLEST_PATCH, min(PATCH, *image.shape[-2:]))
    patches = scanning_frc(image, cut.truth, cut.mask, frequency=nyquist, spacing=spacing, patch=patch)
    structures = None if labels is None else [_structures(labels, cut, stack) for stack in cut.stacks]
    residual = DataTerm(y, scanner.operator, scanner.noise).whitened(found.image)
    return HallucinationRow(
        subject=cut.subject,
        condition=condition,
        solver=solver,
        null_rms=null,
        measurement_rms=measured,
        high_frequency_error=_mean(high_frequency_error(image, cut.truth, low=nyquist, spacing=spacing)),
        sfrc_share=patches.share,
        false_count=_total(structures, lambda errors: len(errors.false)),
        false_mm3=_total(structures, lambda errors: errors.false_mm3),
        lost_count=_total(structures, lambda errors: len(errors.lost)),
        lost_mm3=_total(structures, lambda errors: errors.lost_mm3),
        hallucination_index=_index(image, found.uncertainty, cut),
        residual_rms=_rms(residual),
        psnr_brain=_mean(psnr_brain(image, cut.truth, cut.mask)),
        ssim_brain=_mean(ssim_brain(image, cut.truth, cut.mask)),
    )


def _split(image: Tensor, cut: Cut, scanner: ScanOperator) -> tuple[float, float]:
    """Root mean square of the null-space and the measurement-space part of the error; NaN where the operator has no linear part."""
    operator = scanner.operator
    try:
        split = null_space_split(
            operator, cut.as_operand(image, operator), cut.as_operand(cut.truth, operator), noise_std=scanner.noise.std
        )
    except InputError:
        return math.nan, math.nan
    return _rms(split.null), _rms(split.measurement)


def _index(image: Tensor, spread: Tensor | None, cut: Cut) -> float:
    """Hallucination index, mean over the slices whose samples differ.

    Solvers keep the samples' standard deviation, not the samples. Two values at the estimate plus and minus it over the root of two have
    that mean and that (unbiased) variance, which is all that the index of single pixels takes from samples.
    """
    if spread is None:
        return math.nan
    offset = cut.as_slices(spread).double() / math.sqrt(2)
    differ = (offset * cut.mask).flatten(1).sum(1) > 0
    if not bool(differ.any()):
        return math.nan
    samples = torch.stack([image + offset, image - offset])[:, differ]
    return _mean(hallucination_index(samples, cut.truth[differ], mask=cut.mask[differ]).index)


def _structures(labels: Labels, cut: Cut, stack: slice) -> StructureErrors:
    return structure_errors(labels[:, :, stack], cut.labels[:, :, stack], cut.spacing)


def _total(errors: Sequence[StructureErrors] | None, number: Callable[[StructureErrors], float]) -> float:
    return math.nan if errors is None else float(sum(map(number, errors)))


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _mean(values: Tensor) -> float:
    """Mean of what is finite: slices without brain or without detail have no value."""
    finite = values[torch.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan
