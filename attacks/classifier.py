"""A classifier made of retrieval, so that attacks on classifiers become attacks on embeddings.

Attack libraries call a model with single rows and parts of a batch, in any order. The logits must therefore depend on
the image alone; who is attacked, and towards what, is said by the *label* that the library is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import AttackError

#: Logits are cosine similarities times this. With the bare range [-1, 1] the softmax is nearly flat, and an attack
#: spends its steps on classes that are far away; 30 keeps the loss on the nearest ones without underflow at a gap of 2.
SCALE = 30.0

#: Targeted DLR needs four classes (Croce & Hein 2020).
_FEWEST_CLASSES = 4


class RetrievalClassifier(nn.Module):
    """An embedding model with a list of reference sets as its classes.

    The logit of a class is ``scale`` times the mean (``reduce="mean"``) or the largest (``"max"``) similarity to its
    references. Where the query itself is in the gallery it must be left out of its class by the caller. There are at
    least four classes; those that pad have the lowest similarity there is, and never win.

    Args:
        model: maps ``(N, 3, H, W)`` in [0, 1] to embeddings ``(N, D)`` of length 1.
        classes: one ``(n_c, D)`` tensor of reference embeddings per class, none empty.
        reduce: per class, ``"max"`` or ``"mean"``.
        scale: factor of the logits, above 0.
    """

    def __init__(self, model: nn.Module, classes: list[Tensor], reduce: list[str], *, scale: float = SCALE) -> None:
        super().__init__()
        if any(len(members) == 0 for members in classes):
            raise AttackError("a class of the retrieval classifier has no references")
        self.model = model
        self.scale = scale
        # A class by its mean is one vector: the mean of similarities is the similarity to the mean.
        members = [
            part.mean(0, keepdim=True) if how == "mean" else part for part, how in zip(classes, reduce, strict=True)
        ]
        self.register_buffer("references", torch.cat(members))
        sizes = torch.tensor([len(part) for part in members], device=self.references.device)
        self.register_buffer("class_of", torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes))
        self.n_classes = max(len(members), _FEWEST_CLASSES)

    references: Tensor
    class_of: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, n_classes)`` of images ``(N, 3, H, W)`` in [0, 1]."""
        similarity = self.model(images) @ self.references.T
        lowest = similarity.new_full((len(similarity), self.n_classes), -1.0)
        index = self.class_of.expand(len(similarity), -1)
        logits: Tensor = lowest.scatter_reduce(1, index, similarity, "amax", include_self=True) * self.scale
        return logits


@dataclass(frozen=True)
class Problem:
    """A batch as a classification problem: the classifier, and each query's label in it.

    Args:
        classifier: logits over the classes of this batch.
        labels: ``(N,)``; the class to leave (untargeted) or to reach (targeted).
        rows: ``(N,)``, the rows of the batch that the problem holds.
    """

    classifier: RetrievalClassifier
    labels: Tensor
    rows: Tensor


def problems(
    model: nn.Module, references: References, targets: Tensor | None, *, hardest: int = 10, scale: float = SCALE
) -> list[Problem]:
    """Turn a batch of queries into classification problems, most often one.

    Untargeted, the classes are the true classes of the batch and, for each query, the ``hardest`` nearest others, each
    by its nearest member. Targeted, one class more per query stands for its targets, by their mean.

    A class must not hold the query itself. Because logits know no query, every query of a problem is left out of the
    gallery, and a batch is parted where that would leave a class empty.

    Args:
        targets: gallery rows ``(N, T)`` to reach, or None for an untargeted attack.
    """
    found = []
    for rows in _parts(references):
        part = references.rows(rows)
        left_out = part.own.any(0)
        own_classes = part.labels.unique()
        near = _nearest_classes(part, left_out, hardest)
        candidates = torch.cat([own_classes, near[~torch.isin(near, own_classes)]])
        gallery = part.gallery
        members = [gallery.embeddings[(gallery.labels == label) & ~left_out] for label in candidates]
        reduce = ["max"] * len(members)
        labels = torch.searchsorted(own_classes, part.labels)
        if targets is not None:
            labels = torch.arange(len(part), device=labels.device) + len(members)
            members += list(gallery.embeddings[targets[rows]])
            reduce += ["mean"] * len(part)
        found.append(Problem(RetrievalClassifier(model, members, reduce, scale=scale).eval(), labels, rows))
    return found


def _parts(references: References) -> list[Tensor]:
    """Split the batch so that leaving out all queries of a part empties none of its classes."""
    own = references.own
    if not own.any():
        return [torch.arange(len(references), device=references.ids.device)]
    sizes = {int(label): int((references.gallery.labels == label).sum()) for label in references.labels.unique()}
    parts: list[list[int]] = []
    used: list[dict[int, int]] = []
    for row, label in enumerate(references.labels.tolist()):
        for part, taken in zip(parts, used, strict=True):
            if taken.get(label, 0) + 1 < sizes[label]:
                part.append(row)
                taken[label] = taken.get(label, 0) + 1
                break
        else:
            parts.append([row])
            used.append({label: 1})
    return [torch.tensor(part, device=references.ids.device) for part in parts]


def _nearest_classes(part: References, left_out: Tensor, hardest: int) -> Tensor:
    """The labels of the ``hardest`` nearest foreign classes of each query, together, sorted."""
    gallery = part.gallery
    labels, position = gallery.labels.unique(return_inverse=True)
    similarity = (part.embeddings @ gallery.embeddings.T).masked_fill(part.same_class | left_out, -torch.inf)
    by_class = similarity.new_full((len(part), len(labels)), -torch.inf)
    by_class = by_class.scatter_reduce(1, position.expand(len(part), -1), similarity, "amax", include_self=True)
    values, nearest = by_class.topk(min(hardest, len(labels)), dim=1)
    found: Tensor = labels[nearest[values > -torch.inf].unique()]
    return found
