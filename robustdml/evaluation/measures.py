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
from functools import cached_property

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
#: Pairs of images and gallery items that are compared at once.
_PAIRS = 2**24


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

    def own(self, part: slice) -> Booleans:
        """``(C, M)`` of a part of the images: the gallery rows that are not in their lists: themselves, at least."""
        return self.ignored(self.ids[part, None], self.gallery.ids[None])

    @property
    def parts(self) -> list[slice]:
        """The images, so many at a time that their similarities to the gallery take little memory."""
        step = max(1, _PAIRS // len(self.gallery.ids))
        return [slice(start, start + step) for start in range(0, len(self.ids), step)]


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


@dataclass(frozen=True)
class Similarities:
    """Cosines of some points to items, compared as exact ones: in float32, and anew in float64 where that is too near.

    Equal embeddings tie, wherever they stand.

    Args:
        points: ``(N, D)``.
        items: ``(M, D)``.
    """

    points: Floats
    items: Floats

    @cached_property
    def nearly(self) -> Floats:
        """``(N, M)``, wrong by no more than `margin`."""
        found: Floats = self.points @ self.items.T
        return found

    @property
    def margin(self) -> float:
        """How far rounding may carry the product of two points of length 1: a rounding for each of its terms."""
        return float((self.points.shape[1] + 8) * 2.0**-24)

    def exactly(self, rows: Integers, items: Integers) -> Doubles:
        """``(P,)`` of P pairs."""
        return paired(self.points[rows], self.items[items])

    def ahead(self, mine: Doubles, counted: Booleans) -> tuple[Integers, Integers]:
        """How many of the items that count are nearer than ``mine``, ``(N,)``, and how many are equally near."""
        apart = self.nearly - mine[:, None].astype(np.float32)
        nearer = ((apart > self.margin) & counted).sum(1)
        rows, items = np.nonzero((np.abs(apart) <= self.margin) & counted)
        close = self.exactly(rows, items)
        nearer += np.bincount(rows[close > mine[rows]], minlength=len(mine))
        return nearer, np.bincount(rows[close == mine[rows]], minlength=len(mine))

    def nearest(self, count: int, allowed: Booleans) -> Integers:
        """The ``count`` nearest items that are allowed, ``(N, count)``; of equals the first."""
        found = np.empty((len(self.points), count), np.int64)
        for row, (near, mine) in enumerate(zip(self.nearly, allowed, strict=True)):
            items = np.flatnonzero(mine)
            last = np.partition(near[items], len(items) - count)[len(items) - count]
            items = items[near[items] >= last - 2 * self.margin]
            exact = self.exactly(np.full(len(items), row), items)
            found[row] = items[np.argsort(-exact, kind="stable")[:count]]
        return found


def paired(points: Floats, items: Floats) -> Doubles:
    """The cosine of each point to the item beside it, ``(P, D)`` both; equal rows have equal ones."""
    found: Doubles = (points.astype(np.float64) * items.astype(np.float64)).sum(1)
    return found


def percentiles(similarity: Similarities, rows: Integers, counted: Booleans) -> Doubles:
    """The rank percentiles of items in lists.

    Args:
        similarity: of N points to M items.
        rows: ``(N, T)``, the items in question.
        counted: ``(N, M)``, the items of each list.

    Returns:
        ``(N, T)`` in [0, 100].
    """
    found = np.empty(rows.shape)
    for column in range(rows.shape[1]):
        rivals = counted.copy()
        np.put_along_axis(rivals, rows[:, column : column + 1], False, axis=1)
        mine = similarity.exactly(np.arange(len(rows)), rows[:, column])
        found[:, column] = _percentile(similarity, mine, rivals)
    return found


def _percentile(similarity: Similarities, mine: Doubles, rivals: Booleans) -> Doubles:
    nearer, equal = similarity.ahead(mine, rivals)
    result: Doubles = 100.0 * (nearer + 0.5 * equal) / np.maximum(rivals.sum(1), 1)
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
    def places(points: Floats) -> Doubles:
        found = [
            percentiles(Similarities(points[part], attacked.gallery.embeddings), chosen[part], ~attacked.own(part))
            for part in attacked.parts
        ]
        mean: Doubles = np.concatenate(found).mean(1)
        return mean

    return {name: places(attacked.after), f"{name}_clean": places(attacked.before)}


def _nearest(attacked: AttackedEmbeddings, count: int, left_out: Callable[[slice], Booleans]) -> Integers:
    items = attacked.gallery.embeddings
    found = [Similarities(attacked.before[part], items).nearest(count, ~left_out(part)) for part in attacked.parts]
    return np.concatenate(found)


def _kept(attacked: AttackedEmbeddings) -> Values:
    def left_out(part: slice) -> Booleans:
        found = attacked.own(part)
        np.put_along_axis(found, attacked.targets[part], True, axis=1)
        return found

    fewest = min(int((~left_out(part)).sum(1).min()) for part in attacked.parts)
    return _ranks(attacked, "kept_rank_percentile", _nearest(attacked, min(_KEPT, fewest), left_out))


def _cosine(attacked: AttackedEmbeddings) -> Values:
    wanted = attacked.gallery.embeddings[attacked.targets[:, 0]]
    return {
        f"target_cosine{when}": paired(points, wanted)
        for when, points in (("", attacked.after), ("_clean", attacked.before))
    }


def _retained(attacked: AttackedEmbeddings) -> Values:
    first = _nearest(attacked, 1, attacked.own)
    ahead = []
    for part in attacked.parts:
        now = Similarities(attacked.after[part], attacked.gallery.embeddings)
        mine = now.exactly(np.arange(len(now.points)), first[part, 0])
        ahead.append(now.ahead(mine, ~attacked.own(part))[0])
    return {"first_hit_retained": (np.concatenate(ahead) < _RETAINED).astype(np.float64)}


def _order(attacked: AttackedEmbeddings) -> Values:
    pairs = np.triu_indices(attacked.targets.shape[1], k=1)

    def tau(points: Floats) -> Doubles:
        listed = np.stack([paired(points, attacked.gallery.embeddings[rows]) for rows in attacked.targets.T], 1)
        result: Doubles = np.sign(listed[:, pairs[0]] - listed[:, pairs[1]]).mean(1)
        return result

    return {"kendall_tau": tau(attacked.after), "kendall_tau_clean": tau(attacked.before)}


def _items_ranks(attacked: AttackedEmbeddings, searchers: Points) -> Values:
    """The place of an attacked item, alone in the clean gallery, in the lists of the queries that it is aimed at."""

    def places(points: Floats) -> Doubles:
        found = np.empty(attacked.targets.shape)
        for column in range(attacked.targets.shape[1]):
            chosen = attacked.targets[:, column]
            queries, items = searchers.embeddings[chosen], attacked.gallery.ids[None]
            mine = paired(queries, points)
            for part in attacked.parts:
                ignored = attacked.ignored(searchers.ids[chosen[part]][:, None], items)
                similarity = Similarities(queries[part], attacked.gallery.embeddings)
                rivals = (attacked.ids[part, None] != items) & ~ignored
                found[part, column] = _percentile(similarity, mine[part], rivals)
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
