"""What an attack must leave alone, looked at before and after: models, gallery, code, and the state of the process.

What it changed is restored as far as that can be, so that the attacks after it meet what those before it met, and is
named.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import hashlib
import io
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustdml.contracts import Attack, foreign_code
from robustdml.errors import AttackUnsound

#: Attacks whose code is this project's own, and is tested to change nothing.
_TRUSTED = "robustdml.attacks.native"
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)
_GLOBAL_HOOKS = tuple(
    name for name in vars(torch.nn.modules.module) if name.startswith("_global_") and name.endswith("_hooks")
)


def is_trusted(attack: Attack) -> bool:
    """Whether all of an attack is this project's own code; what libraries bring is not."""
    return type(attack).__module__.startswith(_TRUSTED) and not foreign_code(attack)


@contextmanager
def watched(models: Sequence[nn.Module], arrays: Mapping[str, npt.NDArray[Any]]) -> Iterator[None]:
    """Within the block, an attack runs; afterwards models, arrays, code and process are as before.

    Args:
        models: what it may reach of the model, its own copy first.
        arrays: what it may reach of the data, by name.

    Raises:
        AttackUnsound: the block changed something; in the place of what it raised itself.
    """
    parts: list[_Part] = [*(_Model(model) for model in models), _Code(models), _Process(), _Threads()]
    parts += [_Array(name, array) for name, array in arrays.items()]
    try:
        yield
    finally:
        changed = list(dict.fromkeys(name for part in parts for name in part.restore()))
        if changed:
            raise AttackUnsound(f"the attack changed {', '.join(changed[:6])}: nothing of it can be believed")


class _Part:
    """Something that is to stay as it is."""

    def restore(self) -> list[str]:
        """Put it back, and name what was changed."""
        raise NotImplementedError


def _digest(values: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values).view(np.uint8).data, digest_size=16).digest()


def _bytes_of(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    return _digest(plain.reshape(-1).view(torch.uint8).numpy()) + f"{tuple(plain.shape)}{plain.dtype}".encode()


class _Model(_Part):
    """A model: its modules, weights and buffers as objects and by content, hooks, and methods of its own."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._held = [
            {kind: dict(getattr(module, kind)) for kind in ("_parameters", "_buffers", "_modules", *_HOOKS)}
            for module in self._modules
        ]
        self._own = [self._methods(module) for module in self._modules]
        self._classes = [type(module) for module in self._modules]
        self._tensors = [
            (tensor, _bytes_of(tensor), tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())
        ]

    @staticmethod
    def _methods(module: nn.Module) -> dict[str, Any]:
        return {name: value for name, value in vars(module).items() if callable(value)}

    def restore(self) -> list[str]:
        """See `_Part`."""
        found = set()
        for module, held, own, kind in zip(self._modules, self._held, self._own, self._classes, strict=True):
            if type(module) is not kind:
                module.__class__ = kind
                found.add("the class of the model")
            for name, before in held.items():
                now = getattr(module, name)
                if list(now) != list(before) or any(now[key] is not value for key, value in before.items()):
                    now.clear()
                    now.update(before)
                    found.add("hooks of the model" if name in _HOOKS else "the model's weights")
            after = self._methods(module)
            for name in after.keys() | own.keys():
                if after.get(name) is not own.get(name):
                    vars(module).pop(name, None)
                    vars(module).update({name: own[name]} if name in own else {})
                    found.add(f"the model's {name}")
        for tensor, content, copy in self._tensors:
            if _bytes_of(tensor) != content:
                tensor.data = copy
                found.add("the model's weights")
        return sorted(found)


class _Array(_Part):
    """Data that an attack can reach."""

    def __init__(self, name: str, array: npt.NDArray[Any]) -> None:
        self._name, self._array, self._before, self._copy = name, array, _digest(array), array.copy()

    def restore(self) -> list[str]:
        """See `_Part`."""
        if _digest(self._array) == self._before:
            return []
        writeable = self._array.flags.writeable
        with contextlib.suppress(ValueError):
            self._array.flags.writeable = True
            self._array[...] = self._copy
            self._array.flags.writeable = writeable
        return [self._name]


class _Code(_Part):
    """Functions, methods and classes of this project and of what it stands on."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        own = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "robustdml"]
        classes = {
            value
            for module in own
            for value in list(vars(module).values())
            if isinstance(value, type) and value.__module__.startswith("robustdml")
        }
        classes |= {type(module) for model in models for module in model.modules()}
        spaces: list[ModuleType | type] = [*own, *classes, torch, torch.nn.functional, torch.autograd, torch.linalg]
        spaces += [torch.Tensor, nn.Module, np, np.linalg, np.random, faiss, builtins, random, time, os, hashlib, Path]
        self._before = [(space, name, value) for space in spaces for name, value in _callables(space)]
        self._codes = [
            (value, value.__code__, value.__defaults__, dict(value.__kwdefaults__ or {}))
            for _, _, value in self._before
            if isinstance(value, FunctionType)
        ]

    def restore(self) -> list[str]:
        """See `_Part`."""
        found = []
        for space, name, value in self._before:
            if vars(space).get(name) is not value:
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(space, name, value)
                found.append(f"{getattr(space, '__qualname__', space.__name__)}.{name}")
        for function, code, defaults, named in self._codes:
            if (
                function.__code__ is not code
                or function.__defaults__ != defaults
                or (function.__kwdefaults__ or {}) != named
            ):
                function.__code__, function.__defaults__, function.__kwdefaults__ = code, defaults, named or None
                found.append(f"{function.__module__}.{function.__qualname__}")
        return found


def _callables(space: ModuleType | type) -> list[tuple[str, Any]]:
    methods = (staticmethod, classmethod, property)
    return [(name, value) for name, value in list(vars(space).items()) if callable(value) or isinstance(value, methods)]


class _Threads(_Part):
    """Threads that go on after the attack cannot be ended, and may change anything at any time."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def restore(self) -> list[str]:
        """See `_Part`."""
        # tqdm starts one for all bars of the process, which wakes to draw them and ends with it.
        left = [
            thread
            for thread in threading.enumerate()
            if thread not in self._before and type(thread).__module__ != "tqdm._monitor"
        ]
        for thread in left:
            thread.join(0.05)
        return ["the threads of the process (one is still running)"] if any(t.is_alive() for t in left) else []


class _Process(_Part):
    """The state of the process, and of torch in it."""

    def __init__(self) -> None:
        self._before = {name: read() for name, (read, _) in _STATES.items()}
        self._streams = (sys.stdout, sys.stderr)
        self._descriptors = [(number, _duplicate(number)) for number in (1, 2)]

    def restore(self) -> list[str]:
        """See `_Part`."""
        found = []
        for name, (read, write) in _STATES.items():
            try:
                now = read()
            except OSError:  # a working folder that is gone
                now = None
            if now != self._before[name]:
                with contextlib.suppress(OSError, RuntimeError, ValueError):
                    write(self._before[name])
                if name not in _HARMLESS:
                    found.append(name)
        for number, kept in self._descriptors:
            if kept is None:
                continue
            if not _alive(number) or os.fstat(number)[:2] != os.fstat(kept)[:2]:
                os.dup2(kept, number)
                found.append("the standard output")
            os.close(kept)
        if (sys.stdout, sys.stderr) != self._streams or any(stream and stream.closed for stream in self._streams):
            found.append("the standard output")
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), line_buffering=True)
            if stream is not None and stream.closed
            else stream
            for number, stream in enumerate(self._streams, start=1)
        )
        return found


def _duplicate(number: int) -> int | None:
    return os.dup(number) if _alive(number) else None


def _alive(number: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(number)
        return True
    return False


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_handlers(before: Mapping[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)


def _set_environment(before: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def _autocast() -> tuple[Any, ...]:
    return tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda"))


def _set_autocast(before: Sequence[tuple[bool, torch.dtype]]) -> None:
    for kind, (enabled, dtype) in zip(("cpu", "cuda"), before, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


def _cudnn() -> tuple[bool, ...]:
    flags = torch.backends.cudnn
    return (flags.enabled, flags.benchmark, flags.deterministic, flags.allow_tf32)


def _set_cudnn(before: Sequence[bool]) -> None:
    flags = torch.backends.cudnn
    flags.enabled, flags.benchmark, flags.deterministic, flags.allow_tf32 = before


def _global_hooks() -> dict[str, dict[Any, Any]]:
    return {name: dict(getattr(torch.nn.modules.module, name)) for name in _GLOBAL_HOOKS}


def _set_global_hooks(before: Mapping[str, Mapping[Any, Any]]) -> None:
    for name, hooks in before.items():
        now = getattr(torch.nn.modules.module, name)
        now.clear()
        now.update(hooks)


def _set_filters(before: Sequence[Any]) -> None:
    warnings.filters = list(before)


def _set_path(before: Sequence[str]) -> None:
    sys.path[:] = before


def _flushes_small_numbers() -> bool:
    return float(torch.tensor(1e-308, dtype=torch.float64) * 0.01) == 0


def _timers() -> tuple[bool, ...]:
    kinds = [getattr(signal, name, None) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")]
    return tuple(kind is not None and signal.getitimer(kind) != (0.0, 0.0) for kind in kinds)


def _set_timers(before: Sequence[bool]) -> None:
    for name, runs in zip(("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"), before, strict=True):
        if not runs and hasattr(signal, name):
            signal.setitimer(getattr(signal, name), 0)


#: What is read and written of the process, by the name that a message gives it.
_STATES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch's default type": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, torch.set_default_device),
    "whether gradients are computed": (torch.is_grad_enabled, torch.set_grad_enabled),
    "autocast": (_autocast, _set_autocast),
    "torch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch's anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch's precision of products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch's rounding of small numbers": (_flushes_small_numbers, torch.set_flush_denormal),
    "flags of cuDNN": (_cudnn, _set_cudnn),
    "hooks of all modules": (_global_hooks, _set_global_hooks),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the working folder": (os.getcwd, os.chdir),
    "environment variables": (lambda: dict(os.environ), _set_environment),
    "signal handlers": (_handlers, _set_handlers),
    "timers that send signals": (_timers, _set_timers),
    "tracing": (sys.gettrace, sys.settrace),
    "profiling": (sys.getprofile, sys.setprofile),
    "garbage collection": (gc.isenabled, lambda before: gc.enable() if before else gc.disable()),
    "warning filters": (lambda: list(warnings.filters), _set_filters),
    "errors of NumPy": (np.geterr, lambda before: np.seterr(**before)),
    "the search path of modules": (lambda: list(sys.path), _set_path),
    "Python's recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
}
#: Restored without a word: libraries change them, and no number depends on them.
_HARMLESS = {"warning filters", "errors of NumPy", "the number of threads", "environment variables"}
