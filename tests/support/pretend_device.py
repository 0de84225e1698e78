"""A device that only pretends to be one: what would fail or wait on a GPU is seen where there is none.

Its tensors hold real numbers, which the processor computes with. But they say that they are elsewhere, refuse to meet
tensors that are not, and count, by the line of code, whenever the program has to wait for them: the host round trips.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from robustdml import devices

#: torch's device without numbers: it is known to all of torch, and nothing else here uses it.
NAME = "meta"
_aten = torch.ops.aten

#: What makes tensors whose size depends on values: a GPU must have finished before the program can go on.
_WAITING = {
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.unique_dim.default,
    _aten.unique_consecutive.default,
    _aten.bincount.default,
    _aten.repeat_interleave.Tensor,
    _aten.multinomial.default,
    _aten.isin.Tensor_Tensor,
}
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}
_MOVING = {_aten.copy_.default, *_INDEXING}
_FOLDERS = (f"{Path(torch.__file__).parent}/", __file__, "<frozen")


class MixedDevicesError(RuntimeError):
    """Tensors of two devices met in one operation."""


class PretendDevice:
    """Where the tensors are, and what was seen of them.

    Attributes:
        round_trips: how often the program waited for the device, by the file and function that did.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.round_trips: Counter[str] = Counter()

    def waited(self) -> None:
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename.startswith(_FOLDERS):
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        self.round_trips[f"{path.parent.name}/{path.stem}.{frame.f_code.co_name}"] += 1


_here: PretendDevice | None = None


class PretendTensor(torch.Tensor):
    """A tensor on the device; ``held`` are its numbers, on the processor."""

    held: torch.Tensor
    literal: bool

    @staticmethod
    def __new__(cls, held: torch.Tensor, literal: bool = False) -> PretendTensor:
        assert _here is not None, "a tensor of the pretend device outlived it"
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=_here.device,
        )
        found.held, found.literal = held, literal
        return found

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretended {self.held!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> PretendTensor:
        found = self.detach().clone().requires_grad_(self.requires_grad)
        found.__class__ = type(self)
        memo[id(self)] = found
        return found

    @property
    def data(self) -> torch.Tensor:
        found: torch.Tensor = torch.Tensor.data.__get__(self)
        return found

    @data.setter
    def data(self, other: PretendTensor) -> None:
        torch.Tensor.data.__set__(self, other)
        self.held = other.held

    # Of subclasses torch itself refuses it.
    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    assert _here is not None
    given = list(_tensors((*args, *kwargs.values())))
    own = any(isinstance(part, PretendTensor) for part in given)
    strangers = any(not isinstance(part, PretendTensor) and part.dim() for part in given)
    if own and strangers and func not in _MOVING:
        shapes = ", ".join(f"{tuple(part.shape)} on {part.device}" for part in given)
        raise MixedDevicesError(f"{func} was handed tensors of two devices: {shapes}")
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != NAME:
        raise MixedDevicesError(f"{func} on {_here.device} was handed a generator of the {generator.device}")
    target = kwargs.get("device")
    leaves = own and target is not None and target.type != NAME
    arrives = bool(given) and not own
    to_host = func is _aten.copy_.default and not isinstance(args[0], PretendTensor)
    masked = func in _INDEXING and _waits_for_a_mask(func, args)
    if func in _WAITING or masked or (own and strangers) or leaves or arrives:
        _here.waited()
    if target is not None and target.type == NAME:
        kwargs["device"] = torch.device("cpu")
    found = func(*map(_held, args), **{name: _held(part) for name, part in kwargs.items()})
    if leaves:
        return found
    if to_host:
        return args[0]
    if isinstance(found, bool | int | float):
        _here.waited()
        return found
    found = _wrapped(found, func is _aten.scalar_tensor.default)
    return return_and_correct_aliasing(func, args, kwargs, found) if _aliases(func) else found


def _tensors(parts: Any) -> Iterator[torch.Tensor]:
    for part in parts:
        if isinstance(part, torch.Tensor):
            yield part
        elif isinstance(part, list | tuple):
            yield from _tensors(part)


def _held(part: Any) -> Any:
    if isinstance(part, list | tuple):
        return type(part)(map(_held, part))
    return part.held if isinstance(part, PretendTensor) else part


def _wrapped(found: Any, literal: bool) -> Any:
    if isinstance(found, list | tuple):
        return type(found)(_wrapped(part, literal) for part in found)
    return PretendTensor(found, literal) if isinstance(found, torch.Tensor) else found


@cache
def _aliases(func: Any) -> bool:
    """Whether what it returns shares memory with what it is given."""
    return any(part.alias_info is not None for part in func._schema.returns)


def _waits_for_a_mask(func: Any, args: Any) -> bool:
    """Masks are turned into places, which must be counted first, unless one number is written there."""
    masks = [part for part in args[1] if part is not None and part.dtype in (torch.bool, torch.uint8)]
    if func is _aten.index.Tensor or not masks:
        return bool(masks)
    value = args[2]
    return not (value.dim() == 0 and (not isinstance(value, PretendTensor) or value.literal))


class _Made(TorchDispatchMode):
    """Sees to it that tensors made on the device are made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = kwargs.get("device")
        if any(issubclass(kind, PretendTensor) for kind in types) or (target is not None and target.type == NAME):
            return _run(func, args, dict(kwargs))
        return func(*args, **kwargs)


class _Written(TorchFunctionMode):
    """Tensors of numbers that the program writes down: torch makes them without numbers where it knows the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.new_tensor and isinstance(args[0], PretendTensor):
            kwargs = {"device": args[0].device, "dtype": args[0].dtype, **kwargs}
            func, args = torch.tensor, args[1:]
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], PretendTensor):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            sent_ = [torch.tensor(part).to(NAME) if isinstance(part, list | np.ndarray) else part for part in index]
            args = (args[0], tuple(sent_), *args[2:])
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == NAME:
            device, leaf = kwargs.pop("device"), kwargs.pop("requires_grad", False)
            return func(*args, **kwargs).to(device).requires_grad_(leaf)
        return func(*args, **kwargs)


@contextmanager
def pretend_device() -> Iterator[PretendDevice]:
    """Within the block there is such a device."""
    global _here
    _here = PretendDevice(torch.device(NAME))
    try:
        with pytest.MonkeyPatch.context() as patch, _Made(), _Written():
            patch.setattr(devices, "_KINDS", (*devices._KINDS, NAME))
            yield _here
    finally:
        _here = None


def sent(thing: Any, device: torch.device) -> Any:
    """Frozen dataclasses of tensors, such as `robustdml.contracts.References`, with every tensor on the device."""
    if isinstance(thing, torch.Tensor):
        return thing.to(device)
    if hasattr(thing, "__dataclass_fields__"):
        parts = {name: sent(getattr(thing, name), device) for name in thing.__dataclass_fields__}
        return type(thing)(**parts)
    return thing
