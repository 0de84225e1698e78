"""A model as attacks run it in lower precision: the same answers to a rounding, in half the time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustdml.config import LowPrecision
from robustdml.errors import CheckpointError, SpecError
from robustdml.models.guard import evaluation_mode, into_evaluation
from robustdml.models.outputs import as_matrix
from robustdml.models.weights import copied

#: What a gradient in fp16 is raised by on its way back: pixels' own are below the smallest number that it has.
_RAISED = 2.0**12
#: Mean cosine between the embeddings of both; a model of which it is lower is not the same model any more.
_SAME = 0.98
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Lowered(nn.Module):
    """A model under autocast, channels last, its BatchNorm folded into its convolutions where that can be done.

    Made by `lowered`. Maps images ``(N, 3, H, W)`` to embeddings ``(N, D)`` float32, and passes gradients.
    """

    def __init__(self, module: nn.Module, precision: LowPrecision) -> None:
        super().__init__()
        self.module = module
        self._type = _TYPES[precision]
        self._raised = _RAISED if precision == "fp16" else 1.0

    def forward(self, images: Tensor) -> Tensor:
        """What the model gives."""
        asked = _Raised.apply(images, 1 / self._raised).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, self._type):
            found = as_matrix(self.module(asked), len(images))
        if found is None:
            raise CheckpointError("the model gives no matrix")
        raised: Tensor = _Raised.apply(found.float(), self._raised)
        return raised


class _Raised(torch.autograd.Function):
    """The same value, its gradient multiplied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def lowered(module: nn.Module, precision: LowPrecision, probe: Tensor) -> Lowered:
    """A copy of a model for attacks; the model itself is left alone.

    Args:
        module: in evaluation mode, its weights in float32.
        precision: ``"bf16"`` or ``"fp16"``.
        probe: images ``(N, 3, H, W)`` in [0, 1], of which both must give nearly the same embeddings.

    Raises:
        SpecError: it cannot be run so.
    """
    try:
        own = copied(module)
        into_evaluation(own)
        own.requires_grad_(False)
        with evaluation_mode(module):
            clean = _asked(module, probe)
            folded = _folded(own, probe)
            if torch.allclose(_asked(folded, probe), clean, atol=1e-4):
                own = folded
        own = own.to(memory_format=torch.channels_last)
        for layer in own.modules():
            # Once, and not at every step: autocast keeps casts of weights that learn, and these do not.
            if type(layer) in (nn.Conv2d, nn.Linear) and not layer._forward_hooks and not layer._forward_pre_hooks:
                layer.to(_TYPES[precision])
        found = Lowered(own, precision)
        cosine = (_asked(found, probe) * clean).sum(1).mean().item()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise SpecError(f"it cannot be run in {precision} ({type(error).__name__}: {reason})") from error
    if not cosine > _SAME:
        raise SpecError(f"in {precision} it gives other embeddings (cosine {cosine:.3f} to its own)")
    return found


@torch.no_grad()
def _asked(module: nn.Module, images: Tensor) -> Tensor:
    found = as_matrix(module(images.clone()), len(images))
    if found is None:
        raise CheckpointError("the model gives no matrix")
    return F.normalize(found.float(), dim=1)


def _folded(module: nn.Module, probe: Tensor) -> nn.Module:
    """A copy in which each BatchNorm is part of the convolution before it, as a forward pass shows which that is.

    What else reads the output of such a convolution is not seen here: compare the answers.
    """
    found = copied(module)
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}
    calls: dict[nn.Module, int] = {}
    pairs: dict[nn.Module, nn.Conv2d] = {}

    def after(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[layer] = calls.get(layer, 0) + 1
        if isinstance(layer, nn.Conv2d):
            made[id(output)] = (output, layer)  # the output too, so that nothing else gets its id
        elif id(inputs[0]) in made:
            pairs[layer] = made[id(inputs[0])][1]

    plain = [layer for layer in found.modules() if type(layer) in (nn.Conv2d, nn.BatchNorm2d)]
    plain = [layer for layer in plain if not layer._forward_hooks and not layer._forward_pre_hooks]
    handles = [layer.register_forward_hook(after) for layer in plain]
    try:
        _asked(found, probe)
    finally:
        for handle in handles:
            handle.remove()
    fused = {
        layer: (conv, fuse_conv_bn_eval(conv, layer))
        for layer, conv in pairs.items()
        if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats and calls[layer] == calls[conv] == 1
    }
    instead: dict[nn.Module, nn.Module] = dict(fused.values())
    instead |= {layer: nn.Identity() for layer in fused}
    for owner in list(found.modules()):
        for name, child in owner.named_children():
            if child in instead:
                setattr(owner, name, instead[child])
    return found
