"""The standard evaluation: a fixed cascade of attacks on the margin, each on the queries that the last left right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustdml.contracts import References, Stage
from robustdml.errors import SpecError
from robustdml.models import untouched
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel

from .attack_entry import native_entry
from .goals.rivals import ClassMargin, ItemMargin
from .goals.untargeted import Margin
from .native.geometry import GEOMETRIES
from .native.gradient import Best
from .native.momentum import Momentum

#: What is raised by every change of a stage, however small: results of two versions are not comparable.
VERSION = 1


@dataclass(frozen=True)
class Cascade:
    """The evaluation of `robustdml.attacks.SUITES`' ``standard``, free of parameters but its strength.

    The margin is a maximum over foreign items, which a climber of that maximum need not reach: against one item the way
    is plainer, and for a linear embedding concave. So the margin comes first, which breaks most of what can be broken;
    then, where it came near enough, the items and the classes nearest to the query one by one.

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

    def __post_init__(self) -> None:
        if self.strength not in {"quick", "standard", "thorough"}:
            raise SpecError(f"strength={self.strength} must be quick, standard or thorough")
        if self.norm not in GEOMETRIES:
            raise SpecError(f"norm={self.norm} is not known: {', '.join(GEOMETRIES)}")
        if self.version != VERSION:
            raise SpecError(f"version={self.version} of the cascade is not known: this robustdml has {VERSION}")

    @property
    def threat(self) -> ThreatModel:
        """The ball of radius eps."""
        return ThreatModel(self.eps, self.norm)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """See `robustdml.contracts.StagedAttack`."""
        first = Stage(Momentum(Margin(), self.eps, norm=self.norm))
        if self.strength == "quick":
            return (first, Stage(Momentum(ItemMargin(3), self.eps, norm=self.norm), closed=0.6))
        # What is hopeless costs most: queries of whose margin the first stage closed less are not climbed for again.
        near, nearer = (0.4, 0.6) if self.strength == "standard" else (0.2, 0.4)
        standard = (
            first,
            Stage(Momentum(ItemMargin(10), self.eps, norm=self.norm), closed=near),
            Stage(Momentum(ClassMargin(4), self.eps, norm=self.norm), closed=nearer),
        )
        if self.strength == "standard":
            return standard
        return (
            *standard,
            Stage(Momentum(ItemMargin(10, skip=10), self.eps, norm=self.norm), closed=nearer),
            Stage(Momentum(ItemMargin(10), self.eps, steps=50, norm=self.norm), closed=nearer),
            Stage(Momentum(Margin(), self.eps, steps=100, restarts=3, norm=self.norm), closed=nearer),
        )

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
            if not len(rows):
                continue
            known = references.rows(rows)
            sent = stage.attack(model, images[rows], known, seed=seed)
            with torch.no_grad(), untouched(model):
                values = judge.objective(known, seed=seed)(model(sent))
            found.keep(sent, values, rows)
        return found.images
