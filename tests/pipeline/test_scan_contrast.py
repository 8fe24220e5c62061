"""A scan's contrast by the user, its name, its sequence and its intensities, in this order."""

from pathlib import Path

import pytest

from dynamicdps.pipeline.scan_contrast import contrast_of, find_contrast, sequence_contrast
from dynamicdps.volumes import Acquisition, BrainMask, BrainScan
from tests.volumes.test_contrast import scan_of


def head_of(contrast: str, acquisition: Acquisition = Acquisition()) -> BrainScan:
    volume, inside = scan_of(contrast, 0.02)
    return BrainScan(volume, acquisition, BrainMask(inside, "none"), volume, None)


FLAIR_TIMES = Acquisition(echo_time_ms=193, repetition_time_ms=4000, inversion_time_ms=1400)


@pytest.mark.parametrize(
    ("asked", "name", "acquisition", "expected", "source"),
    [
        ("T1w", "sub-1_T2w.nii.gz", FLAIR_TIMES, "T1w", "option"),
        ("unknown", "sub-1_T2w.nii.gz", Acquisition(), "unknown", "option"),
        ("auto", "sub-1_T2w.nii.gz", FLAIR_TIMES, "T2w", "name"),
        ("auto", "sub-1_PDw.nii.gz", Acquisition(), "unknown", "name"),
        ("auto", "scan.nii.gz", FLAIR_TIMES, "FLAIR", "sequence"),
        ("auto", "scan.nii.gz", Acquisition(), "T2w", "intensities"),
    ],
)
def test_what_says_the_contrast(asked: str, name: str, acquisition: Acquisition, expected: str, source: str) -> None:
    found = find_contrast(asked, Path(name), head_of("T2w", acquisition))
    assert (found.name, found.source) == (expected, source)
    # The scan looks T2w: whoever says something else is warned of.
    assert len(found.warnings) == (expected not in ("T2w", "unknown"))
    assert all("look T2w" in warning for warning in found.warnings)
    step = found.step()
    assert (step.found["contrast"], step.found["source"], step.parameters["contrast"]) == (expected, source, asked)
    assert "bright" in str(step.found["intensities"])


@pytest.mark.parametrize("contrast", ["T1w", "T2w", "FLAIR"])
def test_a_true_name_raises_no_doubt(contrast: str) -> None:
    found = find_contrast("auto", Path(f"sub-1_{contrast}.nii"), head_of(contrast))
    assert (found.name, found.warnings) == (contrast, ())


def test_intensities_alone_lead_to_no_contrast_that_the_models_do_not_know() -> None:
    found = find_contrast("auto", Path("scan.nii"), head_of("FLAIR"), {"T1w"})
    assert (found.name, found.source) == ("T1w", "default")
    assert "looks FLAIR" in found.warnings[0]


def test_a_scan_without_a_file_and_one_that_is_too_small() -> None:
    head = head_of("FLAIR")
    assert find_contrast("auto", head.whole, head).name == "FLAIR"
    tiny = BrainScan(head.whole, head.acquisition, BrainMask(head.mask.inside & False, "none"), head.whole, None)
    assert find_contrast("auto", head.whole, tiny).source == "default"


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("sub-01_T2w.nii.gz", "T2w"),
        ("sub-01_acq-hyperfine_FLAIR.nii", "FLAIR"),
        ("sub-01_flair.nii.gz", "FLAIR"),
        ("sub-01_T1w.nii.gz", "T1w"),
        ("T2w_sub-01.nii.gz", None),
        ("scan.nii.gz", None),
        ("a_folder", None),
    ],
)
def test_contrast_in_names(name: str, contrast: str | None) -> None:
    assert contrast_of(Path(name)) == contrast


@pytest.mark.parametrize(
    ("echo", "repetition", "inversion", "sequence", "contrast"),
    [
        (3.0, 2300, 900, "GR\\IR", "T1w"),  # MPRAGE
        (6.7, 1500, 300, "SE\\IR", "T1w"),  # 64 mT
        (209, 2000, None, "SE", "T2w"),  # 64 mT
        (193, 4000, 1400, "SE\\IR", "FLAIR"),  # 64 mT
        (120, 9000, 2500, "SE\\IR", "FLAIR"),
        (40, 4000, 110, "SE\\IR", "unknown"),  # STIR
        (12, 500, None, "SE", "T1w"),
        (15, 3000, None, "SE", None),  # proton density, or T1w at low field
        (45, 3000, None, "SE", "unknown"),
        (5, 30, None, "GR", "T1w"),
        (25, 600, None, "GR", "unknown"),  # T2*
        (120, 9000, None, "SE\\IR", None),
        (None, 500, None, "SE", None),
    ],
)
def test_contrast_of_sequences(echo: float | None, repetition: float, inversion: float | None, sequence: str, contrast: str | None) -> None:
    times = Acquisition(echo_time_ms=echo, repetition_time_ms=repetition, inversion_time_ms=inversion, sequence=sequence)
    assert sequence_contrast(times) == contrast
