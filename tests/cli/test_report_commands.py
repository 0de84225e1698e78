"""`report`, `compare` and `--fail-under` from the outside: exit codes, files, and one sentence for bad input."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from squares import QUIET, SmallNet, make_dataset

from robustdml.attacks import build_suite
from robustdml.cli import main
from robustdml.cli.options import HomePath
from robustdml.evaluation import evaluate
from robustdml.results import Results


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def refused(result: Result, pattern: str) -> None:
    assert result.exit_code == 2, result.output
    assert re.search(pattern, result.output.splitlines()[-1]), result.output
    assert "Traceback" not in result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run folders of two models on one data set: ``first`` with both, ``second`` with the second under another name."""
    root = tmp_path_factory.mktemp("runs")
    data = make_dataset()
    suite = build_suite("noise,margin", "8/255")
    models = {"st": SmallNet(seed=0), "[bold]mdprop": SmallNet(seed=1)}
    evaluate(models, data, suite, out=root / "first", options=QUIET)
    evaluate({"third": SmallNet(seed=2)}, data, suite, out=root / "second", options=QUIET)
    evaluate({"st": SmallNet(seed=3)}, data, suite, out=root / "after", options=QUIET)
    return root


def test_several_runs_become_one_page(runs, tmp_path):
    result = cli("report", runs / "first", runs / "second", "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert result.output == f"Report: {tmp_path / 'page.html'}\n"
    page = (tmp_path / "page.html").read_text()
    assert all(name in page for name in ("st", "[bold]mdprop", "third"))
    assert not (runs / "first" / "report.html").exists()


def test_runs_that_do_not_fit_are_refused(runs, tmp_path):
    evaluate(
        {"st": SmallNet()}, make_dataset(classes=5), build_suite("noise", "8/255"), out=tmp_path / "o", options=QUIET
    )
    result = cli("report", runs / "first", tmp_path / "o", "--out", tmp_path / "page.html")
    refused(result, "cannot be in one report: .* differs")
    refused(cli("report", runs / "first", runs / "nowhere"), r"no results\.json in")
    assert cli("report").exit_code == 2
    assert not (tmp_path / "page.html").exists()


def test_everything_is_written_before_the_exit_code_says_that_a_bar_was_missed(runs, tmp_path):
    results = Results.load(runs / "first")
    result = cli(
        "report", runs / "first", "--out", tmp_path / "page.html", "--markdown", tmp_path / "summary.md",
        "--junit", tmp_path / "junit.xml", "--cards", tmp_path / "cards",
        "--fail-under", "worst:recall@1=1", "--fail-under", "clean:recall@1=0",
    )  # fmt: skip
    assert result.exit_code == 3
    for name in ("page.html", "summary.md", "junit.xml"):
        assert (tmp_path / name).stat().st_size > 500
    assert len(list((tmp_path / "cards").iterdir())) == 4
    below = [line for line in result.stderr.splitlines() if line.startswith("Below the bar: ")]
    assert below == [
        f"Below the bar: {worst.model}: recall@1 {worst.score.metrics.recall_at_1:.3f} in the worst case at 8/255 is "
        "below 1 (wanted: worst:recall@1=1)"
        for worst in results.worst
    ]
    assert len(below) == 2
    assert f"Wrote {tmp_path / 'junit.xml'}" in result.stdout
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures") == "2"


def test_reached_bars_end_well(runs, tmp_path):
    arguments = ("--fail-under", "worst:recall@1=0", "--fail-under", "pgd-margin@8/255:map@r=0")
    result = cli("report", runs / "first", "--out", tmp_path / "page.html", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("bar", "pattern"),
    [
        ("worst", "cannot read the threshold 'worst': write WHAT"),
        ("worst:recall@1=30", r"no number in \[0, 1\]"),
        ("worst:recal@1=0.3", "unknown metric 'recal@1': did you mean 'recall@1'"),
    ],
)
def test_a_bad_bar_is_refused_before_anything_is_done(runs, tmp_path, bar, pattern):
    refused(cli("report", runs / "first", "--out", tmp_path / "page.html", "--fail-under", bar), pattern)
    assert not (tmp_path / "page.html").exists()
    evaluated = cli("evaluate", "no:model", "--data", "digits", "--out", tmp_path / "run", "--fail-under", bar)
    refused(evaluated, pattern)
    assert not (tmp_path / "run").exists()


def test_evaluate_reports_and_then_says_that_a_bar_was_missed(tmp_path, monkeypatch):
    (tmp_path / "linear_model.py").write_text(
        "import torch\n\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 4))\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = (
        "evaluate",
        "linear_model:build",
        "--data",
        "digits",
        "--attacks",
        "noise",
        "--max-queries",
        10,
        "--quiet",
    )
    missed = cli(*arguments, "--out", "run", "--fail-under", "noise:recall@1=1", "--fail-under", "margin:recall@1=0")
    assert missed.exit_code == 3
    assert (tmp_path / "run" / "report.html").is_file()
    assert "Below the bar: build: recall@1 " in missed.stderr
    assert "the attack 'margin' was not run" in missed.stderr
    assert cli(*arguments, "--out", "run", "--fail-under", "noise:recall@1=0").exit_code == 0


def test_two_runs_are_compared_as_a_table(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = cli("compare", f"{runs / 'first'}:st", runs / "after")
    assert result.exit_code == 0, result.output
    before, after = Results.load(runs / "first").models[0].clean, Results.load(runs / "after").models[0].clean
    values = (before.metrics.recall_at_1, after.metrics.recall_at_1)
    (row,) = [line for line in result.output.splitlines() if re.match("│ clean +│ +[01]", line)]
    assert f"{values[0]:.3f} │ {values[1]:.3f} │ {values[1] - values[0]:+.3f}" in re.sub(r" +", " ", row)
    assert re.search(r"R@1: \d better, \d worse, \d not clearly different\.", result.output)
    assert "corrected by Holm over all 4 tests" in result.output
    assert "The weights are the same" not in result.output


def test_a_run_is_the_same_as_itself(runs):
    result = cli("compare", runs / "first", runs / "first")
    assert result.output.count("R@1: 0 better, 0 worse, 4 not clearly different.") == 2
    assert result.output.count("The weights are the same.") == 2
    # A name in brackets is no style.
    assert "[bold]mdprop" in result.output


def test_the_comparison_as_json_holds_every_number(runs):
    data = json.loads(cli("compare", f"{runs / 'first'}:[bold]mdprop", runs / "second", "--json").output)
    first, second = Results.load(runs / "first"), Results.load(runs / "second")
    assert (data["unpaired"], data["unmatched"]) == (None, [])
    (model,) = data["models"]
    assert (model["before"], model["after"], model["same_weights"]) == ("[bold]mdprop", "third", False)
    assert [change["label"] for change in model["changes"]] == [
        "clean",
        "worst case at 8/255",
        "noise at 8/255",
        "pgd-margin at 8/255",
    ]
    worst = model["changes"][1]
    assert worst["before"] == first.worst[1].score.model_dump()
    assert worst["after"] == second.worst[0].score.model_dump()
    gain = second.worst[0].score.metrics["map_at_r"] - first.worst[1].score.metrics["map_at_r"]
    assert worst["difference"]["map_at_r"] == gain
    assert {change["verdict"] for change in model["changes"]} <= {"better", "worse", "unclear"}


def test_what_cannot_be_compared_is_one_sentence(runs):
    refused(cli("compare", runs / "first", runs / "second"), "no model is in both")
    refused(cli("compare", f"{runs / 'first'}:ts", runs / "after"), "unknown model 'ts': did you mean 'st'")
    refused(cli("compare", runs / "nowhere", runs / "after"), r"no results\.json in")


@pytest.mark.compatible("Paths and terminals", "`~` after `=`", "is the home folder")
def test_a_tilde_is_the_home_folder_also_where_no_shell_expands_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for path, expected in (
        ("~/x", tmp_path / "x"),
        ("~", tmp_path),
        ("./~/x", Path.cwd() / "~/x"),
        ("run:1", Path("run:1")),
    ):
        assert HomePath().convert(path, None, None) == expected


def test_the_page_has_the_command_that_made_it_and_it_can_be_typed(tmp_path):
    out = tmp_path / "a run"
    command = (
        "evaluate", "mine=squares:SmallNet", "--data", "digits", "--attacks", "noise,pgd(goal=margin, steps=2)",
        "--max-queries", 5, "--out", out, "--quiet", "--bar", "clean:recall@1=0", "--bar", "clean:map@r=0",
    )  # fmt: skip
    assert cli(*command).exit_code == 0
    results = Results.load(out)
    written = shlex.split(results.command)
    assert written[0] == "robustdml"
    assert sorted(written[1:]) == sorted(word if word != "--bar" else "--fail-under" for word in map(str, command))
    assert results.command in html.unescape((out / "report.html").read_text(encoding="utf-8"))
    again = Results.load(out)
    assert cli(*written[1:]).exit_code == 0
    assert Results.load(out).cells == again.cells
