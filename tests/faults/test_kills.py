"""Evaluations and trainings that are killed at moments that nobody chose, again and again, end as others do.

Some of the moments are any, in processor time; the others lie between two steps of writing a file. `make faults` kills
100 times.
"""

from __future__ import annotations

import os
import random

import pytest
from apart import apart, content
from few_digits import few_digits
from squares import SmallNet, make_dataset

from robustdml.attacks import GOALS, build_suite
from robustdml.config import RunOptions, TrainConfig
from robustdml.evaluation import evaluate
from robustdml.training import train

pytestmark = pytest.mark.skipif("not hasattr(os, 'fork')", reason="processes are copied")

CONFIG = TrainConfig(
    method="mdprop", backbone="resnet-tiny", embedding_dim=16, image_size=16, epochs=3, batch_size=20, targets=2,
    validation_classes=1, average_weights=0.5,
)  # fmt: skip


def evaluated(out):
    suite = build_suite("noise,margin,mtax(targets=2)", "8/255")
    options = RunOptions(device="cpu", progress=False, save_images=True)
    evaluate({"net": SmallNet()}, make_dataset(), suite, out=out, shard_size=8, options=options)


def trained(out, minutes=0.0):
    train(few_digits(10), CONFIG, out, goals=GOALS, options=RunOptions("cpu", False, save_minutes=minutes))


def trained_by_the_epoch(out):
    trained(out, 10.0)


#: How often each is killed with ``--many``, and how many steps of writing it takes at least (five for a file).
WORKS = {evaluated: (40, 60), trained: (40, 60), trained_by_the_epoch: (20, 25)}


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_what_was_killed_at_random_moments_ends_as_what_was_not(work, tmp_path, drawn_seed, request):
    many, steps = WORKS[work]
    if not request.config.getoption("--many"):
        many = 2
        if work is trained_by_the_epoch:
            pytest.skip("the same with fewer writes: make faults")
    moments = random.Random(drawn_seed)
    before = sum(os.times()[2:4])
    assert apart(lambda: work(tmp_path / "whole")) == 0
    whole = sum(os.times()[2:4]) - before
    expected, done, runs = content(tmp_path / "whole"), 0, 0
    while done < many:
        out, runs = tmp_path / f"run-{runs}", runs + 1
        # Five times, then it may end; each goes on from where the last was killed.
        for _ in range(min(5, many - done)):
            anywhere = moments.random() < 0.5
            when = {"cpu": moments.uniform(0, whole)} if anywhere else {"steps": moments.randrange(1, steps)}
            code = apart(lambda out=out: work(out), output=tmp_path / "said", **when)
            assert code <= 0, (tmp_path / "said").read_text()
            done += code < 0
        assert apart(lambda out=out: work(out), output=tmp_path / "said") == 0, (tmp_path / "said").read_text()
        assert content(out) == expected
    print(f"{work.__name__}: {done} kills in {runs} runs, all {runs} equal to the unbroken one")
