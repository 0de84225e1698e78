"""Ranking attacks that are not about moving drawn items: TMA, ES, LTM, GTM, GTT and FOA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robustdml.errors import SpecError
from robustdml.seeding import stream
from robustdml.values import check_fields

from .plain import PlainGoal
from .ranking import distance, drawn_near_rows, drawn_rows, near_rows, query_loss

if TYPE_CHECKING:  # what goals mean is listed without torch
    from torch import Tensor

    from robustdml.contracts import Objective, References

#: The values of ``compat``: the definition, or RobRank's published code with its faults, to compare with its tables.
COMPAT = ("off", "robrank")


@dataclass(frozen=True)
class TMA(PlainGoal):
    """Targeted mismatch: the largest cosine to an item drawn from the gallery (Tolias et al. 2019)."""

    name = "tma"
    title = "TMA"
    meaning = "The query is made as similar as possible to an item drawn from the gallery."
    measures = ("target_cosine",)
    citation = "tolias2019targeted"

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, 1)``."""
        from .search import listed

        items = len(references.gallery)
        return drawn_rows(listed(references), items, references.ids, 1, seed=seed, purpose=self.name)

    def objective(self, references: References, *, seed: int) -> Objective:
        """The cosine."""
        wanted = references.gallery.embeddings[self.target_rows(references, seed=seed)[:, 0]]
        return lambda embeddings: (embeddings * wanted).sum(1)


@dataclass(frozen=True)
class ES(PlainGoal):
    """ES: as far as possible from the clean embedding, by Euclidean distance.

    There is no gradient at the clean embedding itself. The distance is therefore taken to a point 0.001 beside it, in a
    direction drawn by seed and query. RobRank's distance, torch's ``pairwise_distance``, adds 1e-6 to every coordinate
    of the difference: its first step is in the direction of all ones, the same for every query.
    """

    name = "es"
    title = "ES"
    meaning = "The query's embedding is pushed as far away from its clean place as possible."
    measures = ("embedding_shift",)
    citation = "zhou2020adversarial"

    def objective(self, references: References, *, seed: int) -> Objective:
        """The distance."""
        size = references.embeddings.shape[1]
        drawn = np.stack([stream(seed, self.name, item).standard_normal(size) for item in references.ids.tolist()])
        beside = references.embeddings.new_tensor(drawn)
        origin = references.embeddings + 1e-3 * (beside / beside.norm(dim=1, keepdim=True))
        return lambda embeddings: ((embeddings - origin).square().sum(1) + 1e-12).sqrt()


@dataclass(frozen=True)
class ESRobRank(ES):
    """`ES` from where RobRank's published code starts: in the direction of all ones, the same for every query.

    A goal of its own, so that `ES` keeps its spec. That code reports as ES:D the shift before the last step, which
    is that of an attack of one step less (see `robustdml.evaluation.analyses.ers`).
    """

    name = "es_robrank"

    def objective(self, references: References, *, seed: int) -> Objective:
        """The distance, 1e-6 added to every coordinate of the difference."""
        clean = references.embeddings
        return lambda embeddings: (embeddings - clean + 1e-6).square().sum(1).sqrt()


def _check_compat(compat: str) -> None:
    if compat not in COMPAT:
        raise SpecError(f"compat={compat} is not known: {' or '.join(COMPAT)}")


@dataclass(frozen=True)
class LTM(PlainGoal):
    """LTM: every foreign item before every own one (the criterion of Wang et al. 2020, as RobRank states it).

    Args:
        compat: ``"robrank"`` counts the query itself as its own nearest item, as the published code does where the
            query is in the gallery: its mask has no effect.
    """

    compat: str = "off"
    name = "ltm"
    title = "LTM"
    meaning = "All items of other classes are brought before all items of the own class."
    citation = "wang2020transferable"

    def __post_init__(self) -> None:
        check_fields(self)
        _check_compat(self.compat)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus ``[max d(q, foreign) - min d(q, own)]+``."""
        from .search import farthest_and_nearest, own, relevant

        similarities = farthest_and_nearest(
            references, relevant(references) if self.compat == "robrank" else own(references)
        )

        def value(embeddings: Tensor) -> Tensor:
            furthest, nearest = (distance(similarity) for similarity in similarities(embeddings))
            return -(furthest - nearest).clamp_min(0.0)

        return value


@dataclass(frozen=True)
class GTM(PlainGoal):
    """GTM: towards the item of another class that was nearest to the clean query.

    Args:
        compat: ``"robrank"`` takes the item that the published code takes: the *place* of the nearest foreign item in
            the list of foreign items, used as a place in the gallery; foreign to the query's first hit, not to it.
    """

    compat: str = "off"
    name = "gtm"
    title = "GTM"
    meaning = "The query is brought to the item of another class that was nearest to it when clean."
    citation = "zhou2024adversarial"

    def __post_init__(self) -> None:
        check_fields(self)
        _check_compat(self.compat)

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, 1)``."""
        from .search import both, counts, foreign, listed

        gallery, others = references.gallery, listed(references)
        if self.compat == "off":
            return near_rows(references.embeddings, gallery.embeddings, foreign(references), 1)
        first = near_rows(references.embeddings, gallery.embeddings, others, 1)

        # The published mask leaves the query itself among the foreign items where its first hit is of another class,
        # at an infinite distance.
        def strange(part: slice) -> Tensor:
            return gallery.labels[first] != gallery.labels[None, part]

        nearest = near_rows(references.embeddings, gallery.embeddings, both(strange, others), 1)
        rows = nearest.new_tensor(range(len(gallery)))
        return counts(both(strange, lambda part: rows[part] < nearest), references.ids, len(gallery))[:, None]

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the distance to that item."""
        wanted = references.gallery.embeddings[self.target_rows(references, seed=seed)[:, 0]]
        return lambda embeddings: -((embeddings - wanted).square().sum(1) + 1e-12).sqrt()


@dataclass(frozen=True)
class GTT(PlainGoal):
    """GTT: push the first hit of the clean query to the back (QA- on it alone)."""

    name = "gtt"
    title = "GTT"
    meaning = "The first result of the clean query is pushed out of the top of the list."
    measures = ("first_hit_retained",)
    citation = "zhou2024adversarial"

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, 1)``, the first hit."""
        from .search import listed

        return near_rows(references.embeddings, references.gallery.embeddings, listed(references), 1)

    def objective(self, references: References, *, seed: int) -> Objective:
        """That of QA- with the first hit as its candidate."""
        return query_loss(references, self.target_rows(references, seed=seed), -1.0)


@dataclass(frozen=True)
class FOA(PlainGoal):
    """FOA: impose an order on items that the query finds (Zhou et al. 2021): two are swapped, more are shuffled.

    Args:
        candidates: c of the paper, at least 2.
    """

    candidates: int = 5
    name = "foa"
    meaning = "The order of some results is rearranged as the attacker wants it."
    measures = ("kendall_tau",)
    citation = "zhou2021practical"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.candidates < 2:
            raise SpecError(f"candidates={self.candidates} must be at least 2: an order needs two items")

    @property
    def title(self) -> str:
        """With the number of items."""
        return f"FOA c={self.candidates}"

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)`` in the order wanted, the first to be the nearest."""
        from .search import listed

        others, items = listed(references), references.gallery.embeddings
        rows = drawn_near_rows(references, references.gallery, others, self.candidates, seed=seed, purpose=self.name)
        if self.candidates > 2:
            return rows
        similarity = (references.embeddings[:, None] * items[rows]).sum(2)
        return rows.gather(1, similarity.argsort(dim=1))

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean of ``[d(q, c_i) - d(q, c_j)]+`` over the pairs that c_i shall precede c_j in."""
        wanted = references.gallery.embeddings[self.target_rows(references, seed=seed)]
        first, then = references.ids.new_tensor(np.stack(np.triu_indices(self.candidates, k=1)))

        def value(embeddings: Tensor) -> Tensor:
            apart = ((embeddings[:, None] - wanted).square().sum(2) + 1e-12).sqrt()
            return -(apart[:, first] - apart[:, then]).clamp_min(0.0).mean(1)

        return value
