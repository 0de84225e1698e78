"""Whose weights a state dict holds: out of what it was saved in, and by its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: Under which keys programs keep a state dict in a checkpoint, the averaged weights first.
_WITHIN = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "teacher", "net", "network")
#: What wrappers put before each name.
_WRAPPERS = ("module.", "_orig_mod.")
#: Networks of torchvision to try, by the first name of their weights.
_FAMILIES = {
    "conv1.weight": ("resnet", "wide_resnet", "resnext"),
    "conv1.0.weight": ("shufflenet",),
    "features.0.weight": ("alexnet", "vgg", "squeezenet"),
    "features.0.0.weight": ("mobilenet", "efficientnet", "convnext", "swin"),
    "features.conv0.weight": ("densenet",),
    "layers.0.weight": ("mnasnet",),
    "class_token": ("vit",),
}
#: Whose names these are, where no shape needs to be looked at.
_KNOWN = (
    ("conv_stem.weight", "a network of timm", "timm:NAME, as it was made"),
    ("visual.conv1.weight", "a CLIP", "open_clip:ARCH, as it was made"),
    ("patch_embed.proj.weight", "a transformer of timm", "timm:NAME, as it was made"),
    ("embeddings.patch_embeddings.projection.weight", "an encoder of transformers", "hf:FOLDER, with its config.json"),
    ("_conv_stem.weight", "an EfficientNet of another package", "file.py:build"),
)
#: Names of last layers, where a network without one has none of that name.
_HEADS = re.compile(r"(^|\.)(fc|classifier|head|heads|last_linear|output)(\.(\d+|fc|head|l))?$")


def plainly(held: Any) -> tuple[str, dict[str, Tensor]]:
    """What a checkpoint is, in words, and the state dict in it; empty where it holds none."""
    what = "a state dict"
    if isinstance(held, Tensor):
        return f"a tensor {tuple(held.shape)}", {}
    if not isinstance(held, Mapping):
        return f"a {type(held).__name__}", {}
    if "pytorch-lightning_version" in held:
        what = "a LightningModule checkpoint"
    inner: Any = held
    for key in _WITHIN:
        part = held.get(key)
        if isinstance(part, nn.Module):
            part = part.state_dict()
        if isinstance(part, Mapping) and any(isinstance(value, Tensor) for value in part.values()):
            inner = part
            what = what if what.endswith("checkpoint") else "a training checkpoint"
            break
    state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    for wrapper in _WRAPPERS:
        if state and all(name.startswith(wrapper) for name in state):
            state = {name[len(wrapper) :]: value for name, value in state.items()}
    return (what, state) if state else (f"a dictionary with {', '.join(map(str, list(held)[:5])) or 'nothing'}", {})


def heads_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The last layers in a state dict, by their name (without ``.weight``), and how many values they give."""
    found = {name[: -len(".weight")]: value for name, value in state.items() if name.endswith(".weight")}
    return {name: len(value) for name, value in found.items() if value.ndim in {2, 4} and _HEADS.search(name)}


def network_of(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a state dict that is a network's: under the prefix that fits most of its names."""
    own = list(network.state_dict())
    prefixes = {name[: -len(own[0])] for name in state if name.endswith(own[0])} | {""}
    best = max(sorted(prefixes), key=lambda prefix: sum(prefix + name in state for name in own))
    return {name[len(best) :]: value for name, value in state.items() if name.startswith(best)}


def recognised(state: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Whose weights these are: in words, and as ``--arch`` takes it; None where that is not known."""
    from torchvision import models

    for first, families in _FAMILIES.items():
        for full in [name for name in state if name == first or name.endswith(f".{first}")]:
            prefix = full[: -len(first)]
            shapes = {
                name[len(prefix) :]: tuple(value.shape) for name, value in state.items() if name.startswith(prefix)
            }
            for name in models.list_models(module=models):
                if name.startswith(families) and _is(name, shapes):
                    return f"torchvision's {name}", f"torchvision:{name}"
    for ending, what, arch in _KNOWN:
        if any(name == ending or name.endswith(f".{ending}") for name in state):
            return what, arch
    return None


def _is(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether weights are those of a network of torchvision, but for its last layer."""
    from torchvision import models

    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        own = {key: tuple(value.shape) for key, value in models.get_model(name, weights=None).state_dict().items()}
    weights = [key for key in own if key.endswith(("weight", "bias"))]
    last = {key for key in weights if key.rpartition(".")[0] == weights[-1].rpartition(".")[0]}
    return all(shapes.get(key) == own[key] for key in weights if key not in last)
