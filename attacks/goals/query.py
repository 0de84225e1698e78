"""Moving chosen items in a query's list: QA+, QA-, and both without a trace, SPQA+ and SPQA- (Zhou et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, ClassVar

from .ranking import Candidates, drawn_near_rows, drawn_rows, near_rows, query_loss

if TYPE_CHECKING:  # what goals mean is listed without torch
    from torch import Tensor

    from robustdml.contracts import Objective, References

#: How many of the nearest items SPQA holds in their places (Zhou et al. 2020).
_KEPT = 5


@dataclass(frozen=True)
class _QueryAttack(Candidates):
    """QA: chosen items to the front (sign 1) or to the back (-1)."""

    #: Names the random stream of the chosen items: SPQA chooses those of QA.
    drawn_as: ClassVar[str]

    def target_rows(self, references: References, *, seed: int) -> Tensor:
        """``(N, candidates)``: to the front from the whole gallery, to the back from the query's nearest hundredth."""
        from .search import listed

        gallery, others, purpose = references.gallery, listed(references), self.drawn_as
        if self.sign < 0:
            return drawn_near_rows(references, gallery, others, self.candidates, seed=seed, purpose=purpose)
        return drawn_rows(others, len(gallery), references.ids, self.candidates, seed=seed, purpose=purpose)

    def objective(self, references: References, *, seed: int) -> Objective:
        """Minus the mean of ``[d(q, c) - d(q, x)]+`` over the chosen c and all x, with the sign of both distances."""
        return query_loss(references, self.target_rows(references, seed=seed), self.sign)


@dataclass(frozen=True)
class QAPlus(_QueryAttack):
    """QA+: bring items drawn from the whole gallery to the front."""

    name, label, sign = "qa_plus", "QA+", 1.0
    drawn_as = "qa_plus"
    meaning = "The query is changed so that chosen items of the gallery come to the front."


@dataclass(frozen=True)
class QAMinus(_QueryAttack):
    """QA-: push items that the query finds (drawn from its nearest hundredth) to the back."""

    name, label, sign = "qa_minus", "QA-", -1.0
    drawn_as = "qa_minus"
    meaning = "The query is changed so that chosen items of the gallery fall to the back."


@dataclass(frozen=True)
class _Unnoticed(_QueryAttack):
    """SPQA: QA while the five nearest other items stay in front, so that the change goes unnoticed.

    Args:
        candidates: M of the papers, at least 1.
        balance: k of the weight ``min(exp(k L), 1e9)`` of the term that keeps them, L being its loss. RobRank takes
            2e4 on MNIST, 4e4 on Fashion and CUB, 7e4 on Cars and SOP.
    """

    balance: float = 4e4
    measures = ("rank_percentile", "kept_rank_percentile")

    def objective(self, references: References, *, seed: int) -> Objective:
        """That of QA, less the loss of the kept items, ever heavier the further they slip."""
        from .search import at_rows, counts, listed, without

        rows, items = self.target_rows(references, seed=seed), references.gallery.embeddings
        allowed = without(listed(references), at_rows(rows))
        count = min(_KEPT, max(1, int(counts(allowed, references.ids, len(items)).min())))
        kept = near_rows(references.embeddings, items, allowed, count)
        attack, keep = query_loss(references, rows, self.sign), query_loss(references, kept, 1.0)

        def value(embeddings: Tensor) -> Tensor:
            lost = -keep(embeddings)
            weight = (lost.detach() * self.balance).clamp_max(log(1e9)).exp()
            return attack(embeddings) - weight * lost

        return value


@dataclass(frozen=True)
class SPQAPlus(_Unnoticed):
    """SPQA+: QA+ unnoticed (see `_Unnoticed`)."""

    name, label, sign = "spqa_plus", "SPQA+", 1.0
    drawn_as = "qa_plus"
    meaning = "As qa_plus, while the other results near the query keep their places."


@dataclass(frozen=True)
class SPQAMinus(_Unnoticed):
    """SPQA-: QA- unnoticed (see `_Unnoticed`)."""

    name, label, sign = "spqa_minus", "SPQA-", -1.0
    drawn_as = "qa_minus"
    meaning = "As qa_minus, while the other results near the query keep their places."
