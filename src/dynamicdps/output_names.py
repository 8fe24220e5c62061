"""Names of the files that an enhanced scan or a segmentation leaves in its folder, and of the folder."""

from os.path import isdir
from pathlib import Path

ENHANCED, ENHANCED_BRAIN, BRAIN_MASK = "enhanced.nii.gz", "enhanced_brain.nii.gz", "brain_mask.nii.gz"
# Beside an image whose contrast is synthesised.
ENHANCED_SIDECAR = "enhanced.json"
INITIAL, MEASUREMENT, RESIDUAL = "initial.nii.gz", "measurement.nii.gz", "residual.nii.gz"
UNCERTAINTY, HALLUCINATION = "uncertainty.nii.gz", "hallucination.nii.gz"
TRUTH, SAMPLES = "truth.nii.gz", "samples.nii.gz"
SEGMENTATION, SEGMENTATION_TABLE = "dseg.nii.gz", "dseg.tsv"
STRUCTURE_VOLUMES, STRUCTURES = "volumes.tsv", "structures.tsv"
OPERATOR, START_RULE = "operator.json", "start-level.json"
TRACE, STARTS = "trace.csv", "starts.csv"
CORRECTION, CONTRADICTIONS = "correction.nii.gz", "contradictions.tsv"
METRICS, RUN, REPORT = "metrics.json", "run.json", "report.html"

# What the second scan and further ones of a head have too.
NUMBERED = (MEASUREMENT, RESIDUAL, OPERATOR)


def numbered(name: str, number: int | str) -> str:
    """The name of a file of one of several scans: ``measurement-2.nii.gz`` of the second."""
    stem, dot, ending = name.partition(".")
    return f"{stem}-{number}{dot}{ending}"


# What enhance and demo write or delete in their folder; `OPERATOR` only where the operator is fitted.
RESULTS = (
    *(RUN, METRICS, REPORT, TRACE, STARTS, START_RULE),
    *(ENHANCED, ENHANCED_SIDECAR, ENHANCED_BRAIN, BRAIN_MASK, INITIAL, MEASUREMENT),
    *(RESIDUAL, UNCERTAINTY, HALLUCINATION, TRUTH, SAMPLES),
    *(SEGMENTATION, SEGMENTATION_TABLE, STRUCTURES),
    *(numbered(name, "[0-9]*") for name in NUMBERED),
)

# What segment writes.
SEGMENTED = (RUN, BRAIN_MASK, SEGMENTATION, SEGMENTATION_TABLE, STRUCTURE_VOLUMES)

# What audit writes; `OPERATOR` only where the operator is fitted.
AUDITED = (RUN, METRICS, REPORT, CONTRADICTIONS, INITIAL, MEASUREMENT, RESIDUAL, HALLUCINATION, CORRECTION)


def folder_beside(scan: Path, to: str | None = None, *, ending: str = "enhanced") -> Path:
    """Folder for the results of a scan where none is named: ``scan_enhanced`` beside ``scan.nii.gz`` or beside the folder ``scan``.

    Args:
        scan: file or folder.
        to: contrast that an image is synthesised in: the folder is then ``scan_to-T1w_enhanced``.
        ending: what was done.
    """
    # A path such as ``.`` has no name of its own.
    place = scan.resolve() if scan.name in ("", "..") else scan
    stem = place.name if isdir(place) else place.name.removesuffix(".gz").rpartition(".")[0]
    synthesised = f"_to-{to[:1].upper()}{to[1:]}" if to else ""
    return place.parent / f"{stem or place.name}{synthesised}_{ending}"


def synthesised(made: str, contrast: str) -> dict[str, str]:
    """What a sidecar says of an image whose contrast no scanner made.

    Args:
        made: its contrast.
        contrast: of the scan.
    """
    return {"SynthesisedContrast": made, "ScanContrast": contrast, "Description": f"{made}-like image synthesised from a {contrast} scan"}
