"""What an attacker wants of an item of the gallery: CA+ and CA- (Zhou et al. 2020), and to come first for strangers.

The images are gallery items here, and the references describe them; who searches is `References.queries`.

Shapes: N attacked items, Q queries, W of them per item, M gallery items.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from robustdml.errors import SpecError
from robustdml.seeding import stream
from robustdml.values import check_fields

from .plain import PlainGoal
from .ranking import Candidates, distances, drawn_near_rows, drawn_rows, raised

if TYPE_CHECKING:  # what goals mean is listed without torch
    from torch import Tensor

    from robustdml.contracts import Gallery, Objective, References


@dataclass(frozen=True)
class _CandidateAttack(Candidates):
    """CA: the item to the front (sign 1) or to the back (-1) for drawn queries."""

    letter = "W"

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)`` rows of the queries: to the front of all, to the back of the nearest hundredth."""
        queries, purpose = references.queries, self.name

        def others(part: slice) -> Tensor:
            return references.ids[:, None] != queries.ids[None, part]

        if self.sign < 0:
            return drawn_near_rows(references, queries, others, self.candidates, seed=seed, purpose=purpose)
        return drawn_rows(others, len(queries), references.ids, self.candidates, seed=seed, purpose=purpose)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean of ``[d(c, q) - d(x, q)]+`` over the drawn q and all x, with the sign of both distances."""
        gallery, queries, sign = references.gallery, references.queries, self.sign
        rows = self.target_rows(references, seed=seed)
        points, ids = queries.embeddings[rows], queries.ids[rows]  # (N, W, D), (N, W)
        fixed = points.new_empty(*rows.shape, len(gallery))  # (N, W, M)
        for place, part in zip(fixed, points, strict=True):
            place.copy_(sign * distances(part, gallery.embeddings))
        # The attacked image takes the place of the clean one; a searcher does not find itself.
        counted = ~references.ignored[:, None] & (ids[:, :, None] != gallery.ids)

        def value(embeddings: Tensor) -> Tensor:
            similarity = (points * embeddings[:, None]).sum(2)
            apart = sign * (2 - 2 * similarity).clamp_min(1e-12).sqrt()
            # One candidate per searcher: its place in that searcher's list.
            ranked = raised(apart.flatten()[:, None], fixed.flatten(0, 1), counted.flatten(0, 1))
            return -ranked.view_as(apart).mean(1)

        return value


@dataclass(frozen=True)
class CAPlus(_CandidateAttack):
    """CA+: bring the item to the front for queries drawn from all."""

    name, label, sign = "ca_plus", "CA+", 1.0
    meaning = "An item of the gallery is changed so that it comes to the front for chosen queries."


@dataclass(frozen=True)
class CAMinus(_CandidateAttack):
    """CA-: push the item to the back for queries near it, drawn from the nearest hundredth."""

    name, label, sign = "ca_minus", "CA-", -1.0
    meaning = "An item of the gallery is changed so that it falls to the back for chosen queries."


@dataclass(frozen=True)
class Hub(PlainGoal):
    """Come first for as many queries of other classes as can be, whoever they are.

    The queries to come are unknown to this attacker: items of the gallery stand in for them. The value is the share of
    stand-ins that find the item first, made smooth.

    Args:
        standins: how many gallery items stand in for queries, at least 1.
        softness: of the step from "not first" to "first", above 0, as a share of how much nearer the nearest item of
            a stand-in is to it than items are on average.
    """

    standins: int = 512
    softness: float = 0.1
    name = title = "hub"
    meaning = "An item of the gallery is changed so that it comes first for queries that it has nothing to do with."
    citation = "zhang2024hubs"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.standins < 1 or not self.softness > 0:
            raise SpecError(f"standins={self.standins} must be at least 1 and softness={self.softness} above 0")

    def objective(self, references: References, *, seed: int) -> Objective:
        """The smooth share of foreign stand-ins that it comes first for, ``(N,)`` in (0, 1)."""
        gallery = references.gallery
        drawn = self._drawn(gallery, seed)
        points = gallery.embeddings[drawn]
        similarity = points @ gallery.embeddings.T
        usual = similarity.mean(1)
        similarity = similarity.scatter(1, drawn[:, None], -inf)
        # The rival of each stand-in is its nearest item; where that is the attacked item itself, the next one.
        rivals = similarity.topk(2, dim=1)
        # Some embeddings fill the sphere and some a small part of it: cosines mean nothing by themselves.
        scale = self.softness * (rivals.values[:, 0] - usual).clamp_min(1e-6)
        taken = gallery.ids[rivals.indices[:, 0]][None] == references.ids[:, None]
        rival = rivals.values[:, 1].where(taken, rivals.values[:, 0])  # (N, S)
        foreign = gallery.labels[drawn][None] != references.labels[:, None]
        count = foreign.sum(1).clamp_min(1)

        def value(embeddings: Tensor) -> Tensor:
            first = ((embeddings @ points.T - rival) / scale).sigmoid()
            return (first * foreign).sum(1) / count

        return value

    def _drawn(self, gallery: Gallery, seed: int) -> Tensor:
        count = min(self.standins, len(gallery))
        rows = np.sort(stream(seed, self.name, 0).choice(len(gallery), count, replace=False))
        return gallery.ids.new_tensor(rows)
