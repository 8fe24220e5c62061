"""`dynamicdps audit`."""

from dataclasses import replace

from dynamicdps.cli.commands import Audit
from dynamicdps.cli.progress import out, say, stage_bars
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import contradictions_table, fit_table
from dynamicdps.pipeline import audit
from dynamicdps.pipeline.options import AuditOptions, values_of

# The strongest regions that are printed; contradictions.tsv has all.
MOST = 20


def run(arguments: Audit) -> None:
    folder = arguments.folder
    with recorded(folder, "audit", replace(arguments, out=folder)) as record:
        with stage_bars("comparison", "steps") as bars:
            result = audit(arguments.image, arguments.scan, AuditOptions(**values_of(arguments, AuditOptions)), progress=bars)
        record.facts |= result.facts
        record.durations |= result.durations
        with record.timed("write"):
            report = result.write(folder)
    if result.fit is not None:
        out.print(fit_table(result.fit))
    say(f"data misfit (1 is noise alone): {result.data_misfit:.2f}")
    if result.unsupported_share is not None:
        say(f"share of the image's energy that the scan cannot show: {result.unsupported_share:.1%}")
    if result.regions:
        out.print(contradictions_table(result.regions[:MOST]))
    count = len(result.regions)
    say(f"{count or 'no'} region{'' if count == 1 else 's'} of the image contradicted by the scan")
    for warning in result.warnings:
        say(f"warning: {warning}")
    say(f"{report}")
