"""What attacks reach of the exact robust R@1 of linear embeddings.

    python experiments/truth.py [--data digits] [--seed 0] [--norm linf] [--queries 300] [STAGES …]

STAGES are lists of attacks, each attack on the queries that those before it left; more lists are more columns.
"""

import argparse
import time

from robustdml.attacks import build_suite
from robustdml.data import load_dataset
from robustdml.evaluation.checks.calibration import BUDGETS, DIMENSIONS, linear_settings, reached_by
from robustdml.threat import ThreatModel

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=STAGES)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--norm", default="linf", choices=("linf", "l2", "l1"))
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--dims", type=lambda text: tuple(map(int, text.split(","))), default=DIMENSIONS)
    options = parser.parse_args()
    settings = linear_settings(
        load_dataset(options.data),
        dimensions=options.dims,
        threats=budgets(options.norm),
        queries=options.queries,
        seed=options.seed,
    )
    print("| dimensions | eps | clean | exact |", " | ".join(options.stages), "|")
    print("|" + "---|" * (4 + len(options.stages)))
    for setting in settings:
        eps, norm = setting.threat.eps, setting.threat.norm
        assert eps is not None, "the truth is that of a budget"
        started, truth = time.monotonic(), setting.truth()
        seconds = time.monotonic() - started
        judge = setting.judge()
        clean = judge.clean().values["recall_at_1"].mean()
        row = [str(setting.dimensions), setting.threat.text, f"{clean:.4f}"]
        row.append(f"{truth.recall:.4f} ({truth.programs} programs, {seconds:.1f} s)")
        for stages in options.stages:
            specs = stages if norm == "linf" else stages.replace("(", f"(norm={norm}, eps={eps}, ")
            attacks = build_suite(specs, eps if norm == "linf" else 8 / 255)
            reached = reached_by(attacks, judge, setting.images())
            row.append(f"{reached.recall:.4f} ({reached.gradients.mean():.0f})")
            impossible = (reached.broken >= 0) & ~truth.broken
            assert not impossible.any(), f"broken, but not by the truth: {impossible.nonzero()[0]}"
        print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
