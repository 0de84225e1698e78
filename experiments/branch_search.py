"""Which images to train on, asked of held-out training classes: the search behind `--method robust` in mdprop.md.

Run: python experiments/branch_search.py --data digits
     python experiments/branch_search.py --data grocery --root ROOT
The test classes are not looked at. Prints one line per list of branches and training eps; goes on where it stopped.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from robustdml.attacks import GOALS, build_suite
from robustdml.branches import Branch, Method
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import RetrievalDataset, load_dataset
from robustdml.evaluation import evaluate, load_subjects
from robustdml.training import METHODS, train

CLEAN, FIRST, SECOND = Branch("clean"), (0.0, 0.5), (0.5, 1.0)


def _margin(steps: int, part: tuple[float, float] = (0.0, 1.0), batchnorm: str = "margin") -> Branch:
    return Branch("margin", batchnorm, part, steps=steps)


LISTS = {
    "MDProp": METHODS["mdprop"],
    "MP'": METHODS["mp1"],
    "margin in place of STAX": Method("", (CLEAN, _margin(1, FIRST), Branch("mtax", "mtax", SECOND))),
    "margin, 2 steps, in place of STAX": Method("", (CLEAN, _margin(2, FIRST), Branch("mtax", "mtax", SECOND))),
    "clean and margin": Method("", (CLEAN, _margin(1))),
    "clean and margin, 3 steps, half": Method("", (CLEAN, _margin(3, FIRST))),
    "margin alone, 2 steps": Method("", (_margin(2),)),
    "margin alone, 3 steps": Method("", (_margin(3),)),
    "margin and STAX, 2 steps, no clean": Method(
        "", (_margin(2, FIRST, "one"), Branch("stax", "one", SECOND, steps=2))
    ),
    "STAX and MTAX, 2 steps, no clean": Method(
        "", (Branch("stax", "one", FIRST, steps=2), Branch("mtax", "one", SECOND, steps=2))
    ),
}
#: Per data set: the lists and training eps (in 255ths) that were tried.
TRIED = {
    "digits": [
        *(("MDProp", eps) for eps in (8, 16, 24, 32)),
        ("MP'", 24),
        *(("margin in place of STAX", eps) for eps in (16, 24, 32)),
        ("clean and margin", 24),
        *(("clean and margin, 3 steps, half", eps) for eps in (16, 24)),
        *(("margin alone, 2 steps", eps) for eps in (8, 16, 24)),
        ("margin alone, 3 steps", 16),
        ("margin and STAX, 2 steps, no clean", 16),
        ("STAX and MTAX, 2 steps, no clean", 16),
    ],
    "grocery": [
        *(("MDProp", eps) for eps in (2, 4, 8)),
        *(("margin in place of STAX", eps) for eps in (4, 6, 8)),
        ("margin, 2 steps, in place of STAX", 4),
        *(("clean and margin, 3 steps, half", eps) for eps in (2, 4)),
        ("margin alone, 2 steps", 4),
    ],
}
EPOCHS = {"digits": 8, "grocery": 15}
HELD_OUT = {"digits": 1, "grocery": 10}
FOLDS = {"digits": (0, 2), "grocery": (0,)}
BUDGET = {"digits": 8 / 255, "grocery": 2 / 255}
QUIET = RunOptions(progress=False)


def recalls(dataset: RetrievalDataset, name: str, branches: str, eps: int, fold: int, out: Path) -> tuple[float, float]:
    """R@1 of held-out classes, clean and under 50 steps of PGD on the margin, in percent."""
    rows, held_out = dataset.split_validation(HELD_OUT[name], fold)
    assert held_out is not None
    config = TrainConfig(
        method="mdprop",
        recipe=LISTS[branches],
        backbone="resnet-tiny",
        image_size=32,
        epochs=EPOCHS[name],
        eps=eps / 255,
        precision="fp32" if name == "digits" else "bf16",
        validation_classes=0,
        seed=fold,
    )
    folder = out / name / f"{branches}-{eps}-{fold}".replace(" ", "_")
    known = replace(dataset, train=rows, train_query=None)
    train(known, config, folder / "model", goals=GOALS, options=QUIET)
    # A data set has to have training rows, and here the test's take that place: an evaluation does not read them.
    unseen = np.union1d(dataset.query, dataset.gallery)
    judged = replace(dataset, train=unseen, query=held_out.query, gallery=held_out.gallery, train_query=None)
    subjects = load_subjects([f"model={folder / 'model'}"])
    attacks = build_suite("margin(steps=50)", [BUDGET[name]])
    results = evaluate(subjects, judged, attacks, out=folder / "margin", max_queries=300, options=QUIET)
    (cell,) = results.cells
    assert cell.score is not None, cell.reason
    return 100 * results.models[0].clean.metrics.recall_at_1, 100 * cell.score.metrics.recall_at_1


@click.command()
@click.option("--data", type=click.Choice(list(TRIED)), required=True)
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the data set.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/search"), show_default=True)
def main(data: str, root: Path | None, out: Path) -> None:
    """Train, measure, print."""
    dataset = load_dataset(data, root)
    click.echo("| images | training eps | clean R@1 | margin |\n|---|---|---|---|")
    for branches, eps in TRIED[data]:
        found = [recalls(dataset, data, branches, eps, fold, out) for fold in FOLDS[data]]
        clean, margin = (statistics.mean(values) for values in zip(*found, strict=True))
        each = ", ".join(f"{margin:.1f}" for _, margin in found)
        click.echo(f"| {branches} | {eps}/255 | {clean:.1f} | {margin:.1f}{f' ({each})' if len(found) > 1 else ''} |")


if __name__ == "__main__":
    main()
