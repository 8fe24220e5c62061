"""What comes of a segmentation: labels, brain and volumes, with what limits them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dynamicdps import __version__
from dynamicdps import output_names as names
from dynamicdps.json_file import write_json
from dynamicdps.pipeline.named_inputs import refuse_overwriting
from dynamicdps.pipeline.provenance import input_hashes, run_record
from dynamicdps.pipeline.structure_volumes import StructureVolume, write_labels, write_volumes
from dynamicdps.segmentation.classes import structures
from dynamicdps.volumes import Volume
from dynamicdps.volumes.dicom_segmentation import write_segmentation


@dataclass(frozen=True, repr=False)
class Segmented:
    """The brain and its structures in a scan.

    Attributes:
        scan: path of the scan, or ``array``.
        labels: number in FreeSurfer's table of each voxel of the scan, 0 where nothing is reported.
        brain_mask: 1 in the brain and 0 outside, on the scan's grid.
        structures: with their volumes, intervals and confidences.
        sided: whether left and right are told apart.
        slab: whether the field of view cuts the brain off, and so its volumes.
        warnings: what the user should know, one sentence each.
        facts: what run.json says of the result.
        durations: seconds by stage.
        arguments: what was asked for, by name.
    """

    scan: str
    labels: Volume
    brain_mask: Volume
    structures: tuple[StructureVolume, ...]
    sided: bool
    slab: bool
    warnings: tuple[str, ...]
    facts: Mapping[str, Any]
    durations: Mapping[str, float]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def volumes(self) -> dict[str, float]:
        """Volumes in mm3 by side and name, such as ``left thalamus``."""
        return {each.structure.full_name: each.mm3 for each in self.structures}

    def write(self, folder: str | Path) -> Path:
        """Write brain_mask.nii.gz, dseg.nii.gz, dseg.tsv, volumes.tsv and run.json into a folder.

        Args:
            folder: made if it is missing; what an earlier segmentation left there is replaced.

        Returns:
            The labels, ``dseg.nii.gz``.

        Raises:
            InputError: a file that was read, such as the scan, would be written over.
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        refuse_overwriting(self.arguments, (folder / name for name in names.SEGMENTED))
        self.write_results(folder)
        arguments = {**self.arguments, "out": folder}
        record = run_record("segment", arguments, [], self.facts, self.durations, inputs=input_hashes(self.arguments))
        write_json(folder / names.RUN, record)
        return folder / names.SEGMENTATION

    def write_results(self, folder: Path) -> None:
        """Write all files but run.json.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.brain_mask.save(folder / names.BRAIN_MASK, dtype=np.uint8)
        write_volumes(folder / names.STRUCTURE_VOLUMES, self.structures)
        write_labels(folder, self.labels, sided=self.sided)

    def write_dicom(self, folder: str | Path, source: str | Path | None = None) -> Path:
        """Write the structures as a DICOM segmentation of the patient and study that they came from; no other output names them.

        Args:
            folder: new or empty, and not in `source`; gets ``segmentation.dcm``.
            source: folder of the DICOM files; by default the scan.

        Returns:
            The file.

        Raises:
            InputError: as `dynamicdps.volumes.dicom_segmentation.write_segmentation`.
        """
        known = {structure.label: structure.full_name for structure in structures(sided=self.sided)}
        labels = self.labels.data.astype(np.uint8)
        series = self.arguments.get("series")
        return write_segmentation(labels, self.labels.affine, known, source or self.scan, folder, series=series, version=__version__)

    def __repr__(self) -> str:
        brain = float(self.brain_mask.data.sum() * np.prod(self.brain_mask.spacing)) / 1000
        kind = "a slab with " if self.slab else ""
        return f"Segmented({self.scan}: {kind}{brain:.0f} ml of brain, {len(self.structures)} structures)"
