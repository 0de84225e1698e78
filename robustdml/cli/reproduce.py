"""``robustdml reproduce``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustdml.cli.options import HomePath, run_options
from robustdml.cli.output import Output
from robustdml.errors import SpecError
from robustdml.values import whole

if TYPE_CHECKING:
    from robustdml.papers import Row


@click.command()
@click.argument("paper", type=click.Choice(["mdprop"]))
@click.argument("row", required=False)
@click.option("--list", "listed", is_flag=True, help="List the rows: published R@1, and ours where --out has it.")
@click.option("--settings", is_flag=True, help="Print every setting of the row, the paper's beside ours.")
@click.option("--root", type=HomePath(), help="Folder of the row's data set.")
@click.option("--out", default="runs/mdprop", show_default=True, type=HomePath(), help="Folder of all rows.")
@click.option("--seeds", default="0", show_default=True, help="A training each, separated by commas.")
@click.option("--max-queries", type=int, help="Attack a class-stratified sample of this size [default: all].")
@click.option("--miniature", is_flag=True, help="Seconds: a small network, one epoch, counts of images not checked.")
@run_options
def reproduce(
    paper: str,
    row: str | None,
    listed: bool,
    settings: bool,
    root: Path | None,
    out: Path,
    seeds: str,
    max_queries: int | None,
    miniature: bool,
    device: str,
    output: Output,
) -> None:
    """Train and attack a row of a paper's tables as it was published, and print its figures beside ours.

    PAPER is mdprop (arXiv 2211.16253); ROW is one that --list names. The row's folder in --out has the table with the
    reasons for what differs (reproduction.md), and a model and a report for each seed. Repeat the command to go on.
    """
    from robustdml.papers import ROWS

    if listed:
        _list([ROWS[name] for name in (ROWS if row is None else [row])], out, output)
        return
    if row is None:
        raise SpecError(f"no row given: robustdml reproduce {paper} --list names them")
    wanted = ROWS[row]
    if settings:
        _settings(wanted, output)
        return
    numbers = [part.strip() for part in seeds.split(",")]
    if not all(part.isdecimal() and len(part) < 19 for part in numbers) or len(set(numbers)) < len(numbers):
        raise SpecError(f"--seeds {seeds} must be different whole numbers, such as 0,1,2")
    if max_queries is not None:
        whole("max_queries", max_queries, least=1)
    from robustdml.config import RunOptions
    from robustdml.papers import reproduce as run
    from robustdml.papers.reproduce import TABLE_FILE, folder_of, table

    options = RunOptions(device=device, progress=not output.quiet)
    seeds_read = [int(part) for part in numbers]
    found = run(wanted, root, out, seeds=seeds_read, max_queries=max_queries, small=miniature, options=options)
    written = folder_of(wanted, out, small=miniature) / TABLE_FILE
    output.line(table(wanted, found, small=miniature))
    output.line(f"Table: {written}")
    output.document(
        {
            "exit_code": 0,
            "row": wanted.name,
            "command": wanted.command,
            "table": str(written),
            "outcomes": [asdict(each) for each in found],
        }
    )


def _list(rows: list[Row], out: Path, output: Output) -> None:
    from rich.console import Console
    from rich.table import Table

    from robustdml.papers import read_outcomes
    from robustdml.papers.mdprop import PROTOCOLS
    from robustdml.papers.reproduce import ours_written

    shown = {"clean": "clean"} | {name: title for name, (title, _) in PROTOCOLS.items()}
    table = Table(title="R@1 in percent: published | ours", title_justify="left")
    table.add_column("row", no_wrap=True)
    for title in shown.values():
        table.add_column(title, justify="right")
    for row in rows:
        ours = {found.protocol: found for found in read_outcomes(out, row) if found.metric == "recall_at_1"}
        cells = []
        for name in shown:
            value = row.published.get(name, {}).get("recall_at_1")
            own = f" | {ours_written(ours[name])}" if name in ours else ""
            cells.append(("—" if value is None else f"{value:.2f}") + own)
        table.add_row(row.name, *cells)
    if not output.as_json:
        Console(width=None if Console().is_terminal else 160).print(table)
    for row in rows:
        if row.note:
            output.line(f"{row.name}: {row.note}.")
    output.document(
        [
            {
                "row": row.name,
                "command": row.command,
                "published": row.published,
                "note": row.note,
                "ours": [asdict(found) for found in read_outcomes(out, row)],
            }
            for row in rows
        ]
    )


def _settings(row: Row, output: Output) -> None:
    from robustdml.papers import settings_of

    output.line(row.command)
    output.document({"row": row.name, "command": row.command, "settings": [asdict(each) for each in settings_of(row)]})
    for each in settings_of(row):
        same = each.paper == each.ours
        output.line(f"  {each.setting}: {each.paper}" if same else f"! {each.setting}: {each.paper}")
        if not same:
            output.line(f"      here: {each.ours}, because {each.reason or 'nobody said why'}")
