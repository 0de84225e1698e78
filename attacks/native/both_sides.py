"""Both sides at once: a few changed items in the gallery, and then changed queries that search it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from robustdml.contracts import GalleryAttack, References
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

from ..attack_entry import native_entry
from ..goals.candidate import Hub
from ..goals.untargeted import Margin
from .pgd import PGD
from .ranking_attacks import CandidateAttack


@dataclass(frozen=True)
class BothSides:
    """Queries are pushed past the margin in a gallery that holds items made to come first (see `Hub`).

    Args:
        eps: budget of every changed item and of every query, in pixels of [0, 1].
        items: changed items of the gallery, at least 1.
        steps: gradient steps on each side, at least 1.

    Raises:
        SpecError: a value out of its range.
    """

    eps: float
    items: int = 5
    steps: int = 20

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self._query(), self.poison  # they know the ranges

    def _query(self) -> PGD:
        return PGD(Margin(), self.eps, steps=self.steps)

    @property
    def poison(self) -> GalleryAttack:
        """See `robustdml.contracts.TwoSidedAttack`."""
        return CandidateAttack(Hub(), self.eps, steps=self.steps, items=self.items)

    @property
    def threat(self) -> ThreatModel:
        """The L-infinity ball of radius eps."""
        return ThreatModel(self.eps)

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        name = f"margin, with {self.items} hubs"
        return native_entry("both_sides", self, Margin(), Hub.citation, "madry2018towards", name=name, side="both")

    def target_rows(self, references: References, *, seed: int) -> None:
        """None: untargeted."""

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        return self._query()(model, images, references, seed=seed)
