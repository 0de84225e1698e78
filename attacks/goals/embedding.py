"""What an attack on an embedding wants: a value per image that a gradient loop raises.

Shapes: N queries, M gallery items, D dimensions, T targets. Embeddings have length 1, so that cosine similarity s and
squared distance are one thing, ``d^2 = 2 - 2 s``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustdml.contracts import References
from robustdml.errors import SpecError

from .targets import check_choice, choose_targets

#: Maps embeddings ``(N, D)`` of the attacked images to a value per image ``(N,)``; higher is worse for the model.
Objective = Callable[[Tensor], Tensor]


class Aim(Protocol):
    """Where an attack pushes a query: towards certain gallery items, or nowhere in particular."""

    @property
    def name(self) -> str:
        """The goal's word in specs."""
        ...

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """The gallery rows aimed at, ``(N, T)`` int64, or None."""
        ...


class Goal(Aim, Protocol):
    """What the attacker wants of a query's embedding, as a value that a gradient loop can raise."""

    @property
    def flat_at_clean(self) -> bool:
        """Whether the gradient is exactly zero at the clean image, so that an attack must start beside it."""
        ...

    def objective(self, references: References, *, seed: int) -> Objective:
        """The value to raise."""
        ...


def margin_to(references: References, rivals: Tensor) -> Objective:
    """Similarity to the nearest of the rivals, ``(N, M)`` bool, minus that to the nearest own item."""
    gallery = references.gallery.embeddings
    own_class = references.same_class & ~references.own

    def value(embeddings: Tensor) -> Tensor:
        similarity = embeddings @ gallery.T
        nearest_rival = similarity.masked_fill(~rivals, -torch.inf).amax(1)
        nearest_own = similarity.masked_fill(~own_class, -torch.inf).amax(1)
        return nearest_rival - nearest_own

    return value


@dataclass(frozen=True)
class Untargeted:
    """Away from the own class, in the terms of a classifier attack, which brings its own loss."""

    name = "untargeted"

    def target_rows(self, references: References, *, seed: int) -> None:
        """None."""


@dataclass(frozen=True)
class Shift:
    """Away from the query's own clean embedding: raises the squared distance (RobRank's ES objective)."""

    name = "shift"
    flat_at_clean = True

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: the goal is untargeted."""

    def objective(self, references: References, *, seed: int) -> Objective:
        """Squared distance to the clean embedding."""
        clean = references.embeddings
        return lambda embeddings: (embeddings - clean).square().sum(1)


@dataclass(frozen=True)
class Margin:
    """Past the decision of retrieval itself: similarity to the nearest foreign item minus that to the nearest own one.

    Above 0 the first hit is wrong. Both neighbours are searched anew at every step over the whole gallery: a fixed pair
    goes stale as soon as another item comes nearer.
    """

    name = "margin"
    flat_at_clean = False

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: the goal is untargeted."""

    def objective(self, references: References, *, seed: int) -> Objective:
        """Nearest foreign minus nearest own similarity."""
        return margin_to(references, ~references.same_class)


@dataclass(frozen=True)
class NearestNegative:
    """Towards whatever foreign item is nearest, searched anew at every step; the own class plays no part.

    Corrects the objective of RobRank's GTM, which fixes the item before the first step.
    """

    name = "nearest_negative"
    flat_at_clean = False

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: the item changes from step to step."""

    def objective(self, references: References, *, seed: int) -> Objective:
        """Similarity to the nearest foreign item."""
        gallery, same = references.gallery.embeddings, references.same_class
        return lambda embeddings: (embeddings @ gallery.T).masked_fill(same, -torch.inf).amax(1)


@dataclass(frozen=True)
class _Attract:
    """Towards gallery items of other classes: lowers the mean distance to the targets (MDProp, arXiv 2211.16253).

    The published loss squares this mean; for a step along the sign of the gradient that makes no difference.
    """

    def _objective(self, references: References, targets: Tensor) -> Objective:
        wanted = references.gallery.embeddings[targets]  # (N, T, D)

        def value(embeddings: Tensor) -> Tensor:
            # The small constant keeps the gradient of the root finite where a target is reached.
            return -((embeddings[:, None] - wanted).square().sum(2) + 1e-12).sqrt().mean(1)

        return value


@dataclass(frozen=True)
class STAX(_Attract):
    """Single-targeted: towards one item of another class (MDProp, arXiv 2211.16253).

    Args:
        choose: which item (see `robustdml.attacks.goals.targets.choose_targets`); MDProp draws it at random.
        item: with ``choose="given"``, the id of the gallery item that every query is pushed towards.

    Raises:
        SpecError: ``choose`` is not known, or does not go with ``item``.
    """

    choose: str = "random"
    item: int | None = None
    name = "stax"
    flat_at_clean = False

    def __post_init__(self) -> None:
        check_choice(self.choose, self._given)

    @property
    def _given(self) -> tuple[int, ...]:
        return () if self.item is None else (self.item,)

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, 1)``."""
        return choose_targets(references, 1, self.choose, self._given, seed=seed)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the distance to the target."""
        return self._objective(references, self.target_rows(references, seed=seed))


@dataclass(frozen=True)
class MTAX(_Attract):
    """Multi-targeted: towards several items of other classes at once (MDProp, arXiv 2211.16253).

    Args:
        targets: T, the number of targets, at least 1; with ``choose="given"`` it is that of ``items``.
        choose: which items (see `robustdml.attacks.goals.targets.choose_targets`); MDProp draws them at random.
        items: with ``choose="given"``, the ids of the gallery items that every query is pushed towards.

    Raises:
        SpecError: ``targets`` is below 1, or ``choose`` is not known or does not go with ``items``.
    """

    targets: int = 5
    choose: str = "random"
    items: tuple[int, ...] = ()
    name = "mtax"
    flat_at_clean = False

    def __post_init__(self) -> None:
        if self.targets < 1:
            raise SpecError(f"targets={self.targets}: an attack needs at least one target")
        check_choice(self.choose, self.items)

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, T)``."""
        return choose_targets(references, self.targets, self.choose, self.items, seed=seed)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean distance to the targets."""
        return self._objective(references, self.target_rows(references, seed=seed))
