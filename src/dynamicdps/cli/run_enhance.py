"""`dynamicdps enhance`."""

from dataclasses import replace

from dynamicdps.cli.commands import Enhance
from dynamicdps.cli.dicom_folder import check_dicom_folder
from dynamicdps.cli.progress import out, say, stage_bars
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import fit_table, volumes_line
from dynamicdps.errors import InputError
from dynamicdps.output_names import ENHANCED
from dynamicdps.pipeline import enhance
from dynamicdps.pipeline.checks import check_device, check_options
from dynamicdps.pipeline.enhanced import write_page
from dynamicdps.pipeline.kspace_scan import is_kspace, refuse_raw_options
from dynamicdps.pipeline.plan import Plan
from dynamicdps.volumes.dicom_writer import check_dicom_out
from dynamicdps.volumes.preparation import in_words


def run(arguments: Enhance) -> None:
    check_device(arguments.device)
    check_options(arguments)
    for scan in arguments.scan:
        if not is_kspace(scan):
            refuse_raw_options(scan, arguments)
    check_dicom(arguments)
    folder = arguments.folder
    with recorded(folder, "enhance", replace(arguments, out=folder)) as record:

        def announce(plan: Plan) -> None:
            for name, words in (*plan.rows, ("results", str(folder))):
                say(f"{name:<15}{words}")
            bars.expected = plan.seconds
            if plan.seconds:
                record.durations["expected"] = round(sum(plan.seconds.values()), 1)

        with stage_bars(arguments.solver, "steps") as bars:
            result = enhance(arguments.scan, arguments, initial=arguments.initial, progress=bars, announce=announce)
            record.facts |= result.facts
            record.durations |= result.durations
            with record.timed("write"):
                result.write_results(folder)
        if result.fit is not None:
            out.print(fit_table(result.fit))
        if arguments.dicom is not None:
            result.write_dicom(arguments.dicom, stamp=arguments.dicom_stamp)
    # After run.json, which it shows: the page of `dynamicdps report`.
    report, warnings = write_page(folder)
    for step in result.steps:
        say(in_words(step.to_json()))
    before, after = (result.metrics[name].data_misfit for name in ("conditional", arguments.solver))
    say(f"data misfit{result.misfit_space} (1 is noise alone): {before:.2f} before, {after:.2f} after")
    say(f"{result.result.nfe} denoiser passes a slice, {result.result.seconds:.0f} s")
    if line := volumes_line(result.volumes, result.intervals, result.slab):
        say(line)
    for warning in warnings:
        say(f"warning: {warning}")
    say(f"{folder / ENHANCED}\n{report}")
    if arguments.dicom is not None:
        say(f"{arguments.dicom}")


def check_dicom(arguments: Enhance) -> None:
    """Refuse a DICOM series that could not be written at the end.

    Raises:
        InputError: as `check_dicom_folder`; or words are to be drawn into no series.
    """
    if arguments.dicom is None:
        if arguments.dicom_stamp:
            raise InputError("--dicom-stamp is given without --dicom; expected both; give --dicom a new folder")
        return
    check_dicom_folder(check_dicom_out, arguments.scan[0], arguments.dicom, arguments.folder, arguments.series)
