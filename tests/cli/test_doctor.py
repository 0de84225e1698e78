"""`robustdml doctor` on machines that are well and on those that are not."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import cli

import robustdml.doctor
from robustdml.cli import main


def states(*arguments: object) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and what was found by its name."""
    result = CliRunner().invoke(main, ["doctor", "--json", *map(str, arguments)], catch_exceptions=False)
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.exit_code
    return result.exit_code, {found["name"]: found for found in document["findings"]}


@pytest.fixture
def versions(monkeypatch):
    """Versions by package that this machine has from now on; None where it has not the package."""
    other: dict[str, str | None] = {}
    real = robustdml.doctor._installed
    monkeypatch.setattr(robustdml.doctor, "_installed", lambda name: other[name] if name in other else real(name))
    return other


def test_a_machine_that_is_well(tmp_path):
    code, found = states("--data", "digits", "--out", tmp_path / "deep" / "run", "--device", "cpu")
    assert code == 0, found
    assert found["torch and torchvision"]["state"] == "ok"
    assert found["bf16 on cpu"]["state"] == "ok"
    assert found["data"]["found"].startswith("digits: 896 queries, 896 in the gallery")
    assert str(tmp_path / "deep" / "run") in found["run folder"]["found"]
    assert not (tmp_path / "deep").exists()
    text = cli("doctor", "--device", "cpu")
    assert text.exit_code == 0
    assert "Broken: 0. Problems: 0." in text.output


def test_a_pair_that_does_not_load_is_named_with_one_that_does(monkeypatch, versions):
    versions["torch"], versions["torchvision"] = "2.9.0+cpu", "0.25.0"
    monkeypatch.setitem(sys.modules, "torchvision", None)
    code, found = states()
    assert code == 2
    pair = found["torch and torchvision"]
    assert pair["state"] == "broken"
    assert "torch 2.9.0+cpu, torchvision 0.25.0 do not work together" in pair["found"]
    assert "'torch==2.9.0' 'torchvision==0.24.*'" in pair["remedy"]


def test_a_pair_out_of_step_is_a_problem(versions):
    versions["torchvision"] = "0.20.0"
    code, found = states()
    assert code == 4
    assert found["torch and torchvision"]["state"] == "problem"


@pytest.mark.parametrize(
    ("package", "version", "code", "state"),
    [("torchattacks", None, 2, "broken"), ("torchattacks", "3.4.0", 4, "problem"), ("torch", None, 2, "broken")],
)
def test_packages_that_are_absent_or_of_another_version(versions, package, version, code, state):
    versions[package] = version
    ended, found = states()
    assert ended == code
    assert found[package]["state"] == state
    assert package in found[package]["remedy"]


@pytest.mark.parametrize(("version", "state", "code"), [(None, "note", 0), ("0.1", "problem", 4)])
def test_extras(versions, version, state, code):
    versions["timm"] = version
    ended, found = states()
    assert (ended, found["extra timm"]["state"]) == (code, state)
    assert "'robustdml[timm]'" in found["extra timm"]["remedy"]


def test_a_checkout_that_is_not_installed_is_a_note(monkeypatch):
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(robustdml.doctor, "_required", lambda: absent("robustdml"))
    code, found = states()
    assert code == 0
    assert "pip install -e ." in found["packages"]["remedy"]


@pytest.mark.parametrize(
    ("arguments", "name", "says"),
    [
        (["--device", "cuda:99"], "device", "cuda:99"),
        (["--data", "digitz"], "data", "did you mean 'digits'"),
        (["--data", "cub"], "data", "say where it is"),
        (["--out", f"{__file__}/run"], "run folder", "cannot be written to"),
    ],
)
def test_what_the_user_named_and_cannot_have_is_a_problem(arguments, name, says):
    code, found = states(*arguments)
    assert code == 4
    assert found[name]["state"] == "problem"
    assert says in found[name]["found"]
    assert found[name]["remedy"]


def test_a_cache_that_cannot_be_written_to_is_a_problem(monkeypatch):
    monkeypatch.setenv("TORCH_HOME", "/dev/null/torch")
    code, found = states()
    assert code == 4
    assert found["weights of torchvision"]["state"] == "problem"
    assert "TORCH_HOME" in found["weights of torchvision"]["remedy"]
    assert "TORCH_HOME=/dev/null/torch" in found["environment variables"]["found"]


def test_a_part_that_cannot_be_looked_at_is_a_finding(monkeypatch):
    monkeypatch.setattr(robustdml.doctor, "_devices", lambda device: 1 / 0)
    code, found = states()
    assert code == 2
    assert "ZeroDivisionError" in found["devices"]["found"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_as_is_documented(shell, monkeypatch):
    """What the page says to put into the start-up file gives a script, and that asks for the right names."""
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert f"_ROBUSTDML_COMPLETE={shell}_source robustdml" in page
    source = CliRunner().invoke(main, [], prog_name="robustdml", env={"_ROBUSTDML_COMPLETE": f"{shell}_source"})
    assert f"_ROBUSTDML_COMPLETE={shell}_complete" in source.stdout
    words = {"COMP_WORDS": "robustdml evaluate --eff", "COMP_CWORD": "--eff" if shell == "fish" else "2"}
    asked = CliRunner().invoke(
        main, [], prog_name="robustdml", env={"_ROBUSTDML_COMPLETE": f"{shell}_complete", **words}
    )
    assert "--effort" in asked.stdout
