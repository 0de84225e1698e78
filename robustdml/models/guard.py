"""Running foreign code on a model and giving it back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from robustdml.errors import AttackError


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode and its parameters ask for no gradient; afterwards, as before.

    Frozen parameters make every attack step cheaper: only the gradient of the image is computed. ``grad`` is taken
    away within the block too, for foreign code may add to a gradient in place, or zero it.
    """
    modes = {module: module.training for module in model.modules()}
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval()
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


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """`evaluation_mode`, and nothing else of the model or of the process changes either.

    Restored: the buffers (BatchNorm statistics), and the global random states of Python, NumPy and torch, which attack
    libraries reseed.

    Raises:
        AttackError: the block changed a buffer (restored first) or a weight (the caller must reload the weights).
    """
    versions = [(parameter, parameter._version) for parameter in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    changed = None
    with kept_randomness(model), evaluation_mode(model):
        try:
            yield
        finally:
            if any(parameter._version != version for parameter, version in versions):
                changed = "weights"
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)
                        changed = "buffers (BatchNorm statistics)"
    if changed:
        raise AttackError(f"the attack changed the model's {changed}: its images cannot be trusted")
