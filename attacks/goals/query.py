"""Moving chosen items in a query's list: QA+, QA-, and both without a trace, SPQA+ and SPQA- (Zhou et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from robustdml.contracts import References

from .embedding import Aim, Objective
from .ranking import Candidates, drawn_near_rows, drawn_rows, nearest_rows, query_loss

#: How many of the nearest items SPQA holds in their places (Zhou et al. 2020).
_KEPT = 5


@dataclass(frozen=True)
class QAPlus(Candidates):
    """QA+: bring items drawn from the whole gallery to the front."""

    name = "qa_plus"
    flat_at_clean = False
    citation = "zhou2020adversarial"

    @property
    def title(self) -> str:
        """As in the papers."""
        return self.titled("QA+")

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)``."""
        return drawn_rows(~references.own, references.ids, self.candidates, seed=seed, purpose=self.name)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean of ``[d(q, c) - d(q, x)]+``."""
        return query_loss(references, self.target_rows(references, seed=seed), 1.0)


@dataclass(frozen=True)
class QAMinus(Candidates):
    """QA-: push items that the query finds (drawn from its nearest hundredth) to the back."""

    name = "qa_minus"
    flat_at_clean = False
    citation = "zhou2020adversarial"

    @property
    def title(self) -> str:
        """As in the papers."""
        return self.titled("QA-")

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)``."""
        return drawn_near_rows(references, self.candidates, seed=seed, purpose=self.name)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean of ``[d(q, x) - d(q, c)]+``."""
        return query_loss(references, self.target_rows(references, seed=seed), -1.0)


def _preserving(references: References, rows: Tensor, attack: Objective, balance: float) -> Objective:
    """``attack``, less a term that keeps the nearest other items in front, ever heavier the further they slip."""
    gallery = references.gallery
    allowed = (~references.own).scatter(1, rows, False)
    kept = nearest_rows(
        references.embeddings, gallery.embeddings, allowed, min(_KEPT, max(1, int(allowed.sum(1).min())))
    )
    keep = query_loss(references, kept, 1.0)

    def value(embeddings: Tensor) -> Tensor:
        lost = -keep(embeddings)
        weight = (lost.detach() * balance).clamp_max(np.log(1e9)).exp()
        return attack(embeddings) - weight * lost

    return value


@dataclass(frozen=True)
class SPQAPlus(Candidates):
    """SPQA+: QA+ while the five nearest other items stay in front, so that the change goes unnoticed.

    Args:
        candidates: M of the papers, at least 1.
        balance: k of the weight ``min(exp(k L), 1e9)`` of the term that keeps them, L being its loss. RobRank takes
            2e4 on MNIST, 4e4 on Fashion and CUB, 7e4 on Cars and SOP.
    """

    balance: float = 4e4
    name = "spqa_plus"
    flat_at_clean = False
    citation = "zhou2020adversarial"

    @property
    def title(self) -> str:
        """As in the papers."""
        return self.titled("SPQA+")

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)``."""
        return QAPlus(self.candidates).target_rows(references, seed=seed)

    def objective(self, references: References, *, seed: int) -> Objective:
        """That of QA+, less the weighted loss of the kept items."""
        rows = self.target_rows(references, seed=seed)
        return _preserving(references, rows, query_loss(references, rows, 1.0), self.balance)


@dataclass(frozen=True)
class SPQAMinus(Candidates):
    """SPQA-: QA- while the five nearest items that were not chosen stay in front.

    Args:
        candidates: M of the papers, at least 1.
        balance: see `SPQAPlus`.
    """

    balance: float = 4e4
    name = "spqa_minus"
    flat_at_clean = False
    citation = "zhou2020adversarial"

    @property
    def title(self) -> str:
        """As in the papers."""
        return self.titled("SPQA-")

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)``."""
        return QAMinus(self.candidates).target_rows(references, seed=seed)

    def objective(self, references: References, *, seed: int) -> Objective:
        """That of QA-, less the weighted loss of the kept items."""
        rows = self.target_rows(references, seed=seed)
        return _preserving(references, rows, query_loss(references, rows, -1.0), self.balance)


QUERY_GOALS: dict[str, type[Aim]] = {
    "qa_plus": QAPlus,
    "qa_minus": QAMinus,
    "spqa_plus": SPQAPlus,
    "spqa_minus": SPQAMinus,
}
