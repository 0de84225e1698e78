"""What a module holds: its fingerprint, a copy of it, and its weights kept aside.

States are not always dense tensors by name: modules add what they like (`get_extra_state`), quantised layers pack
theirs, and tensors may be sparse, shared, or part of a graph.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustdml.errors import CheckpointError
from robustdml.models.guard import same_values

Module = TypeVar("Module", bound=nn.Module)


def check_present(model: nn.Module, name: str) -> None:
    """Refuse a module whose weights are not there yet.

    Raises:
        CheckpointError: a layer is lazy and has seen no batch, or a weight is on torch's meta device.
    """
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise CheckpointError(
                f"'{key}' of {name} is a lazy layer's and has no shape yet: call the model once on a batch, then load "
                "its weights"
            )
        if tensor.is_meta:
            raise CheckpointError(
                f"'{key}' of {name} is on torch's meta device and has no values: make the model on a real device, or "
                "call to_empty(device='cpu') and load its weights"
            )


def weights_fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and values of all weights and buffers, and whatever else is in its state.

    Raises:
        CheckpointError: see `check_present`.
    """
    check_present(model, "the model")
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        for part in _bytes(value):
            digest.update(part)
    return digest.hexdigest()


def put_weights(module: nn.Module, weights: Mapping[str, Any], *, strict: bool = True) -> None:
    """Put weights into a module, as layers of today's versions wrote them.

    A plain dictionary, as files give it, lacks the versions that torch keeps beside a state; some layers (MNASNet)
    refuse a state without, others take it for one of their first version.

    Raises:
        RuntimeError: names are missing or too many, or a shape is another one.
    """
    state = module.state_dict()
    versions = getattr(state, "_metadata", None)
    state = type(state)(weights)
    if versions is not None:
        state._metadata = versions  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=strict)


def _bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
        yield f"{tuple(value.shape)}{value.dtype}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Tensor):
        yield f"{tuple(value.shape)}{value.dtype}{value.layout}".encode()
        if value.is_quantized:
            yield from _bytes(value.dequantize())
        elif value.layout == torch._mkldnn:  # type: ignore[attr-defined]
            yield from _bytes(value.to_dense())
        else:
            coordinates = value.detach().to_sparse().coalesce()
            yield from _bytes(coordinates.indices())
            yield from _bytes(coordinates.values())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield repr(key).encode()
            yield from _bytes(value[key])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _bytes(part)
    else:
        try:
            yield pickle.dumps(value)
        except Exception:  # What cannot be written down has at least a type.
            yield type(value).__qualname__.encode()


def copied(model: Module) -> Module:
    """A copy that shares nothing with the model.

    Tensors that a forward pass left behind as part of its graph (the weight of old weight normalisation, a feature map
    kept as an attribute) cannot be copied by `copy.deepcopy`: their values are.

    Raises:
        TypeError: the module holds something that cannot be copied, such as a lock or a generator.
    """
    left = {id(tensor): tensor.detach().clone() for module in model.modules() for tensor in _in_graph(vars(module))}
    # copy.deepcopy asks the memo first, wherever it meets an object.
    return copy.deepcopy(model, dict[int, Any](left))


def _in_graph(held: Any) -> Iterator[Tensor]:
    if isinstance(held, Tensor):
        if not held.is_leaf:
            yield held
    elif dataclasses.is_dataclass(held) and not isinstance(held, type):
        yield from _in_graph(vars(held)) if hasattr(held, "__dict__") else ()
    elif isinstance(held, Mapping):
        for part in held.values():
            yield from _in_graph(part)
    elif isinstance(held, list | tuple | set | frozenset):
        for part in held:
            yield from _in_graph(part)


class KeptWeights:
    """The weights and buffers of a module as they are now.

    Args:
        model: the module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._held = [
            (owner, name, tensor, tensor.detach().clone())
            for owner in model.modules()
            for name, tensor in (*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False))
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back, the same tensors with the same values."""
        for owner, name, tensor, before in self._held:
            if getattr(owner, name, None) is not tensor:
                setattr(owner, name, tensor)
            if not same_values(tensor, before):
                tensor.copy_(before)
