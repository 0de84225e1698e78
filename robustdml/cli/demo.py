"""``robustdml demo``: the whole path on the built-in digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from robustdml.cli.options import HomePath, run_options
from robustdml.cli.output import Output
from robustdml.cli.summary import data_of, summarise
from robustdml.files import check_writable
from robustdml.threat import parse_eps

_METHODS = ("st", "advprop", "mdprop")


@dataclass(frozen=True)
class _Size:
    epochs: int
    attacks: str
    eps: str
    max_queries: int


#: The standard evaluation, and of everything else what a few minutes allow: every goal, and one of each library.
_ATTACKS = (
    "standard,noise,fgsm(goal=margin),shift,margin,stax,mtax,apgd,torchattacks.PGD,torchattacks.PGD(goal=mtax),"
    "art.ProjectedGradientDescent"
)
_FULL = _Size(epochs=8, attacks=_ATTACKS, eps="4/255,8/255,16/255", max_queries=160)
_QUICK = _Size(epochs=1, attacks="quick", eps="8/255", max_queries=40)


@click.command()
@click.option("--out", default="demo", show_default=True, type=HomePath(), help="Folder to write into.")
@click.option("--quick", is_flag=True, help="One epoch and few attacks: shows that it works, not how well.")
@run_options
def demo(out: Path, quick: bool, device: str, output: Output) -> None:
    """Train ST, AdvProp-D and MDProp on built-in digits, attack them, and write a report. Minutes on two cores."""
    from robustdml.attacks import GOALS, build_suite
    from robustdml.config import RunOptions, TrainConfig
    from robustdml.data import load_dataset
    from robustdml.evaluation import evaluate, load_subjects
    from robustdml.reports import write_report
    from robustdml.results import RESULTS_FILE
    from robustdml.training import train

    size = _QUICK if quick else _FULL
    page = out / "report.html"
    check_writable(page, *(out / name / RESULTS_FILE for name in (*_METHODS, "evaluation")))
    options = RunOptions(device=device, progress=not output.quiet)
    digits = load_dataset("digits")
    runs = []
    for method in _METHODS:
        config = TrainConfig(
            method=method, backbone="resnet-tiny", epochs=size.epochs, eps=parse_eps("16/255"), validation_classes=0
        )
        output.note(f"Training {method} ...")
        runs.append(str(train(digits, config, out / method, goals=GOALS, options=options).folder))
    output.note("Attacking all three ...")
    results = evaluate(
        load_subjects(runs),
        digits,
        build_suite(size.attacks, size.eps),
        out=out / "evaluation",
        max_queries=size.max_queries,
        options=options,
    )
    summarise(results, output)
    write_report(out / "evaluation", page)
    output.line(f"Report: {page}")
    output.document({"exit_code": 0, "run": str(out / "evaluation"), "report": str(page), **data_of(results)})
