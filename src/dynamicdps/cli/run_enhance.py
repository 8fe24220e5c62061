"""`dynamicdps enhance`."""

from dynamicdps.cli.commands import Enhance
from dynamicdps.cli.progress import out, say, stage_bars
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import fit_table, volumes_line
from dynamicdps.errors import InputError
from dynamicdps.output_names import ENHANCED
from dynamicdps.pipeline import enhance
from dynamicdps.pipeline.checks import check_device, check_options
from dynamicdps.pipeline.kspace_scan import is_kspace, refuse_raw_options
from dynamicdps.report import read_report, write_report
from dynamicdps.volumes.dicom_writer import check_dicom_out
from dynamicdps.volumes.preparation import in_words


def run(arguments: Enhance) -> None:
    check_device(arguments.device)
    check_options(arguments)
    if not is_kspace(arguments.scan):
        refuse_raw_options(arguments.scan, arguments)
    check_dicom(arguments)
    with recorded(arguments.out, "enhance", arguments) as record:
        with stage_bars(arguments.solver, "steps") as bars:
            result = enhance(arguments.scan, arguments, initial=arguments.initial, progress=bars)
        if result.fit is not None:
            out.print(fit_table(result.fit))
        record.facts |= result.facts
        record.durations |= result.durations
        result.write_results(arguments.out)
        if arguments.dicom is not None:
            result.write_dicom(arguments.dicom, stamp=arguments.dicom_stamp)
    # After run.json, which it shows: the page of `dynamicdps report`.
    report = write_report(arguments.out, read_report(arguments.out))
    for step in result.steps:
        say(in_words(step.to_json()))
    before, after = (result.metrics[name].data_misfit for name in ("conditional", arguments.solver))
    say(f"data misfit{result.misfit_space} (1 is noise alone): {before:.2f} before, {after:.2f} after")
    say(f"{result.result.nfe} denoiser passes a slice, {result.result.seconds:.0f} s")
    if line := volumes_line(result.volumes, result.intervals, result.slab):
        say(line)
    for warning in result.warnings:
        say(f"warning: {warning}")
    say(f"{arguments.out / ENHANCED}\n{report}")
    if arguments.dicom is not None:
        say(f"{arguments.dicom}")


def check_dicom(arguments: Enhance) -> None:
    """Refuse a DICOM series that could not be written at the end.

    Raises:
        InputError: as `check_dicom_out`; the folder is that of the other results, or words are to be drawn into no series.
    """
    if arguments.dicom is None:
        if arguments.dicom_stamp:
            raise InputError("--dicom-stamp is given without --dicom; expected both; give --dicom a new folder")
        return
    if arguments.dicom.resolve() == arguments.out.resolve():
        raise InputError(f"{arguments.dicom} is that of the other results, which name no patient; expected another; change --dicom")
    check_dicom_out(arguments.scan, arguments.dicom, arguments.series)
