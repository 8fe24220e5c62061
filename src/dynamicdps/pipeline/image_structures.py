"""Structures of an enhanced image, with what its posterior samples leave open."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.evaluation.tissue_intervals import pair_intervals
from dynamicdps.models.model_file import read_model
from dynamicdps.models.names import known_models
from dynamicdps.output_names import STRUCTURES
from dynamicdps.pipeline.segmentation import COVERAGE, draft_warnings, halves_of
from dynamicdps.pipeline.structure_volumes import StructureVolume, structure_volumes, write_labels, write_volumes
from dynamicdps.segmentation import BRAIN_MODEL, ClassChances, FinerChances, load_brain_network
from dynamicdps.segmentation.classes import Structure
from dynamicdps.segmentation.head_check import check_brain
from dynamicdps.segmentation.reliability import is_reliable, structure_dice
from dynamicdps.volumes import Volume, native_grid
from dynamicdps.volumes.brain_extraction import NETWORK_MM


@dataclass(frozen=True)
class ImageStructures:
    """What a segmentation finds in an enhanced image.

    Attributes:
        labels: number in FreeSurfer's table of each voxel of the image; `None` where there is no model or it finds no brain.
        volumes: of the structures, with 95 % intervals over posterior samples where there are at least two.
        sided: whether left and right are told apart.
        models: SHA-256 of the model that was used, by kind.
        warnings: why there is nothing, or which structures are drafts.
    """

    labels: Volume | None = None
    volumes: tuple[StructureVolume, ...] = ()
    sided: bool = False
    models: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write dseg.nii.gz, dseg.tsv and structures.tsv into a folder; where there is nothing, remove what an earlier run left."""
        write_labels(folder, self.labels, sided=self.sided)
        write_volumes(folder / STRUCTURES, self.volumes)


def image_structures(
    image: Volume, samples: Iterable[Volume], brain: Volume | None, *, sided: bool, edge_mm: float, device: str
) -> ImageStructures:
    """Segment an enhanced image and its posterior samples by the model of brains; nothing where there is none, where none
    of its structures is reliable, or of slabs that show it too little.

    Args:
        image: the estimate, in its head where it has one.
        samples: in the same way, in pairs of opposite noise; they are not asked for where there is no model.
        brain: above one half in the brain; `None` where the network itself is to find it.
        sided: whether the scan says which side is left.
        edge_mm: longest edge of the scan's voxels, by which structures are reliable or not.
        device: cpu, cuda or mps.
    """
    thinnest = min(n * edge for n, edge in zip(image.shape, image.spacing, strict=True))
    if thinnest < NETWORK_MM or BRAIN_MODEL not in known_models(("segmenter",)):
        return ImageStructures()
    card = read_model(BRAIN_MODEL, "segmenter").card
    dice = structure_dice(card, edge_mm)
    if dice and not any(map(is_reliable, dice.values())):
        return ImageStructures()
    digest = str(card["sha256"])
    network = load_brain_network(BRAIN_MODEL, device)

    def chances_of(each: Volume) -> ClassChances:
        chances = network.chances(each)
        return chances if brain is None else chances.within(brain)

    try:
        estimate = chances_of(image)
        check_brain(estimate, image)
        plane = halves_of(estimate) if sided else None
        finer = FinerChances.fitted(estimate, image)
        if finer is not None:
            estimate = finer.of(image) if brain is None else finer.of(image).within(brain)
        # The network has said where the structures are; how far they reach is for each sample's intensities to say.
        drawn = [(chances_of(each) if finer is None else finer.of(each)).volumes(plane) for each in samples]
    except InputError as error:
        return ImageStructures(models={"segmenter": digest}, warnings=(f"the structures are unknown: {error}",))
    drawn = drawn[: len(drawn) // 2 * 2]
    intervals: dict[Structure, tuple[float, float]] = {}
    if drawn:
        slices: dict[Structure, NDArray[np.float64]] = {s: np.stack([volumes[s] for volumes in drawn]) for s in drawn[0]}
        around = {structure: float(whole.sum()) for structure, whole in estimate.volumes(plane).items()}
        intervals = pair_intervals(slices, COVERAGE, 0.0, around)
    grid = native_grid(image)
    labels = image.with_data(estimate.labels_on(grid, estimate.brain_on(grid), plane))
    volumes = structure_volumes(estimate, plane, intervals, dice)
    return ImageStructures(labels, volumes, plane is not None, {"segmenter": digest}, tuple(draft_warnings(volumes)))
