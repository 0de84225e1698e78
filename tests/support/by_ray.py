"""Evaluations by two workers of Ray; run as a program, in a network of its own: ``by_ray.py FOLDER``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from odd_workers import Odd
from squares import QUIET, SmallNet, make_dataset

from robustdml.attacks import build_suite
from robustdml.evaluation import engines, evaluate


def equal(folder: Path, engine: str) -> None:
    """What every engine must do alike, and one worker of which is killed once."""
    attacks = [*build_suite("cascade,margin,both_sides", 8 / 255, "quick"), Odd("is killed once", str(folder / "mark"))]
    run(folder / engine, engine, attacks, None)


def odd(folder: Path) -> None:
    """What ends or holds up every worker."""
    run(folder / "odd", "ray", [Odd("segfaults"), Odd("does nothing")], None)
    run(folder / "late", "ray", [Odd("hangs")], 2.0)


def run(out: Path, engine: str, attacks: list[object], limit: float | None) -> None:
    options = dataclasses.replace(QUIET, engine=engine, workers=2 if engine == "ray" else None)
    parts = {"max_queries": 24, "shard_size": 8, "attack_time_limit": limit, "options": options}
    evaluate({"net": SmallNet()}, make_dataset(), attacks, out=out, **parts)


if __name__ == "__main__":
    engines._GRACE = 2.0
    ray = engines._ray()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    equal(Path(sys.argv[1]), "ray")
    odd(Path(sys.argv[1]))
