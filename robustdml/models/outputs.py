"""What a forward pass gives, and whether it is one vector per image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor


def as_matrix(output: object, count: int) -> Tensor | None:
    """The output as ``(N, D)`` for ``count`` = N images; None where it is no such thing.

    A network that ends in ``squeeze()`` gives ``(D,)`` for a batch of one: that is the one row.
    """
    if not isinstance(output, Tensor) or output.is_complex() or output.layout != torch.strided:
        return None
    if output.ndim == 1 and count == 1:
        return output[None]
    return output if output.ndim == 2 and len(output) == count else None


def described(output: object) -> str:
    """An output in words: ``(8, 3, 4)``, ``tuple of (8, 16), (8, 4)``, ``dict with features (8, 16)``."""
    if isinstance(output, Tensor):
        kind = f" of {output.dtype}" if output.is_complex() else ""
        return f"{tuple(output.shape)}{kind}{'' if output.layout == torch.strided else f' as {output.layout}'}"
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with {_fields(output)}"
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return f"{type(output).__name__} with {_fields(vars(output))}"
    if isinstance(output, list | tuple):
        names = getattr(output, "_fields", None)
        if names:
            return f"{type(output).__name__} with {_fields(dict(zip(names, output, strict=True)))}"
        return f"{type(output).__name__} of {', '.join(described(part) for part in output[:6]) or 'nothing'}"
    return type(output).__name__


def _fields(parts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {described(part)}" for name, part in list(parts.items())[:6]) or "nothing"


def remedy(output: object) -> str:
    """What to do about an output that is no matrix."""
    if isinstance(output, Tensor) and (output.is_complex() or output.layout != torch.strided):
        return "give real numbers in a dense tensor: torch.view_as_real(x).flatten(1), x.to_dense()"
    if isinstance(output, Tensor):
        return "remove its classifier, or flatten its output"
    return "wrap it in a module whose forward returns the one tensor (N, D) that is the embedding"
