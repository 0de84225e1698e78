"""A classifier made of retrieval, so that attacks on classifiers become attacks on embeddings.

Attack libraries call a model with single rows and parts of a batch, in any order. The logits must therefore depend on
the image alone; who is attacked, and towards what, is said by the *label* that the library is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustdml.contracts import References
from robustdml.errors import AttackError

from ..goals.search import counts, ignored, nearest_by_class, parts

#: Logits are cosine similarities times this. Measured with torchattacks' PGD-20 at 4/255 on the built-in digits (R@1
#: clean 0.953; native margin PGD-20: 0.008): untargeted, scales 1, 5, 10, 20, 30, 50, 100 leave R@1 0.172, 0.156,
#: 0.102, 0.086, 0.070, 0.047, 0.055, as a flat softmax spends the step on classes that are far away. With 30 the
#: gradient of the cross entropy still stands in float32 at every gap in similarity. What divides by a norm of the
#: gradient plus a constant, or works on probabilities rounded beside 1, needs a smaller one.
SCALE = 30.0

#: Targeted DLR needs four classes (Croce & Hein 2020).
_FEWEST_CLASSES = 4


class RetrievalClassifier(nn.Module):
    """An embedding model with a list of reference sets as its classes.

    The logit of a class is ``scale * (1 + s)``, never negative (some attacks blank a logit by multiplying it with 0).
    By ``reduce="max"``, s is the largest similarity to the references of the class; by ``"mean"``, the similarity that
    belongs to the mean distance d to them, ``1 - d^2 / 2``, so that raising it is the goal of MTAX. Where the query
    itself is in the gallery it must be left out of its class by the caller.

    There are at least four classes. Those that pad have the lowest similarity there is, and never win; with
    ``unreachable`` there is at least one, and it has the highest, 1, and always wins: the loss of any other class is
    then a matter of its own logit alone.

    Args:
        model: maps ``(N, 3, H, W)`` in [0, 1] to embeddings ``(N, D)`` of length 1.
        classes: one ``(n_c, D)`` tensor of reference embeddings per class, none empty.
        reduce: per class, ``"max"`` or ``"mean"``.
        scale: factor of the logits, above 0.
        unreachable: what pads, and whether there must be padding.

    Raises:
        AttackError: a class is empty.
    """

    references: Tensor
    class_of: Tensor
    by_mean: Tensor

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[Tensor],
        reduce: Sequence[str],
        *,
        scale: float = SCALE,
        unreachable: bool = False,
    ) -> None:
        super().__init__()
        if any(len(members) == 0 for members in classes):
            raise AttackError("a class of the retrieval classifier has no references")
        self.model = model
        self.scale = scale
        self.n_classes = max(len(classes) + unreachable, _FEWEST_CLASSES)
        self._padding = 1.0 if unreachable else -1.0
        self.register_buffer("references", torch.cat(list(classes)))
        device = self.references.device
        sizes = torch.tensor([len(part) for part in classes], device=device)
        self.register_buffer("class_of", torch.repeat_interleave(torch.arange(len(sizes), device=device), sizes))
        means = [how == "mean" for how in reduce] + [False] * (self.n_classes - len(reduce))
        self._means = any(means)
        self.register_buffer("by_mean", torch.tensor(means, device=device))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, n_classes)`` of images ``(N, 3, H, W)`` in [0, 1]."""
        if images.requires_grad:
            # A model in channels_last gives its gradients that order too, in which the libraries' views of them fail.
            images = images.view_as(images)
            images.register_hook(torch.Tensor.contiguous)
        similarity = self.model(images) @ self.references.T
        index = self.class_of.expand(len(similarity), -1)
        padding = similarity.new_full((len(similarity), self.n_classes), self._padding)
        classes = padding.scatter_reduce(1, index, similarity, "amax", include_self=False)
        if self._means:  # asked of the buffer, a GPU would have to answer at every step
            # The small constant keeps the gradient of the root finite where a target is reached.
            distance = (2 - 2 * similarity).clamp_min(1e-12).sqrt()
            mean = torch.zeros_like(padding).scatter_reduce(1, index, distance, "mean", include_self=False)
            classes = torch.where(self.by_mean, 1 - mean.square() / 2, classes)
        logits: Tensor = (1 + classes) * self.scale
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
    model: nn.Module,
    references: References,
    targets: Tensor | None,
    *,
    rivals: Literal["own", "none"] | None,
    hardest: int = 10,
    scale: float = SCALE,
    most_rows: int | None = None,
    most_classes: int | None = None,
) -> list[Problem]:
    """Turn a batch of queries into classification problems, as few as the conditions below allow.

    Untargeted, the classes are the true classes of the queries and, for each query, the ``hardest`` nearest others,
    each by its nearest member. A class must not hold the query itself. Because logits know no query, all queries of a
    problem are left out of the gallery, and a class may lose a tenth of its members, or one, to that.

    Targeted, each query has a class for its targets, by their mean distance. What these compete with is up to
    ``rivals``. For "own", it is the own class of the query, and the queries of a problem share it: the label is
    reached when the targets are nearer than any relative. For "none", it is a class that always wins: the label is
    never reached, and every loss asks for the nearness to the targets and nothing else. Attacks that stop or return
    the clean image by their own test of success need "own"; those that follow a loss are stronger with "none", as the
    cross entropy otherwise spends its gradient on the rivals as well.

    Args:
        targets: gallery rows ``(N, T)`` to reach, or None for an untargeted attack.
        rivals: see above; None goes with untargeted attacks only.
        hardest: foreign classes per query, at least 1; of no matter where there are targets.
        scale: factor of the logits, above 0.
        most_rows: queries per problem; 1 makes the problem of a query the same whatever batch it is in.
        most_classes: classes per problem (where a single query has more, it is alone).

    Raises:
        AttackError: a query has no relative in the gallery.
    """
    if targets is not None and rivals == "none":
        return _nearness_problems(model, references, targets, scale, most_rows or len(references))
    near: list[set[int]] = [set() for _ in references.ids]
    if targets is None:
        near = _nearest_classes(references, hardest)
    found = []
    for rows in _parts(references, near, most_rows, most_classes, same_class=targets is not None):
        part = references.rows(rows)
        gallery = part.gallery
        left_out = torch.cat([part.related(piece)[1].any(0) for piece in parts(len(gallery))])
        own_classes = part.labels.unique()
        others = {label for row in rows.tolist() for label in near[row]} - set(own_classes.tolist())
        candidates = [*own_classes.tolist(), *sorted(others)]
        members = [gallery.embeddings[(gallery.labels == label) & ~left_out] for label in candidates]
        reduce = ["max"] * len(members)
        labels = torch.searchsorted(own_classes, part.labels)
        if targets is not None:
            labels = torch.arange(len(part), device=labels.device) + len(members)
            members += list(gallery.embeddings[targets[rows]])
            reduce += ["mean"] * len(part)
        found.append(Problem(RetrievalClassifier(model, members, reduce, scale=scale).eval(), labels, rows))
    return found


def _nearness_problems(
    model: nn.Module, references: References, targets: Tensor, scale: float, most_rows: int
) -> list[Problem]:
    found = []
    for rows in torch.arange(len(references), device=references.ids.device).split(most_rows):
        members = list(references.gallery.embeddings[targets[rows]])
        classifier = RetrievalClassifier(model, members, ["mean"] * len(rows), scale=scale, unreachable=True)
        found.append(Problem(classifier.eval(), torch.arange(len(rows), device=rows.device), rows))
    return found


def _parts(
    references: References,
    near: Sequence[set[int]],
    most_rows: int | None,
    most_classes: int | None,
    *,
    same_class: bool,
) -> list[Tensor]:
    """Split the batch into problems: each query goes into the first part that can still hold it."""
    own = (counts(ignored(references), references.ids, len(references.gallery)) > 0).tolist()
    known = references.labels.unique()
    found = torch.stack([(references.gallery.labels == label).sum() for label in known])
    sizes = dict(zip(known.tolist(), found.tolist(), strict=True))
    parts: list[list[int]] = []
    taken: list[dict[int, int]] = []
    classes: list[set[int]] = []
    for row, label in enumerate(references.labels.tolist()):
        wanted = near[row] | {label}
        for place, part in enumerate(parts):
            if (
                (most_rows is None or len(part) < most_rows)
                and (most_classes is None or len(classes[place] | wanted) <= most_classes)
                and (not same_class or label in classes[place])
                and (not own[row] or taken[place].get(label, 0) < max(1, sizes[label] // 10))
            ):
                break
        else:
            place = len(parts)
            parts.append([])
            taken.append({})
            classes.append(set())
        parts[place].append(row)
        taken[place][label] = taken[place].get(label, 0) + own[row]
        classes[place] |= wanted
    return [torch.tensor(part, device=references.ids.device) for part in parts]


def _nearest_classes(references: References, hardest: int) -> list[set[int]]:
    """The labels of the ``hardest`` nearest foreign classes of each query."""
    gallery = references.gallery
    labels, position = gallery.labels.unique(return_inverse=True)
    by_class = nearest_by_class(references, position, len(labels))
    values, nearest = by_class.topk(min(hardest, len(labels)), dim=1)
    return [
        {label for label, value in zip(found, row, strict=True) if value > -torch.inf}
        for found, row in zip(labels[nearest].tolist(), values.tolist(), strict=True)
    ]
