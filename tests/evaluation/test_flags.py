"""Flags of cells, and the catalogue behind them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from squares import QUIET, FakeAttack, SmallNet

from robustdml.attacks import build_suite
from robustdml.evaluation import evaluate
from robustdml.evaluation.flags import by_grade, flags
from robustdml.flag_kinds import FLAG_KINDS, GRADES, described
from robustdml.reports import parse_threshold, render_report, violations
from robustdml.reports.files.cards import write_cards
from robustdml.reports.files.junit import junit_xml
from robustdml.reports.files.summary import markdown_summary
from robustdml.results import Flag, Results, pack_hits

ROOT = Path(__file__).parents[2]


def test_the_page_of_flags_is_up_to_date():
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert described() in page, "run python experiments/flags.py"


def test_every_flag_that_is_raised_is_in_the_catalogue_and_every_kind_is_raised():
    sources = [path for folder in ("robustdml", "reports") for path in (ROOT / folder).rglob("*.py")]
    raised = {
        slug for path in sources for slug in re.findall(r'FLAG_KINDS\["([a-z-]+)"\]', path.read_text(encoding="utf-8"))
    }
    assert raised <= FLAG_KINDS.keys()
    assert not [
        path for path in sources if re.search(r"\bFlag\(\n? *slug=", path.read_text()) and path.stem != "flag_kinds"
    ]


def test_kinds_are_whole():
    for slug, kind in FLAG_KINDS.items():
        assert kind.grade in GRADES
        assert kind.title[0].isupper()
        assert {kind.explanation[-1], kind.remedy[-1]} == {"."}
        assert not kind.condition.endswith("."), slug


def test_the_gravest_come_first_and_old_flags_have_no_grade():
    old = Flag(slug="old", message="m", remedy="r")
    mixed = [FLAG_KINDS["sampled-queries"].flag("a"), old, FLAG_KINDS["stochastic"].flag("b")]
    assert [flag.slug for flag in by_grade(mixed)] == ["stochastic", "old", "sampled-queries"]
    assert (old.grade, old.title) == (None, "")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    from squares import make_dataset

    folder = tmp_path_factory.mktemp("run")
    suite = build_suite("margin", "2/255,8/255") + build_suite("noise", "8/255")
    return evaluate({"net": SmallNet(), "other": SmallNet(1)}, make_dataset(), suite, out=folder, options=QUIET), folder


def again(results: Results, cells) -> tuple[Flag, ...]:
    return flags(results.dataset, results.models, results.attacks, cells, results.worst)


def changed(cell, bits: list[bool]):
    recall = sum(bits) / len(bits)
    metrics = cell.score.metrics.model_copy(update={"root": {**cell.score.metrics.root, "recall_at_1": recall}})
    return cell.model_copy(
        update={"hits": pack_hits(bits), "score": cell.score.model_copy(update={"metrics": metrics})}
    )


def test_an_invalid_model_has_no_headline_and_misses_every_bar(evaluated):
    results, folder = evaluated
    flag = FLAG_KINDS["stochastic"].flag("net draws.", model="net")
    withheld = results.model_copy(update={"flags": (flag,)})
    bar = [parse_threshold("worst:recall@1=0")]
    assert [found.model for found in violations(withheld, bar)] == ["net"]
    assert not violations(results, bar)
    summary = markdown_summary(withheld)
    assert "invalid: The model draws at random" in summary
    assert "Invalid: The model draws at random **stochastic**" in summary
    page = render_report(withheld, folder)
    assert "No worst case is given: The model draws at random." in page
    assert "Rank 1 of" not in page  # of two models one is left
    assert [withheld.invalid(name) for name in ("net", "other")] == [flag, None]


def test_no_file_beside_the_page_states_a_worst_case_that_is_withheld(evaluated, tmp_path):
    results, _ = evaluated
    withheld = results.model_copy(update={"flags": (FLAG_KINDS["stochastic"].flag("net draws.", model="net"),)})
    write_cards(withheld, tmp_path)
    card, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("net", "other"))
    assert (card["worst_case_recall_at_1"], card["worst_cases"], card["withheld"]) == (None, [], "stochastic")
    assert (len(other["worst_cases"]), other["withheld"]) == (2, None)
    text = (tmp_path / "net.md").read_text()
    assert "worst case at 8/255: withheld, no worst case is given: The model draws at random" in text
    suites = ElementTree.fromstring(junit_xml(withheld))
    for suite in suites:
        for case in suite.iter("testcase"):
            skipped, stated = case.find("skipped"), case.find("system-out")
            if case.get("name").startswith("worst case"):
                assert (skipped is None) == (suite.get("name") == "other") == (stated is not None)
    bar = violations(withheld, [parse_threshold("worst:recall@1=0")])
    failed = [
        case.get("name")
        for case in ElementTree.fromstring(junit_xml(withheld, bar)).iter("testcase")
        if case.find("failure") is not None
    ]
    assert failed == ["worst case at 8/255"]


def test_noise_that_breaks_what_gradients_do_not_is_told_per_query(evaluated):
    results, _ = evaluated
    models = [model.model_copy(update={"clean_hits": pack_hits([True] * 24)}) for model in results.models]
    results = results.model_copy(update={"models": tuple(models)})
    for alone, expected in ((1, 0), (2, 1)):
        cells = [
            changed(cell, [True] * (24 - alone) + [False] * alone)
            if cell.attack.startswith("noise")
            else changed(cell, [False] * alone + [True] * (24 - alone))
            for cell in results.cells
            if cell.model == "net" and cell.threat.eps == 8 / 255
        ]
        found = [flag for flag in again(results, cells) if flag.slug == "gradient-masking"]
        assert len(found) == expected
    assert "breaks 2 of 24 queries of net that no stronger gradient attack breaks" in found[0].message


def test_a_recall_that_rises_with_eps_is_not_monotone(evaluated):
    results, _ = evaluated
    cells = [
        changed(cell, [(cell.threat.eps or 0) > 4 / 255 or place > 3 for place in range(24)]) for cell in results.cells
    ]
    found = [flag for flag in again(results, cells) if flag.slug == "not-monotone"]
    assert {flag.model for flag in found} == {"net", "other"}
    assert "not-monotone" not in {flag.slug for flag in again(results, results.cells)}


def test_a_budget_that_allows_any_image_must_break_the_model(squares, tmp_path):
    stands = evaluate(
        {"net": SmallNet()}, squares, [FakeAttack(lambda _, images: images, eps=0.5)], out=tmp_path / "a", options=QUIET
    )
    assert [flag.model for flag in stands.flags if flag.slug == "large-eps"] == ["net"]
    falls = evaluate({"net": SmallNet()}, squares, build_suite("margin", 0.5), out=tmp_path / "b", options=QUIET)
    assert "large-eps" not in {flag.slug for flag in falls.flags}


def test_images_that_no_file_can_hold_are_told(squares, tmp_path):
    small = evaluate({"net": SmallNet()}, squares, build_suite("margin", 0.4 / 255), out=tmp_path / "a", options=QUIET)
    (cell,) = small.cells
    clean = small.models[0].clean.metrics.recall_at_1
    broken = round((clean - cell.score.metrics.recall_at_1) * small.dataset.queries)
    # Within less than half a level all images are rounded to the clean ones.
    assert cell.queries_undone == broken
    usual = evaluate({"net": SmallNet()}, squares, build_suite("margin", "8/255"), out=tmp_path / "b", options=QUIET)
    assert usual.cells[0].queries_undone <= 1
    assert "rounding-undoes" not in {flag.slug for flag in usual.flags}
    told = [flag for flag in again(small, [cell.model_copy(update={"queries_undone": 2})]) if flag.grade == "note"]
    assert [flag.slug for flag in told if flag.slug == "rounding-undoes"] == ["rounding-undoes"]


def test_an_attack_that_more_steps_help_has_not_converged(squares, tmp_path):
    suite = build_suite("mi(steps=1),mi(steps=20),mi(steps=21, momentum=0)", "8/255")
    results = evaluate({"net": SmallNet()}, squares, suite, out=tmp_path, options=QUIET)
    for gain, expected in ((0, []), (2, ["mi(goal=margin, steps=1, "])):
        cells = [
            changed(cell, [place >= (2 if "steps=1," in cell.attack else 2 + gain) for place in range(24)])
            for cell in results.cells
        ]
        found = [flag.attack for flag in again(results, cells) if flag.slug == "not-converged"]
        assert [attack[: len(start)] for attack, start in zip(found, expected, strict=True)] == expected


def test_a_cascade_whose_longest_stage_still_breaks_many_has_not_converged(squares, tmp_path):
    results = evaluate({"net": SmallNet()}, squares, build_suite("standard", "4/255"), out=tmp_path, options=QUIET)
    (cell,) = results.cells
    dataset = results.dataset
    for queries, broken, expected in ((24, 1, 0), (24, 2, 1), (64, 2, 0), (64, 3, 1), (1000, 15, 0), (1000, 16, 1)):
        results = results.model_copy(update={"dataset": dataset.model_copy(update={"queries": queries})})
        stages = [
            stage.model_copy(update={"broken": broken if "steps=100" in stage.attack else 0}) for stage in cell.stages
        ]
        cells = [cell.model_copy(update={"stages": tuple(stages)})]
        assert len([flag for flag in again(results, cells) if flag.slug == "not-converged"]) == expected
