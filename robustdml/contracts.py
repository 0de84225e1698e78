"""The contracts between the evaluator, the trainer and the attacks.

Shapes: N query images of a batch, M gallery items, D embedding dimensions, T targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustdml.importing import code_digest
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel


class ListRules(Protocol):
    """Who is a right answer to a query, and who is left out of its list (`robustdml.data.protocol.Protocol`)."""

    def relevant(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For arrays of ids that broadcast."""
        ...

    def ignored(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For arrays of ids that broadcast."""
        ...


@dataclass(frozen=True)
class Gallery:
    """The clean database that queries are matched against.

    Args:
        embeddings: ``(M, D)`` float32, each of length 1.
        labels: ``(M,)`` int64.
        ids: ``(M,)`` int64, unique.
        images: loads the images ``(K, 3, H, W)`` in [0, 1] of gallery rows ``(K,)``; None where there are none at hand
            (a training batch).
        rules: None where items of equal label are relevant and the query itself is left out.
    """

    embeddings: Tensor
    labels: Tensor
    ids: Tensor
    images: Callable[[Tensor], Tensor] | None = None
    rules: ListRules | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class References:
    """What a white-box attacker knows beside the model: the gallery, and who the queries of this batch are.

    Args:
        gallery: the database; a query that is also in it must not count as its own match (see ``ignored``).
        embeddings: ``(N, D)``, the clean embeddings of the queries.
        labels: ``(N,)`` int64.
        ids: ``(N,)`` int64.
        asking: for an attack on gallery items, all the clean queries of the evaluation; None stands for the gallery
            (see ``queries``).
    """

    gallery: Gallery
    embeddings: Tensor
    labels: Tensor
    ids: Tensor
    asking: Gallery | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ignored(self) -> Tensor:
        """``(N, M)`` bool: the gallery rows that are not in the query's list: itself, and what the rules leave out."""
        return self.related(slice(None))[1]

    @property
    def relevant(self) -> Tensor:
        """``(N, M)`` bool: the gallery rows of the query's class, and the ``ignored``; others are wrong answers."""
        return self.related(slice(None))[0]

    def related(self, part: slice) -> tuple[Tensor, Tensor]:
        """`relevant` and `ignored` of a part of the gallery's rows, C of them: both ``(N, C)`` bool."""
        gallery, rules = self.gallery, self.gallery.rules
        if rules is None:
            ignored = self.ids[:, None] == gallery.ids[None, part]
            return self.labels[:, None] == gallery.labels[None, part], ignored
        # Rules are asked on the host, of ids alone.
        asked = self.ids.cpu().numpy()[:, None], gallery.ids[part].cpu().numpy()[None]
        relevant, ignored = (
            torch.from_numpy(answers).to(self.ids.device) for answers in (rules.relevant(*asked), rules.ignored(*asked))
        )
        return relevant | ignored, ignored

    @property
    def queries(self) -> Gallery:
        """Who searches the gallery: the queries where they are known, else its items, each for the others."""
        return self.gallery if self.asking is None else self.asking

    def rows(self, chosen: Tensor) -> References:
        """The references of a part of the batch; ``chosen`` holds indices or a mask."""
        return References(self.gallery, self.embeddings[chosen], self.labels[chosen], self.ids[chosen], self.asking)


class Attack(Protocol):
    """An attack on an embedding model: a frozen configuration that is called.

    Guarantees (tested for every registered attack):
        * the result has the shape of ``images``, is finite, and needs no gradient;
        * the model's mode, parameters, gradients and buffers are as before, and so is every global random state;
        * the same arguments give the same result;
        * with eps = 0 the result is ``images``.

    An attack never measures itself: the evaluator enforces the budget and judges by retrieval.
    """

    @property
    def threat(self) -> ThreatModel:
        """The budget."""
        ...

    def entry(self) -> AttackEntry:
        """Its row in the results, without the budget."""
        ...

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """The gallery rows that the attack is about, ``(N, T)`` int64, or None for an untargeted attack.

        Each query is pushed towards them (or, by goals that say so, away from them).
        """
        ...

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """Attack ``images``, ``(N, 3, H, W)`` in [0, 1]; ``model`` maps them to embeddings ``(N, D)``."""
        ...


@runtime_checkable
class FittedAttack(Attack, Protocol):
    """An attack that computes one change for all images first, from gallery images alone (a universal perturbation).

    Called without having been fitted, it fits itself for the batch, and leaves the batch's own images out.
    """

    def fitted(self, model: nn.Module, gallery: Gallery, avoid: Tensor, *, seed: int) -> Attack:
        """The attack with its change computed, from gallery items whose ids are not in ``avoid``, ``(K,)`` int64."""
        ...


@runtime_checkable
class GalleryAttack(Attack, Protocol):
    """An attack on items of the gallery: it is called with their images, and references that describe *them*.

    ``target_rows`` are rows of ``References.queries``: the queries that each item is aimed at, or None.
    """

    def poisoned_rows(self, gallery: Gallery, *, seed: int) -> Tensor:
        """The gallery rows that it changes, ``(K,)`` int64, all different."""
        ...


@runtime_checkable
class TwoSidedAttack(Attack, Protocol):
    """An attack on the query after items of the gallery were changed: its references hold the changed gallery."""

    @property
    def poison(self) -> GalleryAttack:
        """The attack on the gallery, which comes first."""
        ...


@dataclass(frozen=True)
class Stage:
    """A stage of a `StagedAttack`.

    Args:
        attack: what is run.
        closed: in [0, 1]: on which queries. Those are given up of whose way, from the margin when clean to a margin of
            0, no stage before came so far.
        sample: above 0, the stage waits until all queries have met the stages before it, and is run on so many of those
            that are left, evenly from the classes; on all of them where it breaks any. Such stages come last.
    """

    attack: Attack
    closed: float = 0.0
    sample: int = 0


@runtime_checkable
class StagedAttack(Attack, Protocol):
    """An attack in stages: each is run on those queries alone that true retrieval still answers rightly.

    The evaluator runs and judges the stages; of a query that holds, the image with the highest margin counts. Called
    as an attack, it goes by the margin of the references instead.
    """

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In their order, the attacks of all within the ball of ``threat``."""
        ...


@dataclass(frozen=True)
class Doubts:
    """What was found wrong with the gradients of a model, and what is left to an attacker.

    Args:
        draws: forward passes of which the mean is to be taken, for a model that draws at random; else 1.
        misled: whether gradients are missing, or do not say where to go.
        own: whether there are gradients at all.
        straight: values of ``around`` for which `robustdml.models.Straightened` has gradients, the best first.
        trusted: whether those of the first pass all checks.
        surrogates: other models of the run, by name.
    """

    draws: int = 1
    misled: bool = False
    own: bool = True
    straight: tuple[bool, ...] = ()
    trusted: bool = False
    surrogates: tuple[tuple[str, nn.Module], ...] = ()


@runtime_checkable
class AdaptableAttack(StagedAttack, Protocol):
    """An attack in stages that goes other ways on models whose gradients cannot be trusted."""

    def adapted(self, doubts: Doubts) -> StagedAttack:
        """The same attack, of the same entry, with stages for such a model."""
        ...


@runtime_checkable
class IdentifiedAttack(Attack, Protocol):
    """An attack whose images depend on something that its spec only names, such as a surrogate model."""

    def identity(self) -> str:
        """A hash of the content of what the spec names: another one makes it another attack."""
        ...


def foreign_code(thing: Any) -> str:
    """A hash of the code that an attack is made of and that is not this project's; empty where there is none.

    Its own class counts, and whatever it holds: goals, callables and what these hold, other attacks.
    """
    found, waiting, seen = set[str](), [thing], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, Tensor | nn.Module | ModuleType):
            continue
        seen.add(id(part))
        if not isinstance(part, list | tuple | set | frozenset | dict):
            found.add(code_digest(part if isinstance(part, type | FunctionType) else type(part)))
        waiting += _held(part)
    return " ".join(sorted(found - {""}))


def _held(part: Any) -> Iterator[Any]:
    """What an object holds that may be code, or hold some."""
    if isinstance(part, list | tuple | set | frozenset):
        yield from part
    elif isinstance(part, dict):
        yield from part.values()
    elif isinstance(part, FunctionType):
        yield from (part.__closure__, part.__defaults__, part.__kwdefaults__)
    elif isinstance(part, CellType):
        yield from [part.cell_contents] if part != CellType() else []
    elif isinstance(part, MethodType):
        yield from (part.__func__, part.__self__)
    elif isinstance(part, partial):
        yield from (part.func, part.args, part.keywords)
    elif not isinstance(part, type):
        yield from getattr(part, "__dict__", {}).values()
        for kind in type(part).__mro__:
            slots = vars(kind).get("__slots__", ())
            yield from (getattr(part, name, None) for name in ((slots,) if isinstance(slots, str) else slots))


#: Maps embeddings ``(N, D)`` of attacked images to a value per image ``(N,)``, differentiably; higher is worse.
Objective = Callable[[Tensor], Tensor]


class Goal(Protocol):
    """What an attacker wants of an image's embedding, as a value to raise, and all that is to be said of it."""

    @property
    def name(self) -> str:
        """Its word in specs."""
        ...

    @property
    def title(self) -> str:
        """As tables and papers write it."""
        ...

    @property
    def meaning(self) -> str:
        """One sentence for readers who never attacked anything."""
        ...

    @property
    def measures(self) -> tuple[str, ...]:
        """What is measured beside retrieval: names of `robustdml.evaluation.measures.MEASURES`."""
        ...

    @property
    def citation(self) -> str:
        """The key of the paper that it is from; empty where it is from none."""
        ...

    @property
    def flat_at_clean(self) -> bool:
        """Whether the gradient is exactly zero at the clean image, so that an attack must start beside it."""
        ...

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """The gallery rows aimed at, ``(N, T)`` int64, or None."""
        ...

    def objective(self, references: References, *, seed: int) -> Objective:
        """The value to raise."""
        ...


#: Goals by name, each built from its own parameters: how the core, which knows none, is handed them.
GoalClasses = Mapping[str, Callable[..., Goal]]


def batch_references(embeddings: Tensor, labels: Tensor) -> References:
    """The references of a training batch, in which every image is query and gallery item at once."""
    ids = torch.arange(len(labels), device=labels.device)
    return References(Gallery(embeddings, labels, ids), embeddings, labels, ids)
