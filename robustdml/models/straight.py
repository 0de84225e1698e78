"""Gradients where a model gives none that help: straight through what has no slope (BPDA, Athalye et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# An input of a layer counts as the image itself where a linear map of its colours explains this share of it.
_EXPLAINED = 0.5
_RIDGE = 1e-4


class Straightened(nn.Module):
    """A model with its values, and other gradients.

    Rounding and its like (round, floor, ceil, trunc, sign, division and remainder by them) and clamping pass gradients
    on as if they were not there; ``detach``, ``.data`` and ``torch.no_grad`` inside the model are ignored.

    Args:
        model: maps images ``(N, 3, H, W)`` to ``(N, D)``.
        around: go around whatever comes before the network, too (JPEG, a filter, a replaced backward pass): where the
            input of a layer has the shape of the images and is nearly a linear map of their colours, the gradient goes
            from there to the image by that map.
    """

    def __init__(self, model: nn.Module, *, around: bool) -> None:
        super().__init__()
        self.model, self.around = model, around

    def forward(self, images: Tensor) -> Tensor:
        """What the model gives."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            return self.model(images)  # type: ignore[no-any-return]
        if not self.around:
            with _Through():
                return self.model(images)  # type: ignore[no-any-return]
        with _Through(), self._from_the_image(images):
            return self.model(images)  # type: ignore[no-any-return]

    @contextmanager
    def _from_the_image(self, images: Tensor) -> Iterator[None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            first = inputs[0] if inputs else None
            if not isinstance(first, Tensor) or first.shape != images.shape or not first.is_floating_point():
                return None
            with torch._C.DisableTorchFunction():  # here, detaching is meant
                value = first.detach()
                found = _colours(images.detach(), value)
                if found is None:
                    return None
                mixed = torch.einsum("nij,njhw->nihw", found.to(images), images)
                return (_Straight.apply(mixed.to(value), value), *inputs[1:])

        handles = [module.register_forward_pre_hook(hook) for module in self.model.modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _colours(images: Tensor, made: Tensor) -> Tensor | None:
    """The map ``(N, 3, 3)`` from the colours of each image to those of what was made of it; None where there is none.

    Of each image by itself, so that it does not depend on the batch.
    """
    before, after = (part.flatten(2).double() for part in (images, made))
    before, after = (part - part.mean(2, keepdim=True) for part in (before, after))
    products = before @ before.mT
    scale = products.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-12)
    ridge = _RIDGE * scale * torch.eye(3, dtype=before.dtype, device=before.device)
    found = torch.linalg.solve(products + ridge, before @ after.mT).mT
    left = (after - found @ before).square().sum()
    return found if bool(left <= (1 - _EXPLAINED) * after.square().sum().clamp_min(1e-12)) else None


class _Straight(torch.autograd.Function):
    """The second value, with a gradient to the first alone."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Through(TorchFunctionMode):
    """Within it, what has no slope is passed straight through."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "_set_grad_enabled":
            return None
        first = args[0] if args else None
        if not isinstance(first, Tensor) or not first.requires_grad:
            return func(*args, **kwargs)
        if name in _HIDING or func == _DATA:
            return first
        if name in _REMAINDERS:
            return func(*args, **kwargs).detach()
        if name in _FLAT:
            return _Straight.apply(first, func(first.detach(), *args[1:], **kwargs))
        if name.rstrip("_") in _FLAT and name.endswith("_"):
            return first.copy_(_Straight.apply(first, getattr(first.detach(), name[:-1])(*args[1:], **kwargs)))
        if name in _DIVISIONS and (name not in {"div", "divide"} or kwargs.get("rounding_mode")):
            exact = torch.true_divide(first, args[1])
            return _Straight.apply(exact, func(first.detach(), *args[1:], **kwargs))
        return func(*args, **kwargs)


_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_HIDING = {"detach", "detach_", "detach_copy"}
_FLAT = {"round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "clamp", "clip", "clamp_min", "clamp_max"}
_REMAINDERS = {"remainder", "fmod", "frac", "__mod__"}
_DIVISIONS = {"div", "divide", "floor_divide", "__floordiv__"}
