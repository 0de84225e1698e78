"""Paths, names and terminals that are not plain."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import cli, write_images

from robustdml.errors import RunFolderError
from robustdml.results import Results
from robustdml.run_folders import claimed

ROOT = Path(__file__).parents[2]
MODEL = "plain_model:small"
CODE = """
import torch
def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 4))
"""
ALBUM = "my photos: \N{CAMERA} caf\u00e9"


@pytest.fixture
def place(tmp_path, monkeypatch):
    write_images(tmp_path / ALBUM, {"\N{GRINNING FACE} a: b": 3, "\u00e9t\u00e9": 3})
    (tmp_path / "plain_model.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(place, *more, **environment):
    """In a process of its own, as terminals are only met there."""
    return subprocess.run(
        [sys.executable, "-m", "robustdml", "evaluate", *more, "--data", ALBUM, "--image-size", "16", "--quiet"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
    )


@pytest.mark.compatible("Paths and terminals", "a terminal of ASCII or cp1252, a narrow one, none", "others as numbers")
@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252", "COLUMNS": "20"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"},
    ],
)
def test_any_terminal_will_do(place, environment):
    name = "mod\u00e8le \N{BIRD}"
    done = run(place, f"{name}={MODEL}", "--attacks", "noise", "--out", "out: \N{CAMERA}", **environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-800:]
    assert b".000" in done.stdout
    results = Results.load(place / "out: \N{CAMERA}")
    assert results.models[0].name == name
    assert results.dataset.name == ALBUM
    assert results.queries.class_names == ("\u00e9t\u00e9", "\N{GRINNING FACE} a: b")


@pytest.mark.compatible(
    "Paths and terminals", "a home folder that is none, as services have", "ART is run all the same"
)
@pytest.mark.slow
def test_no_home_folder_is_needed(place):
    done = run(place, MODEL, "--attacks", "art.FastGradientMethod", "--out", "out", HOME="/dev/null")
    assert done.returncode == 0, done.stderr.decode()[-800:]
    assert {cell.status for cell in Results.load(place / "out").cells} == {"ok"}


@pytest.mark.compatible("Paths and terminals", "colons, spaces, emoji and 300 letters in names", "kept as they are")
def test_names_may_be_long_and_odd(place):
    name = "x" * 300
    common = ("--data", ALBUM, "--attacks", "noise", "--quiet")
    done = cli("evaluate", f"{name}={MODEL}", *common, "--out", "runs: \N{CAMERA}/one two")
    assert done.exit_code == 0, done.output
    assert Results.load(place / "runs: \N{CAMERA}" / "one two").models[0].name == name
    done = cli("evaluate", MODEL, *common, "--out", name)
    assert done.exit_code == 2
    assert (
        "cannot be written (the name is too long): what was finished before is kept; choose a shorter one"
        in done.output
    )
    done = cli("evaluate", MODEL, "--data", name + "/" + name, "--attacks", "noise", "--out", "o")
    assert done.exit_code == 2
    assert "there is no folder or file" in done.output


@pytest.mark.compatible("Paths and terminals", "`--out` that holds hidden files alone", "is an empty folder")
def test_a_folder_with_hidden_files_alone_is_empty(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    (tmp_path / ".git").mkdir()
    with claimed(tmp_path, {"kind": "x"}):
        pass
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(RunFolderError, match="holds a run of another command"), claimed(tmp_path, {"kind": "y"}):
        pass


@pytest.mark.compatible("Paths and terminals", "relative paths from another working folder", "start from there")
def test_another_working_folder_will_do(place, monkeypatch):
    (place / "work").mkdir()
    (place / "plain_model.py").rename(place / "work" / "plain_model.py")
    monkeypatch.chdir(place / "work")
    done = cli("evaluate", MODEL, "--data", f"../{ALBUM}", "--attacks", "noise", "--out", "../out", "--quiet")
    assert done.exit_code == 0, done.output
    assert Results.load(place / "out").dataset.name == ALBUM


#: What code of strangers may have left in the process when the command comes to its end.
_LEFT = """
import atexit, os, sys, threading, time
from robustdml.cli import program
atexit.register(os._exit, 0)
threading.Thread(target=time.sleep, args=(600,)).start()
sys.argv[1:] = {words}
program()
"""


def test_what_is_left_in_the_process_makes_no_success_of_a_failure_and_keeps_nobody_waiting():
    left = [sys.executable, "-c", _LEFT.format(words=["report", "no-such-folder"])]
    ended = subprocess.run(left, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: no results.json in 'no-such-folder'")
