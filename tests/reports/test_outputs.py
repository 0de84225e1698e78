"""What is written beside the page: a Markdown summary, JUnit XML and model cards, with hostile names throughout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from described import METRICS

from robustdml.reports import parse_threshold, violations, write_outputs
from robustdml.reports.files.cards import write_cards
from robustdml.reports.files.junit import junit_xml
from robustdml.reports.files.markdown import escape
from robustdml.reports.files.summary import markdown_summary

#: Markup, links, mentions, table cells, control characters, a half surrogate, text that turns direction, emoji, length.
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "a | b `c` **d** [e](http://evil.example) ![f](x) $g$ ~~h~~ &lt;",
    "@everyone fixes #1, see www.evil.example\n\n# Heading\n- item",
    "nul\0bell\a escape\x1b[31m ]]> \ufffe \ud800",
    "\u202egnirts\u202c \u05e2\u05d1\u05e8\u05d9\u05ea \U0001f469\u200d\U0001f4bb",
    "x" * 500,
    "../../etc/passwd",
    " ",
)


@pytest.fixture
def hostile(sample, tmp_path):
    """A run in which all names are hostile, one attack failed and one was skipped."""
    results = sample(tmp_path, models=HOSTILE, attacks=("noise", "margin"), budgets=(8 / 255,), examples=False)
    attacks = tuple(
        attack.model_copy(update={"name": name}) for attack, name in zip(results.attacks, HOSTILE[1:], strict=False)
    )
    cells = list(results.cells)
    for place, status in ((0, "failed"), (1, "skipped")):
        cells[place] = cells[place].model_copy(
            update={"status": status, "reason": HOSTILE[3], "score": None, "hits": None}
        )
    return results.model_copy(update={"attacks": attacks, "cells": tuple(cells)})


def rows(markdown):
    """The cells of every table row, unescaped pipes being the borders."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_summary_holds_the_numbers_of_the_run(results):
    text = markdown_summary(results)
    head, _, *body = rows(text)
    assert head == ["Model", "Clean R@1", "NMI", "π ratio", "Worst-case R@1 at 8/255", "Kept", "Hardest attack"]
    worst = {item.model: item for item in results.worst if item.threat.eps == 8 / 255}
    for row, model in zip(body, results.models, strict=True):
        own = [item for item in results.cells if (item.model, item.threat.eps) == (model.name, 8 / 255) and item.score]
        hardest = min(own, key=lambda item: item.score.metrics.recall_at_1)
        name = next(attack.name for attack in results.attacks if attack.spec == hardest.attack)
        clean, broken = (
            f"{score.metrics.recall_at_1:.3f} ({score.low:.3f}\u2013{score.high:.3f})"
            for score in (model.clean, worst[model.name].score)
        )
        assert row == [
            model.name + (" (collapsed)" if model.health.collapsed else ""),
            clean,
            f"{model.nmi:.3f}",
            "—" if model.pi_ratio is None else f"{model.pi_ratio:.3f}",
            broken,
            f"{100 * worst[model.name].relative_recall:.0f}\u00a0%",
            f"{name} {hardest.score.metrics.recall_at_1:.3f}",
        ]
    assert "**1 of 36 attack runs failed.**" in text
    assert "- **gradient-masking** (plain-r50): A black-box attack beats the white-box ones" in text
    assert "- **few-queries**: Only 2000 queries were attacked. Raise --max-queries." in text
    assert "Thresholds" not in text


def test_the_summary_says_which_bars_were_missed(results):
    bars = [parse_threshold("clean:recall@1=0.7"), parse_threshold("margin:recall@1=0")]
    missed = violations(results, bars)
    text = markdown_summary(results, missed)
    assert f"**Thresholds:** {len(missed)} missed" in text
    for violation in missed:
        assert f"- {escape(violation.sentence)}\n" in text
    assert "**Thresholds:** all reached" in markdown_summary(results, ())


def test_a_run_without_attacks_has_a_summary(sample, tmp_path):
    text = markdown_summary(sample(tmp_path, models=("one",), attacks=(), budgets=(), eventful=False))
    assert rows(text)[2][4:] == ["—", "—", "—"]
    assert "failed" not in text
    assert "Flags" not in text


def test_many_flags_are_counted(results):
    many = tuple(results.flags[1].model_copy(update={"slug": f"flag-{place}"}) for place in range(30))
    text = markdown_summary(results.model_copy(update={"flags": many}))
    assert "flag-19" in text
    assert "flag-20" not in text
    assert "- and 10 more, in the report" in text


def active(text):
    """What a Markdown renderer would still act upon: the text without its escapes."""
    return re.sub(r"<!-- -->", "\x02", re.sub(r"\\[\\`*_\[\]<>|~&$]", "\x01", text))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_no_markdown(name):
    found = active(escape(name))
    assert not re.search(r"[`*_\[\]<>|~&$\\\n\0\x07\x1b\ud800\ufffe\u202e]", found)
    assert not re.search(r"(^|\W)@\w|#[\w ]|://|www\.", found)


def test_what_is_no_markup_is_left_alone():
    text = "recall@1 of caf\u00e9-r50 (8/255), 3 + 4: \u05e2\u05d1\u05e8\u05d9\u05ea \U0001f469\u200d\U0001f4bb!"
    assert escape(text) == text


def test_hostile_names_break_no_table(hostile):
    text = markdown_summary(hostile, violations(hostile, [parse_threshold("clean:recall@1=1")]))
    assert [len(row) for row in rows(text)] == [7] * (2 + len(HOSTILE))
    assert "x" * 61 not in text.split("**Thresholds")[0]
    assert text.encode()


def suites(xml):
    return list(ElementTree.fromstring(xml).iter("testsuite"))


def test_each_model_is_a_suite_and_each_measurement_a_test(results):
    root = ElementTree.fromstring(junit_xml(results))
    assert [suite.get("name") for suite in root] == [model.name for model in results.models]
    for suite, model in zip(root, results.models, strict=True):
        own = [cell for cell in results.cells if cell.model == model.name]
        names = [case.get("name") for case in suite.iter("testcase")]
        assert len(names) == len(set(names)) == 1 + 3 + len(own) == int(suite.get("tests"))
        assert float(suite.get("time")) == pytest.approx(sum(cell.seconds for cell in own))
        for worst in (item for item in results.worst if item.model == model.name):
            (case,) = [
                item
                for item in suite.iter("testcase")
                if item.get("name") == f"worst case at {round(255 * worst.threat.eps)}/255"
            ]
            assert case.find("system-out").text.startswith(f"R@1 {worst.score.metrics.recall_at_1:.3f} (")
    (error,) = root.iter("error")
    assert (
        error.get("message") == "AttackError: the attack returned images of shape (8, 3, 64), expected (8, 3, 64, 64)"
    )
    assert (root.get("tests"), root.get("errors"), root.get("failures")) == ("48", "1", "0")
    assert [suite.get("errors") for suite in root] == ["0", "1", "0"]


def test_a_missed_bar_fails_the_test_that_it_is_about(results):
    bars = ("worst@2/255:recall@1=0.999", "margin@16/255:map@r=0.999", "novel:recall@1=0", "clean:recall@8=0.8")
    missed = violations(results, [parse_threshold(bar) for bar in bars])
    for suite, model in zip(suites(junit_xml(results, missed)), results.models, strict=True):
        failed = {case.get("name"): case.find("failure") for case in suite.iter("testcase")}
        failed = {name: found.get("message") for name, found in failed.items() if found is not None}
        low = model.clean.metrics["recall_at_8"] < 0.8
        assert list(failed) == [
            *(["clean"] if low else []),
            "worst case at 2/255",
            "margin at 16/255",
            "novel:recall@1=0",
        ]
        assert suite.get("failures") == str(len(failed))
        assert "in the worst case at 2/255 is below 0.999" in failed["worst case at 2/255"]
        assert failed["novel:recall@1=0"] == "the attack 'novel' was not run (did you mean 'noise'?)"


def test_a_bar_on_a_failed_attack_leaves_its_test_an_error(results):
    missed = violations(results, [parse_threshold("margin@8/255:recall@1=0")])
    assert [violation.model for violation in missed] == ["mdprop-r50"]
    root = ElementTree.fromstring(junit_xml(results, missed))
    assert (root.get("errors"), root.get("failures")) == ("1", "0")


def test_hostile_names_are_well_formed_xml(hostile, tmp_path):
    (tmp_path / "junit.xml").write_text(junit_xml(hostile), encoding="utf-8")
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    names = [suite.get("name") for suite in root]
    assert names[0] == HOSTILE[0]
    assert names[1] == HOSTILE[1]
    assert names[3] == "nul\ufffdbell\ufffd escape\ufffd[31m ]]> \ufffd \ufffd"
    assert names[5] == HOSTILE[5]
    assert (root.get("errors"), root.get("skipped")) == ("1", "1")


def test_a_card_holds_the_numbers_of_its_model_only(results, tmp_path):
    paths = write_cards(results, tmp_path / "cards")
    assert [path.name for path in paths] == [
        f"{model.name}.{suffix}" for model in results.models for suffix in ("md", "json")
    ]
    for model, path in zip(results.models, paths[1::2], strict=True):
        card = json.loads(path.read_text(encoding="utf-8"))
        own = [cell for cell in results.cells if cell.model == model.name]
        worst = [item for item in results.worst if item.model == model.name]
        assert card["name"] == model.name
        assert card["eps"] == "8/255"
        assert card["clean_recall_at_1"] == model.clean.metrics.recall_at_1
        assert card["worst_case_recall_at_1"] == worst[1].score.metrics.recall_at_1
        assert card["model"]["fingerprint"] == model.fingerprint
        assert (card["model"]["nmi"], card["model"]["pi_ratio"]) == (model.nmi, model.pi_ratio)
        assert [item["score"] for item in card["worst_cases"]] == [item.score.model_dump() for item in worst]
        assert [(item["spec"], item["threat"]["eps"], item["status"], item["reason"]) for item in card["attacks"]] == [
            (cell.attack, cell.threat.eps, cell.status, cell.reason) for cell in own
        ]
        assert [item["score"] and item["score"]["metrics"]["map_at_r"] for item in card["attacks"]] == [
            cell.score and cell.score.metrics["map_at_r"] for cell in own
        ]
        about = [item.slug for item in results.flags if item.model in {None, model.name}]
        assert [item["slug"] for item in card["limitations"]] == about
        assert card["citations"] == results.citations
        assert "hits" not in path.read_text()


def test_the_markdown_card_agrees_with_the_run(results, tmp_path):
    write_cards(results, tmp_path)
    text = (tmp_path / "mdprop-r50.md").read_text(encoding="utf-8")
    found = {row[0]: row[1:] for row in rows(text)}
    model = results.models[1]
    worst = next(item for item in results.worst if (item.model, item.threat.eps) == (model.name, 16 / 255))
    for label, score in (("clean", model.clean), ("worst case at 16/255", worst.score)):
        values = score.metrics
        assert found[label] == [
            f"{values.recall_at_1:.3f}",
            f"{score.low:.3f}\u2013{score.high:.3f}",
            *(f"{values[metric.name]:.3f}" for metric in METRICS[1:]),
        ]
    assert all(f"{metric.title}: {metric.description}." in text for metric in METRICS)
    assert found["Weights (SHA-256)"] == ["sha256-of-mdprop-r50"]
    assert found["Layout by class, clean"] == [f"NMI {model.nmi:.3f}, π ratio {model.pi_ratio:.3f}"]
    assert any(name.startswith("margin at 8/255: failed, AttackError: the attack returned") for name in found)
    assert any(name == "worst case at 8/255 (1 attack failed)" for name in found)
    assert "Threat model" in found
    assert "queries are attacked within L\u221e 2/255, L\u221e 8/255, L\u221e 16/255" in found["Threat model"][0]
    assert "few-queries" in text
    assert "gradient-masking" not in text
    assert "    @inproceedings{madry2018," in text
    assert "Collapsed" not in text
    assert "Collapsed" in (tmp_path / "collapsed-r50.md").read_text()


def test_a_card_of_a_model_that_nothing_attacked(sample, tmp_path):
    write_cards(sample(tmp_path, models=("one",), attacks=(), budgets=(), eventful=False), tmp_path)
    card = json.loads((tmp_path / "one.json").read_text())
    assert (card["eps"], card["worst_case_recall_at_1"], card["attacks"]) == (None, None, [])
    assert "No attack was run." in (tmp_path / "one.md").read_text()


def test_cards_stay_in_their_folder_under_names_of_their_own(hostile, tmp_path):
    paths = write_cards(hostile, tmp_path / "cards")
    assert len({path.name.casefold() for path in paths}) == 2 * len(HOSTILE)
    assert {path.parent for path in paths} == {tmp_path / "cards"}
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", path.name) for path in paths)
    for path in paths[::2]:
        lengths = {len(row) for row in rows(path.read_text(encoding="utf-8"))}
        assert lengths == {2, 8}


def test_names_that_differ_in_case_only_have_cards_of_their_own(sample, tmp_path):
    results = sample(tmp_path, models=("Model", "model"), attacks=(), budgets=(), eventful=False)
    assert len({path.name.casefold() for path in write_cards(results, tmp_path / "cards")}) == 4


def test_all_outputs_at_once(results, tmp_path):
    folder = tmp_path
    results.save(folder)
    written = write_outputs(
        [folder],
        page=tmp_path / "out" / "page.html",
        markdown=tmp_path / "out" / "summary.md",
        junit=tmp_path / "out" / "junit.xml",
        cards=tmp_path / "out" / "cards",
        thresholds=[parse_threshold("clean:recall@1=0.7")],
    )
    assert written.page == tmp_path / "out" / "page.html"
    assert [path.relative_to(tmp_path / "out") for path in written.others[:2]] == [
        Path("summary.md"),
        Path("junit.xml"),
    ]
    assert len(written.others) == 2 + 6
    assert all(path.is_file() for path in (written.page, *written.others))
    assert [violation.model for violation in written.violations] == ["collapsed-r50"]
    assert (tmp_path / "out" / "summary.md").read_text(encoding="utf-8") == markdown_summary(
        results, written.violations
    )
    assert not (folder / "report.html").exists()
