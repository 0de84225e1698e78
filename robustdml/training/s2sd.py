"""Simultaneous similarity-based self-distillation, S2SD (Roth et al., ICML 2021, arXiv 2009.08348).

Shapes: N rows of a batch, D dimensions of the embedding, F features of the backbone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.errors import SpecError
from robustdml.models.features import Pooling
from robustdml.values import LARGEST_DIM

#: What a spec may set. Target dimensions are joined by "-"; None takes what stands before it.
PARAMETERS: dict[str, object] = {
    "base": "multisimilarity",
    "target_base": None,
    "dims": "512-1024-1536-2048",
    "pooling": "average",
    "weight": 50.0,
    "feature_weight": None,
    "temperature": 1.0,
    "feature_distillation": True,
    "start": 1000,
}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1_000_000


def read_dims(value: object) -> list[int]:
    """Target dimensions from ``"512-1024"`` or one number.

    Raises:
        SpecError: it is neither.
    """
    parts = str(value).split("-")
    if len(parts) > 16 or not all(part.isdecimal() and 0 < int(part[:9]) <= LARGEST_DIM for part in parts):
        raise SpecError(
            f"s2sd: dims={value!r} must be up to 16 dimensions of at most {LARGEST_DIM:,} each, joined by '-', such as "
            "'512-1024'"
        )
    return [int(part) for part in parts]


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over rows of KL(teacher || student) between softmaxed cosine similarities, times temperature squared.

    Args:
        student: ``(N, D)`` of length 1.
        teacher: ``(N, any)`` of length 1; no gradient reaches it.
    """
    teacher = teacher.detach()
    ours = F.log_softmax(student @ student.T / temperature, dim=1)
    theirs = F.softmax(teacher @ teacher.T / temperature, dim=1)
    return F.kl_div(ours, theirs, reduction="batchmean") * temperature**2


class S2SD(nn.Module):
    """Half of (base loss + mean target loss), plus weighted distillation of the targets into the embedding.

    With ``pooling=average-maximum``, as in the published multi-similarity runs, targets see the sum of average and
    maximum of the backbone's feature map; the embedding itself stands on the backbone's own features. That needs a
    backbone with such a map, so by default targets see these features too.

    Args:
        make_loss: the base loss for an embedding of so many dimensions.
        make_target_loss: that of a target.
        embedding_dim: D.
        features: F.
        params: changes to `PARAMETERS`, without ``base`` and ``target_base``.

    Raises:
        SpecError: a value out of its range.
    """

    steps: Tensor

    def __init__(
        self,
        make_loss: Callable[[int], nn.Module],
        make_target_loss: Callable[[int], nn.Module],
        embedding_dim: int,
        features: int,
        params: dict[str, object],
    ) -> None:
        super().__init__()
        values = {**PARAMETERS, **params}
        dims = read_dims(values["dims"])
        start, numbers = values["start"], {}
        if values["feature_weight"] is None:
            values["feature_weight"] = values["weight"]
        for name in ("weight", "feature_weight", "temperature"):
            if not _number(values[name]):
                raise SpecError(f"s2sd: {name}={values[name]!r} must be a number above 0")
            numbers[name] = float(str(values[name]))
        if values["pooling"] not in get_args(Pooling):
            raise SpecError(f"s2sd: pooling={values['pooling']!r} is not known: {' or '.join(get_args(Pooling))}")
        if not isinstance(start, int) or isinstance(start, bool) or start < 0:
            raise SpecError(f"s2sd: start={start!r} must be a number of steps, at least 0")
        if not isinstance(values["feature_distillation"], bool):
            raise SpecError(f"s2sd: feature_distillation={values['feature_distillation']!r} must be true or false")
        self.weight, self.feature_weight, self.temperature = numbers.values()
        #: Of the features that it is to be given.
        self.pooling: Pooling = values["pooling"]  # type: ignore[assignment]
        self.start, self.feature_distillation = start, values["feature_distillation"]
        self.loss = make_loss(embedding_dim)
        self.target_losses = nn.ModuleList(make_target_loss(dim) for dim in dims)
        self.targets = nn.ModuleList(
            nn.Sequential(nn.Linear(features, dim), nn.ReLU(), nn.Linear(dim, dim)) for dim in dims
        )
        # A buffer, so that a resumed run starts feature distillation at the same step.
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, embeddings: Tensor, labels: Tensor, features: Tensor) -> Tensor:
        """The scalar loss of embeddings ``(N, D)``, labels ``(N,)`` and features ``(N, F)``."""
        targets = [F.normalize(target(features), dim=1) for target in self.targets]
        own = [loss(target, labels) for loss, target in zip(self.target_losses, targets, strict=True)]
        value: Tensor = (self.loss(embeddings, labels) + torch.stack(own).mean()) / 2
        terms = [distillation(embeddings, target, self.temperature) for target in targets]
        value = value + self.weight * torch.stack(terms).mean()
        if self.feature_distillation and int(self.steps) >= self.start:
            value = value + self.feature_weight * distillation(
                embeddings, F.normalize(features, dim=1), self.temperature
            )
        if self.training:
            self.steps += 1
        return value
