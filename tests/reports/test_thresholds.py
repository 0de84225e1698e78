"""Bars for pipelines: how they are written, what they are held against, and what counts as missing them."""

from __future__ import annotations

import pytest

from robustdml.errors import RobustDMLError, SpecError, UnknownNameError
from robustdml.reports import parse_threshold, violations
from robustdml.threat import ThreatModel

MARGIN = "margin(steps=20, restarts=2)"


def check(results, *texts):
    return violations(results, [parse_threshold(text) for text in texts])


@pytest.fixture
def calm(sample, tmp_path):
    """Two models, in which nothing failed."""
    return sample(tmp_path, models=("plain", "robust"), examples=False, eventful=False)


@pytest.mark.parametrize(
    ("text", "what", "metric", "lowest"),
    [
        ("worst:recall@1=0.30", "worst", "recall@1", 0.3),
        (" worst : R@1 = .3 ", "worst", "r@1", 0.3),
        ("clean:MAP@R=1", "clean", "map@r", 1.0),
        ("worst@8/255:r-precision=0", "worst@8/255", "r-precision", 0.0),
        ("worst@l2:0.5:recall@8=1e-3", "worst@l2:0.5", "recall@8", 0.001),
        ("pgd(goal=margin, steps=20)@4/255:recall@2=0.5", "pgd(goal=margin, steps=20)@4/255", "recall@2", 0.5),
        ("my.module:Attack(steps=3):recall@4=0.5", "my.module:Attack(steps=3)", "recall@4", 0.5),
    ],
)
def test_a_bar_is_read(text, what, metric, lowest):
    found = parse_threshold(text)
    assert (found.what, found.metric, found.lowest, found.text) == (what, metric, lowest, text)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "cannot read the threshold '': write WHAT"),
        ("0.3", "cannot read the threshold '0.3'"),
        ("worst=0.3", "cannot read the threshold"),
        (":recall@1=0.3", "cannot read the threshold"),
        ("worst:recall@1", "cannot read the threshold"),
        ("worst:recall@1=", "ends in '', which is no number in"),
        ("worst:recall@1=30", r"ends in '30', which is no number in \[0, 1\]"),
        ("worst:recall@1=-0.1", "ends in '-0.1'"),
        ("worst:recall@1=nan", "ends in 'nan'"),
        ("worst:recall@1=30%", "ends in '30%'"),
        ("worst@eight:recall@1=0.3", "'eight' is no budget"),
        ("worst@8/0:recall@1=0.3", "'8/0' is no budget"),
        ("worst@l3 1:recall@1=0.3", "'l3 1' is no budget"),
        ("clean@8/255:recall@1=0.3", "clean images have no eps"),
    ],
)
def test_a_bad_bar_is_one_sentence(text, pattern):
    with pytest.raises(SpecError, match=pattern) as error:
        parse_threshold(text)
    assert "worst:recall@1=0.30" in str(error.value)


def test_a_metric_that_was_not_measured_names_those_that_were(calm):
    with pytest.raises(UnknownNameError, match=r"unknown metric 'recall@3': did you mean 'recall@\d'\?"):
        check(calm, "worst:recall@3=0.3")
    assert issubclass(UnknownNameError, RobustDMLError)


@pytest.mark.parametrize("written", ["recall@1", "R@1", "recall_at_1"])
def test_a_metric_is_known_by_its_spelling_its_title_and_its_name(calm, written):
    found = check(calm, f"clean:{written}=1")
    assert [item.problem.split()[0] for item in found] == ["recall@1", "recall@1"]


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        ("recall@1", "recall_at_1"),
        ("recall@2", "recall_at_2"),
        ("recall@4", "recall_at_4"),
        ("recall@8", "recall_at_8"),
        ("map@r", "map_at_r"),
        ("r-precision", "r_precision"),
    ],
)
def test_every_metric_is_held_against_its_own_number(calm, metric, field):
    values = {model.name: model.clean.metrics[field] for model in calm.models}
    assert values["robust"] < values["plain"]
    between = sum(values.values()) / 2
    (found,) = check(calm, f"clean:{metric}={between:.6f}")
    assert found.model == "robust"
    assert f"{metric} {values['robust']:.3f} when clean is below {float(f'{between:.6f}'):.9g}" in found.sentence
    assert not check(calm, f"clean:{metric}={values['robust']!r}")


def test_the_worst_case_is_that_of_the_headline_unless_an_eps_is_given(calm):
    by_eps = {
        round(255 * worst.threat.eps): worst.score.metrics.recall_at_1 for worst in calm.worst if worst.model == "plain"
    }
    for text, eps in (("worst", 8), ("worst@8/255", 8), ("worst@2/255", 2), ("worst@linf 16/255", 16)):
        bar = by_eps[eps] + 0.002
        found = [item for item in check(calm, f"{text}:recall@1={bar:.6f}") if item.model == "plain"]
        assert len(found) == 1
        assert f"recall@1 {by_eps[eps]:.3f} in the worst case at {eps}/255 is below" in found[0].problem
        assert not [item for item in check(calm, f"{text}:recall@1={by_eps[eps]:.6f}") if item.model == "plain"]


@pytest.mark.parametrize("name", ["margin", MARGIN])
def test_an_attack_is_found_by_name_and_by_spec(calm, name):
    cells = {cell.threat.eps: cell for cell in calm.cells if cell.model == "plain" and cell.attack == MARGIN}
    (found,) = [item for item in check(calm, f"{name}@2/255:recall@1=1") if item.model == "plain"]
    assert found.key == ("attack", MARGIN, ThreatModel(2 / 255))
    assert f"{cells[2 / 255].score.metrics.recall_at_1:.3f} under margin at 2/255" in found.problem
    (headline,) = [item for item in check(calm, f"{name}:recall@1=1") if item.model == "plain"]
    assert headline.key == ("attack", MARGIN, ThreatModel(8 / 255))


def test_an_attack_without_a_budget_is_held_to_the_bar_as_it_is(calm):
    cells = tuple(
        cell.model_copy(update={"threat": ThreatModel(None)}) if cell.attack == MARGIN else cell
        for cell in calm.cells
        if cell.attack != MARGIN or cell.threat.eps == 2 / 255
    )
    found = check(calm.model_copy(update={"cells": cells}), "margin:recall@1=1")
    assert [item.key for item in found] == [("attack", MARGIN, ThreatModel(None))] * 2
    assert "under margin (any size) is below 1" in found[0].problem


def test_the_budget_of_another_norm_is_found_by_its_norm(calm):
    worst = tuple(item.model_copy(update={"threat": ThreatModel(item.threat.eps * 100, "l2")}) for item in calm.worst)
    attacks = tuple(item.model_copy(update={"norm": "l2"}) for item in calm.attacks)
    cells = tuple(item.model_copy(update={"threat": ThreatModel(item.threat.eps * 100, "l2")}) for item in calm.cells)
    other = calm.model_copy(update={"worst": worst, "attacks": attacks, "cells": cells})
    size = 100 * 8 / 255
    (found, _) = check(other, f"worst@L2 {size}:recall@1=1")
    assert found.key == ("worst", None, ThreatModel(size, "l2"))
    assert check(other, f"margin@{size}:recall@1=1")[0].key == ("attack", MARGIN, ThreatModel(size, "l2"))
    (missing, _) = check(other, f"worst@{size}:recall@1=0")
    assert missing.key is None
    assert "was not measured" in missing.problem


def test_a_failed_attack_misses_every_bar(results):
    (found,) = [item for item in check(results, "margin:recall@1=0") if item.model == "mdprop-r50"]
    assert "margin at 8/255 failed: AttackError: the attack returned" in found.sentence


def test_a_worst_case_without_a_failed_attack_misses_every_bar(results):
    found = check(results, "worst:recall@1=0")
    assert [item.model for item in found] == ["mdprop-r50"]
    assert "in the worst case at 8/255 may be too high, as it leaves out 1 attack that failed" in found[0].problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("margn:recall@1=0", r"the attack 'margn' was not run (did you mean 'margin'?)"),
        ("margin@4/255:recall@1=0", "margin at 4/255 was not measured"),
        ("worst@4/255:recall@1=0", "the worst case at 4/255 was not measured"),
        ("worst@l2 4:recall@1=0", "the worst case at L2 4 was not measured"),
    ],
)
def test_what_was_not_measured_misses_every_bar(calm, text, problem):
    found = check(calm, text)
    assert [(item.model, item.problem, item.key) for item in found] == [
        ("plain", problem, None),
        ("robust", problem, None),
    ]
    assert found[0].sentence == f"plain: {problem} (wanted: {text})"


def test_without_attacks_there_is_no_worst_case(sample, tmp_path):
    clean = sample(tmp_path, models=("plain",), attacks=(), budgets=())
    (found,) = check(clean, "worst:recall@1=0")
    assert found.problem == "no attack was judged, so there is no worst case"


def test_an_attack_called_like_a_budget_is_found_whole(calm):
    attacks = tuple(item.model_copy(update={"name": f"{item.name}@8/255"}) for item in calm.attacks)
    (found, _) = check(calm.model_copy(update={"attacks": attacks}), "margin@8/255@2/255:recall@1=1")
    assert found.key == ("attack", MARGIN, ThreatModel(2 / 255))


def test_a_value_just_below_is_not_written_like_the_bar(calm):
    value = calm.models[1].clean.metrics.recall_at_1
    (found,) = check(calm, f"clean:recall@1={value + 1e-7:.9f}")
    assert f"recall@1 {value:.9g} when clean is below {value + 1e-7:.9g}" in found.problem


def test_a_rounding_error_below_the_bar_passes(calm):
    """A mean of 3 in 10 may be stored as 0.29999999999999998."""
    value = calm.models[1].clean.metrics.recall_at_1
    assert not check(calm, f"clean:recall@1={value + 1e-12!r}")


def test_every_bar_is_held_against_every_model(calm):
    found = check(calm, "clean:recall@1=1", "worst:recall@1=1")
    assert [(item.model, item.threshold.what) for item in found] == [
        ("plain", "clean"),
        ("plain", "worst"),
        ("robust", "clean"),
        ("robust", "worst"),
    ]
