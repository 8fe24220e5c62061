"""Segment a scan of any contrast: its brain, its structures, and their volumes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage

from dynamicdps.errors import InputError
from dynamicdps.evaluation.tissue import is_cut_off
from dynamicdps.models.model_file import read_model
from dynamicdps.models.names import known_models
from dynamicdps.pipeline.checks import check_device
from dynamicdps.pipeline.inputs import as_scan, name_of, one_scan
from dynamicdps.pipeline.options import SegmentOptions, checked_values, values_of
from dynamicdps.pipeline.progress import Progress, Stages
from dynamicdps.pipeline.segmented import Segmented
from dynamicdps.pipeline.structure_volumes import StructureVolume, structure_volumes, volume_intervals
from dynamicdps.segmentation import (
    BRAIN_MODEL,
    SHARPENING_MODEL,
    BrainNetwork,
    ClassChances,
    Midplane,
    load_brain_network,
    refine_chances,
    repeated_volumes,
    without_thick_slices,
)
from dynamicdps.segmentation.head_check import check_brain, check_scan
from dynamicdps.segmentation.reliability import LEAST_DICE, structure_dice, volume_errors
from dynamicdps.volumes import Volume, extract_brain, native_grid, read_scan, to_batch
from dynamicdps.volumes.brain_extraction import BRAIN_ML, covers_head
from dynamicdps.volumes.morphology import Mask
from dynamicdps.volumes.noise_estimate import estimate_noise

COVERAGE = 0.95
# Agreement of a brain with its mirror image below which only a part of a half is there.
HALVES = 0.4
# Slices from which noise is estimated, at least where there are so many.
NOISE_SLICES = 48


def segment(scan: Any, options: SegmentOptions | None = None, *, progress: Progress | None = None, **values: Any) -> Segmented:
    """Find the brain, its structures and their volumes in a scan of any contrast and resolution.

    Args:
        scan: path of an image file or of a folder of DICOM files, an image of nibabel, a `Volume`, or a list of one of them; with or
            without the skull.
        options: how.
        progress: is told how far the work is.
        values: options by name in the place of `options`, such as ``repeats=4``; `SegmentOptions` has them all.

    Raises:
        InputError: there is no model, an option is wrong, the scan cannot be read, or it shows no head.
        TypeError: the scan is no image, or there is no option of a name.
    """
    options = replace(options or SegmentOptions(), **checked_values(SegmentOptions, values))
    check_device(options.device)
    if not (options.repeats == 0 or 2 <= options.repeats <= 1000):
        raise InputError(f"--repeats is {options.repeats}; expected 2 to 1000, or 0 for no intervals")
    stages = Stages(progress)
    network, card = open_network(options.segmenter, options.device)
    with stages.stage("open"):
        given = one_scan(scan)
        if isinstance(given, Volume) and options.series is not None:
            raise InputError(f"series {options.series} was asked for, but the scan is a volume; expected a folder; leave the series out")
        opened = as_scan(given) if isinstance(given, Volume) else read_scan(given, options.series)
        volume = opened.volume
        check_scan(volume)
    with stages.stage("segment"):
        chances = network.chances(volume)
        warnings: list[str] = []
        if options.mask == "network":
            check_brain(chances, volume)
            brain = None
        else:
            found = extract_brain(volume, options.mask)
            warnings += found.warnings
            brain = volume.with_data(found.inside)
            chances = chances.within(brain)
            try:
                check_brain(chances, volume)
            except InputError as error:
                # Whoever gives a mask says that there is a brain.
                warnings.append(str(error))
        plane = halves_of(chances)
        image = without_thick_slices(volume, chances)
        coarse, chances = chances, refine_chances(chances, image)
        inside = chances.brain_on(native_grid(volume)) if brain is None else brain.data > 0.5
        slab = is_cut_off(inside)
        warnings += size_warnings(volume, inside, slab)
        if not says_sides(scan):
            plane = None
            warnings.append("the file does not say which side is left: structures are not told apart by side; give it an orientation")
        elif plane is None:
            warnings.append("the scan does not show both halves of the brain: structures are not told apart by side")
        labels = chances.labels_on(native_grid(volume), inside, plane)
    noise_std, remarks = noise_of(volume) if options.repeats else (0.0, [])
    again = repeated_volumes(
        network,
        volume,
        image,
        coarse,
        plane,
        count=options.repeats,
        noise_std=noise_std,
        seed=options.seed,
        progress=lambda done, planned: stages.tell("solve", done, planned),
    )
    around = {structure: float(slices.sum()) for structure, slices in chances.volumes(plane).items()}
    edge = max(volume.spacing)
    intervals = volume_intervals(around, again, volume_errors(card, edge), COVERAGE)
    warnings += remarks
    measured = structure_volumes(chances, plane, intervals, structure_dice(card, edge))
    warnings += draft_warnings(measured)
    return Segmented(
        scan=name_of(given),
        labels=volume.with_data(labels),
        brain_mask=volume.with_data(inside),
        structures=measured,
        sided=plane is not None,
        slab=slab,
        warnings=tuple(warnings),
        facts={
            "models": {"segmenter": str(card["sha256"])}
            | ({} if image is volume else {"conditional": str(read_model(SHARPENING_MODEL, "volume-unet").card["sha256"])}),
            "brain": {"method": options.mask, "millilitres": round(millilitres(inside, volume), 1)},
            "midplane": None
            if plane is None
            else {"normal": plane.normal.tolist(), "offset_mm": plane.offset, "agreement": round(plane.agreement, 3)},
            "noise_std": noise_std,
            "acquisition": opened.acquisition.to_json(),
            "slab": slab,
            "warnings": warnings,
        },
        durations=stages.seconds,
        arguments={"scan": name_of(given), **values_of(options, SegmentOptions)},
    )


def open_network(name: str, device: str = "cpu") -> tuple[BrainNetwork, dict[str, Any]]:
    """The network of a name or file, and its card.

    Raises:
        InputError: as `read_model`; or no model comes with the package or was added.
    """
    if name == BRAIN_MODEL and not known_models(("segmenter",)):
        raise InputError(
            f"there is no model that finds structures; expected one named {BRAIN_MODEL}; train one by `dynamicdps train segmenter` and add "
            "it by `dynamicdps models add`, or name its file by --segmenter"
        )
    return load_brain_network(name, device), read_model(name, "segmenter").card


def halves_of(chances: ClassChances) -> Midplane | None:
    """The plane between the halves of a brain; `None` where it has not two of them."""
    if not chances.inside.any():
        return None
    plane = chances.midplane()
    return plane if plane.agreement >= HALVES else None


def says_sides(scan: Any) -> bool:
    """Whether a file or an image of nibabel knows which side is left: NIfTI with a qform or sform does, Analyze does not."""
    if isinstance(scan, list | tuple) and len(scan) == 1:
        return says_sides(scan[0])
    if isinstance(scan, Volume):
        return scan.path is None or says_sides(scan.path)
    if isinstance(scan, str | Path):
        try:
            scan = nibabel.load(scan)
        except (OSError, nibabel.filebasedimages.ImageFileError):
            # Folders of DICOM files know; of raw k-space the options say it.
            return True
    header = scan.header if isinstance(scan, SpatialImage) else None
    if isinstance(header, nibabel.Nifti1Header):
        return int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0
    return not isinstance(header, nibabel.AnalyzeHeader)


def noise_of(volume: Volume) -> tuple[float, list[str]]:
    """Standard deviation of a scan's noise in its units, with what limits it; 0 where nothing tells it.

    Slices are looked at one by one, and some of very many tell it as well as all.
    """
    try:
        found = estimate_noise(to_batch(volume.data[..., :: max(1, volume.shape[2] // NOISE_SLICES)]))
    except InputError as error:
        return 0.0, [f"no noise was added for the intervals: {error}"]
    return float(found.std[0]), []


def millilitres(inside: Mask, volume: Volume) -> float:
    """Volume of a mask on a scan's grid."""
    return float(inside.sum() * np.prod(volume.spacing)) / 1000


def draft_warnings(measured: Sequence[StructureVolume]) -> list[str]:
    """Which structures are not reliable."""
    drafts = {each.structure.name: each.dice for each in measured if not each.reliable}
    if not drafts:
        return []
    names = ", ".join(f"{name} ({dice:.2f})" for name, dice in drafts.items())
    return [f"drafts, with a mean Dice below {LEAST_DICE} on held-out heads of such a resolution: {names}"]


def size_warnings(volume: Volume, inside: Mask, slab: bool) -> list[str]:
    """What the size of a brain says: of a part of it, or of none that a person has."""
    if slab:
        return ["the scan is a slab: the field of view cuts the brain off, and volumes are of the part that it shows"]
    size = millilitres(inside, volume)
    if covers_head(volume) and not BRAIN_ML[0] <= size <= BRAIN_ML[1]:
        return [f"{size:.0f} ml of brain are found; expected {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} ml of a whole one; look at the mask"]
    return []
