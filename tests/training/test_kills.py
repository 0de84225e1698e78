"""A training process that is killed, again and again, at moments that nobody chose."""

from __future__ import annotations

import random

import pytest
import torch
from killed import KILLED, train_apart

from robustdml.config import RunOptions, TrainConfig
from robustdml.models import load_checkpoint

CONFIG = TrainConfig(
    method="mdprop", backbone="resnet-tiny", embedding_dim=16, image_size=16, epochs=6, batch_size=20, targets=2,
    validation_classes=0,
)  # fmt: skip
QUIET = RunOptions(device="cpu", progress=False)


@pytest.mark.slow
def test_a_run_that_was_killed_at_random_moments_ends_with_the_same_weights(tmp_path, drawn_seed):
    code, calls = train_apart(CONFIG, tmp_path / "whole", QUIET)
    assert code == 0
    moments = random.Random(drawn_seed)
    # In the first half of what an unbroken run does: the first kills find a run under way, and most an epoch saved.
    dies = [moments.randrange(1, calls // 2) for _ in range(5)]
    codes = [train_apart(CONFIG, tmp_path / "killed", QUIET, dies=call)[0] for call in dies]
    assert codes[:2] == [KILLED] * 2
    assert set(codes) <= {KILLED, 0}
    assert train_apart(CONFIG, tmp_path / "killed", QUIET)[0] == 0
    expected, found = (load_checkpoint(tmp_path / name).model.state_dict() for name in ("whole", "killed"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
