"""`evaluate --config` and `evaluate --dry-run`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from command_line import cli, refused, write_images

from robustdml.cli import main
from robustdml.cli.config_file import _keys, _read
from robustdml.results import Results

CODE = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 8))
def rounds():
    class Rounds(torch.nn.Module):
        def forward(self, images):
            return (images * 4).round().flatten(1)
    return Rounds()
"""
FILE = """
[evaluate]
models = ["one=mine.py:build"]
data = "data"
attacks = ["noise", "margin(steps=2)"]
eps = ["4/255", "8/255"]
image-size = 16
seed = 3
fail_under = ["clean:recall@1=0", "worst:recall@1=0"]
out = "run"
quiet = true
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_images(tmp_path / "data", {"cyan": 4, "pink": 4, "grey": 4})
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "e.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_has_the_options_and_the_command_line_takes_precedence(place):
    done = cli("evaluate", "--config", "e.toml", "--attacks", "noise", "--seed", 5)
    assert done.exit_code == 0, done.output
    results = Results.load("run")
    assert [model.name for model in results.models] == ["one"]
    assert {cell.threat.text for cell in results.cells} == {"4/255", "8/255"}
    assert (results.spec.seed, [entry.kind for entry in results.attacks]) == (5, ["noise"])
    # What is shown repeats the run without the file, and so does the file that is shown.
    assert "--config" not in results.command
    assert cli(*shlex.split(results.command)[1:], "--out", "again").exit_code == 0
    (place / "again.toml").write_text(results.configuration)
    assert cli("evaluate", "--config", "again.toml", "--out", "third").exit_code == 0
    assert Results.load("again").fingerprint == Results.load("third").fingerprint == results.fingerprint
    assert Results.load("third").configuration.replace("third", "run") == results.configuration
    page = (place / "run" / "report.html").read_text()
    assert "evaluate --config" in page
    assert "fail_under = [" in page


def test_every_option_may_stand_in_a_file(tmp_path):
    command = main.commands["evaluate"]
    keys = dict(_keys(command))
    options = {name for p in command.params if p.expose_value for name in p.opts if name.startswith("--")}
    assert {f"--{key.replace('_', '-')}" for key in keys} >= options - {"--dry-run"}
    lines = []
    for key, parameter in keys.items():
        if parameter.opts[-1].removeprefix("--").replace("-", "_") != key and key != "models":
            continue  # another name of an option that is tried by its last
        if isinstance(parameter.type, click.Choice):
            value = json.dumps(parameter.type.choices[0])
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            value = "true"
        else:
            value = '["x"]' if parameter.multiple or parameter.nargs != 1 else "1"
        lines.append(f"{key} = {value}")
    path = tmp_path / "all.toml"
    path.write_text("[evaluate]\n" + "\n".join(lines))
    assert len(_read(path, command)) == len(lines) == len({p.name for p in keys.values()})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[evaluate]\nmodel = 'x'", "unknown option in .*'model': did you mean 'models'"),
        ("[evaluate]\nconfig = 'x'", "unknown option in .*'config'"),
        ("[evaluat]\ndata = 'x'", "unknown table in .*'evaluat': did you mean 'evaluate'"),
        ("data = 'x'", "unknown table in .*'data'"),
        ("evaluate = 3", "must be a table"),
        ("[evaluate]\nquiet = 'yes'", "quiet = 'yes' .*true or false"),
        ("[evaluate]\nseed = 1.5", "seed = 1.5 .*whole number"),
        ("[evaluate]\nseed = true", "seed = True .*one text or number"),
        ("[evaluate]\nattack_time_limit = 'long'", "must be a number"),
        ("[evaluate]\nmodels = [3]", "must be a text, or a list of texts"),
        ("[evaluate]\nmodels = []", "must be a text, or a list of texts"),
        ("[evaluate]\ndata = ['a', 'b']", "must be one text or number"),
        ("[evaluate]\nattacks = [{a = 1}]", "must be a list of texts or numbers"),
        ("[evaluate]\nmax_queries = 3\nmax-queries = 4", "there twice"),
        ("[evaluate]\neffort = 'some'", "'some' is not one of"),
        ("[evaluate]\nseed = 1\nseed = 2", "is no TOML"),
        ("[evaluate", "is no TOML"),
    ],
)
def test_a_file_is_read_strictly(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text(text)
    refused(cli("evaluate", "x", "--data", "digits", "--out", "o", "--config", "bad.toml"), says)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.toml", "bytes.toml"):
        refused(cli("evaluate", "--config", tmp_path / name), name)


def test_sizes_and_channels_are_written_as_they_are_typed(place):
    done = cli("evaluate", "mine.py:build", "--data", "data", "--attacks", "noise", "--image-size", "16x16", "--mean",
               "0.5,0.4,0.3", "--std", "1/4", "--out", "run")  # fmt: skip
    assert done.exit_code == 0, done.output
    command = Results.load("run").command
    assert "--mean 0.5,0.4,0.3 --std 0.25,0.25,0.25" in command
    assert cli(*shlex.split(command)[1:]).exit_code == 0


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(place):
    before = sorted(place.rglob("*"))
    arguments = ("evaluate", "--config", "e.toml", "--dry-run", "--attacks", "margin(steps=2),torchattacks.Pixle")
    done = cli(*arguments, "mine.py:build", "mine.py:rounds")
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "two queries were tried on cpu, and nothing was written" in text
    assert "Queries: 12, searched in 12 images." in text
    for model in ("build", "rounds"):
        assert f"Model {model}: shorter side to 16" in text
        assert re.search(rf"Attack run {model}, [\w-]*margin\S* at 4/255: about ", text)
    assert "(no-gradients)" in text or "(masked-gradients)" in text or "rounds" in text
    assert "In all " in text
    document = json.loads(cli(*arguments, "mine.py:build", "mine.py:rounds", "--json").output)
    assert len(document["attack_runs"]) == 2 * (2 + 1)
    assert document["seconds"] >= sum(cell["seconds"] for cell in document["attack_runs"]) > 0
    assert document["memory_bytes"] > 2**27
    assert [flag["model"] for flag in document["flags"] if flag["grade"] != "note"].count("rounds") >= 1
    assert sorted(path for path in place.rglob("*") if "__pycache__" not in path.parts) == before


def test_a_dry_run_needs_no_out_and_refuses_what_the_run_would(place):
    common = ("evaluate", "mine.py:build", "--data", "data", "--image-size", "16", "--quiet")
    refused(cli(*common), "Missing option '--out'")
    done = cli(*common, "--dry-run", "--attacks", "noise", "--certify", "sigma=0.25,samples=100")
    assert done.exit_code == 0
    assert "Panel certify(sigma=0.25" in done.output
    refused(cli(*common, "--dry-run", "--attacks", "nois"), "unknown attack or suite 'nois'")
    refused(cli("evaluate", "nothing", "--data", "data", "--dry-run"), "nothing")


def test_an_estimate_grows_with_the_queries(place):
    from robustdml.attacks import build_suite
    from robustdml.config import RunOptions
    from robustdml.data import load_dataset
    from robustdml.evaluation import load_subjects, rehearse

    found = []
    for queries in (20, 500):
        found.append(
            rehearse(
                load_subjects(["mine.py:build"]),
                load_dataset("digits"),
                build_suite("margin,torchattacks.PGD", "8/255"),
                max_queries=queries,
                image_size=16,
                options=RunOptions(progress=False),
            )
        )
    few, many = found
    assert (few.queries, many.queries, many.gallery) == (20, 500, 896)
    for one, two in zip(few.cells, many.cells, strict=True):
        assert one.status == two.status == "ok"
        assert two.seconds > one.seconds > 0
    assert many.memory >= few.memory
