"""What the papers of the ranking attacks report, measured by the judge on the embeddings that came out.

Rank percentiles are in [0, 100]: the share of the other items that come before the item in question, ties counted half,
so that 0 is the first place and 100 the last. A query is not in its own list. Each is given as it is and, under
``…_clean``, as it was before the attack. Other measures: the embedding shift is a Euclidean distance in [0, 2].

Shapes: N attacked images, M gallery items, D dimensions, T targets, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

#: One value per attacked image, under its name.
Values = Mapping[str, Doubles]

#: SPQA holds the nearest five other items in their places; GTT asks whether the first hit is among four still.
_KEPT, _RETAINED = 5, 4


@dataclass(frozen=True)
class Points:
    """Items of a gallery, or queries: embeddings ``(M, D)`` of length 1 and their ids ``(M,)``."""

    embeddings: Floats
    ids: Integers


@dataclass(frozen=True)
class Sight:
    """What there is to measure on N attacked images.

    Args:
        gallery: the clean gallery.
        searchers: those whose lists an attacked item is looked up in; the queries.
        before: ``(N, D)``, the clean embeddings.
        after: ``(N, D)``, the attacked ones.
        ids: ``(N,)``, of the attacked images.
        targets: ``(N, T)`` rows of the gallery (for an attack on the gallery, of ``searchers``); T may be 0.
    """

    gallery: Points
    searchers: Points
    before: Floats
    after: Floats
    ids: Integers
    targets: Integers

    @property
    def own(self) -> Booleans:
        """``(N, M)``: the gallery rows that are the image itself."""
        own: Booleans = self.ids[:, None] == self.gallery.ids[None]
        return own


Measure = Callable[[Sight], Values]


def percentiles(similarity: Doubles, rows: Integers, counted: Booleans) -> Doubles:
    """The rank percentiles of items in lists.

    Args:
        similarity: ``(N, M)``.
        rows: ``(N, T)``, the items in question.
        counted: ``(N, M)``, the items of each list.

    Returns:
        ``(N, T)`` in [0, 100].
    """
    found = np.empty(rows.shape)
    for column in range(rows.shape[1]):
        mine = np.take_along_axis(similarity, rows[:, column : column + 1], axis=1)
        rivals = counted.copy()
        np.put_along_axis(rivals, rows[:, column : column + 1], False, axis=1)
        found[:, column] = _percentile(similarity, mine, rivals)
    return found


def _percentile(similarity: Doubles, mine: Doubles, rivals: Booleans) -> Doubles:
    before = ((similarity > mine) & rivals).sum(1) + 0.5 * ((similarity == mine) & rivals).sum(1)
    result: Doubles = 100.0 * before / np.maximum(rivals.sum(1), 1)
    return result


def _similarity(points: npt.NDArray[np.floating], items: Floats) -> Doubles:
    result: Doubles = points.astype(np.float64) @ items.astype(np.float64).T
    return result


def _shift(sight: Sight) -> Values:
    moved = sight.after.astype(np.float64) - sight.before.astype(np.float64)
    return {"embedding_shift": np.sqrt(np.square(moved).sum(1))}


def _ranks(name: str, rows: Callable[[Sight], Integers]) -> Measure:
    def measure(sight: Sight) -> Values:
        chosen = rows(sight)
        return {
            f"{name}{when}": percentiles(_similarity(points, sight.gallery.embeddings), chosen, ~sight.own).mean(1)
            for when, points in (("", sight.after), ("_clean", sight.before))
        }

    return measure


def _targets(sight: Sight) -> Integers:
    return sight.targets


def _nearest(sight: Sight, count: int, left_out: Booleans) -> Integers:
    clean = np.where(left_out, -np.inf, _similarity(sight.before, sight.gallery.embeddings))
    order: Integers = np.argsort(-clean, axis=1, kind="stable")
    return order[:, :count]


def _kept(sight: Sight) -> Integers:
    left_out = sight.own
    np.put_along_axis(left_out, sight.targets, True, axis=1)
    return _nearest(sight, min(_KEPT, int((~left_out).sum(1).min())), left_out)


def _both(*measures: Measure) -> Measure:
    return lambda sight: {name: value for measure in measures for name, value in measure(sight).items()}


def _cosine(sight: Sight) -> Values:
    wanted = sight.gallery.embeddings[sight.targets[:, 0]].astype(np.float64)
    return {
        f"target_cosine{when}": (points * wanted).sum(1)
        for when, points in (("", sight.after), ("_clean", sight.before))
    }


def _retained(sight: Sight) -> Values:
    first = _nearest(sight, 1, sight.own)
    now = np.where(sight.own, -np.inf, _similarity(sight.after, sight.gallery.embeddings))
    ahead = (now > np.take_along_axis(now, first, axis=1)).sum(1)
    return {"first_hit_retained": (ahead < _RETAINED).astype(np.float64)}


def _order(sight: Sight) -> Values:
    pairs = np.triu_indices(sight.targets.shape[1], k=1)

    def tau(points: Floats) -> Doubles:
        listed = np.take_along_axis(_similarity(points, sight.gallery.embeddings), sight.targets, axis=1)
        result: Doubles = np.sign(listed[:, pairs[0]] - listed[:, pairs[1]]).mean(1)
        return result

    return {"kendall_tau": tau(sight.after), "kendall_tau_clean": tau(sight.before)}


def _candidate(sight: Sight) -> Values:
    """The place of an attacked item, alone in the clean gallery, in the lists of the queries that it is aimed at."""

    def places(points: Floats) -> Doubles:
        found = np.empty(sight.targets.shape)
        for column in range(sight.targets.shape[1]):
            chosen = sight.targets[:, column]
            queries = sight.searchers.embeddings[chosen].astype(np.float64)
            rivals = ~sight.own & (sight.searchers.ids[chosen][:, None] != sight.gallery.ids[None])
            mine = (queries * points).sum(1, keepdims=True)
            found[:, column] = _percentile(_similarity(queries, sight.gallery.embeddings), mine, rivals)
        mean: Doubles = found.mean(1)
        return mean

    return {"rank_percentile": places(sight.after), "rank_percentile_clean": places(sight.before)}


_rank = _ranks("rank_percentile", _targets)
_spqa = _both(_rank, _ranks("kept_rank_percentile", _kept))

#: What is measured beside recall, by the goal of the attack. Their recall is all that LTM and GTM report.
MEASURES: dict[str, Measure] = {
    "shift": _shift,
    "es": _shift,
    "qa_plus": _rank,
    "qa_minus": _rank,
    "spqa_plus": _spqa,
    "spqa_minus": _spqa,
    "tma": _cosine,
    "gtt": _retained,
    "foa": _order,
    "ca_plus": _candidate,
    "ca_minus": _candidate,
}


def measured(goal: str, sight: Sight) -> Values:
    """Everything that is measured for a goal; nothing for goals whose papers report recall alone."""
    measure = MEASURES.get(goal)
    return {} if measure is None else measure(sight)
