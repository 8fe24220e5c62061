"""Fidelity, hallucination, tissue volumes, lesions and statistics of reconstructions."""

from dynamicdps.evaluation.conformal import ConformalErrorMap, covered_share, error_heuristic
from dynamicdps.evaluation.evaluate import StageMetrics, data_misfit, evaluate_volume, residual_map
from dynamicdps.evaluation.fidelity import nrmse, nrmse_brain, psnr, psnr_brain, ssim, ssim_brain
from dynamicdps.evaluation.hallucination_index import HallucinationIndex, hallucination_index
from dynamicdps.evaluation.high_frequency import high_frequency_error, nyquist_frequency
from dynamicdps.evaluation.lesions import (
    Lesion,
    contrast_kept,
    insert_lesion,
    lesion_contrast,
    make_lesion,
    place_lesions,
)
from dynamicdps.evaluation.multi_scale_ssim import ms_ssim, scales_that_fit
from dynamicdps.evaluation.null_space import NullSpaceSplit, null_space_split, unsupported_map
from dynamicdps.evaluation.perceptual import lpips
from dynamicdps.evaluation.residual_statistics import ResidualStatistics, Statistic, residual_statistics
from dynamicdps.evaluation.resolvability import Resolvability, resolvable
from dynamicdps.evaluation.sample_agreement import RestartDisagreement, restart_disagreement, sample_spread
from dynamicdps.evaluation.sfrc import RingCorrelation, fourier_ring_correlation, scanning_frc
from dynamicdps.evaluation.statistics import (
    Estimate,
    PairedComparison,
    bootstrap_interval,
    by_subject,
    holm,
    paired_comparison,
    signed_rank,
)
from dynamicdps.evaluation.structures import Region, StructureErrors, structure_errors
from dynamicdps.evaluation.through_plane import through_plane_calibration, through_plane_roughness
from dynamicdps.evaluation.tissue import TISSUES, dice, segment, tissue_volumes, volume_errors
from dynamicdps.evaluation.tissue_intervals import TissueIntervals, tissue_intervals

__all__ = [
    "TISSUES",
    "ConformalErrorMap",
    "Estimate",
    "HallucinationIndex",
    "Lesion",
    "NullSpaceSplit",
    "PairedComparison",
    "Region",
    "ResidualStatistics",
    "Resolvability",
    "RestartDisagreement",
    "RingCorrelation",
    "StageMetrics",
    "Statistic",
    "StructureErrors",
    "TissueIntervals",
    "bootstrap_interval",
    "by_subject",
    "contrast_kept",
    "covered_share",
    "data_misfit",
    "dice",
    "error_heuristic",
    "evaluate_volume",
    "fourier_ring_correlation",
    "hallucination_index",
    "high_frequency_error",
    "holm",
    "insert_lesion",
    "lesion_contrast",
    "lpips",
    "make_lesion",
    "ms_ssim",
    "nrmse",
    "nrmse_brain",
    "null_space_split",
    "nyquist_frequency",
    "paired_comparison",
    "place_lesions",
    "psnr",
    "psnr_brain",
    "residual_map",
    "residual_statistics",
    "resolvable",
    "restart_disagreement",
    "sample_spread",
    "scales_that_fit",
    "scanning_frc",
    "segment",
    "signed_rank",
    "ssim",
    "ssim_brain",
    "structure_errors",
    "through_plane_calibration",
    "through_plane_roughness",
    "tissue_intervals",
    "tissue_volumes",
    "unsupported_map",
    "volume_errors",
]
