"""A training process that is killed, five times, at moments that nobody chose."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import torch

from robustdml.models import load_checkpoint

_COMMAND = (
    "train --data digits --method mdprop --backbone resnet-tiny --image-size 16 --embedding-dim 16 --epochs 4 "
    "--validation-classes 0 --device cpu --quiet --out"
)


def start(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "robustdml", *_COMMAND.split(), str(out)], stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def test_a_run_that_was_killed_at_five_random_moments_ends_with_the_same_weights(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"moments drawn with seed {seed}")
    moments = random.Random(seed)
    begun = time.monotonic()
    whole = start(tmp_path / "whole")
    while not (tmp_path / "whole" / "spec.json").exists() and whole.poll() is None:
        time.sleep(0.05)
    training = time.monotonic()
    finish(whole)
    # From the first step to half of the training: a kill finds a run under way, and most find an epoch saved.
    earliest, latest = training - begun, (training - begun) + (time.monotonic() - training) / 2
    kills = 0
    for _ in range(5):
        process = start(tmp_path / "killed")
        try:
            process.communicate(timeout=moments.uniform(earliest, latest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    assert kills, "the run was over before it could be killed"
    finish(start(tmp_path / "killed"))
    expected, found = (load_checkpoint(tmp_path / name).model.state_dict() for name in ("whole", "killed"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
