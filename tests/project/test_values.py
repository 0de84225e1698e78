"""Everything public can be pickled, compared and shown in one short line; numbers of the wrong type are refused."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from few_digits import few_digits
from small_data import small
from torch import nn

from robustdml import attacks, errors, training
from robustdml.attacks import ATTACKS, GOALS, PGD, build_attack, build_suite
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import RetrievalDataset, SameClass
from robustdml.errors import BudgetError, DataError, RobustDMLError, SpecError
from robustdml.evaluation import Subject, evaluate
from robustdml.models import EmbeddingModel, ModelConfig, load_checkpoint, save_checkpoint
from robustdml.preprocessing import Preprocessing
from robustdml.results import Cell, Results
from robustdml.threat import ThreatModel
from robustdml.values import LONGEST, brief

PACKAGES = ["", ".api", ".attacks", ".data", ".evaluation", ".models", ".papers", ".reports", ".retrieval", ".training"]
PUBLIC = [
    (f"robustdml{package}", name)
    for package in PACKAGES
    for name in importlib.import_module(f"robustdml{package}").__all__
]
QUIET = RunOptions(device="cpu", progress=False)
FIXTURE = Path(__file__).parents[1] / "fixtures"


def again(value):
    return pickle.loads(pickle.dumps(value))


@pytest.mark.compatible("Python", "any public name", "pickled, compared, and shown in under 600 characters")
@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_public_names_are_pickled_compared_and_shown(package, name):
    value = getattr(importlib.import_module(package), name)
    assert again(value) == value
    assert len(repr(value)) < 600


def model() -> EmbeddingModel:
    return EmbeddingModel(ModelConfig("resnet-tiny", image_size=32))


VALUES = {
    "data set": lambda: few_digits(4),
    "split": lambda: few_digits(4).test,
    "images": lambda: few_digits(4).images,
    "rules": lambda: SameClass(labels=np.arange(2000)),
    "training": lambda: TrainConfig(recipe=training.METHODS["mp3"]),
    "options": RunOptions,
    "threat": lambda: ThreatModel(8 / 255),
    "preprocessing": lambda: Preprocessing(224, mean=(0.5, 0.5, 0.5)),
    "model's configuration": lambda: model().config,
    "factory": lambda: ATTACKS["art.ZooAttack"],
    "loss": lambda: training.LOSSES["multisimilarity"],
    "method": lambda: training.METHODS["mp3"],
}
VALUES |= {attack.entry().spec: lambda attack=attack: attack for attack in build_suite("standard,quick", "8/255")}
VALUES |= {goal: GOALS[goal] for goal in GOALS}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_pickled_compared_and_shown(name):
    value = VALUES[name]()
    assert again(value) == value
    assert hash(again(value)) == hash(value)
    assert value != 1
    assert len(repr(value)) < 600


def test_data_sets_differ_by_what_they_hold():
    one, other = few_digits(4), few_digits(5)
    assert one != other
    assert one.test == other.test
    assert few_digits(4) == one


def test_a_model_and_what_holds_one_are_shown_in_a_line(tmp_path):
    save_checkpoint(model(), tmp_path, {"method": "mdprop", "dataset": "digits" * 200})
    checkpoint = load_checkpoint(tmp_path)
    for value in (model(), checkpoint, Subject("mine", nn.Sequential(*[nn.Linear(3, 3)] * 200), "a module in memory")):
        assert len(repr(value)) < 600
        assert "\n" not in repr(value)
    assert "resnet-tiny" in repr(checkpoint)
    assert "0.4" in repr(model())
    kept = model()
    assert torch.equal(again(kept).head.weight, kept.head.weight)


@pytest.mark.parametrize("kind", [Cell, Results])
def test_results_are_shown_in_a_line(kind):
    assert kind.__repr__ is not object.__repr__
    assert len(brief(kind.model_construct(**dict.fromkeys(kind.model_fields, "x" * 900)))) <= LONGEST


ERRORS = [
    errors.UnknownNameError("attack", "pdg", ["pgd", "apgd"]),
    errors.SpecError("no"),
    errors.EndedElsewhere(3),
    errors.Terminated("stopped"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_pass_between_processes(error):
    found = again(error)
    assert (type(found), str(found), found.exit_code) == (type(error), str(error), error.exit_code)


def evaluated(out, models=None, dataset=None, run=None, **options):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    chosen = build_suite("noise(trials=1)", "8/255") if run is None else run
    return evaluate(models or {"m": network}, dataset or small(), chosen, out=out, options=QUIET, **options)


@pytest.mark.compatible("Python", "NumPy and pandas scalars as arguments", "taken as the numbers that they are")
def test_scalars_of_numpy_pandas_and_torch_are_numbers(tmp_path):
    table = pd.DataFrame({"seed": [0], "size": [8]})
    expected = evaluated(tmp_path / "plain", seed=0, shard_size=4, image_size=8, max_queries=4)
    found = evaluated(
        tmp_path / "odd",
        seed=table["seed"].iloc[0],
        shard_size=np.int32(4),
        image_size=table["size"].max(),
        max_queries=torch.tensor(4),
        attack_time_limit=np.float32(60),
    )
    assert found.cells[0].score == expected.cells[0].score
    assert (
        PGD(GOALS["margin"](), np.float64(0.03), steps=np.int64(3)).entry() == PGD(GOALS["margin"](), 0.03, 3).entry()
    )
    assert type(TrainConfig(epochs=np.int64(3), eps=np.float32(0.5)).epochs) is int
    assert build_attack("noise", np.float64(8 / 255)) == build_attack("noise", "8/255")


@pytest.mark.compatible("Python", "one attack instead of a list", "is the list of one")
def test_one_attack_is_a_list_of_one(tmp_path):
    assert [cell.status for cell in evaluated(tmp_path / "out", run=build_attack("noise(trials=1)", 0.03)).cells] == [
        "ok"
    ]


REFUSED = {
    "seed": (lambda out: evaluated(out, seed=-1), "seed=-1 must be at least 0"),
    "seed of a wrong type": (lambda out: evaluated(out, seed="1"), "seed='1' must be a whole number"),
    "shard_size": (lambda out: evaluated(out, shard_size=0), "shard_size=0 must be at least 1"),
    "negative shard_size": (lambda out: evaluated(out, shard_size=-3), "shard_size=-3 must be at least 1"),
    "image_size": (lambda out: evaluated(out, image_size=8.0), "image_size=8.0 must be a whole number"),
    "three sides": (
        lambda out: evaluated(out, image_size=(8, 8, 3)),
        "image_size=(8, 8, 3) must be a whole",
    ),
    "side in a pair": (lambda out: evaluated(out, image_size=(8, "9")), "image_size='9' must be a whole number"),
    "truth": (lambda out: evaluated(out, image_size=True), "image_size=True must be a whole number"),
    "max_queries": (lambda out: evaluated(out, max_queries=2.5), "max_queries=2.5 must be a whole number"),
    "time": (lambda out: evaluated(out, attack_time_limit="60"), "attack_time_limit='60' must be above 0 seconds"),
    "list of modules": (
        lambda out: evaluated(out, [nn.Flatten()]),
        "a list of models holds Flatten, and it has",
    ),
    "a number as model": (lambda out: evaluated(out, 3), "models=3 must be modules by name"),
    "split": (lambda out: evaluated(out, dataset=small().test), "must be a whole RetrievalDataset"),
    "class as attack": (lambda out: evaluated(out, run=[PGD]), "is no attack, it is a class"),
    "goal as attack": (lambda out: evaluated(out, run=GOALS["margin"]()), "is no attack, no threat"),
    "steps": (lambda _: PGD(GOALS["margin"](), 0.03, steps=2.5), "steps=2.5 must be a whole number"),
    "eps": (lambda _: PGD(GOALS["margin"](), "8/255"), "eps='8/255' must be a number"),
    "best": (lambda _: PGD(GOALS["margin"](), 0.03, best=1), "best=1 must be true or false"),
    "targets": (lambda _: attacks.MTAX(targets="five"), "targets='five' must be a whole number"),
    "epochs": (lambda _: TrainConfig(epochs="3"), "epochs='3' must be a whole number"),
    "rate": (lambda _: TrainConfig(learning_rate=None), "learning_rate=None must be a number"),
    "side": (lambda _: ModelConfig("resnet18", image_size=64.5), "image_size=64.5 must be a whole number"),
    "squash": (lambda _: Preprocessing(64, squash="yes"), "squash='yes' must be true or false"),
    "threat": (lambda _: ThreatModel("much"), "eps='much' must be a number or None"),
    "text": (lambda _: build_attack("noise", "much"), "eps 'much' is not a number"),
}


@pytest.mark.compatible("Python", "numbers, words and lists of the wrong type", "one sentence that names the argument")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_of_the_wrong_type_is_refused_in_a_sentence(tmp_path, name):
    call, sentence = REFUSED[name]
    with pytest.raises((SpecError, BudgetError)) as caught:
        call(tmp_path / "out")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, RobustDMLError)


@pytest.mark.compatible("Python", "class names that are numbers", "one sentence that says how to write them")
def test_class_names_are_text():
    with pytest.raises(DataError, match=r"class_names must be text, one for each label, and 0 is not: write '0'"):
        RetrievalDataset(**{**vars(small()), "class_names": np.arange(2)})
