"""The cascade against the same stages on all queries: equal verdicts, fewer gradients. The table of docs/standard.md.

    python experiments/stages.py st=runs/st mdprop=runs/mdprop [--data digits] [--eps 8/255] [--queries 64]

Each stage of the cascade that follows gradients is run on every query, as an attack by itself and with the same random
draws, and leaves a query alone once it has broken it, as in the cascade. A query holds that no stage breaks.

What the cascade gives up is measured with it: of the queries that a stage breaks and none before it does, the one of
which those before it had come the least part of the way (100 % is a margin of 0), beside what the cascade asks for.
With --to-the-end the cost is told of attacks, too, that make all their steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from robustdml.attacks import Momentum, build_attack
from robustdml.contracts import Stage, StagedAttack
from robustdml.data import load_dataset
from robustdml.evaluation import evaluate, load_subjects
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.records import Records
from robustdml.evaluation.store import CellKey, Store
from robustdml.threat import parse_eps


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--data", default="digits", show_default=True)
@click.option("--root", type=click.Path(path_type=Path))
@click.option("--eps", default="8/255", show_default=True)
@click.option("--norm", default="linf", show_default=True)
@click.option("--queries", default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--to-the-end", is_flag=True, help="Also what the stages cost if they stop at nothing.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/stages"), show_default=True)
def main(
    models: tuple[str, ...],
    data: str,
    root: Path | None,
    eps: str,
    norm: str,
    queries: int,
    seed: int,
    to_the_end: bool,
    out: Path,
) -> None:
    """Measure, and print the table."""
    dataset, cascade = load_dataset(data, root), build_attack(f"cascade(norm={norm}, eps={parse_eps(eps)})", eps)
    assert isinstance(cascade, StagedAttack), "the cascade has stages"
    stages = [stage for stage in cascade.stages if not stage.sample]
    alone = [stage.attack for stage in stages]
    whole = [replace(attack, stop=False) for attack in alone if isinstance(attack, Momentum) and to_the_end]
    heads = ["model", "R@1, cascade", "R@1, each stage on all", "verdicts that differ", "gradients a query: cascade"]
    heads += ["each stage on all", *(["each stage on all, to its last step"] if to_the_end else [])]
    for number, stage in enumerate(stages[1:], 2):
        heads.append(f"stage {number} (from {stage.closed:.0%}): alone breaks, from")
    print(f"| {' | '.join(heads)} |")
    print("|" + "---|" * len(heads))
    for subject in load_subjects(models):
        attacks = [cascade, *alone, *whole]
        folder = out / subject.name
        results = evaluate([subject], dataset, attacks, out=folder, max_queries=queries, seed=seed)
        assert all(cell.status == "ok" for cell in results.cells), [cell.reason for cell in results.cells]
        store = Store(folder, Plan.load(folder).fingerprint)
        found = [store.read_all(CellKey(subject.name, cell.attack, cell.threat)) for cell in results.cells]
        clean = store.read_model(subject.name)
        assert clean is not None, "it was evaluated"
        by_cascade, *by_stages = [records for records in found[: len(alone) + 1] if records is not None]
        held = np.logical_and.reduce([_right(records) for records in (clean[1], *by_stages)])
        count = len(held)
        spent = np.array([cell.gradient_images / count for cell in results.cells])
        costs = [spent[1 : len(alone) + 1].sum(), *([spent[len(alone) + 1 :].sum()] if to_the_end else [])]
        row = [subject.name, f"{_right(by_cascade).mean():.4f}", f"{held.mean():.4f}"]
        row += [f"{(_right(by_cascade) != held).sum()} of {count}", f"{spent[0]:.0f}"]
        row += [f"{cost:.0f} ({spent[0] / cost:.0%} of it)" for cost in costs]
        print(f"| {' | '.join([*row, *_farthest(clean[1], by_stages, stages)])} |", flush=True)


def _farthest(clean: Records, by_stages: Sequence[Records], stages: Sequence[Stage]) -> list[str]:
    """Of each stage but the first: what it breaks that none before it does, and the farthest of these before it."""
    told, left, best = [], _right(clean), clean.margins
    for place, (records, stage) in enumerate(zip(by_stages, stages, strict=True)):
        broken = left & ~_right(records)
        came = 1 - best[broken] / clean.margins[broken]
        if place:
            given_up = (came < stage.closed).sum()
            told.append(f"{broken.sum()}, {came.min():.0%}" if broken.any() else "0")
            told[-1] += f", of which the cascade gives up {given_up}" if given_up else ""
        left, best = left & ~broken, np.maximum(best, records.margins)
    return told


def _right(records: Records) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return records.values["recall_at_1"] > 0.5


if __name__ == "__main__":
    main()
