"""``robustdml compare``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustdml.cli.options import HomePath
from robustdml.cli.output import Output, output_options
from robustdml.cli.thresholds import BELOW
from robustdml.printable import plain

if TYPE_CHECKING:
    from rich.console import Console

    from robustdml.reports import Change, ModelChanges, RunChanges
    from robustdml.results import Score

_SIGNS = {"better": "+ better", "worse": "- worse", "unclear": "no clear difference"}


@click.command()
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER")
@click.option("--markdown", type=HomePath(dir_okay=False), help="Also write it for a comment on a pull request.")
@click.option("--junit", type=HomePath(dir_okay=False), help="Also write JUnit XML: a suite per model, a test per row.")
@click.option(
    "--fail-on",
    type=click.Choice(["worse"]),
    help="End with exit code 3 where a row got worse, or was judged before and is not any more.",
)
@output_options
def compare(
    before: str, after: str, markdown: Path | None, junit: Path | None, fail_on: str | None, output: Output
) -> None:
    """Say what got better or worse from one run to another.

    BEFORE and AFTER are run folders of 'robustdml evaluate', or one model of them: FOLDER:MODEL. Models are matched by
    name, or the only one on either side is taken. On the same queries, the headline (R@1) is judged by McNemar's exact
    test, corrected by Holm over all rows; else by whether the 95 % intervals overlap. Needs no torch and no models.
    """
    from robustdml.reports import compare_runs, write_comparison

    changes = compare_runs(before, after)
    files = write_comparison(changes, markdown=markdown, junit=junit)
    worse = [f"{model.after}: {change.line(changes.metric.title)}" for model, change in changes.worse]
    code = BELOW if fail_on and worse else 0
    output.document({"exit_code": code, "worse": worse, "files": list(map(str, files)), **_data(changes)})
    if not output.as_json:
        _print(changes)
    for path in files:
        output.line(f"Wrote {path}")
    for line in worse if fail_on else ():
        output.warn(f"Worse: {plain(line)}")
    click.get_current_context().exit(code)


def _data(changes: RunChanges) -> dict[str, object]:
    return {
        "before": changes.before,
        "after": changes.after,
        "unpaired": changes.unpaired,
        "unmatched": list(changes.unmatched),
        "models": [
            {
                "before": model.before,
                "after": model.after,
                "same_weights": model.same_weights,
                "notes": list(model.notes),
                "changes": [_change_data(change) for change in model.changes],
                "curves": [asdict(curve) for curve in model.curves],
            }
            for model in changes.models
        ],
    }


def _change_data(change: Change) -> dict[str, object]:
    return {
        "label": change.label,
        "condition": change.condition,
        "before": change.before and change.before.model_dump(mode="json"),
        "after": change.after and change.after.model_dump(mode="json"),
        "difference": change.differences,
        "reason": change.reason,
        "lost": change.lost,
        "won": change.won,
        "p_value": change.p_value,
        "verdict": change.verdict,
    }


def _print(changes: RunChanges) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()

    def say(line: str) -> None:
        # As text and not as markup: a name in brackets is no style.
        console.print(Text(line))

    for model in changes.models:
        _print_model(console, changes, model)
        for curve in model.curves:
            say(curve.line)
        better, worse, unclear = (model.count(verdict) for verdict in ("better", "worse", "unclear"))
        say(f"{changes.metric.title}: {better} better, {worse} worse, {unclear} not clearly different.")
        if model.same_weights:
            say("The weights are the same.")
        for note in model.notes:
            say(f"Note: {note}.")
        say("")
    if changes.unmatched:
        say(f"Not in both runs: {', '.join(map(plain, changes.unmatched))}.")
    say(changes.method)


def _print_model(console: Console, changes: RunChanges, model: ModelChanges) -> None:
    from rich.table import Table
    from rich.text import Text

    names = [model.before] if model.before == model.after else [model.before, model.after]
    title = Text(" -> ".join(map(plain, names)))
    judged = Table(title=title, title_justify="left")
    judged.add_column(changes.metric.title, overflow="fold")
    for head in ("before", "after", "change", "p"):
        judged.add_column(head, justify="right")
    judged.add_column("")
    for change in model.changes:
        if change.before is None or change.after is None or change.verdict is None:
            cells = [_recall(change.before), _recall(change.after), "-", "-", plain(change.reason or "")]
        else:
            difference = change.after.value - change.before.value
            p_value = "-" if change.p_value is None else f"{change.p_value:.2g}"
            cells = [_recall(change.before), _recall(change.after), f"{difference:+.3f}", p_value]
            cells.append(_SIGNS[change.verdict])
        judged.add_row(Text(plain(change.label)), *map(Text, cells))
    console.print(judged)
    rest = Table(title=Text("Change of every metric"), title_justify="left")
    rest.add_column("")
    shown = [change for change in model.changes if change.condition != "attack" and change.differences]
    for metric in changes.metrics:
        rest.add_column(metric.title, justify="right")
    for change in shown:
        found = change.differences or {}
        rest.add_row(change.label, *(f"{found[metric.name]:+.3f}" for metric in changes.metrics))
    console.print(rest)


def _recall(score: Score | None) -> str:
    return "-" if score is None else f"{score.value:.3f}"
