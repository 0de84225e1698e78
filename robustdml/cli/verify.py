"""``robustdml verify``."""

from __future__ import annotations

from pathlib import Path

import click

from robustdml.cli.options import HomePath, source_options
from robustdml.config import BRANCH_CHOICES, BranchChoice
from robustdml.printable import plain
from robustdml.source_options import SourceOptions

#: The exit code of a command that did its work and found something that cannot be believed, or was not done.
UNSOUND = 4


@click.command()
@click.argument("folder", type=HomePath(), metavar="FOLDER")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Judge kept images by it. Repeatable.")
@click.option("--data", metavar="NAME|PATH", help="With --model: the data set of the run.")
@click.option("--root", type=HomePath(), help="Folder of the data set, where it needs one.")
@click.option("--branches", type=click.Choice(BRANCH_CHOICES), default="deployed", help="As they were evaluated.")
@source_options
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ... or auto.")
def verify(
    folder: Path,
    models: tuple[str, ...],
    data: str | None,
    root: Path | None,
    branches: BranchChoice,
    options: SourceOptions,
    device: str,
) -> None:
    """Say whether the results of an evaluation can be believed.

    Checks whose every file in FOLDER is and that none was changed, and derives all numbers of results.json again from
    the records of the queries. With --model, the clean queries and the images that 'robustdml evaluate --save-images'
    kept are judged again by that model.

    Exit code 4 where something does not hold, with a list.
    """
    from robustdml.evaluation.verify import verify as run

    if bool(models) != (data is not None):
        raise click.UsageError("--model and --data go together: what judges, and what is searched")
    found = [run(folder)]
    if models and data is not None:
        from robustdml.config import RunOptions
        from robustdml.data import load_dataset
        from robustdml.evaluation import load_subjects
        from robustdml.evaluation.checks.rejudging import rejudge

        dataset = load_dataset(data, root, skip_missing=True)
        subjects = load_subjects(models, branches=branches, options=options)
        found.append(rejudge(folder, subjects, dataset, options=RunOptions(device=device)))
    problems = [problem for part in found for problem in part.problems]
    for problem in problems:
        click.echo(f"Problem: {plain(problem)}", err=True)
    for note in (note for part in found for note in part.notes):
        click.echo(f"Not looked at: {plain(note)}")
    click.echo(f"Records: {found[0].files} files. Numbers derived again: {found[0].numbers}.")
    if models:
        click.echo(f"Judged again: {found[-1].numbers} attacked queries of {found[-1].files} files.")
    click.echo(f"Problems: {len(problems)}.")
    if problems:
        click.get_current_context().exit(UNSOUND)
