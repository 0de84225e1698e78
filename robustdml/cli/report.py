"""``robustdml report``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write [default: report.html in FOLDER].")
def report(folder: Path, out: Path | None) -> None:
    """Render the HTML report of a finished evaluation again. Needs no torch and no models."""
    from robustdml.reports import write_report

    click.echo(f"Report: {write_report(folder, out)}")
