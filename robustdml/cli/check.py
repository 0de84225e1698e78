"""``robustdml check``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustdml.cli.options import data_options, read_data, run_options, skip_broken_option, source_options
from robustdml.cli.output import Output
from robustdml.cli.summary import flag_data
from robustdml.cli.verify import UNSOUND
from robustdml.overview import flag_line

if TYPE_CHECKING:
    from robustdml.data import RetrievalDataset
    from robustdml.evaluation import Subject
    from robustdml.source_options import SourceOptions

#: Enough to tell a suite that misses a query in a hundred.
_QUERIES = 100

#: Queries that decoys are planted for.
_DECOYS = 64


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@data_options
@source_options
@click.option("--calibrate", is_flag=True, help="Also measure the standard suite where the truth is known.")
@skip_broken_option
@run_options
def check(
    models: tuple[str, ...],
    data: str,
    root: Path | None,
    allow_outside: bool,
    options: SourceOptions,
    calibrate: bool,
    skip_broken: bool,
    device: str,
    output: Output,
) -> None:
    """Say whether a robust recall of a model could be believed, without attacking it.

    Does what 'robustdml evaluate' does before its first attack: looks at the data for copies, and at each model for
    what misleads attacks, and prints the flags (docs/flags.md). MODEL is as for 'robustdml evaluate'.

    Exit code 4 where a flag is grave or makes a recall invalid.
    """
    from robustdml.config import RunOptions
    from robustdml.devices import choose_device
    from robustdml.evaluation import check as run
    from robustdml.evaluation import load_subjects

    choose_device(device)
    dataset = read_data(data, root, output, skip_broken, allow_outside)
    subjects = load_subjects(models, options=options)
    flags = run(
        subjects,
        dataset,
        image_size=options.size,
        skip_broken=skip_broken,
        options=RunOptions(device=device, progress=not output.quiet),
    )
    for flag in flags:
        output.line(flag_line(flag))
    grave = sum(flag.grade != "note" for flag in flags)
    output.line(f"Flags: {len(flags)}, {grave} of them grave or invalid.")
    calibration, decoys = list[dict[str, Any]](), list[dict[str, Any]]()
    if calibrate:
        output.line("What the standard suite reaches on linear embeddings of these images, whose exact R@1 is known:")
        output.line("dimensions  eps     clean  exact  reached  missed queries  gradients a query")
        for row in _calibration(dataset):
            calibration.append(row)
            output.line(
                f"{row['dimensions']:10}  {row['eps']:6}  {row['clean']:.3f}  {row['exact']:.3f}  {row['reached']:7.3f}"
                f"  {row['missed']:14}  {row['gradients']:17.0f}"
            )
        output.line("What it finds of decoys planted where some image within 8/255 is known to reach them:")
        for row in _decoys(subjects, dataset, options, device):
            decoys.append(row)
            output.line("{model}: {found} of {planted} (one random image finds {by_chance})".format(**row))
    code = UNSOUND if grave else 0
    told = {"flags": [flag_data(flag) for flag in flags], "calibration": calibration, "decoys": decoys}
    output.document({"exit_code": code, **told})
    click.get_current_context().exit(code)


def _calibration(dataset: RetrievalDataset) -> Iterator[dict[str, Any]]:
    """What the standard suite reaches on random linear embeddings of the data set, beside the exact value."""
    from robustdml.attacks import build_suite
    from robustdml.evaluation.checks.calibration import linear_settings, reached_by

    for setting in linear_settings(dataset, queries=_QUERIES):
        truth, judge = setting.truth(), setting.judge()
        reached = reached_by(build_suite("standard", setting.threat.eps or 0.0), judge, setting.images())
        yield {
            "dimensions": setting.dimensions,
            "eps": setting.threat.text,
            "clean": float(judge.clean().values["recall_at_1"].mean()),
            "exact": float(truth.recall),
            "reached": float(reached.recall),
            "missed": int((truth.broken & (reached.broken < 0)).sum()),
            "gradients": float(reached.gradients.mean()),
        }


def _decoys(
    subjects: Sequence[Subject], dataset: RetrievalDataset, options: SourceOptions, device: str
) -> Iterator[dict[str, Any]]:
    """What the standard suite finds of decoys planted for the models themselves."""
    from robustdml.attacks import build_attack
    from robustdml.devices import choose_device
    from robustdml.evaluation.checks.planted import count_planted
    from robustdml.evaluation.subjects import preparations

    prepared = preparations(subjects, [], image_size=options.size, usual=dataset.image_size)
    few, attack = dataset.subset_queries(_DECOYS, 0), build_attack("cascade", "8/255")
    for subject in subjects:
        count = count_planted(attack, subject, few, prepared[subject.name], choose_device(device))
        yield {"model": subject.name, "found": count.found, "planted": count.planted, "by_chance": count.by_chance}
