"""Tables with numbers that were chosen, not measured."""

from collections.abc import Mapping, Sequence

from dynamicdps.evaluation.benchmark import HallucinationRow, LesionRow, Results, Row, VolumeRow

CONDITION = "unet/iqt-out"


def row(subject: str, solver: str, psnr: float, *, number: int = 0, condition: str = CONDITION, ssim: float = 0.9, nfe: int = 0) -> Row:
    return Row(subject, number, condition, solver, psnr, ssim, 0.1, 1.0, nfe, 0, 0.05, 1.5, 2)


def volume(subject: str, solver: str, errors: Sequence[float], *, condition: str = CONDITION) -> VolumeRow:
    csf, gm, wm = errors
    return VolumeRow(subject, condition, solver, 100 * (1 + csf), 200 * (1 + gm), 300 * (1 + wm), csf, gm, wm, 0.9, 0.8, 0.9, 1.0)


def hallucination(subject: str, solver: str, null_rms: float, false_mm3: float, *, condition: str = CONDITION) -> HallucinationRow:
    return HallucinationRow(subject, condition, solver, null_rms, 0.01, 0.5, 0.1, 2.0, false_mm3, 1.0, 20.0, float("nan"), 1.0, 25.0, 0.8)


def lesion(subject: str, solver: str, kept: float, *, number: int = 1, contrast: float = -0.2, resolvable: bool = True) -> LesionRow:
    return LesionRow(subject, CONDITION, solver, number, 16, 3.0 + number, contrast, contrast, contrast * kept, kept, 30.0, 0.9, resolvable)


def benchmark(psnr: Mapping[str, Sequence[float]], errors: Mapping[str, Sequence[float]]) -> Results:
    """One row a subject and solver.

    Args:
        psnr: by solver, one a subject.
        errors: volume error of all tissues, likewise; the null-space error is a tenth of its size, false structures are its percent.
    """
    results = Results()
    for solver, values in psnr.items():
        for i, value in enumerate(values):
            error = errors[solver][i]
            subject = f"sub-{i}"
            results.rows.append(row(subject, solver, value))
            results.volumes.append(volume(subject, solver, (error, -error, error)))
            results.hallucination.append(hallucination(subject, solver, 0.1 * error, 100 * error))
    return results
