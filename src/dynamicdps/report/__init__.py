"""The self-contained page of a run, and the same for notebooks and publications."""

from dynamicdps.report.contents import Facts, Report, Stage
from dynamicdps.report.figure import plot
from dynamicdps.report.notebook import show
from dynamicdps.report.page import write_report
from dynamicdps.report.run_folder import read_report

__all__ = ["Facts", "Report", "Stage", "plot", "read_report", "show", "write_report"]
