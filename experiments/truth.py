"""What attacks reach of the exact robust R@1 of linear embeddings.

    python experiments/truth.py [--data digits] [--root FOLDER] [--seed 0] [--norm linf] [--queries 300] [STAGES …]

STAGES are lists of attacks, each attack on the queries that those before it left; more lists are more columns.

    python experiments/truth.py --smallest [--norm l2] [--queries 30] [ATTACKS …]

asks for the smallest eps that breaks each query, by attacks that search for it, against the exact one.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from robustdml.attacks import build_attack, build_suite
from robustdml.data import load_dataset
from robustdml.evaluation.checks.calibration import BUDGETS, DIMENSIONS, LinearSetting, linear_settings, reached_by
from robustdml.retrieval.embed import Embedder
from robustdml.threat import ThreatModel, norm_of

STAGES = [
    "mi",
    "mi,mi(goal=item_margin, rivals=10)",
    "mi,mi(goal=item_margin, rivals=3, predict=16)",
    "mi,mi(goal=item_margin, rivals=10, predict=48, slack=0.25)",
    "apgd(restarts=4)",
    "standard",
]


def budgets(norm: str) -> tuple[ThreatModel, ...]:
    """In each norm a smaller and a larger one."""
    sizes = {"linf": (), "l2": (0.5, 1.0), "l1": (8.0, 16.0)}[norm]
    return tuple(ThreatModel(eps, norm) for eps in sizes) or BUDGETS


SEARCHES = ["bisection", "bisection(steps=10, items=0)", "minimum"]

#: An eps that breaks every query.
LARGEST = {"linf": 0.5, "l2": 16.0, "l1": 400.0}


def smallest(setting: LinearSetting, searches: list[str]) -> list[str]:
    """The exact median of the smallest eps, and of each search how far above it: median and largest ratio."""
    norm, judge, images = setting.threat.norm, setting.judge(), setting.images()
    low, high = setting.smallest(LARGEST[norm])
    row = [str(setting.dimensions), f"{np.median(high) * (255 if norm == 'linf' else 1):.3f}"]
    part = np.arange(len(images))
    for spec in searches:
        name, _, rest = spec.partition("(")
        attack = build_attack(f"{name}(norm={norm}, {rest}" if rest else f"{name}(norm={norm})", 8 / 255)
        model = Embedder(judge.model.module).eval()
        sent = attack(model, images.clone(), judge.references(part), seed=0)
        found = norm_of(sent - images, norm).double().numpy()
        right, _ = judge.verdicts(part, sent)
        assert (found[~right] >= low[~right] * (1 - 1e-5)).all(), "smaller than the exact one"
        counted = ~right & (high > 0)
        above = found[counted] / high[counted]
        held = f", {right.sum()} not broken" if right.any() else ""
        row.append(f"{np.median(above):.3f}, {above.max():.3f}{held} ({model.gradient_images / len(images):.0f})")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*")
    parser.add_argument("--smallest", action="store_true")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--norm", default="linf", choices=("linf", "l2", "l1"))
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--dims", type=lambda text: tuple(map(int, text.split(","))), default=DIMENSIONS)
    options = parser.parse_args()
    stages_or_searches = options.stages or (SEARCHES if options.smallest else STAGES)
    settings = linear_settings(
        load_dataset(options.data, options.root),
        dimensions=options.dims,
        threats=budgets(options.norm)[: 1 if options.smallest else None],
        queries=options.queries,
        seed=options.seed,
    )
    if options.smallest:
        print("| dimensions | exact median |", " | ".join(stages_or_searches), "|")
        print("|" + "---|" * (2 + len(stages_or_searches)))
        for setting in settings:
            print("|", " | ".join(smallest(setting, stages_or_searches)), "|", flush=True)
        return
    print("| dimensions | eps | clean | exact |", " | ".join(stages_or_searches), "|")
    print("|" + "---|" * (4 + len(stages_or_searches)))
    for setting in settings:
        eps, norm = setting.threat.eps, setting.threat.norm
        assert eps is not None, "the truth is that of a budget"
        started, truth = time.monotonic(), setting.truth()
        seconds = time.monotonic() - started
        judge = setting.judge()
        clean = judge.clean().values["recall_at_1"].mean()
        row = [str(setting.dimensions), setting.threat.text, f"{clean:.4f}"]
        row.append(f"{truth.recall:.4f} ({truth.programs} programs, {seconds:.1f} s)")
        for stages in stages_or_searches:
            specs = stages if norm == "linf" else stages.replace("(", f"(norm={norm}, eps={eps}, ")
            attacks = build_suite(specs, eps if norm == "linf" else 8 / 255)
            reached = reached_by(attacks, judge, setting.images())
            row.append(f"{reached.recall:.4f} ({reached.gradients.mean():.0f})")
            impossible = (reached.broken >= 0) & ~truth.broken
            assert not impossible.any(), f"broken, but not by the truth: {impossible.nonzero()[0]}"
        print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
