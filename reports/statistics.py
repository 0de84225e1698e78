"""Whether two models differ on the same queries: McNemar's test, corrected for the number of comparisons.

The test looks only at the queries that one model gets right and the other wrong, and asks how likely so uneven a split
is if either were as good as the other: exact and two-sided, from the binomial distribution (McNemar 1947; without the
mid-p correction, so that the level is kept). Holm 1979 corrects over all comparisons that are made at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

#: A difference is called significant where its corrected p-value is below this.
LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """One comparison of two sets of answers to the same queries.

    Args:
        only_first: queries that only the first answers rightly.
        only_second: queries that only the second answers rightly.
        p_value: of the test, in [0, 1] (0 where it is too small for a float); corrected if from `compare_all`.
    """

    only_first: int
    only_second: int
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the two differ by more than chance explains."""
        return self.p_value < LEVEL


def mcnemar(first: str, second: str) -> Paired:
    """Compare two bit strings of the same queries (see `robustdml.results.pack_hits`).

    Raises:
        ValueError: they are of different length, or no hexadecimal numbers.
    """
    if len(first) != len(second):
        raise ValueError(f"bit strings of {len(first)} and {len(second)} digits are not of the same queries")
    ours, theirs = int(first or "0", 16), int(second or "0", 16)
    only_first, only_second = (ours & ~theirs).bit_count(), (theirs & ~ours).bit_count()
    return Paired(only_first, only_second, _sign_test(min(only_first, only_second), only_first + only_second))


def _sign_test(fewer: int, count: int) -> float:
    """Twice the chance of at most ``fewer`` heads in ``count`` throws of a fair coin, at most 1."""
    if 2 * fewer >= count:
        return 1.0
    # The terms fall from the largest one down, faster than by half once they are far from the middle: the sum ends
    # when a term no longer changes it. Sums of exact binomials would take seconds for a page of 60 attacks.
    log_term = math.lgamma(count + 1) - math.lgamma(fewer + 1) - math.lgamma(count - fewer + 1) - count * math.log(2)
    ratio, total = 1.0, 0.0
    for heads in range(fewer, -1, -1):
        if total + ratio == total:
            break
        total += ratio
        ratio *= heads / (count - heads + 1)
    return min(1.0, 2.0 * math.exp(log_term + math.log(total)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct p-values such that the chance of any false alarm among them stays at the level (Holm 1979)."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return tuple(corrected)


def compare_all(pairs: Iterable[tuple[str, str]]) -> tuple[Paired, ...]:
    """Compare pairs of bit strings, with the p-values corrected over all of them."""
    found = [mcnemar(first, second) for first, second in pairs]
    corrected = holm([paired.p_value for paired in found])
    return tuple(replace(paired, p_value=value) for paired, value in zip(found, corrected, strict=True))
