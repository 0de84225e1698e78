"""Evaluations, trainings, reports and comparisons from Python, with names, paths and objects."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pytest
import torch
from few_digits import few_digits
from pictures import paint
from PIL import Image
from small_data import small
from torch import nn

import robustdml
from robustdml.api.given import subjects_of
from robustdml.attacks import build_attack
from robustdml.config import RunOptions
from robustdml.errors import BudgetError, DataError, RobustDMLError, RunFolderError, SpecError, UnknownNameError
from robustdml.evaluation import Subject, build_panel
from robustdml.models import EmbeddingModel, ModelConfig, convert_to_multibn, save_checkpoint
from robustdml.results import Results
from robustdml.threat import ThreatModel

FIXTURE = Path(__file__).parents[1] / "fixtures"
CHEAP = "noise(trials=1)"


def linear(seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def evaluated(models=None, data=None, attacks=CHEAP, **options) -> Results:
    given = {"m": linear()} if models is None else models
    found = small() if data is None else data
    return robustdml.evaluate(given, found, attacks, device="cpu", progress=False, **options)


def names(results):
    return [model.name for model in results.models]


def test_names_are_enough():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8))
    results = robustdml.evaluate({"a": model}, "digits", "quick", max_queries=2, progress=False, device="cpu")
    assert names(results) == ["a"]
    assert results.dataset.name == "digits"
    assert [worst.threat.text for worst in results.worst] == ["8/255"]
    assert all(cell.status == "ok" for cell in results.cells)
    assert not results.examples


def test_options_may_be_given_as_a_whole():
    """As programs have it that were written for `robustdml.evaluation.evaluate`."""
    given = {"m": linear()}, small(), CHEAP
    options = RunOptions(device="cpu", progress=False, nmi=False)
    results = robustdml.evaluate(*given, options=options)
    assert results.models[0].nmi is None
    assert [cell.score for cell in results.cells] == [cell.score for cell in evaluated(nmi=False).cells]
    with pytest.raises(SpecError, match=r"options has a device of its own: give device='cuda' in it, or no options"):
        robustdml.evaluate(*given, options=options, device="cuda")
    with pytest.raises(SpecError, match=r"options='cpu' must be a robustdml.config.RunOptions"):
        robustdml.evaluate(*given, options="cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "untrained"
    torch.manual_seed(0)
    save_checkpoint(EmbeddingModel(ModelConfig("resnet-tiny", image_size=8)), folder, {"method": "st"})
    return folder


MODELS = {
    "a module": (lambda run: linear(), ["Sequential"]),
    "modules": (lambda run: [linear(), linear(1), nn.Flatten()], ["Sequential", "Sequential-2", "Flatten"]),
    "a generator of modules": (lambda run: (linear(seed) for seed in range(2)), ["Sequential", "Sequential-2"]),
    "a path": (lambda run: run, ["untrained"]),
    "a path as text": (lambda run: str(run), ["untrained"]),
    "a path with its name": (lambda run: [f"best={run}"], ["best"]),
    "a checkpoint": (lambda run: robustdml.load_checkpoint(run), ["resnet-tiny"]),
    "a subject": (lambda run: Subject("mine", linear(), "memory"), ["mine"]),
    "some of each": (
        lambda run: {"a": linear(), "b": run, "c": robustdml.load_checkpoint(run), "d": Subject("x", linear(), "m")},
        ["a", "b", "c", "d"],
    ),
    "a list of each": (lambda run: [linear(), run, str(run)], ["Sequential", "untrained", "untrained-2"]),
    "names that are numbers": (lambda run: {0: linear(), 1: linear(1)}, ["0", "1"]),
}


@pytest.mark.compatible("Python", "models as modules, lists, paths, checkpoints or `timm:`", "each has a name")
@pytest.mark.parametrize("name", MODELS)
def test_models_may_be_given_in_every_way(name, checkpoint):
    make, expected = MODELS[name]
    assert [subject.name for subject in subjects_of(make(checkpoint), "deployed")] == expected


@pytest.mark.slow
def test_a_source_of_a_library_is_a_model():
    assert names(evaluated("timm:test_resnet?pretrained=false", attacks=[], image_size=32)) == ["test_resnet"]


def test_a_path_brings_its_method_and_all_its_branches(checkpoint, tmp_path):
    found = evaluated({"a": checkpoint, "b": linear()}, attacks=[]).models
    assert [(one.name, one.method, one.source) for one in found] == [
        ("a", "st", str(checkpoint)),
        ("b", None, "a module in memory"),
    ]
    model = convert_to_multibn(robustdml.load_checkpoint(checkpoint).model, ["clean", "stax"])
    save_checkpoint(model, tmp_path, {"method": "advprop"})
    assert [one.name for one in subjects_of({"a": tmp_path}, "all")] == ["a", "a[stax]"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for label in "ab":
        (folder / label).mkdir()
        for number in range(3):
            shade = Image.new("RGB", (9, 9), (80 * number, 100 if label == "a" else 0, 0))
            shade.save(folder / label / f"{number}.png")
            rows.append({"path": f"{label}/{number}.png", "label": label})
    return folder, rows


DATA = {
    "a folder": lambda folder, rows: (folder, {}),
    "a folder as text": lambda folder, rows: (str(folder), {}),
    "a name with its folder": lambda folder, rows: ("flat", {"root": folder}),
    "pandas": lambda folder, rows: (pd.DataFrame(rows), {"root": folder}),
    "polars": lambda folder, rows: (polars.DataFrame(rows), {"root": str(folder)}),
}


@pytest.mark.parametrize("name", DATA)
def test_data_may_be_given_in_every_way(name, photos):
    data, options = DATA[name](*photos)
    results = evaluated([linear()], data, image_size=8, **options)
    assert (results.dataset.queries, results.dataset.classes) == (6, 2)


ATTACKS = {
    "a name": (CHEAP, {}, ["8/255"]),
    "a name at budgets": (CHEAP, {"eps": "2/255,8/255"}, ["2/255", "8/255"]),
    "numbers": (CHEAP, {"eps": [2 / 255, 8 / 255]}, ["2/255", "8/255"]),
    "of numpy": (CHEAP, {"eps": np.array([2 / 255, 8 / 255])}, ["2/255", "8/255"]),
    "of pandas": (CHEAP, {"eps": pd.Series([2 / 255])}, ["2/255"]),
    "a scalar": (CHEAP, {"eps": np.float32(0.5)}, ["0.5"]),
    "an array of no dimension": (CHEAP, {"eps": np.array(0.5)}, ["0.5"]),
    "a tensor of no dimension": (CHEAP, {"eps": torch.tensor(0.5)}, ["0.5"]),
    "a fraction": (CHEAP, {"eps": Fraction(8, 255)}, ["8/255"]),
    "a decimal": (CHEAP, {"eps": Decimal("0.5")}, ["0.5"]),
    "texts": (CHEAP, {"eps": ["2/255", "8/255"]}, ["2/255", "8/255"]),
    "an array of names": (np.array([CHEAP, CHEAP]), {}, ["8/255"]),
    "a threat model": (CHEAP, {"eps": ThreatModel(2 / 255)}, ["2/255"]),
    "an attack": (build_attack(CHEAP, 4 / 255), {}, ["4/255"]),
    "attacks": ((build_attack(CHEAP, size) for size in (2 / 255, 4 / 255)), {}, ["2/255", "4/255"]),
    "some of each": ([CHEAP, build_attack(CHEAP, 4 / 255), CHEAP], {"eps": 2 / 255}, ["2/255", "4/255"]),
    "none": ([], {}, []),
}


@pytest.mark.compatible("Python", "attacks as names, objects or both, budgets of NumPy and pandas", "simply work")
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_may_be_given_in_every_way(name):
    attacks, options, expected = ATTACKS[name]
    results = evaluated(attacks=attacks, **options)
    assert [cell.threat.text for cell in results.cells] == expected
    assert all(cell.status == "ok" for cell in results.cells)


class Place:
    """What pytest's tmpdir, and other libraries, have for a path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.compatible(
    "Python", "modules in a ModuleDict or ModuleList; whatever is a path; sizes as arrays", "simply work"
)
def test_containers_paths_and_sizes_of_other_kinds(tmp_path):
    found = evaluated(nn.ModuleDict({"a": linear(), "b": linear(1)}), image_size=np.array([8, 8]), panels=None)
    assert names(found) == ["a", "b"]
    assert names(evaluated(nn.ModuleList([linear(), linear(1)]))) == ["Sequential", "Sequential-2"]
    for seed, name in enumerate(("a/0", "a/1", "b/0", "b/1")):
        paint(tmp_path / "set" / f"{name}.png", seed, width=8, height=8)
    there = evaluated(data=Place(tmp_path / "set"), out=Place(tmp_path / "run"), image_size=torch.Size([8, 8]))
    assert there.dataset.name == "set"
    assert Results.load(Place(tmp_path / "run")) == there
    with pytest.raises(RobustDMLError, match=r"no checkpoint at .*nowhere"):
        evaluated(Place(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: robustdml.load_model(None), "source=None must be a module, the path of a run or a file, or a name"),
        (lambda: robustdml.load_model("timm:x", {"size": 3}), "options=.* must be robustdml.SourceOptions"),
        (lambda: robustdml.load_checkpoint(None), "folder=None must be the path"),
        (lambda: Results.load(3), "folder=3 must be the path"),
        (lambda: robustdml.Monitor(None), "data=None must be a data set"),
        (lambda: robustdml.SourceOptions(size="x"), "image_size='x' must be a whole number"),
        (lambda: robustdml.SourceOptions(mean=("a", "b", "c"), std=(1, 1, 1)), "must be three numbers"),
        (lambda: robustdml.SourceOptions(trust_code="no"), "trust_code='no' must be true or false"),
        (lambda: robustdml.convert_to_multibn(None, ("a",)), "model=None must be a torch module"),
        (lambda: robustdml.convert_to_multibn(nn.BatchNorm2d(3), "clean"), "must be a list of names"),
        (lambda: robustdml.train("digits", "st", None), "out=None must be the path"),
        (lambda: robustdml.train("digits", "st", "x", trust_code="no"), "trust_code='no' must be true or false"),
        (lambda: robustdml.load_dataset("digits", 3), "root=3 must be the path"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(call, sentence):
    with pytest.raises(SpecError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_default_is_the_standard_suite_and_blackbox_where_there_are_no_gradients():
    found = evaluated(attacks=None, effort="quick")
    assert [attack.kind for attack in found.attacks] == ["cascade"]
    closed = robustdml.load_model(linear(), robustdml.SourceOptions(size=8, mean=(0, 0, 0), std=(1, 1, 1)))
    closed.black_box = "it is a service"
    found = evaluated({"closed": closed}, attacks=None, effort="quick")
    assert [attack.kind for attack in found.attacks] == ["noise", "square", "nes", "rays"]


def test_panels_by_name():
    found = evaluated(panels="certify(sigma=0.25, samples=20)")
    assert [(one.sigma, one.samples) for one in found.certified] == [(0.25, 20), (0.25, 20)]
    again = evaluated(panels=[build_panel("certify", "sigma=0.25,samples=20")])
    assert [one.radii for one in again.certified] == [one.radii for one in found.certified]


def test_numbers_are_those_of_the_evaluation_below(tmp_path):
    from robustdml.attacks import build_suite
    from robustdml.config import RunOptions
    from robustdml.evaluation import evaluate

    options = RunOptions(device="cpu", progress=False)
    expected = evaluate({"m": linear()}, small(), build_suite("margin", "2/255"), out=tmp_path / "a", options=options)
    found = evaluated(attacks="margin", eps="2/255", out=str(tmp_path / "b"))
    again = evaluated(attacks="margin", eps="2/255")
    for one in (found, again):
        assert [cell.score for cell in one.cells] == [cell.score for cell in expected.cells]
        assert one.fingerprint == expected.fingerprint
    assert found.examples
    assert Results.load(tmp_path / "b") == found


REFUSED = {
    "a number as model": ({"models": 3}, SpecError, "models=3 must be a model, models by name, or a list"),
    "an empty name": ({"models": {"": linear()}}, SpecError, "the name '' of a model must be one line"),
    "a name of two lines": ({"models": {"a\nb": linear()}}, SpecError, "of a model must be one line"),
    "a number in a list": ({"models": [3]}, SpecError, "a list of models holds 3, which is no model"),
    "a class": ({"models": {"a": nn.Linear}}, SpecError, "'a' holds <class .*Linear.*>, which is no model"),
    "no model": ({"models": []}, SpecError, "no model to evaluate"),
    "no such path": ({"models": "runs/nowhere"}, RobustDMLError, "no checkpoint at 'runs/nowhere'"),
    "a number as data": ({"data": 3}, SpecError, "data=3 must be a data set"),
    "a split": ({"data": small().test}, SpecError, "data=.* must be a data set.*not its part .test"),
    "an unknown data set": ({"data": "digts"}, RobustDMLError, "did you mean 'digits'"),
    "no such folder": ({"data": Path("nowhere")}, DataError, "there is no folder or file 'nowhere'"),
    "root of what is read": ({"root": "x"}, SpecError, "is read already: leave root='x' out"),
    "unknown attack": ({"attacks": "quik"}, UnknownNameError, "did you mean 'quick'"),
    "unknown attack in a list": ({"attacks": ["quik"]}, UnknownNameError, "did you mean 'quick'"),
    "a number as attack": ({"attacks": 3}, SpecError, "3 is no attack"),
    "a class as attack": ({"attacks": [robustdml.Results]}, SpecError, "is no attack, it is a class"),
    "eps of built ones": (
        {"attacks": build_attack(CHEAP, 0.1), "eps": 0.1},
        SpecError,
        "have their budgets: leave eps out",
    ),
    "attacks by name": ({"attacks": {"x": CHEAP}}, SpecError, "attacks={'x': .*} must be names such as 'quick'"),
    "attacks as bytes": ({"attacks": b"quick"}, SpecError, "attacks=b'quick' must be names"),
    "eps of nothing": ({"eps": [None]}, BudgetError, "eps=None is no budget: write a number such as 8/255"),
    "eps as a truth value": ({"eps": True}, BudgetError, "eps=True is no budget"),
    "eps as bytes": ({"eps": b"8/255"}, BudgetError, "is no budget"),
    "eps by name": ({"eps": {"a": 0.1}}, BudgetError, "is no budget"),
    "eps in levels": ({"eps": 8}, BudgetError, r"outside \(0, 1\]"),
    "eps as a word": ({"eps": "much"}, BudgetError, "eps 'much' is not a number"),
    "an effort": ({"effort": "hard"}, UnknownNameError, "unknown effort 'hard'"),
    "no effort": ({"effort": None}, UnknownNameError, "unknown effort 'None'"),
    "no branches": ({"branches": None}, SpecError, "branches=None must be one of"),
    "a word for no": ({"skip_broken": "no"}, SpecError, "skip_broken='no' must be true or false"),
    "another": ({"progress": "no"}, SpecError, "progress='no' must be true or false"),
    "a folder": ({"out": 3}, SpecError, "out=3 must be the path of a file or folder"),
    "an empty folder": ({"out": ""}, SpecError, "out='' must be the path of a file or folder"),
    "an empty path": ({"data": ""}, UnknownNameError, "unknown data set ''"),
    "no device": ({"device": None}, SpecError, "device=None must be a name such as 'auto'"),
    "branches": ({"models": "runs/x", "branches": "each"}, SpecError, "branches='each' must be one of"),
    "a panel": ({"panels": "natura"}, UnknownNameError, "did you mean 'natural'"),
    "no panel": ({"panels": [3]}, SpecError, "3 is no panel"),
    "a device": ({"device": "gpu"}, SpecError, "device 'gpu' cannot be used"),
    "images of no folder": ({"save_images": True}, SpecError, "give out='runs/mine' too"),
    "queries": ({"max_queries": "10"}, SpecError, "max_queries='10' must be a whole number"),
    "size": ({"image_size": 8.5}, SpecError, "image_size=8.5 must be a whole number"),
    "seed": ({"seed": None}, SpecError, "seed=None must be a whole number"),
    "a module without names in a mapping": ({"models": {"a": None}}, SpecError, "'a' holds None, which is no model"),
}


@pytest.mark.compatible("Python", "what is no model, no data, no attack, no number", "one sentence that names it")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_sentence(name):
    changed, kind, sentence = REFUSED[name]
    arguments = {"models": {"m": linear()}, "data": small(), "attacks": CHEAP, "device": "cpu", "progress": False}
    with pytest.raises(kind, match=sentence) as caught:
        robustdml.evaluate(**arguments | changed)
    assert "\n" not in str(caught.value)


def test_a_report_of_folders_and_of_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = evaluated(out="runs/a")
    assert robustdml.report("runs/a") == Path("runs/a/report.html")
    other = evaluated({"n": linear(1)})
    assert robustdml.report(other) == Path("report.html")
    page = robustdml.report([Path("runs/a"), other], "both.html", markdown="both.md", bars="clean:recall@1=0")
    assert page.is_file()
    assert "n" in Path("both.md").read_text(encoding="utf-8")
    assert (tmp_path / "both.html").stat().st_size > 10_000
    assert robustdml.report(results, tmp_path / "again.html").is_file()
    for wrong in (3, [], [3], None, {"a": "runs/a"}, small()):
        with pytest.raises(SpecError, match="must be a run folder, results, or a list of them"):
            robustdml.report(wrong)
    with pytest.raises(RunFolderError):
        robustdml.report("nowhere")
    with pytest.raises(SpecError):
        robustdml.report(results, bars=["worst"])


def test_a_comparison_of_folders_and_of_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, after = evaluated(out="a"), evaluated({"n": linear(1)}, out="b")
    found = robustdml.compare(before, after)
    assert found.models == robustdml.compare(Path("a"), "b:n").models
    assert len(repr(found)) < 600
    assert len(repr(found.models[0])) < 600
    with pytest.raises(SpecError, match="3 is no run"):
        robustdml.compare(before, 3)
    with pytest.raises(UnknownNameError):
        robustdml.compare(before, "b:x")


def test_a_training_by_names(tmp_path):
    data = few_digits(8)
    quick = {"backbone": "resnet-tiny", "epochs": 1, "batch_size": 16, "embedding_dim": 8, "targets": 2}
    options = {"device": "cpu", "progress": False}
    found = robustdml.train(data, "mdprop", tmp_path / "run", **quick, eps="16/255", **options)
    assert len(found.history) == 1
    assert found.model.config.backbone == "resnet-tiny"
    config = robustdml.TrainConfig("mdprop", **quick, eps=16 / 255)
    whole = RunOptions(**options)  # and what programs of before give
    again = robustdml.train(data, config, tmp_path / "run", options=whole, build_attack=build_attack)
    assert torch.equal(again.model.head.weight, found.model.head.weight)
    recipe = tmp_path / "own.toml"
    recipe.write_text("[train]\nmethod = 'mdprop'\nepochs = 7\ntargets = 2\neps = '16/255'\n")
    third = robustdml.train(data, recipe, tmp_path / "run", **{**quick, **options})
    assert third.history == found.history
    assert len(repr(found)) < 600


@pytest.mark.parametrize(
    ("method", "settings", "kind", "sentence"),
    [
        ("mdprp", {}, UnknownNameError, "did you mean 'mdprop'"),
        ("st", {"epoch": 3}, UnknownNameError, "unknown setting of a training 'epoch': did you mean 'epochs'"),
        ("st", {"epochs": "3"}, SpecError, "epochs='3' must be a whole number"),
        ("st", {"eps": "much"}, BudgetError, "eps 'much' is not a number"),
        (robustdml.TrainConfig(), {"epochs": 3}, SpecError, "has all settings: leave epochs out"),
        (3, {}, SpecError, "method=3 must be a name such as 'mdprop'"),
        ("nowhere.toml", {}, SpecError, "cannot read the recipe 'nowhere.toml'"),
    ],
)
def test_a_training_that_cannot_be_is_one_sentence(method, settings, kind, sentence, tmp_path):
    with pytest.raises(kind, match=sentence):
        robustdml.train("digits", method, tmp_path / "run", **settings)
