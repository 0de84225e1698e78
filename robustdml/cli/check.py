"""``robustdml check``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustdml.cli.evaluate import flag_line
from robustdml.cli.options import data_options, read_data, run_options, skip_broken_option, source_options
from robustdml.cli.verify import UNSOUND

if TYPE_CHECKING:
    from robustdml.data import RetrievalDataset
    from robustdml.source_options import SourceOptions

#: Enough to tell a suite that misses a query in a hundred.
_QUERIES = 100


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@data_options
@source_options
@click.option("--calibrate", is_flag=True, help="Also measure the standard suite where the exact truth is known.")
@skip_broken_option
@run_options
def check(
    models: tuple[str, ...],
    data: str,
    root: Path | None,
    options: SourceOptions,
    calibrate: bool,
    skip_broken: bool,
    device: str,
    quiet: bool,
) -> None:
    """Say whether a robust recall of a model could be believed, without attacking it.

    Does what 'robustdml evaluate' does before its first attack: looks at the data for copies, and at each model for
    what misleads attacks, and prints the flags (docs/flags.md). MODEL is as for 'robustdml evaluate'.

    Exit code 4 where a flag is grave or makes a recall invalid.
    """
    from robustdml.config import RunOptions
    from robustdml.evaluation import check as run
    from robustdml.evaluation import load_subjects

    dataset = read_data(data, root, skip_broken)
    subjects = load_subjects(models, options=options)
    flags = run(
        subjects,
        dataset,
        image_size=options.size,
        skip_broken=skip_broken,
        options=RunOptions(device=device, progress=not quiet),
    )
    for flag in flags:
        click.echo(flag_line(flag))
    grave = sum(flag.grade != "note" for flag in flags)
    click.echo(f"Flags: {len(flags)}, {grave} of them grave or invalid.")
    if calibrate:
        for line in _calibration(dataset):
            click.echo(line)
    if grave:
        click.get_current_context().exit(UNSOUND)


def _calibration(dataset: RetrievalDataset) -> Iterator[str]:
    """What the standard suite reaches on random linear embeddings of the data set, beside the exact value."""
    from robustdml.attacks import build_suite
    from robustdml.evaluation.checks.calibration import linear_settings, reached_by

    yield "What the standard suite reaches on linear embeddings of these images, where the exact R@1 is known:"
    yield "dimensions  eps     clean  exact  reached  missed queries  gradients a query"
    for setting in linear_settings(dataset, queries=_QUERIES):
        truth, judge = setting.truth(), setting.judge()
        clean = judge.clean().values["recall_at_1"].mean()
        reached = reached_by(build_suite("standard", setting.threat.eps or 0.0), judge, setting.images())
        missed = int((truth.broken & (reached.broken < 0)).sum())
        yield (
            f"{setting.dimensions:10}  {setting.threat.text:6}  {clean:.3f}  {truth.recall:.3f}  {reached.recall:7.3f}"
            f"  {missed:14}  {reached.gradients.mean():17.0f}"
        )
