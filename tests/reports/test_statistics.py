"""The paired test against brute force, and the correction against its definition."""

from __future__ import annotations

import random
from itertools import product

import pytest
from scipy.stats import binomtest

from robustdml.reports.statistics import compare_all, holm, mcnemar
from robustdml.results import pack_hits


def bits(right, count):
    return pack_hits(place in right for place in range(count))


def answers(only_first, only_second, both=5, neither=3):
    """Bit strings of which the split is known, in a shuffled order of queries."""
    queries = [(True, False)] * only_first + [(False, True)] * only_second + [(True, True)] * both
    queries += [(False, False)] * neither
    random.Random(3).shuffle(queries)
    return pack_hits(first for first, _ in queries), pack_hits(second for _, second in queries)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (0, 5), (3, 3), (2, 7), (9, 1), (4, 8)])
def test_the_p_value_is_the_share_of_sign_flips_at_least_as_uneven(only_first, only_second):
    count = only_first + only_second
    distance = abs(only_first - only_second)
    flips = [abs(sum(signs)) >= distance for signs in product((-1, 1), repeat=count)]
    found = mcnemar(*answers(only_first, only_second))
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == pytest.approx(sum(flips) / len(flips), rel=1e-12)


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(67, 2), (100, 130), (2400, 2600), (1, 900), (2, 1500), (0, 4000)]
)
def test_the_p_value_of_many_queries_is_that_of_the_binomial_test(only_first, only_second):
    expected = binomtest(only_first, only_first + only_second).pvalue
    assert mcnemar(*answers(only_first, only_second)).p_value == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_order_of_the_models_only_swaps_the_counts():
    first, second = answers(4, 11)
    there, back = mcnemar(first, second), mcnemar(second, first)
    assert (there.only_first, there.only_second, there.p_value) == (back.only_second, back.only_first, back.p_value)


def test_answers_to_other_queries_are_refused():
    with pytest.raises(ValueError, match="not of the same queries"):
        mcnemar("ff", "fff")


def test_holm_multiplies_step_by_step_and_never_falls():
    # By hand: 0.01 * 4, then max(0.04, 0.02 * 3), then max(0.06, 0.022 * 2), then 0.5.
    assert holm([0.5, 0.01, 0.022, 0.02]) == pytest.approx((0.5, 0.04, 0.06, 0.06))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_more_comparisons_need_stronger_evidence():
    alone = answers(9, 1)
    assert compare_all([alone])[0].significant
    together = compare_all([alone, answers(3, 3), answers(2, 3)])
    assert not together[0].significant
    assert together[0].p_value == pytest.approx(3 * mcnemar(*alone).p_value)


def test_equal_answers_do_not_differ():
    same = bits({0, 3, 4}, 9)
    assert mcnemar(same, same).p_value == 1.0
