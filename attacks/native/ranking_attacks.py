"""The field's ranking attacks, as entries of the registry: a goal, and the project's one gradient loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustdml.config import Effort
from robustdml.contracts import Gallery, References
from robustdml.errors import SpecError
from robustdml.profiles import ERS_ATTACKS, PROFILES
from robustdml.results import AttackEntry
from robustdml.seeding import stream
from robustdml.threat import ThreatModel

from ..entries import entry_spec
from ..factory import AttackFactory, dataclass_defaults
from ..goals.ranking import RankingGoal
from .pgd import PGD


@dataclass(frozen=True)
class _Loop:
    goal: RankingGoal
    eps: float
    steps: int = 20
    step: float | None = None
    start: float = 1.0
    best: bool = True

    def __post_init__(self) -> None:
        self._ascent()  # it knows the ranges

    def _ascent(self) -> PGD:
        return PGD(self.goal, self.eps, steps=self.steps, step=self.step, start=self.start, best=self.best)

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the goal."""
        return self.goal.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        return self._ascent()(model, images, references, seed=seed)


@dataclass(frozen=True)
class RankingAttack(_Loop):
    """Signed gradient ascent on a ranking goal of a query, L-infinity.

    The published loop is ``start=0, best=false``: it starts at the clean image and takes the last iterate. The default
    is stronger.

    Args:
        goal: what to raise.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        step: length of a step as a share of eps; None stands for 2.5 / steps.
        start: radius of the uniform random start as a share of eps, in [0, 1].
        best: return the iterate with the highest value per image; else the last.

    Raises:
        SpecError: a value out of its range.
    """

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return _entry(self, self.goal, self.goal.title, "query")


@dataclass(frozen=True)
class CandidateAttack(_Loop):
    """Signed gradient ascent on a goal of gallery items, L-infinity: it is called with their images.

    Args:
        goal: what to raise.
        eps: budget, in pixels of [0, 1].
        steps: gradient steps, at least 1.
        step: length of a step as a share of eps; None stands for 2.5 / steps.
        start: radius of the uniform random start as a share of eps, in [0, 1].
        best: return the iterate with the highest value per image; else the last.
        items: how many items of the gallery are attacked (all, where it has fewer), at least 1.

    Raises:
        SpecError: a value out of its range.
    """

    items: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.items < 1:
            raise SpecError(f"items={self.items} must be at least 1")

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        return _entry(self, self.goal, f"{self.goal.title} on {self.items} items", "gallery")

    def poisoned_rows(self, gallery: Gallery, *, seed: int) -> Tensor:
        """Items drawn from the gallery by the seed, in order."""
        count = min(self.items, len(gallery))
        chosen = stream(seed, "items", 0).choice(len(gallery), count, replace=False)
        return torch.from_numpy(chosen).sort().values.to(gallery.ids.device)


def _entry(attack: _Loop, goal: RankingGoal, name: str, side: Literal["query", "gallery"]) -> AttackEntry:
    return AttackEntry(
        spec=entry_spec(goal.name, attack),
        name=name,
        library="robustdml",
        goal=goal.name,
        knowledge="gradients",
        norm="linf",
        side=side,
        citations=(goal.citation, "madry2018towards"),
    )


_EFFORT: Mapping[Effort, Mapping[str, object]] = {"quick": {"steps": 10}, "thorough": {"steps": 100}}

_SUMMARIES = {
    "qa_plus": "QA+: drawn gallery items to the front of the query's list",
    "qa_minus": "QA-: items that the query finds to the back of its list",
    "spqa_plus": "SPQA+: QA+ while the nearest other items keep their places",
    "spqa_minus": "SPQA-: QA- while the nearest other items keep their places",
    "tma": "targeted mismatch: the largest cosine to a drawn item",
    "es": "embedding shift: as far as possible from the clean embedding",
    "ltm": "learning to mis-rank: every foreign item before every own one",
    "gtm": "greedy top-1 misranking: towards the nearest item of another class",
    "gtt": "greedy top-1 translocation: the first hit to the back of the list",
    "foa": "order attack: an order imposed on items that the query finds",
}

FACTORIES: dict[str, AttackFactory] = {
    name: AttackFactory(summary, RankingAttack, dataclass_defaults(RankingAttack), (name,), _EFFORT)
    for name, summary in _SUMMARIES.items()
}
_ITEMS: Mapping[Effort, Mapping[str, object]] = {
    "quick": {"steps": 10, "items": 64},
    "thorough": {"steps": 100, "items": 512},
}
for _name, _summary in {
    "ca_plus": "CA+: a gallery item to the front for drawn queries",
    "ca_minus": "CA-: a gallery item to the back for queries near it",
}.items():
    FACTORIES[_name] = AttackFactory(
        _summary, CandidateAttack, dataclass_defaults(CandidateAttack), (_name,), _ITEMS, side="gallery"
    )
FACTORIES["hub"] = AttackFactory(
    "k poisoned gallery items that come first for queries of other classes",
    CandidateAttack,
    dataclass_defaults(CandidateAttack, {"items": 5}),
    ("hub",),
    _EFFORT,
    side="gallery",
)


def _profile(name: str, *, compat: bool) -> tuple[str, ...]:
    profile = PROFILES[name]
    loop = f"eps={profile.eps!r}, steps={profile.steps}, step={profile.step!r}, start=0, best=false"
    faulty = {"ltm", "gtm"} if compat else set()
    return tuple(f"{attack}({loop}{', compat=robrank' if attack in faulty else ''})" for attack in ERS_ATTACKS)


#: The profiles that ERS is computed from, by our definitions, and with the faults of the published code.
SUITES: dict[str, tuple[str, ...]] = {
    **{name: _profile(name, compat=False) for name in PROFILES},
    **{f"{name}-compat": _profile(name, compat=True) for name in PROFILES},
}
