"""The cascade against the same stages on all queries: equal verdicts, fewer gradients. The table of docs/standard.md.

    python experiments/stages.py st=runs/st mdprop=runs/mdprop [--data digits] [--eps 8/255] [--queries 64]

Each stage of the cascade that follows gradients is run on every query, as an attack by itself and with the same random
draws. A query holds that no stage breaks. What that costs is told twice: of attacks that leave a query alone once it is
broken, as the stages do, and of attacks that make all their steps (which breaks the same, but for other random draws).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from robustdml.attacks import Momentum, build_attack
from robustdml.contracts import StagedAttack
from robustdml.data import load_dataset
from robustdml.evaluation import evaluate, load_subjects
from robustdml.results import unpack_hits
from robustdml.threat import parse_eps


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--data", default="digits", show_default=True)
@click.option("--root", type=click.Path(path_type=Path))
@click.option("--eps", default="8/255", show_default=True)
@click.option("--queries", default=64, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/stages"), show_default=True)
def main(models: tuple[str, ...], data: str, root: Path | None, eps: str, queries: int, out: Path) -> None:
    """Measure, and print the table."""
    dataset, cascade = load_dataset(data, root), build_attack("cascade", parse_eps(eps))
    assert isinstance(cascade, StagedAttack), "the cascade has stages"
    alone = [stage.attack for stage in cascade.stages if not stage.sample]
    to_the_end = [replace(attack, stop=False) for attack in alone if isinstance(attack, Momentum)]
    heads = ["model", "R@1, cascade", "R@1, each stage on all", "verdicts that differ", "gradients a query: cascade"]
    print(f"| {' | '.join([*heads, 'each stage on all', 'each stage on all, to its last step'])} |")
    print("|---|---|---|---|---|---|---|")
    for subject in load_subjects(models):
        attacks = [cascade, *alone, *to_the_end]
        results = evaluate([subject], dataset, attacks, out=out / subject.name, max_queries=queries)
        count, places = results.dataset.queries, len(alone) + 1
        hits = [np.array(unpack_hits(cell.hits or "", count)) for cell in results.cells]
        held = np.logical_and.reduce([np.array(unpack_hits(results.models[0].clean_hits, count)), *hits[1:places]])
        spent = np.array([cell.gradient_images / count for cell in results.cells])
        costs = spent[0], spent[1:places].sum(), spent[places:].sum()
        told = [f"{cost:.0f} ({costs[0] / cost:.0%} of it)" for cost in costs[1:]]
        print(
            f"| {subject.name} | {hits[0].mean():.4f} | {held.mean():.4f} | {(hits[0] != held).sum()} of {count} "
            f"| {costs[0]:.0f} | {' | '.join(told)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
