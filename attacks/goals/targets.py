"""Which gallery items an attack aims at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robustdml.errors import AttackSkipped, SpecError
from robustdml.seeding import stream

if TYPE_CHECKING:  # what goals mean is listed without torch
    from torch import Tensor

    from robustdml.contracts import References

#: How targets may be chosen.
CHOICES = ("random", "nearest", "hardest", "given")

#: An attack aims at no more items: there are their embeddings for every query.
MOST_TARGETS = 10_000


def check_choice(choose: str, given: tuple[int, ...]) -> None:
    """Refuse a choice that cannot be made.

    Raises:
        SpecError: no such choice, or the ids given and the choice do not go together.
    """
    if choose not in CHOICES:
        raise SpecError(f"choose={choose} is not known: {', '.join(CHOICES)}")
    if choose == "given" and not given:
        raise SpecError("choose=given needs the ids of gallery items: item=17 (stax) or items=(17, 4) (mtax)")
    if choose != "given" and given:
        raise SpecError(f"ids of gallery items (item, items) are used with choose=given only, not choose={choose}")


def choose_targets(
    references: References, count: int, choose: str, given: tuple[int, ...] = (), *, seed: int
) -> Tensor:
    """The gallery rows that each query is pushed towards, ``(N, count)`` int64.

    Args:
        count: how many of them; with ``"given"``, as many as there are ids.
        choose: ``"random"``: items of other classes than the query's, drawn by seed and query. ``"nearest"``,
            ``"hardest"``: the items of other classes nearest to the clean query, and farthest from it. ``"given"``:
            those of the ids ``given``, the same for all queries, whatever class they are of.

    Raises:
        AttackSkipped: the gallery has too few rows of other classes.
        SpecError: it has none with a given id.
    """
    if choose == "given":
        return _given(references, given)
    if choose == "random":
        return foreign_targets(references, count, seed=seed)
    from .search import foreign, nearest_rows

    # The farthest are the nearest to the point opposite.
    points = -references.embeddings if choose == "hardest" else references.embeddings
    similarity, rows = nearest_rows(points, references.gallery.embeddings, foreign(references), count)
    _check_count(int(similarity.isfinite().sum(1).min()), count)
    return rows


def foreign_targets(references: References, count: int, *, seed: int) -> Tensor:
    """Draw ``count`` different gallery rows of other classes than the query's, for each query: ``(N, count)`` int64.

    The draw depends on ``seed`` and the query's id alone.

    Raises:
        AttackSkipped: the gallery has fewer rows of other classes.
    """
    from .search import counts, foreign, numbered

    wanted, items = foreign(references), len(references.gallery)
    numbers = []
    for candidates, item in zip(counts(wanted, references.ids, items).tolist(), references.ids.tolist(), strict=True):
        _check_count(candidates, count)
        numbers.append(stream(seed, "targets", item).choice(candidates, count, replace=False))
    return numbered(wanted, references.ids.new_tensor(np.stack(numbers)), items)


def friendly_targets(references: References, count: int, *, seed: int) -> Tensor:
    """Draw ``count`` gallery rows of the query's own class, for each query: ``(N, count)`` int64.

    A class with fewer others than ``count`` gives them more than once; a query that is alone in its class gets itself.

    Raises:
        SpecError: the gallery has no item of the class.
    """
    from .search import counts, ignored, numbered, own

    ids, items = references.ids, len(references.gallery)
    friends, selves = own(references), ignored(references)
    others = counts(friends, ids, items)
    numbers = []
    for found, alone, item in zip(others.tolist(), counts(selves, ids, items).tolist(), ids.tolist(), strict=True):
        candidates = found or alone
        if not candidates:
            raise SpecError("an unadversarial image needs an item of its own class in the gallery")
        numbers.append(stream(seed, "targets", item).choice(candidates, count, replace=candidates < count))
    places = ids.new_tensor(np.stack(numbers))
    return numbered(friends, places, items).where(others[:, None] > 0, numbered(selves, places, items))


def _check_count(found: float, count: int) -> None:
    if found < count:
        raise AttackSkipped(f"{count} targets of other classes asked for, the gallery has {found:g}: ask for fewer")


def _given(references: References, given: tuple[int, ...]) -> Tensor:
    rows = []
    for item in given:
        found = (references.gallery.ids == item).nonzero().flatten()
        if not len(found):
            raise SpecError(f"the gallery has no item with the id {item}: choose one of the ids in its reports")
        rows.append(int(found[0]))
    return references.ids.new_tensor(rows).expand(len(references), -1)
