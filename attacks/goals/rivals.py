"""The margin against chosen foreign items or classes, each in its turn.

The margin itself is the maximum of these over all foreign items, and a climber of that maximum follows whichever item
is nearest now. Against one item the way is plainer: of a linear embedding it is a concave function of the image. An
attack that takes the turns one after the other finds what a climb of the maximum passes by.

Shapes: N queries, M gallery items, D dimensions, R rivals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from robustdml.errors import SpecError
from robustdml.values import check_fields

from .plain import PlainGoal

if TYPE_CHECKING:  # what goals mean is listed without torch
    from torch import Tensor

    from robustdml.contracts import Goal, Objective, References


@dataclass(frozen=True)
class ItemMargin(PlainGoal):
    """The margin against foreign items: similarity to the nearest of them minus that to the nearest own item.

    Args:
        rivals: R, how many foreign items, those nearest to the clean query, at least 1. Where the gallery has fewer,
            they come round again.
        skip: how many of the nearest are passed over, at least 0.
        items: ids of gallery items that take the place of the nearest, the same for all queries; those of a query's
            own class are no rivals to it.

    Raises:
        SpecError: a value out of its range.
    """

    rivals: int = 10
    skip: int = 0
    items: tuple[int, ...] = ()
    name = "item_margin"
    title = "item-margin"
    meaning = (
        "One after the other, each of the nearest items of other classes is brought nearer to the query than every "
        "item of its own class."
    )

    def __post_init__(self) -> None:
        check_fields(self)
        _check(self.rivals, self.skip)

    @property
    def turns(self) -> tuple[ItemMargin, ...]:
        """One item each, the nearest first."""
        if self.items:
            return tuple(replace(self, items=(item,)) for item in self.items)
        return tuple(replace(self, rivals=1, skip=self.skip + turn) for turn in range(self.rivals))

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """The items, ``(N, R)``."""
        if self.items:
            return _given(references, "item", self.items, references.gallery.ids).expand(len(references), -1)
        from .search import foreign, nearest_rows

        count = self.skip + self.rivals
        similarity, rows = nearest_rows(
            references.embeddings, references.gallery.embeddings, foreign(references), count
        )
        return _in_order(similarity, rows, self.skip, self.rivals)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Nearest rival minus nearest own similarity."""
        from .search import at_rows, both, foreign, margin_to

        rows = self.target_rows(references, seed=seed)
        return margin_to(references, both(at_rows(rows), foreign(references)))


@dataclass(frozen=True, eq=False)
class ChosenItem(PlainGoal):
    """The margin against one foreign item for each query, chosen before.

    Args:
        rows: ``(K,)``, gallery rows.
        ids: ``(K,)``, the queries that they are for.
    """

    rows: Tensor
    ids: Tensor
    name, title, meaning = ItemMargin.name, ItemMargin.title, ItemMargin.meaning

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, 1)``."""
        place = (references.ids[:, None] == self.ids[None]).int().argmax(1)
        return self.rows[place][:, None]

    def objective(self, references: References, *, seed: int) -> Objective:
        """Similarity to the item minus that to the nearest own one."""
        from .search import at_rows, margin_to

        return margin_to(references, at_rows(self.target_rows(references, seed=seed)))


@dataclass(frozen=True)
class ClassMargin(PlainGoal):
    """The margin against foreign classes: similarity to the nearest of their items minus that to the nearest own item.

    Args:
        rivals: R, how many foreign classes, those with the nearest items to the clean query, at least 1. Where the
            gallery has fewer, they come round again.
        skip: how many of the nearest are passed over, at least 0.
        classes: labels that take the place of the nearest classes, the same for all queries; a query's own class is no
            rival to it.

    Raises:
        SpecError: a value out of its range.
    """

    rivals: int = 4
    skip: int = 0
    classes: tuple[int, ...] = ()
    name = "class_margin"
    title = "class-margin"
    meaning = (
        "One after the other, each of the nearest other classes has an item brought nearer to the query than every "
        "item of its own class."
    )

    def __post_init__(self) -> None:
        check_fields(self)
        _check(self.rivals, self.skip)

    @property
    def turns(self) -> tuple[ClassMargin, ...]:
        """One class each, the nearest first."""
        if self.classes:
            return tuple(replace(self, classes=(label,)) for label in self.classes)
        return tuple(replace(self, rivals=1, skip=self.skip + turn) for turn in range(self.rivals))

    def objective(self, references: References, *, seed: int) -> Objective:
        """Nearest item of the rival classes minus nearest own similarity."""
        from .search import both, foreign, margin_to, nearest_by_class

        gallery = references.gallery
        labels, class_of = gallery.labels.unique(return_inverse=True)
        if self.classes:
            rows = _given(references, "class", self.classes, labels).expand(len(references), -1)
        else:
            rows = nearest_places(nearest_by_class(references, class_of, len(labels)), self.skip, self.rivals)
        chosen = (labels != labels).expand(len(references), -1).scatter(1, rows, True)
        return margin_to(references, both(lambda part: chosen[:, class_of[part]], foreign(references)))


def in_turn(goal: Goal) -> tuple[Goal, ...]:
    """The goals that a goal consists of, of which any one suffices, in the order to try them; else the goal itself."""
    return goal.turns if isinstance(goal, ItemMargin | ClassMargin) else (goal,)


def _check(rivals: int, skip: int) -> None:
    if rivals < 1 or skip < 0:
        raise SpecError(f"rivals={rivals} must be at least 1 and skip={skip} at least 0")


def nearest_places(similarity: Tensor, skip: int, count: int) -> Tensor:
    """``(N, count)`` places of the highest values after the ``skip`` highest; -inf stands for what may not be taken."""
    nearest, order = similarity.topk(min(skip + count, similarity.shape[1]), dim=1)
    return _in_order(nearest, order, skip, count)


def _in_order(similarity: Tensor, order: Tensor, skip: int, count: int) -> Tensor:
    """Of the nearest, ``(N, skip + count)`` or all that there are, those that are not skipped; too few come round."""
    allowed = similarity.isfinite().sum(1, keepdim=True)
    if not bool(allowed.all()):
        raise SpecError("the gallery has no item of another class than the query's: there is nothing to aim at")
    places = allowed.new_tensor(range(skip, skip + count))
    return order.gather(1, places % allowed)


def _given(references: References, kind: str, wanted: tuple[int, ...], known: Tensor) -> Tensor:
    places = []
    for value in wanted:
        found = (known == value).nonzero().flatten()
        if not len(found):
            raise SpecError(f"the gallery has no {kind} {value}: choose one that is in it")
        places.append(int(found[0]))
    return known.new_tensor(places)
