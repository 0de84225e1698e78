"""What goals search the gallery for, part by part: neither similarities nor truth values of it all are ever held.

The nearest items are found without a gradient, and only the similarities that were found are differentiated. Values and
gradients have the bits of those of the whole matrix of similarities.

Shapes: N queries, M gallery items, C of them in a part, D dimensions, P pairs of a query and an item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

from robustdml.contracts import Objective, References

#: Items of a part: what 64 queries need of it stays in a core's cache.
PART = 4096
# BLAS rounds otherwise in the last columns of a matrix that are no whole block.
_BLOCK = 64

#: Which items of a part count for each query, ``(N, C)`` bool.
Wanted = Callable[[slice], Tensor]


def parts(count: int) -> Iterator[slice]:
    """The rows of a gallery, part by part; the last few stay with those before them."""
    starts = range(0, max(1, count - _BLOCK), PART)
    for start in starts:
        yield slice(start, count if start == starts[-1] else start + PART)


def relevant(references: References) -> Wanted:
    """The right answers, the query itself and what the rules leave out."""
    return lambda part: references.related(part)[0]


def foreign(references: References) -> Wanted:
    """The wrong answers."""
    return lambda part: ~references.related(part)[0]


def own(references: References) -> Wanted:
    """The right answers, of which the query itself is none, nor what the rules leave out."""

    def wanted(part: slice) -> Tensor:
        relevant, ignored = references.related(part)
        return relevant & ~ignored

    return wanted


def ignored(references: References) -> Wanted:
    """What is not in the query's list."""
    return lambda part: references.related(part)[1]


def listed(references: References) -> Wanted:
    """What is in the query's list."""
    return lambda part: ~references.related(part)[1]


def at_rows(rows: Tensor) -> Wanted:
    """The gallery rows ``(N, R)``."""

    def wanted(part: slice) -> Tensor:
        inside = (rows >= part.start) & (rows < part.stop)
        marks = torch.zeros(len(rows), part.stop - part.start, dtype=torch.int8, device=rows.device)
        places = (rows - part.start).clamp(0, marks.shape[1] - 1)
        return marks.scatter_reduce(1, places, inside.to(torch.int8), "amax").bool()

    return wanted


def both(one: Wanted, other: Wanted) -> Wanted:
    """What both want."""
    return lambda part: one(part) & other(part)


def without(one: Wanted, other: Wanted) -> Wanted:
    """What the first wants and the other does not."""
    return lambda part: one(part) & ~other(part)


def margin_to(references: References, rivals: Wanted | None = None) -> Objective:
    """Similarity to the nearest rival less that to the nearest own item; without ``rivals``, all foreign items are."""
    search, gallery = _Search.of(references, rivals, own(references)), references.gallery.embeddings

    def value(embeddings: Tensor) -> Tensor:
        rival, nearest = search(embeddings)
        return found(embeddings, gallery, rival) - found(embeddings, gallery, nearest)

    return value


def nearest_foreign(references: References) -> Objective:
    """Similarity to the nearest foreign item."""
    search, gallery = _Search.of(references, None, None), references.gallery.embeddings
    return lambda embeddings: found(embeddings, gallery, search(embeddings)[0])


def farthest_and_nearest(references: References, friends: Wanted) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Maps embeddings to the similarities to the farthest foreign item and to the nearest friend, ``(N,)`` both."""
    search, gallery = _Search.of(references, None, friends, farthest=True), references.gallery.embeddings

    def value(embeddings: Tensor) -> tuple[Tensor, Tensor]:
        farthest, nearest = search(embeddings)
        return found(embeddings, gallery, farthest), found(embeddings, gallery, nearest)

    return value


@dataclass
class Nearest:
    """The highest similarity of each query so far, ``(N,)``, and the row of the gallery; of equals the first counts.

    Where there is none it is -inf, and the row any.
    """

    values: Tensor
    rows: Tensor

    @classmethod
    def nothing(cls, embeddings: Tensor) -> Nearest:
        """As it begins."""
        values = embeddings.new_full((len(embeddings),), -inf)
        return cls(values, torch.zeros_like(values, dtype=torch.int64))

    def look(self, values: Tensor, rows: Tensor) -> None:
        """Others for each query."""
        # Not ">": what is no number is kept, and nothing is near to it.
        better = ~(values <= self.values)
        self.values = values.where(better, self.values)
        self.rows = rows.where(better, self.rows)


@dataclass(frozen=True)
class _Part:
    """A part of the gallery.

    Args:
        points: ``(C, D)``.
        rows: ``(C,)``, of the gallery.
        rivals: places ``(2, P)`` of queries and items: the only rivals, or (``barred``) all that are none.
        own: the same of own items.
    """

    points: Tensor
    rows: Tensor
    rivals: Tensor
    own: Tensor


@dataclass(frozen=True)
class _Search:
    """Finds the nearest rival, or the farthest, and the nearest own item of each query."""

    parts: tuple[_Part, ...]
    barred: bool
    farthest: bool

    @classmethod
    def of(
        cls, references: References, rivals: Wanted | None, friends: Wanted | None, *, farthest: bool = False
    ) -> _Search:
        """Prepared once for all steps: few items are a query's own, and these few are known by their places."""
        gallery = references.gallery.embeddings
        pieces = list(parts(len(gallery)))
        marked = rivals or relevant(references)
        rows = torch.arange(len(gallery), device=gallery.device)
        found = []
        for part in pieces:
            # Each asks the device how many there are; the steps that follow ask nothing.
            own_places = rows.new_zeros(2, 0) if friends is None else friends(part).nonzero().T
            found.append(_Part(gallery[part], rows[part], marked(part).nonzero().T, own_places))
        if rivals is not None and len(found) > 1:
            found = [_gathered(found, gallery)]
        return cls(tuple(found), rivals is None, farthest)

    @torch.no_grad()
    def __call__(self, embeddings: Tensor) -> tuple[Nearest, Nearest]:
        rival, nearest = Nearest.nothing(embeddings), Nearest.nothing(embeddings)
        for part in self.parts:
            similarity = embeddings @ part.points.T
            if part.own.shape[1]:
                nearest.look(*_highest(similarity, part.own, part.rows))
            if self.farthest:
                similarity.neg_()
            if self.barred:
                if part.rivals.shape[1]:
                    similarity[part.rivals[0], part.rivals[1]] = -inf
                values, places = similarity.max(1)
                rival.look(values, part.rows[places])
            elif part.rivals.shape[1]:
                rival.look(*_highest(similarity, part.rivals, part.rows))
        if self.farthest:
            rival.values = -rival.values
        return rival, nearest


def _gathered(found: list[_Part], gallery: Tensor) -> _Part:
    """The items that any pair is about, as one part: of chosen rivals there are few, and the rest is not looked at."""
    rivals, friends = (
        torch.cat([torch.stack([getattr(part, side)[0], part.rows[getattr(part, side)[1]]]) for part in found], 1)
        for side in ("rivals", "own")
    )
    rows = torch.cat([rivals[1], friends[1]]).unique()
    places = [torch.stack([side[0], torch.searchsorted(rows, side[1])]) for side in (rivals, friends)]
    # Whole blocks: see `_BLOCK`. What fills them is in no pair.
    rows = torch.cat([rows, rows.new_zeros(-len(rows) % _BLOCK)])
    return _Part(gallery[rows], rows, *places)


def _highest(similarity: Tensor, pairs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The highest similarity of each query's pairs, and the first row that has it."""
    queries, items = pairs
    values = similarity[queries, items]
    highest = similarity.new_full((len(similarity),), -inf).scatter_reduce(0, queries, values, "amax")
    last = len(rows)
    places = items.where(values == highest[queries], last)
    first = items.new_full((len(similarity),), last).scatter_reduce(0, queries, places, "amin")
    return highest, rows[first.clamp_max(last - 1)]


def found(embeddings: Tensor, gallery: Tensor, nearest: Nearest) -> Tensor:
    """The similarities that a search has found, with their gradient."""
    similarity: Tensor = _Found.apply(embeddings, gallery, nearest.values, nearest.rows)
    return similarity


class _Found(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, gallery: Tensor, values: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(gallery, values, rows)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        gallery, values, rows = ctx.saved_tensors
        towards = gradients[0][:, None] * gallery[rows]
        return towards.where(values.isfinite()[:, None], 0.0), None, None, None


def counts(wanted: Wanted, ids: Tensor, count: int) -> Tensor:
    """``(N,)``: how many of ``count`` items the queries ``ids`` want."""
    number = torch.zeros_like(ids)
    for part in parts(count):
        number += wanted(part).sum(1)
    return number


def numbered(wanted: Wanted, numbers: Tensor, count: int) -> Tensor:
    """The rows, of ``count``, of the wanted items with these numbers, from 0 in the order of the rows: ``(N, T)``."""
    rows, before = torch.zeros_like(numbers), numbers.new_zeros(len(numbers), 1)
    for part in parts(count):
        running = before + wanted(part).cumsum(1)
        here = (numbers >= before) & (numbers < running[:, -1:])
        rows = (torch.searchsorted(running, numbers + 1) + part.start).where(here, rows)
        before = running[:, -1:].contiguous()
    return rows


def nearest_rows(points: Tensor, items: Tensor, wanted: Wanted, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` nearest wanted items of each point, the nearest first: ``(N, K)`` similarities and rows.

    K is no more than the items; where fewer are wanted, the similarity of those in their place is -inf.
    """
    values = points.new_zeros(len(points), 0)
    rows = torch.zeros_like(values, dtype=torch.int64)
    for part in parts(len(items)):
        similarity = (points @ items[part].T).masked_fill(~wanted(part), -inf)
        best, places = similarity.topk(min(count, similarity.shape[1]), dim=1)
        values, rows = torch.cat([values, best], 1), torch.cat([rows, places + part.start], 1)
        if values.shape[1] > count:
            values, kept = values.topk(count, dim=1)
            rows = rows.gather(1, kept)
    return values, rows


def nearest_item(points: Tensor, items: Tensor, wanted: Wanted) -> Tensor:
    """The row of the nearest wanted item of each point, ``(N,)``; of equals the first."""
    nearest = Nearest.nothing(points)
    for part in parts(len(items)):
        values, places = (points @ items[part].T).masked_fill(~wanted(part), -inf).max(1)
        nearest.look(values, places + part.start)
    return nearest.rows


def nearest_by_class(references: References, class_of: Tensor, classes: int) -> Tensor:
    """Similarity to the nearest foreign item of each class, ``(N, classes)``; -inf where a class has none.

    Args:
        class_of: ``(M,)``, the place of each gallery item's class.
    """
    wanted, items = foreign(references), references.gallery.embeddings
    found = items.new_full((len(references), classes), -inf)
    for part in parts(len(items)):
        similarity = (references.embeddings @ items[part].T).masked_fill(~wanted(part), -inf)
        found.scatter_reduce_(1, class_of[part].expand_as(similarity), similarity, "amax")
    return found
