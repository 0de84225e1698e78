"""The loss that was published as ArcFace, under an honest name.

The code behind the ArcFace rows of MDProp (arXiv 2211.16253) adds what the margin does to the logit of an image's own
class to the logits of *all* classes. A softmax does not see what is added to all logits, so the margin has no effect:
what is left is a softmax over the cosines to learned centres, each clamped at 0. docs/mdprop.md shows it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClampedSoftmax(nn.Module):
    """Cross-entropy of scaled cosines to learned centres, cosines below 0 counting as 0.

    Args:
        num_classes: C.
        embedding_size: D.
        scale: of the cosines, above 0.

    Raises:
        ValueError: ``scale`` is not above 0.
    """

    def __init__(self, num_classes: int, embedding_size: int, scale: float = 16) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale={scale} must be a number above 0")
        self.scale = scale
        # Uniform within 1 / sqrt(D), as published: a standard deviation of 0.051 for D = 128. Only directions count for
        # the loss, but a step of Adam turns a short centre further.
        bound = embedding_size**-0.5
        self.W = nn.Parameter(torch.empty(num_classes, embedding_size).uniform_(-bound, bound))

    def forward(self, embeddings: Tensor, labels: Tensor, pairs: object = None) -> Tensor:
        """The scalar loss of embeddings ``(N, D)`` of length 1 with labels ``(N,)``; all items count, in no pairs."""
        cosines = embeddings @ F.normalize(self.W, dim=1).T
        return F.cross_entropy(self.scale * cosines.clamp_min(0), labels)
