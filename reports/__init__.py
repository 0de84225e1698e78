"""Reports on run folders: a self-contained page and what pipelines read, from the results alone, without torch."""

from __future__ import annotations

from .figures import figure_of
from .files.comparison import write_comparison
from .files.outputs import REPORT_FILE, Outputs, write_outputs, write_report
from .merging.changes import Change, CurveChange, ModelChanges, RunChanges, compare_runs
from .merging.merge import merge_runs
from .page.render import render_report, write_history
from .thresholds import Threshold, Violation, metric_of, parse_threshold, violations

__all__ = [
    "REPORT_FILE",
    "Change",
    "CurveChange",
    "ModelChanges",
    "Outputs",
    "RunChanges",
    "Threshold",
    "Violation",
    "compare_runs",
    "figure_of",
    "merge_runs",
    "metric_of",
    "parse_threshold",
    "render_report",
    "violations",
    "write_comparison",
    "write_history",
    "write_outputs",
    "write_report",
]
