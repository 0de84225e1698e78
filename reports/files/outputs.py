"""Everything that is written from one run folder or several: the page, and what pipelines and people want beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustdml.files import write_text

from ..merging.merge import open_runs
from ..page.render import render_report
from ..thresholds import Threshold, Violation, violations
from .cards import write_cards
from .junit import junit_xml
from .summary import markdown_summary

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Outputs:
    """What was written.

    Args:
        page: the HTML report.
        others: the other files, in the order of the arguments that asked for them.
        violations: the bars that were missed.
    """

    page: Path
    others: tuple[Path, ...]
    violations: tuple[Violation, ...]


def write_outputs(
    folders: Sequence[str | Path],
    *,
    page: str | Path | None = None,
    markdown: str | Path | None = None,
    junit: str | Path | None = None,
    cards: str | Path | None = None,
    thresholds: Sequence[Threshold] = (),
) -> Outputs:
    """Write the report of runs, and on request more, and see which bars were missed.

    Args:
        folders: one run folder or several on the same queries (see `robustdml.reports.merge_runs`).
        page: the HTML file; by default ``report.html`` in the run folder, for several runs in the working folder.
        markdown: a summary for a comment on a pull request.
        junit: the measurements as tests.
        cards: a folder for a card of each model, as Markdown and as JSON.
        thresholds: from `parse_threshold`.

    Raises:
        RunFolderError: a folder has no readable results, the runs cannot be merged, or a picture is missing.
        UnknownNameError: a threshold is about a metric that was not measured.
    """
    with open_runs(folders) as (results, home):
        place = (home if len(folders) == 1 else Path()) / REPORT_FILE
        missed = violations(results, thresholds)
        written = write_text(Path(page) if page else place, render_report(results, home, thresholds))
    others: list[Path] = []
    if markdown:
        others.append(write_text(Path(markdown), markdown_summary(results, missed if thresholds else None)))
    if junit:
        others.append(write_text(Path(junit), junit_xml(results, missed)))
    if cards:
        others += write_cards(results, Path(cards))
    return Outputs(written, tuple(others), missed)


def write_report(folder: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Render one run folder, or several as one, into one self-contained HTML file and return its path.

    Args:
        folder: a run folder, or the path of its ``results.json``; or several, on the same queries.
        out: the file to write; by default ``report.html`` in the run folder, for several runs in the working folder.

    Raises:
        RunFolderError: as `write_outputs`.
    """
    return write_outputs([folder] if isinstance(folder, str | Path) else folder, page=out).page
