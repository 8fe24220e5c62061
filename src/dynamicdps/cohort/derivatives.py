"""Where the files of an enhanced scan go: BIDS derivatives, all of a scan's or none."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamicdps import __version__
from dynamicdps.atomic_file import write_text
from dynamicdps.cohort.bids import SUFFIX, BidsScan
from dynamicdps.cohort.state import ScanState
from dynamicdps.errors import InputError
from dynamicdps.json_file import read_json, write_json
from dynamicdps.output_names import (
    BRAIN_MASK,
    ENHANCED,
    ENHANCED_BRAIN,
    INITIAL,
    REPORT,
    RESIDUAL,
    SEGMENTATION,
    SEGMENTATION_TABLE,
    STRUCTURES,
    UNCERTAINTY,
    numbered,
    synthesised,
)

BIDS_VERSION = "1.10.0"
# What says whose a folder is, and what is in it.
DESCRIPTION = ("dataset_description.json", "README", ".bidsignore")
PROGRAM = "DynamicDPS"
# What an enhancer may leave in its folder, and what BIDS calls it. The measurement is the source itself and is not kept twice.
FILES = {
    ENHANCED: "T1w.nii.gz",
    ENHANCED_BRAIN: "desc-brain_T1w.nii.gz",
    INITIAL: "desc-initial_T1w.nii.gz",
    RESIDUAL: "desc-residual_T1w.nii.gz",
    UNCERTAINTY: "desc-uncertainty_T1w.nii.gz",
    BRAIN_MASK: "label-brain_probseg.nii.gz",
    SEGMENTATION: "dseg.nii.gz",
    SEGMENTATION_TABLE: "dseg.tsv",
    STRUCTURES: "structures.tsv",
    REPORT: REPORT,
}
# What lies in the folder beside BIDS files.
NOT_BIDS = (
    *("cohort.tsv", "cohort.json", "not_enhanced.tsv", "not_enhanced.json", "timing.tsv", "index.html"),
    *("run.json", "*.run.json", "*_report.html", "*_structures.tsv"),
)
README = """Enhanced scans by DynamicDPS. Research use only, not for diagnosis or treatment.

Each enhanced scan is named *_rec-dynamicdps_T1w.nii.gz (or _T2w, _FLAIR; *_rec-dynamicdpsFromT2w_T1w.nii.gz is a T1w-like image
that models made from a T2w scan); the JSON file of the same name says how it was made,
*_report.html shows it.
*_dseg.nii.gz and *_structures.tsv are its structures and their volumes, where there was a model that finds them.
cohort.tsv is the table of tissue volumes (cohort.json explains its columns), index.html its page.
"""


def place_of(scan: BidsScan, ending: str) -> str:
    """A derivative's place in the output folder; of another contrast than T1w each file says which."""
    if scan.image_suffix != SUFFIX:
        # What has no suffix of a contrast would have one name for all: masks are described by it.
        before, joined, last = ending.rpartition("_")
        described = f"{scan.image_suffix}_{REPORT}" if ending == REPORT else f"{before}{joined}desc-{scan.image_suffix}_{last}"
        ending = ending.replace(SUFFIX, scan.image_suffix) if SUFFIX in ending else described
    return f"{scan.folder}/{scan.stem}_{ending}"


def sidecar(scan: BidsScan, facts: Mapping[str, Any], *, seed: int, input_hash: str, parameters: str) -> dict[str, Any]:
    """The JSON file beside an enhanced scan.

    Args:
        scan: the source.
        facts: of the enhancer: operator, models, solver, settings, warnings and more.
        seed: of its randomness.
        input_hash: of the source's contents.
        parameters: hash of settings, models and version.
    """
    return {
        "Description": "Enhanced by posterior sampling under the scanner's forward model",
        **({} if scan.to is None else synthesised(scan.to, scan.suffix)),
        "Sources": [f"bids:raw:{source}" for source in scan.sources],
        "DynamicDPS": {"version": __version__, "seed": seed, "input": input_hash, "parameters": parameters, **facts},
    }


def publish(scan: BidsScan, made: Path, out: Path, state: ScanState, previous: ScanState | None) -> ScanState:
    """Move a scan's files to their places, the sidecar last, and write its state.

    A run that is ended in between leaves the state "publishing", which makes the next run do the scan again.

    Args:
        scan: the source.
        made: folder of the enhancer's files, with the sidecar as ``sidecar.json``; on the file system of `out`.
        out: folder of the derivatives.
        state: what to write; its outputs are found here.
        previous: the scan's state before, whose files are replaced.

    Raises:
        InputError: a link leads out of the folder of the derivatives.
        FileNotFoundError: the folder has been taken away by a run that has begun since.
    """
    known = FILES | {numbered(RESIDUAL, number): f"desc-residual{number}_T1w.nii.gz" for number in range(2, len(scan.paths) + 1)}
    endings = {name: ending for name, ending in known.items() if (made / name).is_file()} | {"sidecar.json": f"{SUFFIX}.json"}
    outputs = {place_of(scan, ending): (made / name).stat().st_size for name, ending in endings.items()}
    before = {} if previous is None else previous.outputs
    state_now = ScanState(**{**vars(state), "status": "publishing", "outputs": before | outputs})
    state_now.save(out)
    withdraw(before, out)
    if not is_within(out / scan.folder / scan.name, out):
        raise InputError(f"{out / scan.folder} leads out of {out}; expected a folder of its own; remove the link")
    (out / scan.folder).mkdir(parents=True, exist_ok=True)
    for name, ending in endings.items():
        (made / name).replace(out / place_of(scan, ending))
    done = ScanState(**{**vars(state), "status": "done", "outputs": outputs})
    done.save(out)
    return done


def withdraw(outputs: Mapping[str, int], out: Path) -> None:
    """Delete a scan's files, the sidecar first: whoever finds it finds the others too."""
    for place in sorted(outputs, key=lambda place: not place.endswith(".json")):
        # Places come from a file of the folder, which may say anything.
        if is_within(out / place, out):
            (out / place).unlink(missing_ok=True)


def is_within(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder when links and ``..`` are followed, the file's own name left as it is."""
    return path.name not in ("", "..") and path.parent.resolve().is_relative_to(folder.resolve())


def is_own(out: Path) -> bool:
    """Whether a folder says that it holds derivatives of this program."""
    try:
        made_by = read_json(out / DESCRIPTION[0])["GeneratedBy"]
        return any(each["Name"] == PROGRAM for each in made_by)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_description(out: Path, dataset: Path) -> None:
    """dataset_description.json, README and .bidsignore of the derivatives.

    Args:
        out: their folder.
        dataset: the sources'; the links between both are relative, so that they can be moved together.
    """
    link = Path(os.path.relpath(dataset.resolve(), out.resolve())).as_posix()
    values = {
        "Name": "DynamicDPS: enhanced scans",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": PROGRAM, "Version": __version__, "Description": "Enhancement of low-field and other poor MRI scans"}],
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {"raw": link},
    }
    description, readme, ignored = (out / name for name in DESCRIPTION)
    write_json(description, values)
    write_text(readme, README)
    write_text(ignored, "".join(f"{name}\n" for name in NOT_BIDS))
