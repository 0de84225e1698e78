"""The standard evaluation: a fixed cascade of attacks on the margin, each on the queries that the last left right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustdml.contracts import Attack, Doubts, Goal, References, Stage
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from ..attack_entry import native_entry
from ..goals.rivals import ClassMargin, ItemMargin
from ..goals.untargeted import Margin
from .geometry import check_norm
from .gradient import Best
from .momentum import Momentum
from .square import Square
from .straight_through import StraightThrough
from .transfer import Transfer

#: What is raised by every change of a stage, however small: results of two versions are not comparable.
VERSION = 1

# Items that could not win even if leads grew by this share faster than by the linear model are not tried.
_SLACK = 0.25

# How much of the way to a margin of 0 the stages before must have gone for single items, for classes and for longer
# runs against items to be worth their cost. Measured, with room to spare: see "What is given up" of docs/standard.md.
_ITEMS, _CLASSES, _LONGER = 0.25, 0.6, 0.9

# Images that the model is asked about for each query where its gradients cannot be trusted.
_QUERIES = {"quick": 300, "standard": 1000, "thorough": 5000}


@dataclass(frozen=True)
class Cascade:
    """The evaluation of `robustdml.attacks.SUITES`' ``standard``, free of parameters but its strength.

    The margin is a maximum over foreign items, which a climber of that maximum need not reach: against one item the way
    is plainer, and for a linear embedding concave. So the margin comes first, which breaks most of what can be broken;
    then, one by one, the items that can come ahead by a linear model of the embedding, the nearest classes, and the
    items again with more steps. What the stages before brought too little of the way is given up, which
    ``"thorough"`` never does. Last, squares are asked for by scores alone, of a sample of what is left: where they
    break any, gradients have misled, and all that is left meets them.

    Args:
        eps: budget, in pixels of [0, 1].
        strength: ``"quick"``, ``"standard"`` or ``"thorough"``: points on the curve of strength against cost (see
            docs/standard.md).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        version: of the cascade; only `VERSION` can be run, and results carry it.

    Raises:
        SpecError: no such strength, norm or version.
    """

    eps: float
    strength: Literal["quick", "standard", "thorough"] = "standard"
    norm: str = "linf"
    version: int = VERSION
    #: Of the model at hand: see `adapted`.
    doubts: Doubts | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.strength not in {"quick", "standard", "thorough"}:
            raise SpecError(f"strength={self.strength} must be quick, standard or thorough")
        check_norm(self.norm)
        if self.version != VERSION:
            raise SpecError(f"version={self.version} of the cascade is not known: this robustdml has {VERSION}")

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps."""
        return ThreatModel(self.eps, self.norm)

    def adapted(self, doubts: Doubts) -> Cascade:
        """See `robustdml.contracts.AdaptableAttack`.

        Of a model that draws at random the mean of its gradients is climbed (expectation over transformation, Athalye
        et al. 2018), as far as it goes. Where gradients mislead, straight-through ones take their place if they pass
        the checks; if not, they are tried beside the model's own. Then come images made on the other models, and a
        search by scores alone.
        """
        return replace(self, doubts=doubts)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """See `robustdml.contracts.StagedAttack`."""
        return self._ordinary if self.doubts is None else tuple(self._doubtful(self.doubts))

    @property
    def _ordinary(self) -> tuple[Stage, ...]:
        first = Stage(self._mi(Margin()))
        if self.strength == "quick":
            return first, Stage(self._mi(ItemMargin(3), predict=16, slack=_SLACK))
        chosen = ItemMargin(10)
        if self.strength == "standard":
            return (
                first,
                Stage(self._mi(chosen, predict=24, whole=64, slack=_SLACK), closed=_ITEMS),
                Stage(self._mi(ClassMargin(4)), closed=_CLASSES),
                Stage(self._mi(chosen, predict=24, whole=64, slack=_SLACK, steps=100), closed=_LONGER),
                *self._by_scores(sample=16, queries=300),
            )
        return (
            first,
            Stage(self._mi(ItemMargin(20), predict=64)),
            Stage(self._mi(ClassMargin(4))),
            Stage(self._mi(chosen)),
            # The margin against an item is the least of many; with less momentum, climbs zigzag between them.
            Stage(self._mi(ItemMargin(20), predict=64, slack=_SLACK, steps=500, momentum=0.9)),
            Stage(self._mi(Margin(), steps=100, restarts=3)),
            *self._by_scores(sample=64, queries=1000),
        )

    def _by_scores(self, *, sample: int, queries: int) -> tuple[Stage, ...]:
        """What gradients break nothing of should not fall to less knowledge."""
        return (Stage(Square(self.eps, queries=queries, norm=self.norm), sample=sample),)

    def _doubtful(self, doubts: Doubts) -> Iterator[Stage]:
        if doubts.draws > 1:
            climbs = [self._mi(goal, samples=doubts.draws, stop=False) for goal in (Margin(), ItemMargin(3))]
        else:
            climbs = [self._mi(Margin())]
        if doubts.trusted:
            climbed = [stage for stage in self._ordinary if not stage.sample]
            yield from (replace(each, attack=StraightThrough(each.attack, doubts.straight[0])) for each in climbed)
        else:
            if doubts.own:
                yield from map(Stage, climbs)
            for around in doubts.straight:
                yield from (Stage(StraightThrough(each, around)) for each in climbs)
        if doubts.misled:
            yield from (Stage(self._transfer(name, module)) for name, module in doubts.surrogates)
            yield from self._by_scores(sample=0, queries=_QUERIES[self.strength])

    def _transfer(self, name: str, module: nn.Module) -> Attack:
        return Transfer(name, self._mi(Margin(), stop=False), module)

    def _mi(self, goal: Goal, **settings: Any) -> Momentum:
        return Momentum(goal, self.eps, norm=self.norm, **settings)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        norm = "" if self.norm == "linf" else f"-{self.norm}"
        name = f"{self.strength}.v{self.version}{norm}"
        return native_entry("cascade", self, Margin(), "dong2018boosting", name=name)

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: any item of another class will do."""

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`; here the margin of the references says which queries are left."""
        judge = Margin()
        clean = judge.objective(references, seed=seed)(references.embeddings)
        found = Best(images, clean.clone())
        for stage in self.stages:
            left = (found.values <= 0) & (found.values >= (1 - stage.closed) * clean)
            rows = torch.nonzero(left).flatten()
            for part in rows.split(stage.sample or len(rows) or 1):
                known = references.rows(part)
                sent = stage.attack(model, images[part], known, seed=seed)
                with torch.no_grad(), untouched(model):
                    values = judge.objective(known, seed=seed)(model(sent))
                found.keep(sent, values, part)
                if stage.sample and not bool((values > 0).any()):
                    break
        return found.images
