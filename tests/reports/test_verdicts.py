"""Which budget is the headline, and what is said about the models at it."""

from __future__ import annotations

from pathlib import Path

import pytest
from described import with_recall

from robustdml.flag_kinds import FLAG_KINDS
from robustdml.reports import parse_threshold, render_report, violations
from robustdml.reports.index import Index
from robustdml.reports.page.ranking_tables import Answers, rank
from robustdml.reports.page.verdicts import verdict_section
from robustdml.reports.text import in_words
from robustdml.results import Results, pack_hits
from robustdml.threat import ThreatModel


@pytest.fixture
def with_worst(sample, tmp_path):
    """A run in which the worst case of each model is given: the numbers of the queries that it gets right."""

    def build(*right, **options):
        results = sample(tmp_path, budgets=(8 / 255,), **options)
        count = results.dataset.queries
        worst = []
        for entry, queries in zip(results.worst, right, strict=True):
            recall = len(queries) / count
            metrics = with_recall(entry.score.metrics, recall)
            bounds = {"low": max(0.0, recall - 0.05), "high": recall + 0.05}
            hits = pack_hits(place in queries for place in range(count))
            score = entry.score.model_copy(update={"metrics": metrics, **bounds})
            worst.append(entry.model_copy(update={"score": score, "hits": hits}))
        return Results.model_validate(results.model_copy(update={"worst": tuple(worst)}).model_dump())

    return build


def comparison(results):
    return verdict_section(Index.of(results), Path()).data.comparison


@pytest.mark.parametrize(
    ("levels", "headline"),
    [((2, 8, 16), 8), ((2, 4), 4), ((16, 32), 16), ((7.65,), 7.65), ((1, 7.9, 8.1), 7.9)],
)
def test_the_headline_is_the_largest_budget_up_to_8_of_255(sample, tmp_path, levels, headline):
    results = sample(tmp_path, budgets=tuple(level / 255 for level in levels), examples=False)
    assert Index.of(results).headline == ThreatModel(headline / 255)


def test_models_that_the_test_does_not_separate_share_a_rank(with_worst, tmp_path, parse):
    # 1000 against 970 right, but on different queries: 30 against 0 would be significant, 530 against 500 is not.
    results = with_worst(range(1000), range(500, 1470), range(200))
    found = comparison(results)
    assert (found.leaders, found.recall, found.count) == (("plain-r50",), "0.500", 3)
    assert [(pair.second, pair.difference, pair.significant) for pair in found.even] == [("mdprop-r50", "0.015", False)]
    assert (found.ahead.second, found.ahead.difference, found.ahead_recall) == ("collapsed-r50", "0.400", "0.100")
    page = parse(render_report(results, tmp_path))
    assert "which of the two is better is not settled" in page.all("section")[0].text
    ranks = [article.all("p")[0].text for article in page.all("article")[:3]]
    assert ranks == [
        "Rank 1 of 3, shared with mdprop-r50",
        "Rank 1 of 3, shared with plain-r50",
        "Rank 3 of 3",
    ]


def test_a_small_lead_on_the_same_queries_is_a_ranking(with_worst, tmp_path, parse):
    results = with_worst(range(970), range(1000), range(200))
    found = comparison(results)
    assert (found.leaders, found.even) == (("mdprop-r50",), ())
    assert (found.ahead.second, found.ahead.only_first, found.ahead.only_second) == ("plain-r50", "30", "0")
    page = parse(render_report(results, tmp_path))
    sentence = page.all("section")[0].all("p")[0].text
    assert sentence.startswith(
        "mdprop-r50 is the most robust of 3 models: its worst-case R@1 is 0.500, "
        "0.015 more than that of plain-r50 (0.485)."
    )
    # The most robust model comes first.
    assert [article.all("h3")[0].text for article in page.all("article")[:2]] == ["mdprop-r50", "plain-r50"]


def test_a_tie_has_two_leaders(with_worst):
    found = comparison(with_worst(range(1000), range(1000), range(600)))
    assert found.leaders == ("plain-r50", "mdprop-r50")
    assert found.even == ()


def test_every_two_models_are_listed_with_their_test(with_worst, tmp_path, parse):
    page = parse(render_report(with_worst(range(970), range(1000), range(400, 600)), tmp_path))
    rows = [[cell.text for cell in row.children] for row in page.one("pairs").all("tbody")[0].all("tr")]
    assert rows[:3] == [
        ["mdprop-r50", "plain-r50", "worst case", "0.015", "30", "0", "p < 0.001", "significant"],
        ["mdprop-r50", "collapsed-r50", "worst case", "0.400", "800", "0", "p < 0.001", "significant"],
        ["plain-r50", "collapsed-r50", "worst case", "0.385", "770", "0", "p < 0.001", "significant"],
    ]
    assert [row[2] for row in rows[3:]] == ["clean"] * 3


def test_a_rank_is_never_better_than_that_of_a_model_with_a_higher_recall():
    def answers(right):
        return Answers(len(right) / 400, pack_hits(place in right for place in range(400)))

    # The second is right on a part of the first's queries; the third on others, so that the first is not separated.
    ranking = rank({"c": answers(range(188, 380)), "a": answers(range(200)), "b": answers(range(194))})
    assert not ranking.between("a", "c").paired.significant
    assert ranking.order == ("a", "b", "c")
    assert list(ranking.ranks.values()) == sorted(ranking.ranks.values())


def test_a_leader_that_is_collapsed_or_incomplete_is_called_so(with_worst, tmp_path, parse):
    results = with_worst(range(400), range(300), range(1600))
    leader = results.worst[2].model_copy(update={"attacks_failed": 2})
    results = results.model_copy(update={"worst": (*results.worst[:2], leader)})
    found = comparison(results)
    assert (found.collapsed, found.incomplete) == (("collapsed-r50",), ("collapsed-r50",))
    text = parse(render_report(results, tmp_path)).text
    assert "But the embedding space of collapsed-r50 is collapsed" in text
    assert "But some attacks on collapsed-r50 failed" in text


def test_one_model_is_not_compared(with_worst):
    assert comparison(with_worst(range(400), models=("only",))) is None


def test_a_model_on_which_every_attack_failed_has_no_worst_case(with_worst, tmp_path, parse):
    results = with_worst(range(400), range(300), range(1600))
    name = results.models[2].name
    failed = {"status": "failed", "reason": "out of memory", "score": None, "hits": None, "relative_recall": None}
    cells = tuple(cell.model_copy(update=failed) if cell.model == name else cell for cell in results.cells)
    results = results.model_copy(update={"cells": cells})
    found = comparison(results)
    assert name not in found.leaders
    assert found.unmeasured == (name,)
    page = parse(render_report(results, tmp_path))
    article = next(article for article in page.all("article") if name in article.text)
    assert "No attack ran to its end" in article.text
    assert "0.800" not in page.all("main")[0].text


def test_what_falls_to_chance_is_called_useless(with_worst, tmp_path, parse):
    page = parse(render_report(with_worst(range(10), range(400), range(400)), tmp_path))
    useless = [article.all("h3")[0].text for article in page.all("article") if "so nothing useful" in article.text]
    assert useless == ["plain-r50"]


def test_a_relative_recall_that_does_not_exist_is_left_out(with_worst, tmp_path, parse):
    results = with_worst((), models=("only",))
    worst = results.worst[0].model_copy(update={"relative_recall": None})
    page = parse(render_report(results.model_copy(update={"worst": (worst,)}), tmp_path))
    assert "of the clean R@1" not in page.all("article")[0].text
    assert "finds nothing even with clean queries" in page.all("article")[0].text
    row = next(row for row in page.one("all-metrics").all("tr") if "worst case" in row.text)
    assert row.all("td")[8].text == "—"


def test_a_budget_at_which_every_attack_failed_has_no_worst_case(sample, tmp_path):
    results = sample(tmp_path, models=("only",), budgets=(2 / 255, 8 / 255), eventful=False)
    failed = {"status": "failed", "reason": "out of memory", "score": None, "hits": None, "relative_recall": None}
    cells = tuple(cell.model_copy(update=failed) if cell.threat.eps < 4 / 255 else cell for cell in results.cells)
    assert set(Index.of(results).worst) == {("only", ThreatModel(2 / 255)), ("only", ThreatModel(8 / 255))}
    assert set(Index.of(results.model_copy(update={"cells": cells})).worst) == {("only", ThreatModel(8 / 255))}


@pytest.fixture
def with_budgets(sample, tmp_path):
    """A run of two models in which the number of right queries in the worst case is given, by level of 255."""

    def build(right):
        results = sample(tmp_path, models=("first", "second"), budgets=tuple(level / 255 for level in right))
        count, worst = results.dataset.queries, []
        for entry in results.worst:
            own = right[round(entry.threat.eps * 255)][("first", "second").index(entry.model)]
            metrics = with_recall(entry.score.metrics, own / count)
            bounds = {"low": 0.0, "high": 0.9}
            score = entry.score.model_copy(update={"metrics": metrics, **bounds})
            hits = pack_hits(place < own for place in range(count))
            worst.append(entry.model_copy(update={"score": score, "hits": hits}))
        return Results.model_validate(results.model_copy(update={"worst": tuple(worst)}).model_dump())

    return build


@pytest.mark.parametrize(
    ("right", "budget", "readings", "significant"),
    [
        # The largest eps that separates them, though 4/255 differs too, by a query.
        ({2: (800, 500), 4: (1, 0), 8: (0, 0)}, "2/255", (("first", "0.400"), ("second", "0.250")), True),
        ({2: (900, 500), 4: (100, 300), 8: (0, 0)}, "4/255", (("second", "0.150"), ("first", "0.050")), True),
        ({2: (500, 500), 4: (1, 3), 8: (0, 0)}, "4/255", (("second", "0.002"), ("first", "0.001")), False),
        ({2: (0, 0), 8: (0, 0)}, None, (), False),
        ({8: (0, 0), 16: (0, 0)}, None, (), False),
        # Not zero, but no more than chance (0.0101).
        ({2: (800, 500), 8: (20, 0)}, "2/255", (("first", "0.400"), ("second", "0.250")), True),
    ],
)
def test_where_all_are_broken_the_verdict_points_to_the_smaller_eps_that_tells_them_apart(
    with_budgets, tmp_path, parse, right, budget, readings, significant
):
    results = with_budgets(right)
    found = comparison(results).smaller
    assert (found.budget, found.readings, found.significant) == (budget, readings, significant)
    sentence = parse(render_report(results, tmp_path)).all("section")[0].all("p")[0].text
    assert "At 8/255 no model finds more than a random ranking would (0.010)." in sentence
    if budget is None:
        assert "No eps that was run tells them apart: evaluate at a smaller one." in sentence
    else:
        start = f"At eps = {budget} they differ{'' if significant else ', though not significantly'}: worst-case R@1 "
        assert start + ", ".join(f"{recall} for {name}" for name, recall in readings) + "." in sentence


def test_a_model_that_is_above_chance_needs_no_smaller_eps(with_budgets):
    assert comparison(with_budgets({2: (800, 500), 8: (21, 0)})).smaller is None


@pytest.mark.parametrize(
    ("threat", "words"),
    [
        (ThreatModel(0.25 / 255), "changes by more than a quarter of a grey level of 255"),
        (ThreatModel(0.5 / 255), "changes by more than half a grey level of 255"),
        (ThreatModel(1 / 255), "changes by more than one grey level of 255"),
        (ThreatModel(8 / 255), "changes by more than 8 grey levels of 255"),
        (ThreatModel(0.5, "l2"), "have the length 0.5 together, which is 2.3 grey levels of 255 each"),
        (ThreatModel(2.0, "l1"), "sum to 510 grey levels of 255 at most"),
        (ThreatModel(12, "l0"), "at most 12 pixels of 1,024 change"),
    ],
)
def test_a_budget_is_said_in_words(threat, words):
    assert words in in_words(threat, (32, 32))


def test_a_model_alone_has_a_verdict_too(sample, tmp_path, parse):
    results = sample(tmp_path, models=("only",), eventful=False)
    page = parse(render_report(results, tmp_path))
    verdict = page.all("section")[0].text
    at = {worst.threat.eps: f"{worst.score.value:.3f}" for worst in results.worst}
    clean = f"{results.models[0].clean.value:.3f}"
    assert f"only has a worst-case R@1 of {at[8 / 255]}, of {clean} when nothing is attacked" in verdict
    assert f"At smaller budgets it keeps {at[2 / 255]} at 2/255." in verdict
    assert "At this budget no value of a pixel changes by more than 8 grey levels of 255." in verdict
    assert "random ranking may" not in verdict


def test_bars_are_said_first_for_each_model(results, tmp_path, parse):
    bars = [parse_threshold("worst:recall@1=0.3 at 2/255"), parse_threshold("clean:recall@1=0.8")]
    assert bars[0].what == "worst@2/255"
    page = parse(render_report(results, tmp_path, bars))
    lines = [item.text for item in page.one("bars").all("li")]
    assert len(lines) == 6
    missed = {(found.model, found.threshold.text): found.problem for found in violations(results, bars)}
    assert missed
    for line, (bar, model) in zip(lines, [(bar, model) for bar in bars for model in results.models], strict=True):
        problem = missed.get((model.name, bar.text))
        assert line.startswith(f"{'✗ fail' if problem else '✓ pass'} {model.name}: {bar.text}")
        assert problem is None or problem in line
    assert "pass" not in parse(render_report(results, tmp_path)).all("section")[0].text


def test_notes_alone_alarm_nobody(sample, tmp_path, parse):
    results = sample(tmp_path, eventful=False)
    note, grave = FLAG_KINDS["sampled-queries"].flag("a sample"), FLAG_KINDS["gradient-masking"].flag("masked")
    for flags, heading in (((note,), "To know about"), ((note, grave), "Before you believe")):
        page = parse(render_report(results.model_copy(update={"flags": flags}), tmp_path))
        assert page.one("flags-title").text == f"{heading} these numbers"
        links = [link.text for link in page.all("section")[0].all("a")]
        assert f"{heading} these numbers" in links
        assert flags[-1].title in page.all("section")[0].text
