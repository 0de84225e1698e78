"""A trained model as an ordinary torchvision model, for programs that know nothing of robustdml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from robustdml.errors import SpecError
from robustdml.files import write_bytes
from robustdml.models.backbones import BACKBONES
from robustdml.models.checkpoints import weights_file
from robustdml.models.embedding import EmbeddingModel
from robustdml.models.multibn import branch_names, fold
from robustdml.models.weights import put_weights


def to_torchvision(model: EmbeddingModel, branch: str | None = None) -> nn.Module:
    """The model as torchvision builds it, its classifier being the embedding layer.

    It maps images normalised by the model's mean and standard deviation to ``(N, D)``; embeddings are these, divided by
    their length. The names in its ``state_dict`` are torchvision's own.

    Args:
        model: with a backbone of torchvision that ends in a linear layer.
        branch: the BatchNorm branch; None takes the first, which is deployed.

    Raises:
        SpecError: the backbone is none of torchvision's, or has no linear layer at its end; or no such branch.
    """
    from torchvision import models as torchvision_models  # slow to import

    name = model.config.backbone
    if name not in BACKBONES or not BACKBONES[name].pretrained or name.startswith("squeezenet"):
        raise SpecError(
            f"backbone '{name}' has no torchvision model with a linear classifier to become: export resnet18"
        )
    names = branch_names(model)
    plain = fold(model, branch or names[0]) if names else model
    assert isinstance(plain, EmbeddingModel)
    options: dict[str, Any] = (
        {"aux_logits": False, "init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    )
    options |= {"image_size": model.config.image_size} if name.startswith("vit_") else {}
    if name == "maxvit_t":
        options |= {"input_size": model.preprocessing.sides}
    network: nn.Module = torchvision_models.get_model(name, weights=None, **options)
    path, last = [(key, part) for key, part in network.named_modules() if isinstance(part, nn.Linear)][-1]
    parent, _, leaf = path.rpartition(".")
    # torchvision's own classifier may lack a bias (MaxViT); the embedding layer has one.
    setattr(network.get_submodule(parent), leaf, nn.Linear(last.in_features, model.config.embedding_dim))
    weights = plain.backbone.state_dict()
    weights |= {f"{path}.{key}": value for key, value in plain.head.state_dict().items()}
    put_weights(network, weights)
    return network.to(next(plain.parameters()).device).train(plain.training)


def export(model: EmbeddingModel, path: Path, branch: str | None = None) -> Path:
    """Write `to_torchvision`'s weights as safetensors, with what is needed to use them in its metadata.

    Raises:
        SpecError: see `to_torchvision`.
    """
    network = to_torchvision(model, branch)
    about = {
        "model": f"torchvision.models.{model.config.backbone}(num_classes={model.config.embedding_dim})",
        "input": f"images in [0, 1], {model.preprocessing}",
        "mean": json.dumps(model.config.mean),
        "std": json.dumps(model.config.std),
        "output": "divide by its L2 norm",
    }
    return write_bytes(path, weights_file(network, about))
