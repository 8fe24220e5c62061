"""Scans of one contrast of a BIDS dataset or of plain folders, and the names of what is derived from them."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dynamicdps.errors import InputError

# Of BIDS: entities come in this order, and `rec` before all of these.
AFTER_REC = ("dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "seg", "res")
RECONSTRUCTION = "dynamicdps"
ENDINGS = (".nii.gz", ".nii")
SUFFIX = "T1w"
# Suffixes of what can be enhanced.
CONTRASTS = (SUFFIX, "T2w", "FLAIR")
# What scans that are enhanced together may differ in: everything else is another session, contrast or kind of image.
COMBINED = ("acq", "run", "dir")
# Between the places of scans that are enhanced together.
BETWEEN = " | "
NAME = r"sub-[0-9A-Za-z+]+(_[a-z]+-[0-9A-Za-z+]+)*_"


@dataclass(frozen=True)
class BidsScan:
    """A scan by its entities, or several of one head that are enhanced together.

    Attributes:
        paths: the file, or the files.
        sources: its place in the dataset, or theirs, with forward slashes.
        entities: key and label in the order of the name, ``sub`` first; of several scans those that all share.
        suffix: of the scan's contrast.
        to: contrast of the image that is synthesised; `None` for the scan's own.
    """

    paths: tuple[Path, ...]
    sources: tuple[str, ...]
    entities: tuple[tuple[str, str], ...]
    suffix: str = SUFFIX
    to: str | None = None

    @property
    def source(self) -> str:
        """The places of all its files in one line."""
        return BETWEEN.join(self.sources)

    @property
    def name(self) -> str:
        """What tells the scan from all others: `stem`, with the suffix of another contrast than T1w."""
        return self.stem if self.image_suffix == SUFFIX else f"{self.stem}_{self.image_suffix}"

    @property
    def image_suffix(self) -> str:
        """Suffix of what is derived from it."""
        return self.to or self.suffix

    @property
    def stem(self) -> str:
        """Entities of the derivatives, ``sub-01_ses-1_rec-dynamicdps``: the scan's own with the reconstruction's.

        Of a synthesised contrast it says from which scan: ``rec-dynamicdpsFromT2w``.
        """
        entities = dict(self.entities)
        # A scan that has a reconstruction already keeps its label: two of them must not become one.
        made_from = "" if self.to is None else f"From{self.suffix}"
        own = (("rec", entities.pop("rec", "") + RECONSTRUCTION + made_from),)
        before = tuple((key, label) for key, label in entities.items() if key not in AFTER_REC)
        after = tuple((key, label) for key, label in entities.items() if key in AFTER_REC)
        return "_".join(f"{key}-{label}" for key, label in before + own + after)

    @property
    def folder(self) -> str:
        """Where its derivatives lie, ``sub-01/ses-1/anat``."""
        entities = dict(self.entities)
        session = f"ses-{entities['ses']}/" if "ses" in entities else ""
        return f"sub-{entities['sub']}/{session}anat"

    def label(self, key: str) -> str | None:
        return dict(self.entities).get(key)

    def seed(self, base: int) -> int:
        """Seed of this scan's randomness, from its name alone: the same for every order and number of workers."""
        return int.from_bytes(hashlib.sha256(f"{base}/{self.name}".encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class LeftOut:
    """What of a dataset is not enhanced.

    Attributes:
        source: an image's, a session's or a subject's place in the dataset.
        reason: one sentence.
    """

    source: str
    reason: str


def suffix_of(contrast: str) -> str:
    """Suffix of the scans that a study's contrast means, as in its options: T1w unless it names T2w or FLAIR."""
    return contrast if contrast in CONTRASTS else SUFFIX


def other_contrasts(folder: Path, suffix: str = SUFFIX) -> dict[str, int]:
    """How many scans of a BIDS dataset have each of the other contrasts that can be enhanced; those without a scan are left out."""
    counts = {other: sum(1 for _ in _files(folder, None, other)) for other in CONTRASTS if other != suffix}
    return {other: count for other, count in counts.items() if count}


def find_scans(
    folder: Path,
    *,
    subjects: Sequence[str] = (),
    sessions: Sequence[str] = (),
    acquisitions: Sequence[str] = (),
    pattern: str | None = None,
    leave_out: Path | None = None,
    suffix: str = SUFFIX,
) -> list[BidsScan]:
    """Scans of one contrast of a dataset, sorted by name.

    Args:
        folder: the dataset.
        subjects: labels to take, with or without ``sub-``; all without.
        sessions: likewise.
        acquisitions: likewise.
        pattern: for folders that are no BIDS dataset: a glob below the folder, such as ``"*/t1.nii.gz"``. The letters and digits of a
            file's path become its subject's label, unless its name is one of BIDS.
        leave_out: a folder whose files are no scans: the derivatives.
        suffix: of the contrast.

    Raises:
        InputError: the folder is missing, holds no such scan, or two files would have one name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected a BIDS dataset; check the path")
    wanted = _wanted(sub=subjects, ses=sessions, acq=acquisitions)
    found: dict[str, BidsScan] = {}
    for path in _files(folder, pattern, suffix):
        if leave_out is not None and path.is_relative_to(leave_out):
            continue
        scan = _scan(folder, path, pattern is not None, suffix)
        if scan is None or any(scan.label(key) not in labels for key, labels in wanted.items()):
            continue
        if scan.name in found:
            both = f"{found[scan.name].source} and {scan.source}"
            raise InputError(f"{both} would both become {scan.name}; expected names that differ in letters or digits; rename one")
        found[scan.name] = scan
    if not found:
        what = f"files {pattern}" if pattern else f"sub-*/[ses-*/]anat/*_{suffix}.nii[.gz]"
        chosen = "".join(f", {key} {' '.join(sorted(labels))}" for key, labels in wanted.items())
        raise InputError(
            f"{folder} holds no scan ({what}{chosen}); expected at least one; check folder and filters, or give cohort's --pattern"
        )
    return [found[name] for name in sorted(found)]


def combine(scans: Sequence[BidsScan]) -> list[BidsScan]:
    """Scans of one session of a subject that differ in `COMBINED` alone as one, sorted by name; all others as they are."""
    groups: dict[tuple[object, ...], list[BidsScan]] = {}
    for scan in sorted(scans, key=lambda scan: scan.sources):
        groups.setdefault((scan.suffix, *sorted(each for each in scan.entities if each[0] not in COMBINED)), []).append(scan)
    together = [
        replace(
            first,
            paths=tuple(path for scan in (first, *others) for path in scan.paths),
            sources=tuple(source for scan in (first, *others) for source in scan.sources),
            entities=tuple(each for each in first.entities if all(each in scan.entities for scan in others)),
        )
        for first, *others in groups.values()
    ]
    return sorted(together, key=lambda scan: scan.name)


def find_left_out(
    folder: Path, scans: Sequence[BidsScan], *, subjects: Sequence[str] = (), sessions: Sequence[str] = (), suffix: str = SUFFIX
) -> list[LeftOut]:
    """What of a BIDS dataset's anatomical images is none of the scans, and the subjects and sessions without one; sorted by place.

    Args:
        folder: the dataset.
        scans: of `find_scans` with the same filters.
        subjects: labels to look at, with or without ``sub-``; all without.
        sessions: likewise; folders without sessions are then passed over.
        suffix: of the scans.
    """
    wanted, known = _wanted(sub=subjects, ses=sessions), {source for scan in scans for source in scan.sources}
    left: list[LeftOut] = []
    for place in _places(folder, wanted):
        here = place.relative_to(folder).as_posix()
        images = sorted(path for path in (place / "anat").glob("*.nii*") if _stem(path.name) is not None)
        left += [LeftOut(source, _why(path, suffix)) for path in images if (source := path.relative_to(folder).as_posix()) not in known]
        if not any(source.startswith(f"{here}/anat/") for source in known):
            left.append(LeftOut(here, f"there is no {suffix} scan in {here}/anat; only such scans are enhanced"))
    return left


def _places(folder: Path, wanted: Mapping[str, set[str]]) -> Iterator[Path]:
    """Folders of sessions, and of subjects that have none or an anat folder beside them."""
    for subject in sorted(path for path in folder.glob("sub-*") if path.is_dir()):
        if "sub" in wanted and subject.name.removeprefix("sub-") not in wanted["sub"]:
            continue
        sessions = sorted(path for path in subject.glob("ses-*") if path.is_dir())
        if "ses" not in wanted and (not sessions or (subject / "anat").is_dir()):
            yield subject
        yield from (path for path in sessions if "ses" not in wanted or path.name.removeprefix("ses-") in wanted["ses"])


def _why(image: Path, wanted: str) -> str:
    """Why an anatomical image is no scan that is enhanced."""
    suffix = str(_stem(image.name)).rpartition("_")[2]
    if re.fullmatch(NAME, str(_stem(image.name)).removesuffix(suffix)) and suffix.isalnum():
        hint = f"; another run with --contrast {suffix} enhances it" if suffix in CONTRASTS else ""
        return f"its suffix is {suffix}; only {wanted} scans are enhanced{hint}"
    return f"its name is none of BIDS; expected one such as sub-01_ses-1_{wanted}.nii.gz"


def _wanted(**filters: Sequence[str]) -> dict[str, set[str]]:
    """Labels that are asked for by entity, without the entity's name; no entity of which all are."""
    return {key: {label.removeprefix(f"{key}-") for label in labels} for key, labels in filters.items() if labels}


def _files(folder: Path, pattern: str | None, suffix: str) -> Iterator[Path]:
    if pattern is None:
        for place in ("sub-*/anat", "sub-*/ses-*/anat"):
            yield from folder.glob(f"{place}/sub-*_{suffix}.nii*")
        return
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise InputError(f"the pattern {pattern!r} leads out of {folder}; expected a glob below it such as '*/t1.nii.gz'; change --pattern")
    yield from (path for path in folder.glob(pattern) if path.is_file())


def _scan(folder: Path, path: Path, plain: bool, suffix: str) -> BidsScan | None:
    """A file as a scan; `None` for one whose name is none."""
    source = path.relative_to(folder).as_posix()
    stem = _stem(path.name)
    if stem is None:
        return None
    if re.fullmatch(NAME + suffix, stem):
        entities = tuple((key, label) for key, _, label in (part.partition("-") for part in stem.split("_")[:-1]))
        return BidsScan((path,), (source,), entities, suffix)
    if not plain:
        return None
    label = "".join(filter(str.isalnum, source.removesuffix(path.name) + stem)).encode("ascii", "ignore").decode()
    return BidsScan((path,), (source,), (("sub", label),), suffix) if label else None


def _stem(name: str) -> str | None:
    for ending in ENDINGS:
        if name.endswith(ending) and not name.startswith("."):
            return name.removesuffix(ending)
    return None
