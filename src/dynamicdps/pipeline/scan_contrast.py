"""Which contrast a scan has: what the user says, else its name, its sequence, its intensities."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dynamicdps.volumes import Acquisition, BrainScan, Step, Volume
from dynamicdps.volumes.contrast import ContrastLook, look_at_contrast

CHOICES = ("auto", "T1w", "T2w", "FLAIR", "unknown")
KNOWN = ("T1w", "T2w", "FLAIR")
# Suffixes of BIDS 1.10 that name a contrast.
SUFFIXES = (*KNOWN, "PDw", "T2starw", "PDT2", "inplaneT2", "bold", "dwi", "T1map", "T2map", "angio", "swi")
_SUFFIX = re.compile(rf"_({'|'.join(SUFFIXES)})$", re.IGNORECASE)
# Of spin echoes and inversion recoveries at any field, ms: at 64 mT FLAIR has an inversion time of 1400 and T1w one of 300.
SHORT_ECHO, LONG_ECHO = 30.0, 60.0
LONG_INVERSION, SHORT_INVERSION = 1000.0, 200.0
SHORT_REPETITION = 1000.0
# An echo of a gradient echo that is later than this weights it by T2*.
LATE_GRADIENT_ECHO = 12.0


@dataclass(frozen=True)
class ScanContrast:
    """A scan's contrast, and where it is known from.

    Attributes:
        name: one of `dynamicdps.volumes.contrast.CONTRASTS`.
        source: ``option``, ``name``, ``sequence``, ``intensities`` or ``default``.
        look: what the intensities say; `None` where too little brain is left to tell.
        warnings: what does not fit, one sentence each.
        asked: the option.
    """

    name: str
    source: str
    look: ContrastLook | None
    warnings: tuple[str, ...] = ()
    asked: str = "auto"

    def step(self) -> Step:
        """What run.json says of it."""
        found: dict[str, object] = {"contrast": self.name, "source": self.source}
        if self.look is not None:
            found |= {
                "intensities": self.look.in_words(),
                "bright_tail": round(self.look.bright_tail, 3),
                "deep_rise": None if self.look.deep_rise is None else round(self.look.deep_rise, 3),
            }
        return Step("contrast", {"contrast": self.asked}, found, list(self.warnings))


def find_contrast(asked: str, scan: Path | Volume, head: BrainScan, known: Collection[str] = KNOWN) -> ScanContrast:
    """The contrast of a scan.

    What the user asks for comes first, then the BIDS suffix of the file's name, then the sequence's times, then the intensities where they
    are sure. Whatever says it, the intensities are looked at: where they are sure of something else, a warning says so.

    Args:
        asked: one of `CHOICES`.
        scan: the file, or a volume that may have one.
        head: the scan and its brain.
        known: contrasts that the models know: intensities alone never lead to another one.
    """
    path = scan.path if isinstance(scan, Volume) else scan
    look = look_at_contrast(head.whole, head.mask.inside, head.acquisition.slice_axis)
    if asked != "auto":
        return _checked(ScanContrast(asked, "option", look, asked=asked))
    if path is not None and (suffix := contrast_of(path)) is not None:
        return _checked(ScanContrast(suffix if suffix in KNOWN else "unknown", "name", look))
    if (named := sequence_contrast(head.acquisition)) is not None:
        return _checked(ScanContrast(named, "sequence", look))
    if look is None:
        return ScanContrast("T1w", "default", None)
    if look.contrast in known and look.is_sure:
        return ScanContrast(look.contrast, "intensities", look)
    if look.is_sure:
        say = f"the scan looks {look.contrast} ({look.in_words()}), which the models do not know: do not use the result unless it is not"
        return ScanContrast("T1w", "default", look, (say,))
    # The unsure scans of the ones measured are T1w at 0.055 T and FLAIR with much disease.
    name = "T1w" if look.contrast == "T1w" else "unknown"
    say = f"the intensities are unsure of the contrast ({look.in_words()}), which is taken as {name}; say --contrast T1w, T2w or FLAIR"
    return ScanContrast(name, "intensities", look, (say,))


def _checked(found: ScanContrast) -> ScanContrast:
    look = found.look
    if look is None or not look.is_sure or found.name in ("unknown", look.contrast):
        return found
    said = {"option": "--contrast", "name": "its name", "sequence": "its sequence"}[found.source]
    return ScanContrast(
        found.name,
        found.source,
        look,
        (f"the scan is {found.name} by {said}, but its intensities look {look.contrast} ({look.in_words()}): check which is right",),
        found.asked,
    )


def contrast_of(scan: Path) -> str | None:
    """The contrast in a file's BIDS name, ``sub-01_T2w.nii.gz``; `None` where it names none."""
    found = _SUFFIX.search(scan.name.removesuffix(".gz").rpartition(".")[0] or scan.name)
    return next((name for name in SUFFIXES if found and name.lower() == found[1].lower()), None)


def sequence_contrast(acquisition: Acquisition) -> str | None:
    """The contrast of a sequence by its echo, repetition and inversion times: one of `KNOWN`, ``unknown`` for others.

    Inversion recovery is FLAIR where inversion and echo are late, T1w where the echo is early; an early inversion (STIR) is neither.
    Without inversion a late echo is T2w, and an early one after a short repetition T1w. A gradient echo is T1w where its echo is early.
    `None` where the times do not say.
    """
    echo, repetition, inversion = acquisition.echo_time_ms, acquisition.repetition_time_ms, acquisition.inversion_time_ms
    if echo is None:
        return None
    if inversion is not None:
        if echo >= LONG_ECHO and inversion >= LONG_INVERSION:
            return "FLAIR"
        return "T1w" if echo < SHORT_ECHO and inversion > SHORT_INVERSION else "unknown"
    kinds = set((acquisition.sequence or "").upper().replace("/", "\\").split("\\"))
    if "GR" in kinds and "SE" not in kinds:
        return "T1w" if echo < LATE_GRADIENT_ECHO else "unknown"
    if repetition is None or "IR" in kinds:
        return None
    if echo >= LONG_ECHO:
        return "T2w"
    if echo < SHORT_ECHO:
        return "T1w" if repetition <= SHORT_REPETITION else None
    return "unknown"
