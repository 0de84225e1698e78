"""``robustdml report``."""

from __future__ import annotations

from pathlib import Path

import click

from robustdml.cli.options import HomePath
from robustdml.cli.output import Output, output_options
from robustdml.cli.summary import files_data
from robustdml.cli.thresholds import BELOW, fail_under_option, read_thresholds, say_below
from robustdml.cli.tracking import log_to_option, tell, trackers_of
from robustdml.results import RESULTS_FILE
from robustdml.run_folders import PLAN_FILE

_FILE = HomePath(dir_okay=False)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=HomePath(), metavar="FOLDER...")
@click.option("--out", type=_FILE, help="Page to write [default: report.html in FOLDER; of several: report.html here].")
@click.option("--markdown", type=_FILE, help="Also write a short summary, for a comment on a pull request.")
@click.option("--junit", type=_FILE, help="Also write JUnit XML: a suite per model, a test per attack and eps.")
@click.option("--cards", type=HomePath(file_okay=False), help="Also write model cards here.")
@click.option("--history", is_flag=True, help="Draw headline numbers over evaluations, in FOLDERs or right below them.")
@fail_under_option
@log_to_option
@output_options
def report(
    folders: tuple[Path, ...],
    out: Path | None,
    markdown: Path | None,
    junit: Path | None,
    cards: Path | None,
    history: bool,
    fail_under: tuple[str, ...],
    log_to: tuple[str, ...],
    output: Output,
) -> None:
    """Render the HTML report of evaluations. Needs no torch and no models.

    Several FOLDERs become one report, where their queries are the same. Of an evaluation that was stopped, what is
    there is shown, and the rest is named as not run. With --history, headline numbers are drawn over all evaluations in
    FOLDERs or right below them, the oldest first (history.html).
    """
    from robustdml.reports import write_history, write_outputs

    if history:
        if markdown or junit or cards or fail_under or log_to:
            raise click.UsageError("--history draws one page: of the other options it takes --out alone")
        page = write_history(folders, out or Path("history.html"))
        output.line(f"History: {page}")
        output.document({"exit_code": 0, "history": str(page)})
        return
    thresholds, trackers = read_thresholds(fail_under), trackers_of(log_to)
    for folder in folders:
        if (folder / PLAN_FILE).is_file() and not (folder / RESULTS_FILE).is_file():
            from robustdml.evaluation import assemble

            assemble(folder).save(folder)
            output.warn(f"'{folder}' was stopped before its end: the report shows what is there of it.")
    written = write_outputs(folders, page=out, markdown=markdown, junit=junit, cards=cards, thresholds=thresholds)
    output.line(f"Report: {written.page}")
    for path in written.others:
        output.line(f"Wrote {path}")
    for folder in folders:
        tell(trackers, folder, output)
    code = BELOW if written.violations else 0
    output.document({"exit_code": code, **files_data(written)})
    say_below(written.violations, output)
    click.get_current_context().exit(code)
