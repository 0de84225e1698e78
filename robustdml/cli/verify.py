"""``robustdml verify``."""

from __future__ import annotations

from pathlib import Path

import click

from robustdml.cli.options import HomePath, run_options, source_options
from robustdml.cli.output import Output
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
@click.option("--allow-outside", is_flag=True, help="As for 'robustdml evaluate'.")
@click.option("--branches", type=click.Choice(BRANCH_CHOICES), default="deployed", help="As they were evaluated.")
@source_options
@run_options
def verify(
    folder: Path,
    models: tuple[str, ...],
    data: str | None,
    root: Path | None,
    allow_outside: bool,
    branches: BranchChoice,
    options: SourceOptions,
    device: str,
    output: Output,
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
        from robustdml.devices import choose_device
        from robustdml.evaluation import load_subjects
        from robustdml.evaluation.checks.rejudging import rejudge

        choose_device(device)
        dataset = load_dataset(data, root, skip_missing=True, allow_outside=allow_outside)
        subjects = load_subjects(models, branches=branches, options=options)
        found.append(rejudge(folder, subjects, dataset, options=RunOptions(device=device, progress=not output.quiet)))
    problems = [problem for part in found for problem in part.problems]
    for problem in problems:
        output.warn(f"Problem: {plain(problem)}")
    notes = [note for part in found for note in part.notes]
    for note in notes:
        output.line(f"Not looked at: {plain(note)}")
    output.line(f"Records: {found[0].files} files. Numbers derived again: {found[0].numbers}.")
    if models:
        output.line(f"Judged again: {found[-1].numbers} attacked queries of {found[-1].files} files.")
    output.line(f"Problems: {len(problems)}.")
    code = UNSOUND if problems else 0
    output.document(
        {
            "exit_code": code,
            "problems": problems,
            "not_looked_at": notes,
            "files": found[0].files,
            "numbers": found[0].numbers,
            "judged_again": found[-1].numbers if models else 0,
        }
    )
    click.get_current_context().exit(code)
