"""What is measured beside retrieval: what the papers of the ranking attacks report, and who wins in a changed gallery.

Rank percentiles are in [0, 100]: the share of the other items that come before the item in question, ties counted half,
so that 0 is the first place and 100 the last. What a query ignores, itself at least, is not in its list. Each is given
as it is and, under ``…_clean``, as it was before the attack. Other measures: the embedding shift is a Euclidean
distance in [0, 2].

Shapes: N attacked images, M gallery items, D dimensions, T targets, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustdml.errors import UnknownNameError
from robustdml.results import MeasureEntry

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
class AttackedEmbeddings:
    """What there is to measure on N attacked images.

    Args:
        gallery: the clean gallery.
        searchers: of attacked items, those whose lists they are looked up in: the queries. None for attacked queries.
        before: ``(N, D)``, the clean embeddings.
        after: ``(N, D)``, the attacked ones.
        ids: ``(N,)``, of the attacked images.
        targets: ``(N, T)`` rows of the gallery (for an attack on the gallery, of ``searchers``); T may be 0.
        ignored: says of ids which items are not in the list of a query (`robustdml.data.protocol.Protocol.ignored`).
    """

    gallery: Points
    searchers: Points | None
    before: Floats
    after: Floats
    ids: Integers
    targets: Integers
    ignored: Callable[[Integers, Integers], Booleans]

    @property
    def own(self) -> Booleans:
        """``(N, M)``: the gallery rows that are not in the list of the image: itself, at least."""
        return self.ignored(self.ids[:, None], self.gallery.ids[None])


@dataclass(frozen=True)
class Measure:
    """Something to measure.

    Args:
        title: in tables.
        description: one sentence, without a full stop.
        compute: its values, and under ``…_clean`` those before the attack.
    """

    title: str
    description: str
    compute: Callable[[AttackedEmbeddings], Values]


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


def _shift(attacked: AttackedEmbeddings) -> Values:
    moved = attacked.after.astype(np.float64) - attacked.before.astype(np.float64)
    return {"embedding_shift": np.sqrt(np.square(moved).sum(1))}


def _place(attacked: AttackedEmbeddings) -> Values:
    """The places of the targets in the lists of attacked queries, or of attacked items in the lists of the targets."""
    if attacked.searchers is None:
        return _ranks(attacked, "rank_percentile", attacked.targets)
    return _items_ranks(attacked, attacked.searchers)


def _ranks(attacked: AttackedEmbeddings, name: str, chosen: Integers) -> Values:
    return {
        f"{name}{when}": percentiles(_similarity(points, attacked.gallery.embeddings), chosen, ~attacked.own).mean(1)
        for when, points in (("", attacked.after), ("_clean", attacked.before))
    }


def _nearest(attacked: AttackedEmbeddings, count: int, left_out: Booleans) -> Integers:
    clean = np.where(left_out, -np.inf, _similarity(attacked.before, attacked.gallery.embeddings))
    order: Integers = np.argsort(-clean, axis=1, kind="stable")
    return order[:, :count]


def _kept(attacked: AttackedEmbeddings) -> Values:
    left_out = attacked.own
    np.put_along_axis(left_out, attacked.targets, True, axis=1)
    near = _nearest(attacked, min(_KEPT, int((~left_out).sum(1).min())), left_out)
    return _ranks(attacked, "kept_rank_percentile", near)


def _cosine(attacked: AttackedEmbeddings) -> Values:
    wanted = attacked.gallery.embeddings[attacked.targets[:, 0]].astype(np.float64)
    return {
        f"target_cosine{when}": (points * wanted).sum(1)
        for when, points in (("", attacked.after), ("_clean", attacked.before))
    }


def _retained(attacked: AttackedEmbeddings) -> Values:
    first = _nearest(attacked, 1, attacked.own)
    now = np.where(attacked.own, -np.inf, _similarity(attacked.after, attacked.gallery.embeddings))
    ahead = (now > np.take_along_axis(now, first, axis=1)).sum(1)
    return {"first_hit_retained": (ahead < _RETAINED).astype(np.float64)}


def _order(attacked: AttackedEmbeddings) -> Values:
    pairs = np.triu_indices(attacked.targets.shape[1], k=1)

    def tau(points: Floats) -> Doubles:
        listed = np.take_along_axis(_similarity(points, attacked.gallery.embeddings), attacked.targets, axis=1)
        result: Doubles = np.sign(listed[:, pairs[0]] - listed[:, pairs[1]]).mean(1)
        return result

    return {"kendall_tau": tau(attacked.after), "kendall_tau_clean": tau(attacked.before)}


def _items_ranks(attacked: AttackedEmbeddings, searchers: Points) -> Values:
    """The place of an attacked item, alone in the clean gallery, in the lists of the queries that it is aimed at."""

    def places(points: Floats) -> Doubles:
        found = np.empty(attacked.targets.shape)
        for column in range(attacked.targets.shape[1]):
            chosen = attacked.targets[:, column]
            queries = searchers.embeddings[chosen].astype(np.float64)
            items = attacked.gallery.ids[None]
            rivals = (attacked.ids[:, None] != items) & ~attacked.ignored(searchers.ids[chosen][:, None], items)
            mine = (queries * points).sum(1, keepdims=True)
            found[:, column] = _percentile(_similarity(queries, attacked.gallery.embeddings), mine, rivals)
        mean: Doubles = found.mean(1)
        return mean

    return {"rank_percentile": places(attacked.after), "rank_percentile_clean": places(attacked.before)}


#: What can be measured beside retrieval, by name; each goal names what is measured for it.
MEASURES: dict[str, Measure] = {
    "embedding_shift": Measure(
        "embedding shift", "mean distance of the embedding from its clean place, 0 to 2", _shift
    ),
    "rank_percentile": Measure(
        "rank percentile", "mean place of the chosen items in the list, from 0 (first) to 100 (last)", _place
    ),
    "kept_rank_percentile": Measure(
        "kept rank percentile", "mean place of the items that were to keep theirs, 0 to 100", _kept
    ),
    "target_cosine": Measure("target cosine", "mean cosine similarity to the item aimed at", _cosine),
    "first_hit_retained": Measure(
        "first hit retained",
        f"share of queries whose clean first result is still among the first {_RETAINED}",
        _retained,
    ),
    "kendall_tau": Measure("Kendall's tau", "agreement of the order with the one wanted, from -1 to 1", _order),
}


#: Measured of queries that search a changed gallery (`robustdml.evaluation.attacking.poisoning`), whatever the goal.
POISONED_FIRST = "poisoned_first"


def described(names: Container[str]) -> tuple[MeasureEntry, ...]:
    """Those of the names that are measures, in words and in the order of `MEASURES`."""
    entries = [
        *(MeasureEntry(name=name, title=one.title, description=one.description) for name, one in MEASURES.items()),
        MeasureEntry(
            name=POISONED_FIRST,
            title="poisoned first",
            description="share of queries whose first result is a changed item of another class",
        ),
    ]
    return tuple(entry for entry in entries if entry.name in names)


def measured(names: Iterable[str], attacked: AttackedEmbeddings) -> Values:
    """The values of the named measures.

    Raises:
        UnknownNameError: there is no such measure.
    """
    values: dict[str, Doubles] = {}
    for name in names:
        if name not in MEASURES:
            raise UnknownNameError("measure", name, MEASURES)
        values |= MEASURES[name].compute(attacked)
    return values
