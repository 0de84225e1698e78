"""Where a training stands is believed as it was written, or not at all."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from robustdml.errors import CheckpointError
from robustdml.training.state import TrainingState, _digest, load_state, read_state, save_state


def parts(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return {"model": model, "loss": nn.Linear(2, 2)}, optimizer


@pytest.fixture
def saved(tmp_path):
    """A folder in which a training stands in its third epoch, and what is in its file."""
    modules, optimizer = parts()
    rows = [{"epoch": 1, "validation_recall_at_1": 0.5}, {"epoch": 2, "validation_recall_at_1": 0.25}]
    best = {name: value + 1 for name, value in modules["model"].state_dict().items()}
    state = TrainingState(2, 1, 0.5, 3.0, 0.5, 1, best, rows)
    save_state(tmp_path, state, modules, optimizer)
    return tmp_path, read_state(tmp_path)


def refused(data, folder, pattern):
    modules, optimizer = parts(1)
    before = copy.deepcopy(modules["model"].state_dict()), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(CheckpointError, match=pattern) as caught:
        load_state(data, folder, modules, optimizer)
    assert len(str(caught.value)) < 300 + 2 * len(str(folder))
    assert all(torch.equal(value, before[0][name]) for name, value in modules["model"].state_dict().items())
    assert str(optimizer.state_dict()) == str(before[1])


def test_what_was_saved_comes_back(saved):
    folder, data = saved
    modules, optimizer = parts(1)
    state = load_state(data, folder, modules, optimizer)
    assert (state.epoch, state.step, state.best_epoch, len(state.history)) == (2, 1, 1, 2)
    wanted, theirs = parts()
    assert all(
        torch.equal(value, modules[n].state_dict()[key])
        for n in wanted
        for key, value in wanted[n].state_dict().items()
    )
    assert str(optimizer.state_dict()) == str(theirs.state_dict())


def test_no_flipped_bit_is_believed(saved):
    folder, data = saved
    modules, optimizer = parts(1)
    for place in np.random.default_rng(0).integers(0, 8 * len(data), 200).tolist():
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(CheckpointError, match=r"state\.pt' is damaged \(.*does not fit its checksum"):
            load_state(bytes(damaged), folder, modules, optimizer)


def _nan(weights):
    weights["0.weight"][0, 0] = math.nan


#: What is done to the content; the checksum fits in every case.
CHANGES = {
    "best weights are NaN": (
        lambda found: _nan(found["state"]["best_weights"]),
        r"best_weights\.0\.weight' is not fin",
    ),
    "weights are NaN": (lambda found: _nan(found["model"]), r"model\.0\.weight' is not finite"),
    "moments are infinite": (
        lambda found: found["optimizer"]["state"][1]["exp_avg"].fill_(math.inf),
        "optimizer's state of weight 1 is not finite",
    ),
    "another model": (lambda found: found["model"].pop("1.bias"), "'model' has other weights"),
    "another shape": (lambda found: found["model"].update({"1.bias": torch.zeros(5)}), "has another shape or type"),
    "another type": (lambda found: found["loss"].update(bias=torch.zeros(2).double()), "has another shape or type"),
    "no loss": (lambda found: found.pop("loss"), "KeyError: 'loss'"),
    "another optimizer": (lambda found: found["optimizer"].update(param_groups=[]), "parameter group"),
    "an epoch too many": (lambda found: found["state"].update(epoch=3), "epoch 3, the best one 1, and 2 rows"),
    "a best epoch to come": (lambda found: found["state"].update(best_epoch=3), "the best one 3"),
    "a better best value": (lambda found: found["state"].update(best_value=0.9), "epoch 1 is not the best one"),
    "no best weights": (lambda found: found["state"].update(best_weights={}), "epoch 1 is not the best one"),
    "more than is known": (lambda found: found["state"].update(more=1), "TypeError"),
    "no state": (lambda found: found.update(state=[]), "TypeError"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_run_can_have_saved_replaces_nothing(saved, name):
    folder, _ = saved
    change, pattern = CHANGES[name]
    found = torch.load(folder / "state.pt", weights_only=True)
    change(found)
    torch.save(found, folder / "state.pt")
    refused((changed := (folder / "state.pt").read_bytes()) + _digest(changed), folder, pattern)
    refused(changed, folder, "does not fit its checksum")


def test_infinities_that_a_model_has_by_itself_are_no_damage(tmp_path):
    def masked():
        model = nn.Linear(2, 2)
        model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        return {"model": model}, torch.optim.Adam(model.parameters())

    save_state(tmp_path, TrainingState(), *masked())
    assert load_state(read_state(tmp_path), tmp_path, *masked()) == TrainingState()
