"""BatchNorm whose batch statistics are those of all processes, on any device (torch's SyncBatchNorm needs a GPU)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Group(Protocol):
    """Processes that work on one batch together."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def sum(self, values: Tensor) -> None:
        """Replace ``values`` by their sum over the processes, the same bits in each."""
        ...


class SynchronisedBatchNorm(TorchFunctionMode):
    """Within the block, BatchNorm on batch statistics takes those of the rows of all processes.

    It steps in where layers call ``torch.nn.functional.batch_norm``, so that layers with forward passes of their own
    (timm's with an activation inside) are synchronised too. Running statistics move as one process's would on all
    rows. Every process must make the same calls in the same order; one without a row makes them with none.

    Args:
        group: the processes.

    Raises:
        ValueError: in a forward pass, all processes together have one value per channel; torch says so too.
    """

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _batch_norm(
        self,
        features: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(features, running_mean, running_var, weight, bias, training, momentum, eps)
        normal, mean, variance, count = _Normalise.apply(features, weight, bias, eps, self._group)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_var.lerp_(variance * count / (count - 1), momentum)
        return normal  # type: ignore[no-any-return]


def _wide(values: Tensor) -> Tensor:
    """At least float32, as torch's own BatchNorm computes."""
    return values if values.dtype == torch.float64 else values.float()


class _Normalise(torch.autograd.Function):
    """Rows minus mean over root of variance, both over all processes: one message on the way there, one back.

    Returns the result beside mean ``(C,)``, biased variance ``(C,)`` and the number of values per channel.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Group
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes, shape = [0, *range(2, features.dim())], [1, -1, *[1] * (features.dim() - 2)]
        wide, channels = _wide(features), features.shape[1]
        own = wide.numel() // channels
        own_mean = wide.sum(axes) / max(own, 1)
        own_squares = (wide - own_mean.view(shape)).square().sum(axes)
        # A line of the table per process: sums about the own mean, put together, lose no digits (Chan et al. 1979).
        table = wide.new_zeros(group.count, 2 * channels + 1)
        table[group.rank, :-1] = torch.cat([own_mean, own_squares])
        table[group.rank, -1] = own
        group.sum(table)
        means, squares, counts = table.split([channels, channels, 1], dim=1)
        count = counts.sum()
        # Looked at only where it may be, for on a GPU it means to wait.
        if own <= 1 and count == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, and {group.count} processes have 1 together"
            )
        mean = (counts * means).sum(0) / count
        variance = (squares + counts * (means - mean).square()).sum(0) / count
        inverse = (variance + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        normal = (wide - mean.view(shape)) * scale.view(shape)
        if bias is not None:
            normal = normal + bias.view(shape)
        ctx.save_for_backward(features, weight, mean, inverse, count)
        ctx.group, ctx.axes, ctx.shape, ctx.has_bias = group, axes, shape, bias is not None
        ctx.mark_non_differentiable(mean, variance, count)
        return normal.to(features.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        features, weight, mean, inverse, count = ctx.saved_tensors
        gradient, shape = _wide(gradients[0]), ctx.shape
        normal = (_wide(features) - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([gradient.sum(ctx.axes), (gradient * normal).sum(ctx.axes)])
        to_features = None
        if ctx.needs_input_grad[0]:
            average = own.clone()
            ctx.group.sum(average)
            average = average / count
            scale = inverse if weight is None else inverse * weight
            inner = gradient - average[0].view(shape) - normal * average[1].view(shape)
            to_features = (inner * scale.view(shape)).to(features.dtype)
        return to_features, None if weight is None else own[1], own[0] if ctx.has_bias else None, None, None
