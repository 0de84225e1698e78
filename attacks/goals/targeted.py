"""Goals that aim at chosen items: of other classes (STAX and MTAX), or of the own one (unadversarial images).

Shapes: N queries, D dimensions, T targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from robustdml.errors import SpecError
from robustdml.values import check_fields

from .plain import PlainGoal
from .targets import MOST_TARGETS, check_choice, choose_targets, friendly_targets

if TYPE_CHECKING:  # what goals mean is listed without torch
    from torch import Tensor

    from robustdml.contracts import Objective, References


@dataclass(frozen=True)
class _Attract(PlainGoal, ABC):
    """Towards gallery items: lowers the mean distance to the targets (MDProp, arXiv 2211.16253).

    The published loss squares this mean; for a step along the sign of the gradient that makes no difference.
    """

    citation: ClassVar = "singh2023mdprop"

    @abstractmethod
    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, T)``."""

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean distance to the targets."""
        wanted = references.gallery.embeddings[self.target_rows(references, seed=seed)]  # (N, T, D)

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
    name = title = "stax"
    meaning = "Single target: the query is brought near one chosen item of another class."

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice(self.choose, self._given)

    @property
    def _given(self) -> tuple[int, ...]:
        return () if self.item is None else (self.item,)

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, 1)``."""
        return choose_targets(references, 1, self.choose, self._given, seed=seed)


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
    name = title = "mtax"
    meaning = "Multiple targets: the query is brought near several chosen items of other classes at once."

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.targets <= MOST_TARGETS:
            raise SpecError(f"targets={self.targets}: an attack needs at least one target, and at most {MOST_TARGETS}")
        check_choice(self.choose, self.items)

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, T)``."""
        return choose_targets(references, self.targets, self.choose, self.items, seed=seed)


@dataclass(frozen=True)
class Unadversarial(_Attract):
    """Towards items of the own class, as training examples (Salman et al. 2021; MDProp's last kind).

    No attack: such an image is easier to retrieve than the clean one. It is built by name and left out of every suite.

    Args:
        targets: T, how many of them, drawn by seed and query, at least 1; a class with fewer others gives them more
            than once, and a query that is alone in its class stays as it is.

    Raises:
        SpecError: ``targets`` is below 1.
    """

    targets: int = 1
    name = title = "unadversarial"
    meaning = "The image is brought near items of its own class, which makes it easier to retrieve: no attack."

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.targets <= MOST_TARGETS:
            raise SpecError(
                f"targets={self.targets}: an unadversarial image needs at least one target, and at most {MOST_TARGETS}"
            )

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, T)``, gallery rows of the own class other than the query itself (its own row where there is none)."""
        return friendly_targets(references, self.targets, seed=seed)
