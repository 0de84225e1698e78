"""What is made of evaluations: a page, and what changed from one to another. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from robustdml.errors import SpecError
from robustdml.evaluation import assemble
from robustdml.reports import REPORT_FILE, RunChanges, compare_runs, parse_threshold, write_outputs
from robustdml.results import RESULTS_FILE, Results
from robustdml.run_folders import PLAN_FILE
from robustdml.values import brief, place


def report(
    runs: Results | str | Path | Iterable[Results | str | Path],
    page: str | Path | None = None,
    *,
    markdown: str | Path | None = None,
    junit: str | Path | None = None,
    cards: str | Path | None = None,
    bars: str | Iterable[str] = (),
) -> Path:
    """Write the report of an evaluation, or of several on the same queries, as one HTML file, and return its path.

    Args:
        runs: run folders, or results; of results that have no folder the page has no pictures of queries.
        page: the file; None is ``report.html`` in the run folder, of results or of several runs in the working folder.
        markdown: also write a summary for a comment on a pull request into this file.
        junit: also write the measurements as tests, JUnit XML, into this file.
        cards: also write a card of each model, as Markdown and as JSON, into this folder.
        bars: what the models are to reach, as ``"worst:recall@1=0.30"``; the page says which do (see
            docs/reports.md).

    Raises:
        RunFolderError: a folder has no readable results, runs cannot be merged, or a picture is missing.
        SpecError: a bar cannot be read, or something is no run.
        UnknownNameError: a bar is about a metric that was not measured.
    """
    given = [runs] if isinstance(runs, Results | str | Path) else _several(runs)
    thresholds = [parse_threshold(bar) for bar in ([bars] if isinstance(bars, str) else bars)]
    with TemporaryDirectory(prefix="robustdml-") as stage:
        folders = [_folder(one, Path(stage) / f"results-{number}") for number, one in enumerate(given, start=1)]
        if page is None and isinstance(given[0], Results):
            page = Path(REPORT_FILE)
        return write_outputs(
            folders,
            page=page and place("page", page),
            markdown=markdown and place("markdown", markdown),
            junit=junit and place("junit", junit),
            cards=cards and place("cards", cards),
            thresholds=thresholds,
        ).page


def compare(before: Results | str | Path, after: Results | str | Path) -> RunChanges:
    """Say what got better or worse from one evaluation to another, and whether by more than chance explains.

    On the same queries the headline (R@1) is judged by McNemar's exact test, corrected by Holm over all rows; else by
    whether the 95 % intervals overlap.

    Args:
        before: results, a run folder, or one model of it: ``"runs/report:st"``.
        after: the same. Models are matched by name, or the only one on either side is taken.

    Raises:
        RunFolderError: a folder has no readable results, no model is in both, or their headlines are two metrics.
        UnknownNameError: a run has no model of the name given.
        SpecError: something is no run.
    """
    for one in (before, after):
        if not isinstance(one, Results | str | Path):
            raise SpecError(f"{brief(one)} is no run: give results, a run folder, or 'folder:model'")
    return compare_runs(before, after)


def _several(runs: Any) -> list[Any]:
    found = list(runs) if isinstance(runs, Iterable) and not isinstance(runs, Mapping | bytes) else [runs]
    if not found or not all(isinstance(one, Results | str | Path) for one in found):
        raise SpecError(f"runs={brief(runs)} must be a run folder, results, or a list of them")
    return found


def _folder(run: Results | str | Path, stage: Path) -> Path:
    """The folder of a run; one is made of results, and of what a stopped run has."""
    if isinstance(run, Results):
        run.without_pictures().save(stage)
        return stage
    folder = place("run", run)
    if (folder / PLAN_FILE).is_file() and not (folder / RESULTS_FILE).is_file():
        assemble(folder).save(folder)
    return folder
