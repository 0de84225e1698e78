"""What a backbone sees before the embedding: its features, and the map that they were pooled from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robustdml.errors import SpecError
from robustdml.models.embedding import EmbeddingModel
from robustdml.models.guard import evaluation_mode
from robustdml.models.small import SmallResNet

#: Of the features that are captured: as the backbone returns them, or the average of its map plus the maximum.
Pooling = Literal["average", "average-maximum"]


@contextmanager
def captured_features(model: nn.Module, pooling: Pooling = "average") -> Iterator[list[Tensor]]:
    """Within the block, collect the backbone's features ``(N, F)`` of each forward pass, with their gradients.

    Args:
        model: an `EmbeddingModel`, or a module that holds one.
        pooling: ``average-maximum`` needs a backbone for which `check_feature_map` finds nothing wrong.
    """
    found: list[Tensor] = []
    embedding = next(module for module in model.modules() if isinstance(module, EmbeddingModel))
    if pooling == "average":
        handle = embedding.head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    else:
        handle = _on_map(embedding.backbone, lambda both: found.append(both.mean((2, 3)) + both.amax((2, 3))))
    try:
        yield found
    finally:
        handle.remove()


def check_feature_map(model: EmbeddingModel) -> None:
    """Make sure that the model's features are the average of a map that can be had. The model comes back as it was.

    Raises:
        SpecError: they are not.
    """
    (height, width), averages = model.preprocessing.sides, list[Tensor]()
    refusal = SpecError(
        f"the features of '{model.config.backbone}' are no average over a map, which pooling=average-maximum needs: "
        "take pooling=average, or a ResNet"
    )
    handle = _on_map(model.backbone, lambda found: averages.append(found.flatten(2).mean(2)), refusal)
    try:
        with torch.no_grad(), evaluation_mode(model), captured_features(model) as features:
            model(torch.linspace(0, 1, 3 * height * width, device=model.mean.device).view(1, 3, height, width))
    finally:
        handle.remove()
    if averages[-1].shape != features[0].shape or not torch.allclose(averages[-1], features[0], rtol=1e-3, atol=1e-5):
        raise refusal


def _on_map(backbone: nn.Module, use: Callable[[Tensor], None], refusal: Exception | None = None) -> RemovableHandle:
    """Hand each feature map ``(N, F, h, w)`` to ``use``; raise the refusal where there is none."""
    if isinstance(backbone, SmallResNet):
        return backbone.layers.register_forward_hook(lambda _module, _inputs, output: use(output))
    pools = [module for module in backbone.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    if not pools:
        raise refusal or ValueError("the backbone has no feature map")
    return pools[-1].register_forward_pre_hook(lambda _, inputs: use(inputs[0]))
