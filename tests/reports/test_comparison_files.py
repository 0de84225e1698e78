"""What changed, as Markdown and as JUnit XML, and what ends `compare --fail-on worse`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from command_line import cli
from described import with_recall

from robustdml.reports import Change, RunChanges, compare_runs, write_comparison
from robustdml.results import pack_hits

QUERIES = 2000
#: What no name may bring to life: markup, a mention, an issue, a link, a column of its own.
ODD = "a|b @you #1 <b>*x* www.x.org"


@pytest.fixture
def runs(sample, tmp_path):
    """Save two runs of a model called `ODD`, of which the second answers so many clean queries less (or more)."""

    def build(fewer: int) -> tuple[str, str]:
        options = {"models": (ODD,), "attacks": (), "budgets": (), "examples": False}
        before = sample(tmp_path / "before", eventful=False, **options)
        before.save(tmp_path / "before")
        (model,) = before.models
        right = round(model.clean.value * QUERIES) - fewer
        clean = model.clean.model_copy(update={"metrics": with_recall(model.clean.metrics, right / QUERIES)})
        hits = pack_hits(place < right for place in range(QUERIES))
        changed = model.model_copy(update={"clean": clean, "clean_hits": hits})
        before.model_copy(update={"models": (changed,)}).save(tmp_path / "after")
        return str(tmp_path / "before"), str(tmp_path / "after")

    return build


@pytest.fixture
def changes(runs) -> RunChanges:
    """One row of each kind: worse, not judged any more, not judged before, better, and no clear difference."""
    found = compare_runs(*runs(100))
    (model,) = found.models
    (worse,) = model.changes
    assert worse.verdict == "worse"
    rows = (
        worse,
        Change("gone", "attack", worse.before, None, reason="failed after: out of time | @all"),
        Change("new", "attack", None, worse.after, reason="skipped before: too large"),
        replace(worse, label="up", before=worse.after, after=worse.before, verdict="better"),
        replace(worse, label="same", verdict="unclear"),
    )
    return replace(found, models=(replace(model, changes=rows),), unmatched=("other|model",))


def test_worse_is_what_fell_and_what_is_not_judged_any_more(changes):
    assert [change.label for _, change in changes.worse] == ["clean", "gone"]


def test_the_markdown_has_every_row_and_no_name_comes_alive(changes, tmp_path):
    (path,) = write_comparison(changes, markdown=tmp_path / "c.md")
    text = path.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 5
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    before, after = changes.models[0].changes[0].before.value, changes.models[0].changes[0].after.value
    assert f"| clean | {before:.3f} | {after:.3f} | {after - before:+.3f} | " in text
    assert text.count("**- worse**") == 1
    assert "1 better, 1 worse, 1 not clearly different" in text
    assert "McNemar" in text
    assert r"Not in both runs: other\|model." in text
    for alive in ("@you", "#1", "<b>", "*x*", " www.", "@all"):
        assert alive not in re.sub(r"\\.", "", text)


def test_the_junit_has_a_test_for_each_row(changes, tmp_path):
    (path,) = write_comparison(changes, junit=tmp_path / "c.xml")
    root = ElementTree.parse(path).getroot()
    (suite,) = root
    assert suite.get("name") == ODD
    outcomes = {case.get("name"): [part.tag for part in case if part.tag != "system-out"] for case in suite}
    assert outcomes == {
        "clean": ["failure"],
        "gone": ["error"],
        "new": ["skipped"],
        "up": [],
        "same": [],
    }
    for part in (root, suite):
        counts = [part.get(name) for name in ("tests", "failures", "errors", "skipped")]
        assert counts == ["5", "1", "1", "1"]
    assert "R@1 0.8" in suite[0].find("failure").get("message")


@pytest.mark.parametrize(("fewer", "code"), [(100, 3), (0, 0), (-40, 0)])
def test_fail_on_worse_ends_with_3_when_all_is_written(runs, tmp_path, fewer, code):
    before, after = runs(fewer)
    files = ("--markdown", tmp_path / "c.md", "--junit", tmp_path / "c.xml")
    assert cli("compare", before, after).exit_code == 0
    done = cli("compare", before, after, *files, "--fail-on", "worse", "--json")
    assert done.exit_code == code
    document = json.loads(done.stdout)
    assert (document["exit_code"], bool(document["worse"])) == (code, code == 3)
    assert document["files"] == [str(tmp_path / "c.md"), str(tmp_path / "c.xml")]
    assert all((tmp_path / name).is_file() for name in ("c.md", "c.xml"))
    assert done.stderr.startswith(f"Worse: {ODD}: clean: R@1 ") == (code == 3)
