"""Fidelity, hallucination and tissue volumes of a reconstruction."""

from dynamicdps.evaluation.evaluate import StageMetrics, data_misfit, evaluate_volume, residual_map
from dynamicdps.evaluation.fidelity import nrmse, psnr, ssim
from dynamicdps.evaluation.hallucination import standardised_residual
from dynamicdps.evaluation.tissue import TISSUES, dice, segment, tissue_volumes, volume_errors

__all__ = [
    "TISSUES",
    "StageMetrics",
    "data_misfit",
    "dice",
    "evaluate_volume",
    "nrmse",
    "psnr",
    "residual_map",
    "segment",
    "ssim",
    "standardised_residual",
    "tissue_volumes",
    "volume_errors",
]
