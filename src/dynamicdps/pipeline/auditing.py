"""Audit an image, whoever made it, against the scan that it was made from: what the scan contradicts, and what it cannot show."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.calibration.fit import FITTED, OperatorFit
from dynamicdps.data_term import data_step, scan_term
from dynamicdps.errors import InputError
from dynamicdps.evaluation.contradictions import FWHM, Contradictions, find_contradictions
from dynamicdps.evaluation.misfit_causes import MisfitCause, cause_sentence, misfit_causes
from dynamicdps.evaluation.null_space import unsupported_map
from dynamicdps.evaluation.slice_doubts import slice_doubts
from dynamicdps.extension import load_extension
from dynamicdps.operators import ScanOperator
from dynamicdps.operators.scan_operator import require_noise
from dynamicdps.pipeline.audited import Audit
from dynamicdps.pipeline.checks import check_device, check_mask, check_shading
from dynamicdps.pipeline.fit import fit_scan, header_values
from dynamicdps.pipeline.inputs import as_volume, find_operator, name_of, one_scan
from dynamicdps.pipeline.kspace_scan import is_kspace
from dynamicdps.pipeline.measurements import open_measurement
from dynamicdps.pipeline.options import AuditOptions, ReadOptions, as_words, checked_values, values_of
from dynamicdps.pipeline.poses import SAME_HEAD
from dynamicdps.pipeline.progress import Progress, Stages
from dynamicdps.pipeline.scan_contrast import find_contrast
from dynamicdps.report.run_folder import HIGH_MISFIT
from dynamicdps.solvers.ablation import DataStepConfig
from dynamicdps.solvers.initial import Initial, initial_from_volume
from dynamicdps.solvers.solve import measurement_scale
from dynamicdps.volumes import BrainScan, Volume, from_slices, to_batch, to_slices
from dynamicdps.volumes.grids import covered, native_grid, sample
from dynamicdps.volumes.preparation import brain_step, intensity_step, orientation_step

# Share of the brain that an image must show to be compared with its scan, and from which on it shows all of it.
LEAST_SHOWN, ALL_SHOWN = 0.1, 0.95
# Exact zeros beyond which they are an image's mask, and the share of a voxel of the scan that must lie inside.
MASKED_SHARE, WHOLE_VOXEL = 0.05, 0.95


def audit(
    image: Any,
    scan: Any,
    options: AuditOptions | None = None,
    *,
    operator: ScanOperator | str | Path | None = None,
    progress: Progress | None = None,
    **values: Any,
) -> Audit:
    """Compare an image with the scan that it was made from.

    Args:
        image: of any tool, in the scan's space with voxels of any size: a path, an image of nibabel or a `Volume`. Its contrast may be
            another T1w one than the scan's where the forward model is fitted.
        scan: path of an image file or of a folder of DICOM files, an image of nibabel, a `Volume`, or a list of one of them; with or
            without the skull.
        options: how.
        operator: forward model of the scanner, as an object or as the option of that name; without it that beside the scan, else it is
            fitted to image and scan.
        progress: is told how far the work is.
        values: options by name in the place of `options`, such as ``mask="none"``; `AuditOptions` has them all.

    Raises:
        InputError: an option is wrong, a file cannot be used, or the image does not show the head of the scan.
        TypeError: image or scan is no image, or there is no option of a name.
    """
    require_noise(operator)
    if not isinstance(operator, ScanOperator):
        values |= {} if operator is None else {"operator": operator}
    options = replace(options or AuditOptions(), **checked_values(AuditOptions, values))
    load_extension(options.extension)
    stages = Stages(progress)
    device = check_device(options.device)
    check_mask(options.mask)
    given, audited = one_scan(scan), as_volume(image, "the image")
    scanner = find_operator(given, operator if isinstance(operator, ScanOperator) else options.operator)
    check_shading(options.shading, fitted=scanner is None)
    with stages.stage("open"):
        if isinstance(given, Path) and is_kspace(given):
            raise InputError(f"{given} is raw k-space; expected an image of the scan; reconstruct it first")
        read = ReadOptions(series=options.series, volume=options.volume)
        head = open_measurement(given, read, options.mask, cropped=scanner is None or scanner.image_shape is None).head
        contrast = find_contrast(options.contrast, given, head)
        steps = [orientation_step(head.whole), brain_step(head, options.mask), contrast.step()]
        warnings = [*head.acquisition.warnings, *head.mask.warnings, *contrast.warnings]
        shown, remarks = _shown(audited, head, name_of(audited))
        warnings += remarks
    fit: OperatorFit | None = None
    with stages.stage("initial"):
        if scanner is None:
            known = header_values(head.acquisition)
            fitted = fit_scan(head, audited, "", FITTED, known, None, options.shading, contrast.name)
            fit, scanner, placed = fitted.fit, fitted.fit.scan_operator, fitted.initial
            steps.append(fitted.shading.step())
            warnings += [*steps[-1].warnings, *fit.warnings]
        else:
            placed = initial_from_volume(head.brain, scanner, audited, name_of(audited))
    with stages.stage("solve"):
        compared = _compare(placed, head, scanner, shown, device)
    if compared.correlation < SAME_HEAD:
        raise InputError(
            f"{name_of(audited)} does not show what {name_of(given)} shows (correlation {compared.correlation:.2f}, at least {SAME_HEAD:g} "
            "in images of one head); expected an image of this scan in its space; check that it is, and its header"
        )
    axis = head.acquisition.slice_axis
    warnings += slice_doubts(compared.residual, axis)
    if compared.misfit > HIGH_MISFIT:
        warnings.append(
            f"The image does not explain the scan: what is left is {compared.misfit:.1f} times the noise. {cause_sentence(compared.causes)}"
        )
    steps.append(intensity_step(compared.scale))
    return Audit(
        scan=name_of(given),
        source=name_of(audited),
        image=placed.volume,
        measurement=head.brain,
        residual=compared.residual,
        hallucination=compared.hallucination,
        correction=compared.correction,
        contradictions=compared.contradictions,
        data_misfit=compared.misfit,
        correlation=compared.correlation,
        unsupported_share=compared.unsupported_share,
        causes=compared.causes,
        scale=compared.scale,
        operator=scanner,
        fit=fit,
        steps=tuple(steps),
        warnings=tuple(dict.fromkeys(warnings)),
        facts={
            "preparation": [step.to_json() for step in steps],
            "title": f"Audit of {Path(name_of(audited)).name} against {Path(name_of(given)).name}",
            "initial": placed.source,
            "contrast": contrast.name,
            "operator": scanner.to_json(),
            "intensity_scale": compared.scale,
            "brain": {"method": head.mask.method, "millilitres": round(head.mask.millilitres(head.whole), 1)},
            "acquisition": head.acquisition.to_json(),
            "models": {},
            "warnings": list(dict.fromkeys(warnings)),
        },
        durations=stages.seconds,
        arguments={"image": name_of(audited), "scan": name_of(given), **values_of(options, AuditOptions)},
        argv=() if isinstance(operator, ScanOperator) else _words(audited, given, options),
    )


@dataclass(frozen=True)
class _Compared:
    """Image and scan beside each other."""

    residual: Volume
    hallucination: Volume | None
    correction: Volume
    contradictions: Contradictions
    misfit: float
    correlation: float
    unsupported_share: float | None
    causes: list[MisfitCause]
    scale: float


@torch.inference_mode()
def _compare(placed: Initial, head: BrainScan, scanner: ScanOperator, shown: NDArray[np.bool_], device: str) -> _Compared:
    """The scan's residual and what it says, the null-space part of the image, and how a data step would change it.

    Args:
        placed: the image on the image grid, units of the scan.
        head: the scan and its brain.
        scanner: its forward model.
        shown: where the image shows the whole of a voxel of `head.brain`.
        device: where to compute.
    """
    scale = measurement_scale(head.brain, scanner)
    counted = shown if head.measured is None else shown * head.measured
    weighted = scanner.weighted(counted.astype(np.float32))
    term = scan_term(head.brain, weighted, scale.scale, device=device)
    x = (to_batch if weighted.couples_slices else to_slices)(placed.volume.data / scale.scale, device)
    whitened = term.whitened(x)
    residual = head.brain.with_data(from_slices(whitened.cpu()))
    predicted, measured = from_slices(term.scanner(x).cpu()).astype(np.float64), head.brain.data.astype(np.float64) / scale.scale
    inside = residual.data != 0
    both = np.corrcoef(predicted[inside], measured[inside])[0, 1] if inside.any() else 0.0
    axis = 2 if head.acquisition.slice_axis is None else head.acquisition.slice_axis
    settings = DataStepConfig()
    stepped = data_step(
        term,
        x,
        torch.full((len(x),), settings.spread, device=x.device),
        method=settings.method,
        line_search=settings.line_search,
        iterations=settings.iterations,
    )
    correction = placed.volume.with_data(from_slices((stepped.x - x).cpu()) * scale.scale)
    unsupported = unsupported_map(placed.volume, scanner, scale)
    share = None
    if unsupported is not None:
        brain = head.inside_on(placed.volume) if head.weights is not None else (placed.volume.data > 0).astype(np.float32)
        unsupported = unsupported.with_data(unsupported.data * brain)
        energy = float(np.square(placed.volume.data * brain, dtype=np.float64).sum())
        share = float(np.square(unsupported.data, dtype=np.float64).sum()) / energy if energy > 0 else None
    return _Compared(
        residual=residual,
        hallucination=unsupported,
        correction=correction,
        contradictions=find_contradictions(residual, predicted * scale.scale, measured * scale.scale, axis),
        misfit=float(np.sqrt(np.square(residual.data[inside], dtype=np.float64).mean())) if inside.any() else float("nan"),
        correlation=float(np.nan_to_num(both)),
        unsupported_share=share,
        causes=misfit_causes(residual, predicted, axis),
        scale=scale.scale,
    )


def _shown(image: Volume, head: BrainScan, name: str) -> tuple[NDArray[np.bool_], list[str]]:
    """Voxels of a scan's brain of which an image shows the whole, and what is to be said of the others.

    Raises:
        InputError: the image shows hardly any of the brain.
    """
    from scipy import ndimage

    grid = native_grid(head.brain)
    there = covered(image, grid)
    # Around a brain without its skull there is nothing in the scan either.
    if head.weights is not None and (image.data == 0).mean() > MASKED_SHARE:
        own = image.with_data(ndimage.binary_fill_holes(image.data != 0))
        # As far as a voxel of the scan reaches.
        widths = [edge / mm / FWHM for edge, mm in zip(head.brain.spacing, image.spacing, strict=True)]
        soft = own.with_data(ndimage.gaussian_filter(own.data.astype(np.float32), widths))
        there &= sample(soft, grid).data >= WHOLE_VOXEL
    brain = head.mask.inside if head.weights is None else head.weights > 0
    brain = brain & (head.brain.data > 0)
    share = float((there & brain).sum() / max(1, brain.sum()))
    if share < LEAST_SHOWN:
        raise InputError(
            f"{name} shows {share:.0%} of the brain of the scan; expected an image that lies in the scan's space; check its header, or "
            "register it to the scan first"
        )
    if share < ALL_SHOWN:
        return there, [f"the image shows {share:.0%} of the scan's brain; nothing is said of the rest"]
    return there, []


def _words(image: Volume, scan: Path | Volume, options: AuditOptions) -> tuple[str, ...]:
    """The words of the command line that audit the same, without the folder; none where an image has no file."""
    if image.path is None or (isinstance(scan, Volume) and scan.path is None):
        return ()
    words = as_words(AuditOptions(**values_of(options, AuditOptions)))
    return ("audit", name_of(image), "--scan", name_of(scan), *words)
