"""Which models are better than which, on the same queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from ..statistics import Paired, compare_all


@dataclass(frozen=True)
class Answers:
    """The headline of one model and the bit string of its queries that it is the mean of."""

    recall: float
    hits: str


@dataclass(frozen=True)
class Pair:
    """Two models, the one of the higher headline first, and the test between them."""

    first: str
    second: str
    #: The headline of the first less that of the second, in [0, 1].
    difference: float
    paired: Paired


@dataclass(frozen=True)
class Ranking:
    """Models by falling headline.

    Args:
        order: their names; equal ones as they were given.
        pairs: every two of them, p-values corrected over all pairs.
        ranks: 1 and up: one more than the number of models that are significantly better, and no less than that of
            any model with a higher headline. Models that the test does not separate may share a rank.
    """

    order: tuple[str, ...]
    pairs: tuple[Pair, ...]
    ranks: dict[str, int]

    def sharing(self, name: str) -> tuple[str, ...]:
        """The other models of the same rank, by falling headline."""
        return tuple(other for other in self.order if other != name and self.ranks[other] == self.ranks[name])

    def between(self, first: str, second: str) -> Pair:
        """The comparison of two models, whichever is better."""
        return next(pair for pair in self.pairs if {pair.first, pair.second} == {first, second})


def rank(answers: Mapping[str, Answers]) -> Ranking:
    """Rank models by their answers to the same queries."""
    order = tuple(sorted(answers, key=lambda name: -answers[name].recall))
    couples = list(combinations(order, 2))
    tests = compare_all((answers[first].hits, answers[second].hits) for first, second in couples)
    pairs = tuple(
        Pair(first, second, answers[first].recall - answers[second].recall, paired)
        for (first, second), paired in zip(couples, tests, strict=True)
    )
    ranks: dict[str, int] = {}
    for name in order:
        better = sum(pair.second == name and pair.paired.significant for pair in pairs)
        ranks[name] = max(1 + better, *ranks.values(), 1)
    return Ranking(order, pairs, ranks)
