"""`dynamicdps segment`."""

from dynamicdps.cli.commands import Segment
from dynamicdps.cli.dicom_folder import check_dicom_folder
from dynamicdps.cli.progress import out, say, stage_bars
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import structures_table
from dynamicdps.output_names import SEGMENTATION
from dynamicdps.pipeline import segment
from dynamicdps.pipeline.options import SegmentOptions, values_of
from dynamicdps.volumes.dicom_segmentation import check_segmentation_out


def run(arguments: Segment) -> None:
    if arguments.dicom is not None:
        check_dicom_folder(check_segmentation_out, arguments.scan, arguments.dicom, arguments.out, arguments.series)
    with recorded(arguments.out, "segment", arguments) as record:
        with stage_bars("intervals", "draws") as bars:
            result = segment(arguments.scan, SegmentOptions(**values_of(arguments, SegmentOptions)), progress=bars)
        record.facts |= result.facts
        record.durations |= result.durations
        result.write_results(arguments.out)
        if arguments.dicom is not None:
            result.write_dicom(arguments.dicom)
    out.print(structures_table(result.structures))
    for warning in result.warnings:
        say(f"warning: {warning}")
    say(f"{arguments.out / SEGMENTATION}")
    if arguments.dicom is not None:
        say(f"{arguments.dicom}")
