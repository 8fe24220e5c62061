"""The self-contained page of a run."""

from dynamicdps.report.report import Report, Stage, write_report

__all__ = ["Report", "Stage", "write_report"]
