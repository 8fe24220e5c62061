"""Files that were dropped: safe names, bounds, and which of them are one scan."""

import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynamicdps.errors import InputError
from dynamicdps.pipeline.inputs import operator_beside
from dynamicdps.volumes.dicom_frames import read_series

MAX_FILE_BYTES = 4 * 1024**3
MAX_BYTES = 16 * 1024**3
MAX_FILES = 50_000
KEPT_FREE_BYTES = 1024**3
MAX_NAME, MAX_DEPTH = 100, 12
# Windows opens devices by these names, in any folder.
DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10))}
PACKED = (".nii", ".img", ".hdr")
IMAGES = (".nii", ".img", ".mgh", ".mgz", ".npz", ".h5", ".hdf5")
BESIDE = (".json", ".hdr")
EXPECTED = "expected an image file (NIfTI, MGH, Analyze), DICOM files or their folder, or raw k-space (.npz, .h5)"


def safe_path(name: str) -> Path:
    """A relative path of safe names from what a browser calls a file.

    Letters and digits of any language, spaces and ``._-+()`` stay; folders above, hidden names, options and devices cannot be named.

    Raises:
        InputError: nothing is left of a name, or the path is too deep.
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    if not parts or len(parts) > MAX_DEPTH or any(part.strip(" .") == "" for part in parts):
        raise InputError(f"{name[:80]!r} cannot be a file's name; expected a name, in at most {MAX_DEPTH} folders; rename it")
    return Path(*map(_safe_name, parts))


def _safe_name(part: str) -> str:
    kept = re.sub(r"[^\w .+()-]", "_", part).strip(" ")
    kept = re.sub(r"^[.\- ]+", "", kept).rstrip(" .") or "_"
    if kept.split(".")[0].lower() in DEVICES:
        kept = f"_{kept}"
    if len(kept) <= MAX_NAME:
        return kept
    # The ending says what it is.
    ending = "".join(Path(kept).suffixes[-2:])[-20:]
    return kept[: MAX_NAME - len(ending)].rstrip(" .") + ending


class Drop:
    """What is dropped at once, until it is recognised.

    Attributes:
        folder: holds the files; it is made and taken away by those who use it.
        bytes: that were received.
        files: likewise.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = 0
        self.files = 0
        folder.mkdir(parents=True)

    def place(self, name: str) -> Path:
        """Where a file goes.

        Raises:
            InputError: the name is none, or there are too many files.
        """
        if self.files >= MAX_FILES:
            raise InputError(f"more than {MAX_FILES} files were dropped; expected fewer; drop one examination at a time")
        place = self.folder / safe_path(name)
        while place.exists():
            place = place.with_name(f"{secrets.token_hex(2)}-{place.name}")
        if not place.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{name[:80]!r} lies outside of what was dropped; expected a plain name; rename it")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise InputError(f"{name[:80]!r} is in a folder that is a file too; expected one of them; rename it") from error
        self.files += 1
        return place

    def receive(self, size: int, so_far: int, name: str) -> None:
        """Count bytes of a file before they are kept.

        Args:
            size: of the next part.
            so_far: of the file until then.
            name: of the file.

        Raises:
            InputError: the file or all of them become too large, or the disk would be full.
        """
        if so_far + size > MAX_FILE_BYTES:
            raise InputError(f"{name[:80]!r} is larger than {MAX_FILE_BYTES // 1024**3} GB; expected a scan; leave it out")
        if self.bytes + size > MAX_BYTES:
            raise InputError(f"more than {MAX_BYTES // 1024**3} GB were dropped; expected less; drop one examination at a time")
        if shutil.disk_usage(self.folder).free < KEPT_FREE_BYTES + size:
            raise InputError(f"the disk of {self.folder.parent} is full; expected 1 GB free; remove jobs, or take another --folder")
        self.bytes += size


@dataclass(frozen=True)
class FoundScan:
    """Files that are one scan.

    Attributes:
        name: for people.
        path: the file or the folder that is read, relative to wherever the files are moved.
        files: where each of them goes, relative likewise, and where it is.
        problem: why they are no scan, one sentence; empty where they are.
    """

    name: str
    path: Path
    files: Mapping[Path, Path]
    problem: str = ""

    def move_to(self, place: Path) -> Path:
        """Move the files into another folder.

        Returns:
            Where the scan is then.
        """
        for to, file in self.files.items():
            (place / to).parent.mkdir(parents=True, exist_ok=True)
            file.rename(place / to)
        return place / self.path


def find_scans(folder: Path) -> tuple[list[FoundScan], list[str]]:
    """Which files of a folder are a scan each, and the names of those that are none.

    An image file takes its sidecar, its header and its operator along. All other files that begin as DICOM files do are parted by series,
    those of each folder of the drop apart.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    known, taken = set(files), set[Path]()
    found = []
    for image in files:
        if _ending(image) in IMAGES:
            sidecars = {image.with_name(_stem(image) + ending) for ending in BESIDE} | {operator_beside(image)}
            own = [image, *sorted(sidecars & known)]
            taken.update(own)
            found.append(FoundScan(image.name, Path(image.name), {Path(file.name): file for file in own}))
    groups: dict[str, list[Path]] = defaultdict(list)
    left = []
    for file in files:
        if file in taken:
            continue
        if _is_dicom(file):
            inside = file.relative_to(folder).parts
            groups[inside[0] if len(inside) > 1 else "DICOM"].append(file)
        else:
            left.append(str(file.relative_to(folder)))
    for name, group in groups.items():
        found += _by_series(name, group, folder)
    return found, left


def _by_series(name: str, files: Sequence[Path], folder: Path) -> list[FoundScan]:
    """The series of DICOM files; what belongs to none is left out."""
    # Read apart from everything else that was dropped.
    apart = folder.parent / f"dicom-{secrets.token_hex(4)}"
    FoundScan(name, Path(), {file.relative_to(folder): file for file in files}).move_to(apart)
    try:
        series = read_series(apart)
    except InputError as error:
        every = {path.relative_to(apart): path for path in apart.rglob("*") if path.is_file()}
        return [FoundScan(name, Path(), every, str(error).replace(str(apart), name))]
    found = []
    for number, each in enumerate(series, start=1):
        label = name if len(series) == 1 else f"{name}, series {number if each.number is None else each.number}"
        home = Path(_safe_name(label))
        own = {frame.path for frame in each.frames}
        found.append(FoundScan(label, home, {home / path.relative_to(apart): path for path in own}))
    return found


def _ending(file: Path) -> str:
    """The ending of what a packed file holds: that of ``scan.nii.gz`` is ``.nii``."""
    name = file.name.lower()
    inner = Path(name.removesuffix(".gz"))
    return inner.suffix if inner.suffix in PACKED else Path(name).suffix


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rpartition(".")[0]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"
