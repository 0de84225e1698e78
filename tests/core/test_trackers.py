"""Evaluations in trackers: what they are told, and through which calls. MLflow and W&B are played by fakes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from command_line import cli, refused, write_images

from robustdml.results import Results
from robustdml.trackers import TRACKERS, tracked

CODE = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 8))
def keep(run):
    global KEPT
    KEPT = run
def broken(run):
    raise ConnectionError("no server")
NUMBER = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of a finished evaluation, with the page; the module of its model has trackers too."""
    place = tmp_path_factory.mktemp("place")
    write_images(place / "data", {"cyan": 4, "pink": 4, "grey": 4})
    (place / "tracked_by.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        words = "evaluate mine=tracked_by.py:build --data data --image-size 16 --attacks noise,margin --quiet --out run"
        done = cli(*words.split(), "--log-to", "tracked_by.py:keep")
        assert done.exit_code == 0, done.output
    return place / "run"


def test_a_function_of_ones_own_is_told_everything(folder):
    run = sys.modules["tracked_by"].KEPT
    results = Results.load(folder)
    assert run == tracked(results, folder)
    assert (run.name, run.params["models"], run.params["budgets"]) == ("run", "mine", "8/255")
    assert run.params["command"] == results.command
    assert [path.name for path in run.files] == ["results.json", "report.html"]
    (model,) = results.models
    assert run.metrics["mine/clean/recall_at_1"] == model.clean.value
    assert run.metrics["mine/worst at 8_255/recall_at_1"] == results.worst[0].score.value
    assert len(run.metrics) == (1 + 1 + 2) * len(model.clean.metrics.root)


def test_what_a_flag_withholds_and_long_values_are_left_out(folder):
    results = Results.load(folder)
    flag = results.flags[0].model_copy(update={"grade": "invalid", "model": "mine"})
    run = tracked(results.model_copy(update={"flags": (flag,), "command": "x" * 9000}), folder)
    assert {name.split("/")[1] for name in run.metrics} == {"clean"}
    assert max(len(value) for value in run.params.values() if isinstance(value, str)) <= 500


@pytest.fixture
def mlflow(monkeypatch):
    """A module of that name with the calls that are used, as MLflow's documentation has them."""
    calls: list[tuple] = []

    class Begun:
        def __enter__(self):
            calls.append(("begin",))

        def __exit__(self, *_):
            calls.append(("end",))

    fake = ModuleType("mlflow")
    fake.active_run = lambda: None
    fake.start_run = lambda run_name: calls.append(("start", run_name)) or Begun()
    for name in ("log_params", "log_metrics", "log_artifact"):
        setattr(fake, name, lambda value, name=name: calls.append((name, value)))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return SimpleNamespace(calls=calls, module=fake)


def test_mlflow_gets_one_run(folder, mlflow):
    done = cli("report", folder, "--log-to", "mlflow")
    assert done.exit_code == 0
    assert "Logged to mlflow." in done.stderr
    run = tracked(Results.load(folder), folder)
    assert mlflow.calls == [
        ("start", "run"), ("begin",), ("log_params", run.params), ("log_metrics", run.metrics),
        *(("log_artifact", str(path)) for path in run.files), ("end",),
    ]  # fmt: skip


def test_mlflow_uses_the_run_that_is_active(folder, mlflow):
    mlflow.module.active_run = object
    TRACKERS["mlflow"](tracked(Results.load(folder), folder))
    assert [call[0] for call in mlflow.calls] == ["log_params", "log_metrics", "log_artifact", "log_artifact"]


@pytest.mark.parametrize("active", [False, True])
def test_wandb_gets_one_run_and_an_artifact(folder, monkeypatch, active):
    calls: list[tuple] = []

    class Run:
        config = SimpleNamespace(update=lambda params, allow_val_change: calls.append(("config", params)))

        def __getattr__(self, name):
            return lambda *given: calls.append((name, *given))

    class Artifact:
        def __init__(self, name, type):
            calls.append(("artifact", name, type))

        def add_file(self, path):
            calls.append(("file", path))

    fake = ModuleType("wandb")
    fake.run, fake.Artifact = Run() if active else None, Artifact
    fake.init = lambda project, name: calls.append(("init", project, name)) or Run()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert cli("report", folder, "--log-to", "wandb").exit_code == 0
    run = tracked(Results.load(folder), folder)
    assert ("log", run.metrics) in calls
    assert ("config", run.params) in calls
    assert [call[1] for call in calls if call[0] == "file"] == [str(path) for path in run.files]
    assert (("init", "robustdml", "run") in calls, ("finish",) in calls) == (not active, not active)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mlflo", "unknown tracker 'mlflo': did you mean 'mlflow'"),
        ("mlflow", "needs its package .*pip install mlflow"),
        ("tracked_by.py:absent", "cannot be loaded"),
        ("tracked_by.py:NUMBER", "is int: name a function"),
        ("tracked_by.py:broken", "failed .ConnectionError: no server.*the run is kept in"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(folder, monkeypatch, name, says):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    refused(cli("report", "run", "--log-to", name), says)
