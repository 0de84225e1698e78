"""Metric-learning losses by name, from pytorch-metric-learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytorch_metric_learning import losses, miners
from torch import Tensor, nn

from robustdml.registry import Registry


class MinedLoss(nn.Module):
    """A loss on the pairs that a miner picks from the batch.

    Args:
        loss: of pytorch-metric-learning.
        miner: of pytorch-metric-learning, or None for all pairs.
    """

    def __init__(self, loss: nn.Module, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.miner = miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The scalar loss of embeddings ``(N, D)`` with labels ``(N,)``."""
        pairs = self.miner(embeddings, labels) if self.miner else None
        value: Tensor = self.loss(embeddings, labels, pairs)
        return value


@dataclass(frozen=True)
class Loss:
    """An entry of the registry: one line, and how to build it."""

    summary: str
    build: Callable[[], MinedLoss]


def _multisimilarity() -> MinedLoss:
    # The values of the paper's own baseline (Roth et al. 2020): alpha 2, beta 40, base 0.5, mining margin 0.1.
    return MinedLoss(losses.MultiSimilarityLoss(alpha=2, beta=40, base=0.5), miners.MultiSimilarityMiner(epsilon=0.1))


def _contrastive() -> MinedLoss:
    return MinedLoss(losses.ContrastiveLoss(pos_margin=0, neg_margin=1))


def _triplet() -> MinedLoss:
    return MinedLoss(
        losses.TripletMarginLoss(margin=0.2), miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard")
    )


LOSSES: Registry[Loss] = Registry("loss")
LOSSES.add("multisimilarity", Loss("MultiSimilarity with its miner (Wang et al. 2019)", _multisimilarity))
LOSSES.add("contrastive", Loss("contrastive, margin 1 (Hadsell et al. 2006)", _contrastive))
LOSSES.add("triplet", Loss("triplet, margin 0.2, semi-hard (Schroff et al. 2015)", _triplet))
