"""Two runs compared: which models are compared, and what counts as better or worse."""

from __future__ import annotations

from pathlib import Path

import pytest
from described import METRICS, with_recall
from scipy.stats import binomtest

from robustdml.errors import RunFolderError, UnknownNameError
from robustdml.reports import compare_runs
from robustdml.results import Metrics, Results, pack_hits, unpack_hits

QUERIES = 2000


@pytest.fixture
def saved(sample, tmp_path):
    """Save a run of some models after a change, and return its folder as it is written on the command line."""

    def build(folder, *models, change=lambda results: results, **options):
        options = {"examples": False, "eventful": False, **options}
        change(sample(tmp_path / folder, models=models, **options)).save(tmp_path / folder)
        return str(tmp_path / folder)

    return build


def with_clean(bits):
    """Replace the clean answers of the first model."""

    def change(results):
        model = results.models[0]
        metrics = with_recall(model.clean.metrics, sum(bits) / len(bits))
        score = model.clean.model_copy(update={"metrics": metrics})
        changed = model.model_copy(update={"clean_hits": pack_hits(bits), "clean": score, "fingerprint": "retrained"})
        spec = results.spec.model_copy(update={"models": ((changed.name, "retrained"), *results.spec.models[1:])})
        return results.model_copy(update={"models": (changed, *results.models[1:]), "spec": spec})

    return change


def flipped(saved, lost, won):
    """A run whose clean answers differ from those of the model "one" in so many queries."""
    bits = [place < round(0.8137 * QUERIES) for place in range(QUERIES)]
    bits[:lost] = [False] * lost
    bits[QUERIES - won :] = [True] * won
    return saved("after", "one", attacks=(), budgets=(), change=with_clean(bits))


@pytest.mark.parametrize(
    ("lost", "won", "verdict"), [(5, 20, "better"), (20, 5, "worse"), (9, 11, "unclear"), (0, 0, "unclear")]
)
def test_clean_answers_are_tested_query_by_query(saved, lost, won, verdict):
    before = saved("before", "one", attacks=(), budgets=())
    ((change,),) = [model.changes for model in compare_runs(before, flipped(saved, lost, won)).models]
    assert (change.label, change.lost, change.won, change.verdict) == ("clean", lost, won, verdict)
    expected = binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert change.p_value == pytest.approx(expected)
    assert change.differences["recall_at_1"] == pytest.approx((won - lost) / QUERIES)


def test_every_condition_is_compared_and_corrected_over_all(saved):
    folder = saved("run", "one", "two")
    (model,) = compare_runs(f"{folder}:one", f"{folder}:two").models
    assert [change.label for change in model.changes] == [
        "clean",
        *(f"{name} at {eps}/255" for eps in (2, 8, 16) for name in ("worst case", "noise", "margin", "stax", "square")),
    ]
    raw = []
    for change in model.changes:
        assert change.differences["map_at_r"] == pytest.approx(
            change.after.metrics["map_at_r"] - change.before.metrics["map_at_r"]
        )
        assert list(change.differences) == [metric.name for metric in METRICS]
        raw.append(binomtest(change.lost, change.lost + change.won).pvalue)
    ranked = sorted(range(len(raw)), key=raw.__getitem__)
    highest = 0.0
    for rank, place in enumerate(ranked):
        highest = max(highest, min(1.0, (len(raw) - rank) * raw[place]))
        assert model.changes[place].p_value == pytest.approx(highest)


def test_of_metrics_that_one_run_alone_has_there_is_no_difference(saved):
    def fewer(results):
        (model,) = results.models
        kept = {name: value for name, value in model.clean.metrics.root.items() if name != "recall_at_4"}
        clean = model.clean.model_copy(update={"metrics": Metrics(kept)})
        left = tuple(metric for metric in METRICS if metric.name != "recall_at_4")
        dataset = results.dataset.model_copy(update={"metrics": left})
        return results.model_copy(update={"dataset": dataset, "models": (model.model_copy(update={"clean": clean}),)})

    before = saved("before", "one", attacks=(), budgets=())
    for found in (
        compare_runs(before, saved("after", "one", attacks=(), budgets=(), change=fewer)),
        compare_runs(saved("third", "one", attacks=(), budgets=(), change=fewer), before),
    ):
        assert "recall_at_4" not in {metric.name for metric in found.metrics}
        assert list(found.models[0].changes[0].differences) == [metric.name for metric in found.metrics]


def test_runs_that_are_judged_by_different_metrics_are_not_compared(saved):
    def by_another(results):
        data = results.model_dump()
        data["dataset"]["headline"] = data["models"][0]["clean"]["headline"] = "recall_at_2"
        data["models"][0]["clean"]["metrics"]["recall_at_2"] = data["models"][0]["clean"]["metrics"]["recall_at_1"]
        return Results.model_validate(data)

    before = saved("before", "one", attacks=(), budgets=())
    after = saved("after", "one", attacks=(), budgets=(), change=by_another)
    with pytest.raises(RunFolderError, match=r"is judged by recall_at_1 and .* by recall_at_2"):
        compare_runs(before, after)


def test_the_correction_counts_the_tests_of_all_models(saved):
    alone = compare_runs(saved("a", "one", attacks=(), budgets=()), flipped(saved, 9, 21)).models[0].changes[0]
    before = saved("b", "one", "two", attacks=(), budgets=())
    bits = unpack_hits(Results.load(Path(flipped(saved, 9, 21))).models[0].clean_hits, QUERIES)
    after = saved("c", "one", "two", attacks=(), budgets=(), change=with_clean(bits))
    both = compare_runs(before, after).models
    assert [len(model.changes) for model in both] == [1, 1]
    assert both[0].changes[0].p_value == pytest.approx(2 * alone.p_value)
    assert (alone.verdict, both[0].changes[0].verdict) == ("better", "unclear")
    assert [model.same_weights for model in both] == [False, True]


def test_models_are_matched_by_name(saved):
    found = compare_runs(saved("a", "one", "two", "old"), saved("b", "new", "two", "one"))
    assert [(model.before, model.after) for model in found.models] == [("one", "one"), ("two", "two")]
    assert found.unmatched == ("old", "new")


def test_the_only_models_are_matched_whatever_they_are_called(saved):
    found = compare_runs(saved("a", "one"), saved("b", "two"))
    assert [(model.before, model.after) for model in found.models] == [("one", "two")]
    assert found.unmatched == ()


def test_runs_without_a_common_model_are_refused(saved):
    with pytest.raises(RunFolderError, match=r"no model is in both '.*a' and '.*b': name one of each, as in '.*a:one'"):
        compare_runs(saved("a", "one", "two"), saved("b", "three", "four"))


def test_an_unknown_model_names_the_known(saved):
    with pytest.raises(UnknownNameError, match=r"unknown model 'oen': did you mean 'one'\? known: one, two"):
        compare_runs(saved("a", "one", "two") + ":oen", saved("b", "one"))


def test_colons_in_folders_and_names(saved):
    folder = saved("a:b", "one", "x:y", attacks=(), budgets=())
    (model,) = compare_runs(f"{folder}:x:y", f"{folder}:one").models
    assert (model.before, model.after) == ("x:y", "one")
    assert [model.before for model in compare_runs(folder, folder).models] == ["one", "x:y"]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"no results\.json in"):
        compare_runs(str(tmp_path / "nowhere:one"), str(tmp_path))


def sampled(results):
    """The same run on other queries."""
    queries = results.queries.model_copy(update={"ids": tuple(range(5000, 5000 + QUERIES))})
    return results.model_copy(update={"queries": queries})


def other_data(results):
    return results.model_copy(
        update={"dataset": results.dataset.model_copy(update={"name": "cars", "fingerprint": "1"})}
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (sampled, "the queries differ (2000 and 2000 of them)"),
        (other_data, "the data differ (cub200 and cars, by their hashes)"),
    ],
)
def test_on_other_queries_only_intervals_that_are_apart_count(saved, change, reason):
    before = saved("a", "one", "two", "three")
    after = saved("b", "three", "two", "one", change=change)
    found = compare_runs(before, after)
    assert found.unpaired == reason
    verdicts = {model.before: model.changes[0].verdict for model in found.models}
    # The clean R@1 of the three places is 0.814, 0.742 and 0.670, with 0.03 below and 0.032 above.
    assert verdicts == {"one": "worse", "two": "unclear", "three": "better"}
    assert {change.p_value for model in found.models for change in model.changes} == {None}
    assert {change.lost for model in found.models for change in model.changes} == {None}


def test_touching_intervals_are_not_apart(saved):
    def moved(results):
        model = results.models[0]
        score = model.clean.model_copy(update={"low": model.clean.high, "high": 1.0})
        return sampled(results.model_copy(update={"models": (model.model_copy(update={"clean": score}),)}))

    found = compare_runs(saved("a", "one"), saved("b", "one", change=moved))
    assert found.models[0].changes[0].verdict == "unclear"


def test_a_failed_attack_has_no_verdict_and_costs_no_correction(saved):
    def broken(results):
        cells = list(results.cells)
        cells[1] = cells[1].model_copy(
            update={"status": "failed", "reason": "out of time", "score": None, "hits": None}
        )
        first = results.worst[0].model_copy(update={"attacks": 3, "attacks_failed": 1})
        return results.model_copy(update={"cells": tuple(cells), "worst": (first, *results.worst[1:])})

    (model,) = compare_runs(saved("a", "one"), saved("b", "one", change=broken)).models
    (change,) = [item for item in model.changes if item.label == "margin at 2/255"]
    assert (change.verdict, change.p_value, change.differences) == (None, None, None)
    assert change.reason == "failed after: out of time"
    assert sum(item.p_value is not None for item in model.changes) == 15
    assert len(model.notes) == 1
    assert model.notes[0].startswith("only judged before: margin at 2/255; the worst cases are over different attacks")


def test_attacks_of_one_run_only_are_noted(saved):
    (model,) = compare_runs(saved("a", "one"), saved("b", "one", attacks=("noise", "novel"))).models
    assert [change.label for change in model.changes if change.condition == "attack"] == [
        "noise at 2/255",
        "noise at 8/255",
        "noise at 16/255",
    ]
    before, after = model.notes
    assert before.startswith("only judged before: margin at 2/255, stax at 2/255, square at 2/255")
    assert " and 4 more; " in before
    assert after.startswith("only judged after: novel at 2/255, novel at 8/255, novel at 16/255; ")
