"""Goals that aim at no item in particular: away from where the query is, or past whatever is nearest.

Shapes: N queries, M gallery items, D dimensions. Embeddings have length 1, so that cosine similarity s and squared
distance are one thing, ``d^2 = 2 - 2 s``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .plain import PlainGoal

if TYPE_CHECKING:  # what goals mean is listed without torch
    from robustdml.contracts import Objective, References


@dataclass(frozen=True)
class Shift(PlainGoal):
    """Away from the query's own clean embedding: raises the squared distance (RobRank's ES objective)."""

    name = title = "shift"
    meaning = "The query's embedding is pushed as far away from its clean place as possible, wherever that leads."
    measures = ("embedding_shift",)
    flat_at_clean = True

    def objective(self, references: References, *, seed: int) -> Objective:
        """Squared distance to the clean embedding."""
        clean = references.embeddings
        return lambda embeddings: (embeddings - clean).square().sum(1)


@dataclass(frozen=True)
class Margin(PlainGoal):
    """Past the decision of retrieval itself: similarity to the nearest foreign item minus that to the nearest own one.

    Above 0 the first hit is wrong. Both neighbours are searched anew at every step over the whole gallery: a fixed pair
    goes stale as soon as another item comes nearer.
    """

    name = title = "margin"
    meaning = (
        "An item of another class is brought nearer to the query than every item of its own class, which is what makes "
        "the first result wrong."
    )

    def objective(self, references: References, *, seed: int) -> Objective:
        """Nearest foreign minus nearest own similarity."""
        from .search import margin_to

        return margin_to(references)


@dataclass(frozen=True)
class Untargeted(Margin):
    """Away from the own class, in the terms of a classifier attack, which brings its own loss for the margin."""

    name = title = "untargeted"
    meaning = "A classifier is made of the gallery, and its answer for the query is made wrong."


@dataclass(frozen=True)
class NearestNegative(PlainGoal):
    """Towards whatever foreign item is nearest, searched anew at every step; the own class plays no part.

    Corrects the objective of RobRank's GTM, which fixes the item before the first step.
    """

    name = "nearest_negative"
    title = "nearest-negative"
    meaning = "The query is brought nearer to whatever item of another class is nearest."

    def objective(self, references: References, *, seed: int) -> Objective:
        """Similarity to the nearest foreign item."""
        from .search import nearest_foreign

        return nearest_foreign(references)
