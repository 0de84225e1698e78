"""Which budget is the headline, and what is said about the models at it."""

from __future__ import annotations

import pytest

from robustdml.reports import render_report
from robustdml.reports.index import Index
from robustdml.reports.verdicts import compare


@pytest.fixture
def with_worst(sample, tmp_path):
    """A run in which the worst case of each model is given as (low, R@1, high)."""

    def build(*intervals, **options):
        results = sample(tmp_path, budgets=(8 / 255,), **options)
        worst = []
        for entry, (low, recall, high) in zip(results.worst, intervals, strict=True):
            metrics = entry.score.metrics.model_copy(update={"recall_at_1": recall})
            bounds = {"metrics": metrics, "recall_at_1_low": low, "recall_at_1_high": high}
            worst.append(entry.model_copy(update={"score": entry.score.model_copy(update=bounds)}))
        return results.model_copy(update={"worst": tuple(worst)})

    return build


@pytest.mark.parametrize(
    ("levels", "headline"),
    [((2, 8, 16), 8), ((2, 4), 4), ((16, 32), 16), ((7.65,), 7.65), ((1, 7.9, 8.1), 7.9)],
)
def test_the_headline_is_the_largest_budget_up_to_8_of_255(sample, tmp_path, levels, headline):
    results = sample(tmp_path, budgets=tuple(level / 255 for level in levels), examples=False)
    assert Index.of(results).headline == ("linf", headline / 255)


def test_overlapping_intervals_are_not_a_ranking(with_worst):
    found = compare(Index.of(with_worst((0.40, 0.50, 0.60), (0.35, 0.45, 0.55), (0.1, 0.2, 0.3))))
    assert (found.leaders, found.recall) == (("plain-r50",), "0.500")
    assert found.within == ("mdprop-r50",)
    assert found.below


def test_separate_intervals_are_a_ranking(with_worst):
    found = compare(Index.of(with_worst((0.1, 0.2, 0.3), (0.55, 0.6, 0.65), (0.1, 0.2, 0.3))))
    assert (found.leaders, found.within, found.below) == (("mdprop-r50",), (), True)
    assert found.collapsed == ()


def test_a_tie_has_two_leaders(with_worst):
    found = compare(Index.of(with_worst((0.4, 0.5, 0.6), (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))))
    assert found.leaders == ("plain-r50", "mdprop-r50")


def test_a_leader_that_is_collapsed_or_incomplete_is_called_so(with_worst, tmp_path, parse):
    results = with_worst((0.1, 0.2, 0.3), (0.1, 0.2, 0.3), (0.7, 0.8, 0.9))
    leader = results.worst[2].model_copy(update={"attacks_failed": 2})
    results = results.model_copy(update={"worst": (*results.worst[:2], leader)})
    found = compare(Index.of(results))
    assert (found.collapsed, found.incomplete) == (("collapsed-r50",), ("collapsed-r50",))
    text = parse(render_report(results, tmp_path)).text
    assert "But the embedding space of collapsed-r50 is collapsed" in text
    assert "But some attacks on collapsed-r50 failed" in text


def test_one_model_is_not_compared(with_worst):
    assert compare(Index.of(with_worst((0.1, 0.2, 0.3), models=("only",)))) is None


def test_a_model_on_which_every_attack_failed_has_no_worst_case(with_worst, tmp_path, parse):
    results = with_worst((0.1, 0.2, 0.3), (0.1, 0.2, 0.3), (0.7, 0.8, 0.9))
    name = results.models[2].name
    failed = {"status": "failed", "reason": "out of memory", "score": None, "relative_recall": None}
    cells = tuple(cell.model_copy(update=failed) if cell.model == name else cell for cell in results.cells)
    results = results.model_copy(update={"cells": cells})
    found = compare(Index.of(results))
    assert name not in found.leaders
    assert found.unmeasured == (name,)
    page = parse(render_report(results, tmp_path))
    article = next(article for article in page.all("article") if name in article.text)
    assert "Every attack failed" in article.text
    assert "0.800" not in page.all("main")[0].text


def test_what_falls_to_chance_is_called_useless(with_worst, tmp_path, parse):
    page = parse(render_report(with_worst((0.0, 0.005, 0.02), (0.1, 0.2, 0.3), (0.1, 0.2, 0.3)), tmp_path))
    useless = [article.all("h3")[0].text for article in page.all("article") if "nothing useful is left" in article.text]
    assert useless == ["plain-r50"]


def test_a_relative_recall_that_does_not_exist_is_left_out(with_worst, tmp_path, parse):
    results = with_worst((0.0, 0.0, 0.1), models=("only",))
    worst = results.worst[0].model_copy(update={"relative_recall": None})
    page = parse(render_report(results.model_copy(update={"worst": (worst,)}), tmp_path))
    assert "of the clean value" not in page.all("article")[0].text
    row = next(row for row in page.one("all-metrics").all("tr") if "worst case" in row.text)
    assert row.all("td")[8].text == "—"


def test_a_budget_at_which_every_attack_failed_has_no_worst_case(sample, tmp_path):
    results = sample(tmp_path, models=("only",), budgets=(2 / 255, 8 / 255), eventful=False)
    failed = {"status": "failed", "reason": "out of memory", "score": None, "relative_recall": None}
    cells = tuple(cell.model_copy(update=failed) if cell.eps < 4 / 255 else cell for cell in results.cells)
    assert set(Index.of(results).worst) == {("only", ("linf", 2 / 255)), ("only", ("linf", 8 / 255))}
    assert set(Index.of(results.model_copy(update={"cells": cells})).worst) == {("only", ("linf", 8 / 255))}
