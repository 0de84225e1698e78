"""Running foreign code on a model and giving it back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.errors import AttackUnsound


def into_evaluation(model: nn.Module) -> None:
    """``model.eval()``, where there is such a thing: programs of `torch.export` have no modes and refuse it."""
    try:
        model.eval()
    except NotImplementedError:
        model.training = False
        for child in model.children():
            into_evaluation(child)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode and its parameters ask for no gradient; afterwards, as before.

    Frozen parameters make every attack step cheaper: only the gradient of the image is computed. ``grad`` is taken
    away within the block too, for foreign code may add to a gradient in place, or zero it.
    """
    modes = {module: module.training for module in model.modules()}
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        into_evaluation(model)
        for parameter, *_ in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, needs_gradient, gradient in parameters:
            parameter.requires_grad_(needs_gradient)
            parameter.grad = gradient


@contextmanager
def kept_randomness(model: nn.Module) -> Iterator[None]:
    """Within the block the global random states of Python, NumPy and torch may change; afterwards, as before."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = sorted({p.device.index for p in model.parameters() if p.is_cuda and p.device.index is not None})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def seed_globally(seed: int) -> None:
    """Put the global random states of Python, NumPy and torch at a seed, in [0, 2^63)."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def single_precision() -> Iterator[None]:
    """Within the block torch's default type is float32, whatever the program around has made it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """`evaluation_mode`, and nothing else of the model or of the process changes either.

    Restored: the buffers (BatchNorm statistics), and the global random states of Python, NumPy and torch, which attack
    libraries reseed. A buffer that the model's own forward pass changes in evaluation mode (a counter) is restored too,
    and nobody is blamed for it.

    Raises:
        AttackUnsound: the block changed a buffer (restored first) or a weight (the caller must reload the weights).
    """
    versions = [(parameter, parameter._version) for parameter in model.parameters()]
    buffers = _Buffers(model)
    changed = None
    with kept_randomness(model), evaluation_mode(model):
        try:
            with buffers.watched():
                yield
        finally:
            if any(parameter._version != version for parameter, version in versions):
                changed = "weights"
            if buffers.restore():
                changed = "buffers (BatchNorm statistics)"
    if changed:
        raise AttackUnsound(f"the attack changed the model's {changed}: its images cannot be trusted")


class _Buffers:
    """The buffers of a model as they are now, and which of them its own forward passes change."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._held = [
            (owner, name, buffer, buffer.clone())
            for owner in model.modules()
            for name, buffer in owner.named_buffers(recurse=False)
        ]
        self._before: list[tuple[int, int]] = []
        self._own: set[int] = set()
        # Where no ``eval()`` reaches a BatchNorm, that it moves its statistics is the model's own doing.
        self._always_training: set[nn.Module] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block, in which the model is in evaluation mode, see what forward passes change."""
        self._always_training = {module for module in self._model.modules() if module.training}
        if isinstance(self._model, torch.jit.ScriptModule):  # It takes no hooks; within another module it is watched.
            yield
            return
        handles = (
            self._model.register_forward_pre_hook(lambda *_: self._enter()),
            self._model.register_forward_hook(lambda *_: self._leave()),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _marks(self) -> list[tuple[int, int]]:
        found = (getattr(owner, name, None) for owner, name, *_ in self._held)
        return [(id(buffer), 0 if buffer is None else buffer._version) for buffer in found]

    def _enter(self) -> None:
        self._before = self._marks()

    def _leave(self) -> None:
        for number, (before, after) in enumerate(zip(self._before, self._marks(), strict=True)):
            # In training mode, which is not the model's own choice here, BatchNorm moves its statistics.
            if before != after and not self._held[number][0].training:
                self._own.add(number)

    @torch.no_grad()
    def restore(self) -> bool:
        """Put everything back; whether something was not as it had been that is not the model's own doing."""
        blamed = False
        kept = _kept_values([(buffer, before) for *_, buffer, before in self._held])
        for number, (owner, name, buffer, before) in enumerate(self._held):
            replaced = getattr(owner, name, None) is not buffer
            if replaced:
                setattr(owner, name, buffer)
            altered = not kept[number]
            if altered:
                buffer.copy_(before)
            blamed |= (replaced or altered) and number not in self._own and owner not in self._always_training
        return blamed


def _kept_values(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[bool]:
    """`same_values` of each pair; a GPU is waited for once, and not for each."""
    found: list[Tensor] = []
    for one, other in pairs:
        plain = one.layout == torch.strided and not one.is_quantized and one.shape == other.shape
        there = plain and one.device.type != "cpu"
        found.append(_agreement(one, other) if there else torch.tensor(same_values(one, other)))
    device = next((one.device for one, _ in pairs if one.device.type != "cpu"), torch.device("cpu"))
    agreed: list[bool] = torch.stack([each.to(device) for each in found]).tolist() if found else []
    return agreed


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape hold the same numbers; a NaN is the same as a NaN."""
    if one.layout != torch.strided or one.is_quantized:
        one, other = (part.dequantize() if part.is_quantized else part.to_dense() for part in (one, other))
    return torch.equal(one, other) or bool(_agreement(one, other))


def _agreement(one: Tensor, other: Tensor) -> Tensor:
    """``()`` bool, where the tensors are."""
    return ((one == other) | ((one != one) & (other != other))).all()
