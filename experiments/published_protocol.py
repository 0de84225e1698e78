"""How much a published attack protocol flatters: the table of docs/reproduce.md, on the built-in digits.

Run: python experiments/published_protocol.py [--seeds 3] [--out runs/published-protocol]

Each model under STAX as MDProp's paper describes it (PGD of 20 steps of eps / 20, the last iterate, one item of another
class drawn for each query), and under the standard evaluation, at the same budgets. The same command again goes on
where it stopped, and writes what is measured so far between the marks of the page.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import click
from page import write

from robustdml.attacks import GOALS, build_suite
from robustdml.config import RunOptions, TrainConfig
from robustdml.contracts import Attack
from robustdml.data import load_dataset
from robustdml.evaluation import evaluate, load_subjects
from robustdml.results import Results
from robustdml.training import train

BUDGETS = ("0.01/normalised", "0.1/normalised", "8/255")
ATTACKS = {
    "published STAX": "pgd(goal=stax, steps=20, step=0.05, start=0.05, best=false)",
    "standard.v1": "cascade",
}
QUERIES = 200
_PLAIN = TrainConfig(backbone="resnet-tiny", epochs=8, validation_classes=0, eps=16 / 255)
MODELS = {
    "ST": replace(_PLAIN, method="st"),
    "AT": replace(_PLAIN, method="at"),
    "AdvProp-D": replace(_PLAIN, method="advprop"),
    "MDProp": replace(_PLAIN, method="mdprop"),
    "MDProp, images at 24/255": replace(_PLAIN, method="mdprop", eps=24 / 255),
    "robust-frozen, images at 32/255": replace(_PLAIN, method="robust-frozen", eps=8 / 255),
}


def measured(results: Results) -> list[float]:
    """R@1 in percent: clean, then by budget each attack."""
    scores = {(cell.attack, cell.threat): cell.score for cell in results.cells}
    order = [(attack.entry().spec, attack.threat) for attack in suite()]
    found = [scores[key] for key in order]
    return [100 * (score.value if score else float("nan")) for score in (results.models[0].clean, *found)]


def suite() -> list[Attack]:
    """Every attack at every budget, the budgets as columns."""
    return [attack for budget in BUDGETS for spec in ATTACKS.values() for attack in build_suite(spec, budget)]


def table(values: dict[str, list[list[float]]]) -> str:
    """Mean and standard deviation over seeds."""
    heads = ["seeds", "clean", *(f"{name} {budget}" for budget in BUDGETS for name in ATTACKS)]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, rows in values.items():
        cells = [
            f"{statistics.mean(column):.1f} ± {statistics.stdev(column):.1f}" if len(rows) > 1 else f"{column[0]:.1f}"
            for column in zip(*rows, strict=True)
        ]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--seeds", default=3, show_default=True)
@click.option("--out", default="runs/published-protocol", type=click.Path(path_type=Path), show_default=True)
def main(seeds: int, out: Path) -> None:
    """Train, attack, and write the table."""
    digits, options = load_dataset("digits"), RunOptions(device="cpu", progress=False)
    values: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        for place, (name, config) in enumerate(MODELS.items()):
            folder = out / f"{place}-{seed}"
            train(digits, replace(config, seed=seed), folder / "model", goals=GOALS, options=options)
            subjects = load_subjects([f"model={folder / 'model'}"])
            results = evaluate(subjects, digits, suite(), out=folder / "report", max_queries=QUERIES, options=options)
            values.setdefault(name, []).append(measured(results))
            click.echo(f"seed {seed}, {name}: " + " ".join(f"{value:.1f}" for value in values[name][-1]))
            write("reproduce.md", "digits", table(values))


if __name__ == "__main__":
    main()
