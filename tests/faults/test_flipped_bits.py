"""One bit that was changed, anywhere in a file: it is refused, or says the same. `make faults` flips 1,600."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from squares import QUIET, SmallNet, make_dataset
from torch import nn

from robustdml.attacks import build_suite
from robustdml.errors import RobustDMLError
from robustdml.evaluation import evaluate
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import CellKey, Store
from robustdml.models import EmbeddingModel, ModelConfig, load_checkpoint, save_checkpoint
from robustdml.results import Results
from robustdml.threat import ThreatModel
from robustdml.training.state import TrainingState, load_state, read_state, save_state

EPS = 8 / 255


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """An evaluation, a checkpoint and a training state."""
    folder = tmp_path_factory.mktemp("whole")
    suite = build_suite("noise", EPS)
    evaluate({"net": SmallNet()}, make_dataset(), suite, out=folder / "run", options=QUIET)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_checkpoint(EmbeddingModel(ModelConfig("resnet-tiny", 8, 16)), folder, {"method": "st"})
        modules, optimizer = trainee()
    modules["model"](torch.ones(2, 3)).sum().backward()
    optimizer.step()
    best = {name: tensor.clone() for name, tensor in modules["model"].state_dict().items()}
    rows = [{"epoch": 1, "validation_recall_at_1": 0.5}]
    save_state(folder, TrainingState(1, 2, 0.5, 3.0, 0.5, 1, best, rows), modules, optimizer)
    return folder


def trainee() -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    modules = {"model": nn.Linear(3, 4), "loss": nn.Linear(2, 2)}
    return modules, torch.optim.Adam([weight for module in modules.values() for weight in module.parameters()])


def records(folder: Path) -> Any:
    store = Store(folder / "run", Plan.load(folder / "run").fingerprint)
    return vars(store.read(CellKey("net", "noise(trials=10)", ThreatModel(EPS)), 0))


def results(folder: Path) -> Any:
    return Results.load(folder / "run").model_dump()


def checkpoint(folder: Path) -> Any:
    found = load_checkpoint(folder)
    weights = {name: tensor.numpy() for name, tensor in found.model.state_dict().items()}
    return found.model.config, found.branches, found.training, weights


def state(folder: Path) -> Any:
    modules, optimizer = trainee()
    found = load_state(read_state(folder), folder, modules, optimizer)
    tensors = {
        name: {key: each.numpy() for key, each in module.state_dict().items()} for name, module in modules.items()
    }
    return str(found), tensors, str(optimizer.state_dict())


#: Each file with what reads it, and how many bits of it are flipped with ``--many``, and else.
FILES: dict[str, tuple[Callable[[Path], Any], int, int]] = {
    "run/records/net-*/noise*/*/00000.parquet": (records, 600, 40),
    "run/results.json": (results, 600, 10),
    "model.safetensors": (checkpoint, 100, 5),
    "model.json": (checkpoint, 100, 10),
    "state.pt": (state, 200, 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_is_believed(name, home, drawn_seed, request):
    read, many, few = FILES[name]
    (path,) = home.glob(name)
    whole, expected = path.read_bytes(), read(home)
    moments, refused, longest = random.Random(drawn_seed), 0, 0
    count = many if request.config.getoption("--many") else few
    try:
        for place in moments.sample(range(8 * len(whole)), count):
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            try:
                found = read(home)
            except RobustDMLError as error:
                refused, longest = refused + 1, max(longest, len(str(error).replace(str(home), "")))
            else:
                # As 1e-5 and 1E-5, or a byte that no reader looks at.
                np.testing.assert_equal(found, expected, err_msg=f"bit {place} of {name} is believed")
    finally:
        path.write_bytes(whole)
    assert longest < 400
    print(f"{name}: of {count} flipped bits {refused} refused, {count - refused} without a meaning, none believed")


def test_no_version_without_a_checksum_is_reached_by_a_flipped_bit(home):
    path = home / "run" / "results.json"
    whole = path.read_text()
    assert whole.count('"schema_version": 3') == 1
    try:
        path.write_text(whole.replace('"schema_version": 3', '"schema_version": 2'))
        with pytest.raises(RobustDMLError, match=r"results\.json' "):
            Results.load(home / "run")
    finally:
        path.write_text(whole)
