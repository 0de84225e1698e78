"""The examples of the README and of docs/sources.md, run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from robustdml.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"^\$ robustdml (.+)$", README, re.MULTILINE)
SOURCES = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
PYTHON, SOURCES_PYTHON = (
    re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) for page in (README, SOURCES)
)


@pytest.mark.slow
def test_the_commands_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(CONSOLE) >= 9
    for command in CONSOLE:
        # One epoch and few queries: the examples are run, not their results measured.
        quick = re.sub(r"--epochs \d+", "--epochs 1", re.sub(r"--max-queries \d+", "--max-queries 10", command))
        result = CliRunner().invoke(main, shlex.split(quick), catch_exceptions=False)
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert (tmp_path / "runs" / "report" / "report.html").is_file()


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_the_python_examples_run(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[number], f"README example {number + 1}", "exec"), {})
    if "robustdml.report(" in PYTHON[number]:
        assert (tmp_path / "runs" / "mine" / "report.html").is_file()
        clean, worst = map(float, capsys.readouterr().out.split())
        assert 0 <= worst <= clean <= 1


def test_the_python_examples_of_sources_run(capsys):
    assert SOURCES_PYTHON
    for example in SOURCES_PYTHON:
        exec(compile(example, "example of docs/sources.md", "exec"), {})
    assert "centre crop 224" in capsys.readouterr().out


def test_every_attack_method_and_data_set_is_documented():
    from robustdml.training import METHODS

    for method in METHODS:
        assert f"| `{method}` |" in README


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^):#]+)\)", README):
        assert (ROOT / target).is_file(), target
