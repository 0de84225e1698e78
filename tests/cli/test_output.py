"""What commands write where: results on standard output, as text or as one JSON document, all else beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_line import write_images

from robustdml.cli import main
from robustdml.cli.summary import data_of
from robustdml.results import Results

SIXTEEN = ("--image-size", "16")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


CODE = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 8))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with images in two parts, a trained model, a module of one's own, and its evaluation."""
    place = tmp_path_factory.mktemp("place")
    write_images(place / "data" / "train", {"red": 6, "green": 6, "blue": 6})
    write_images(place / "data" / "test", {"cyan": 5, "pink": 5, "grey": 5})
    (place / "mine.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train = "train --data data --out model --backbone resnet-tiny --epochs 1 --batch-size 18 --json"
        result = run(*train.split(), *SIXTEEN)
        assert result.exit_code == 0, result.stderr
        trained = json.loads(result.stdout)
        assert (trained["exit_code"], trained["run"], len(trained["history"])) == (0, "model", 1)
        assert "Next: robustdml evaluate model" in result.stderr
        done = run(*EVALUATE.split(), "--quiet")
        assert done.exit_code == 0, done.stderr
    return place


def test_every_command_has_both_options():
    for name, command in main.commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--quiet"} <= options, name


EVALUATE = "evaluate mine.py:build --data data --attacks noise,margin --eps 8/255,16/255 --image-size 16 --out run"


@pytest.mark.parametrize(
    "words",
    [
        EVALUATE,
        "report run --markdown run/m.md --fail-under clean:recall@1=0",
        "compare run run",
        "verify run",
        "list losses",
        "reproduce mdprop --list",
        "reproduce mdprop cub-resnet50-ms-st-frozen --settings",
    ],
)
def test_json_is_all_of_standard_output(place, words, monkeypatch):
    monkeypatch.chdir(place)
    result = run(*words.split(), "--json", "--quiet")
    document = json.loads(result.stdout)  # and nothing before or behind it
    assert document
    assert result.stderr == ""
    if isinstance(document, dict):
        assert document.get("exit_code", 0) == result.exit_code == 0


def test_what_is_refused_leaves_standard_output_empty(place, monkeypatch):
    monkeypatch.chdir(place)
    for words in ("export model --out w.safetensors", "evaluate nothing --data data --out x", "compare run nowhere"):
        result = run(*words.split(), "--json", "--quiet")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1


def test_quiet_leaves_out_notes_and_keeps_results_and_warnings(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "loud.py").write_text("import mine\n\ndef build():\n    print('Loaded.')\n    return mine.build()\n")
    loud = run("check", "loud.py:build", "--data", "data", *SIXTEEN, "--json")
    assert loud.exit_code == json.loads(loud.stdout)["exit_code"] == 4  # embeddings of noise near chance
    assert "Data: data" in loud.stderr
    assert "Loaded." in loud.stderr
    quiet = run("check", "mine.py:build", "--data", "data", *SIXTEEN, "--quiet")
    assert quiet.stdout.splitlines()[-1].startswith("Flags: ")
    assert quiet.stderr == ""
    below = run("report", "run", "--quiet", "--json", "--fail-under", "worst:recall@1=1")
    assert below.exit_code == json.loads(below.stdout)["exit_code"] == 3
    assert below.stderr == f"Below the bar: {json.loads(below.stdout)['below'][0]}\n"


def test_the_terminal_says_sizes_intervals_the_hardest_attack_and_every_flag(place, monkeypatch):
    monkeypatch.chdir(place)
    shown = run(*EVALUATE.split(), "--max-queries", "6", "--quiet", "--out", "sample")
    results = Results.load("sample")
    text = " ".join(shown.stdout.split())
    assert (
        "Images of 16 x 16 pixels (chosen by --image-size or the data set: build does not say); 6 queries (a sample of "
        "15); 15 images in the gallery." in text
    )
    (model,) = results.models
    clean = model.clean
    assert f"build, clean: R@1 {clean.value:.3f} (95 % interval {clean.low:.3f} to {clean.high:.3f})." in text
    assert len(results.worst) == 2
    for worst in results.worst:
        own = [cell for cell in results.cells if cell.threat == worst.threat]
        hardest = min(own, key=lambda cell: cell.score.value)
        name = next(entry.name for entry in results.attacks if entry.spec == hardest.attack)
        score = worst.score
        assert (
            f"build, worst case at {worst.threat.text}: R@1 {score.value:.3f} (95 % interval {score.low:.3f} to "
            f"{score.high:.3f}); hardest alone: {name} {hardest.score.value:.3f}."
        ) in text
    assert {flag.grade for flag in results.flags} >= {"note"}
    for flag in results.flags:
        assert f"({flag.slug}): {flag.title}. {flag.message}" in text
    document = data_of(results)
    assert json.loads(json.dumps(document)) == document
    assert document["models"][0]["clean"]["value"] == clean.value
    assert [found["value"] for found in document["models"][0]["worst"]] == [w.score.value for w in results.worst]
    assert [flag["slug"] for flag in document["flags"]] == [flag.slug for flag in results.flags]
