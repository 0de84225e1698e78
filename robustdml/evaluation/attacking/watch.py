"""What an attack must leave alone, looked at before and after: models, gallery, code, and the state of the process.

What it changed is restored as far as that can be, so that the attacks after it meet what those before it met, and is
named.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import hashlib
import importlib
import os
import random
import sys
import tempfile
import threading
import time
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
from robustdml.errors import AttackUnsound, ProcessSpoiled
from robustdml.evaluation.attacking.process_state import ProcessState
from robustdml.files import writing
from robustdml.registry import Registry

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


def is_trusted(attack: Attack) -> bool:
    """Whether all of an attack is this project's own code; what libraries bring is not."""
    return type(attack).__module__.startswith(_TRUSTED) and not foreign_code(attack)


class Watch:
    """Over attacks of others on one model: what judges them, the data, code and the process are after as before each.

    What judges is looked at once, when the first such attack comes, and then after each: nobody else changes it. The
    data themselves are kept in a file without a name, for they may be most of the memory.

    Args:
        models: those that judge.
        arrays: data that judge, by the names that a message gives them.
        objects: whose attributes are to stay the same.
        ask: answers of the model that judges to a few images, ``(N, D)``, the same whenever it is asked.
        folder: where the file is.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        arrays: Mapping[str, npt.NDArray[Any]],
        objects: Sequence[object],
        ask: Callable[[], npt.NDArray[Any]],
        folder: Path,
    ) -> None:
        self._models, self._arrays, self._objects, self._ask, self._folder = models, arrays, objects, ask, folder
        self._parts: list[_Part] = []
        self._data: _Data | None = None
        self._answers: npt.NDArray[Any] | None = None

    def close(self) -> None:
        """Give the file up."""
        if self._data is not None:
            self._data.close()

    def _begin(self) -> None:
        """See how everything is."""
        # Imported by the first optimiser of a process, it puts functions of its own into torch: no attack is to blame.
        importlib.import_module("torch._dynamo")
        self._data = _Data(self._arrays, self._folder)
        judging = [_Model(model, restored=True) for model in self._models]
        answers = self._ask()
        for model in judging:
            model.leave_what_moves()
        # One that draws from a generator of its own never answers twice alike.
        self._answers = answers if _alike(answers, self._ask()) else None
        self._parts = [*judging, self._data, *(_Attributes(each) for each in self._objects)]

    @contextmanager
    def over(self, model: nn.Module, objects: Sequence[object]) -> Iterator[None]:
        """Within the block, an attack runs; afterwards all is as before.

        Args:
            model: its own copy, and ``objects`` of its own: it is named for changing them, and nobody else has them.

        Raises:
            AttackUnsound: the block changed something; in the place of what it raised itself.
            ProcessSpoiled: and that cannot be put back.
        """
        if self._data is None:
            self._begin()
        parts = [*self._parts, _Model(model, restored=False), *(_Attributes(each) for each in objects)]
        # What it does to Python itself is put back before anything else is asked.
        parts = [_Code([*self._models, model]), _Process(), _Threads(), *parts]
        try:
            yield
        finally:
            changed = list(dict.fromkeys(name for part in parts for name in part.restore()))
            if self._answers is not None and not _alike(self._answers, self._ask()):
                raise ProcessSpoiled(
                    "the model answers otherwise than before it"
                    + (f" ({', '.join(changed[:6])} were put back)" if changed else "")
                )
            if changed:
                raise AttackUnsound(f"the attack changed {', '.join(changed[:6])}: nothing of it can be believed")


def _alike(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other, atol=1e-4, equal_nan=True))


class _Part:
    """Something that is to stay as it is."""

    def restore(self) -> list[str]:
        """Put it back, and name what was changed."""
        raise NotImplementedError


class _Process(_Part):
    def __init__(self) -> None:
        self._state = ProcessState()

    def restore(self) -> list[str]:
        """See `_Part`."""
        return self._state.restore()


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _digest(values: npt.NDArray[Any]) -> bytes:
    said = f"{values.shape}{values.dtype}".encode()
    return hashlib.blake2b(_plain(values).data, digest_size=16).digest() + said


def _bytes_of(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    return _digest(plain.reshape(-1).view(torch.uint8).numpy()) + f"{tuple(plain.shape)}{plain.dtype}".encode()


#: Values of a module's attributes that its answers may depend on, and that can be compared.
_PLAIN = (bool, int, float, str, tuple, list, torch.dtype, torch.device, type(None))


class _Model(_Part):
    """A model: its modules, weights and buffers as objects and by content, hooks, methods and settings of its own.

    Args:
        restored: whether the content can be put back, which takes a copy; else it is only named.
    """

    def __init__(self, model: nn.Module, *, restored: bool) -> None:
        self._modules = list(model.modules())
        self._held = [
            {kind: dict(getattr(module, kind)) for kind in ("_parameters", "_buffers", "_modules", *_HOOKS)}
            for module in self._modules
        ]
        self._own = [_methods(module) for module in self._modules]
        self._classes = [type(module) for module in self._modules]
        # A copy of its own may be set as an attack likes it.
        self._settings = [_settings(module) if restored else {} for module in self._modules]
        loose = [value for held in map(vars, self._modules) for value in held.values() if isinstance(value, Tensor)]
        tensors = [*model.parameters(), *model.buffers(), *(loose if restored else [])]
        self._tensors = [(each, _bytes_of(each), each.detach().clone() if restored else None) for each in tensors]

    def leave_what_moves(self) -> None:
        """Watch no longer what is not as it was: the model counts, or keeps something, when it is asked."""
        for module, settings in zip(self._modules, self._settings, strict=True):
            now = _settings(module)
            for name in [name for name, value in settings.items() if name not in now or now[name] != value]:
                del settings[name]
        self._tensors = [held for held in self._tensors if _bytes_of(held[0]) == held[1]]

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
            after = _methods(module)
            for name in after.keys() | own.keys():
                if after.get(name) is not own.get(name):
                    vars(module).pop(name, None)
                    vars(module).update({name: own[name]} if name in own else {})
                    found.add(f"the model's {name}")
        for module, settings in zip(self._modules, self._settings, strict=True):
            now = _settings(module)
            for name, value in settings.items():
                if name not in now or now[name] != value:
                    vars(module)[name] = value
                    found.add(f"the model's {name}")
        for tensor, content, kept in self._tensors:
            if _bytes_of(tensor) != content:
                if kept is not None:
                    tensor.data = kept.clone()
                found.add("the model's weights")
        return sorted(found)


def _methods(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if callable(value)}


def _settings(module: nn.Module) -> dict[str, Any]:
    # Whether it is in training is seen to elsewhere.
    return {
        name: copy.deepcopy(value)
        for name, value in vars(module).items()
        if type(value) in _PLAIN and name != "training" and not _holds_objects(value)
    }


def _holds_objects(value: Any) -> bool:
    return isinstance(value, tuple | list) and not all(type(each) in _PLAIN[:4] for each in value)


class _Attributes(_Part):
    """The attributes of an object, which are to be the same objects; what it works out later and keeps may come."""

    def __init__(self, held: object) -> None:
        self._object, self._before = held, dict(vars(held))

    def restore(self) -> list[str]:
        """See `_Part`."""
        now, found = vars(self._object), False
        for name, value in self._before.items():
            if name not in _OF_AN_ATTACK and now.get(name, _Part) is not value:
                now[name] = value
                found = True
        for name in [name for name, value in now.items() if name not in self._before and callable(value)]:
            del now[name]
            found = True
        return [f"the {type(self._object).__name__}"] if found else []


#: Attributes that are written for each attack anew.
_OF_AN_ATTACK = {"judged"}


class _Data(_Part):
    """Arrays that an attack can find: their digests here, and their bytes in a file without a name."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], folder: Path) -> None:
        self._held: list[tuple[str, npt.NDArray[Any], bytes, int]] = []
        with writing(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- see `close`
            try:
                for name, array in arrays.items():
                    if any(array is held for _, held, *_ in self._held):
                        continue
                    self._held.append((name, array, _digest(array), self._file.tell()))
                    self._file.write(_plain(array).data)
                self._file.flush()
            except BaseException:
                self._file.close()
                raise

    def close(self) -> None:
        """Give the file up."""
        with contextlib.suppress(OSError):  # an attack may have closed it
            self._file.close()

    def restore(self) -> list[str]:
        """See `_Part`."""
        found = []
        for name, array, before, place in self._held:
            if _digest(array) == before:
                continue
            found.append(name)
            with contextlib.suppress(OSError, ValueError):
                self._file.seek(place)
                kept = np.frombuffer(self._file.read(array.nbytes), array.dtype).reshape(array.shape)
                writeable = array.flags.writeable
                array.flags.writeable = True
                array[...] = kept
                array.flags.writeable = writeable
            if _digest(array) != before:
                raise ProcessSpoiled(f"{name} cannot be put back")
        return found


class _Code(_Part):
    """Functions, methods, classes and constants of this project and of what it stands on."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._modules = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in _BASES}
        own = [module for name, module in self._modules.items() if name.partition(".")[0] == "robustdml"]
        classes = {
            value
            for module in own
            for value in list(vars(module).values())
            if isinstance(value, type) and value.__module__.startswith("robustdml")
        }
        kinds = {kind for model in models for module in model.modules() for kind in type(module).__mro__}
        owned: list[type] = [*(classes | (kinds - {object})), torch.Tensor]
        spaces: list[Any] = [*own, *owned, torch, torch.nn.functional, torch.autograd]
        spaces += [torch.linalg, np, np.linalg, np.random, faiss, builtins, random, time, os, hashlib, Path]
        self._before = [(space, name, value) for space in spaces for name, value in _callables(space)]
        self._before += [
            (space, name, value) for space in own for name, value in list(vars(space).items()) if type(value) in _FIXED
        ]
        self._tables = [
            (space, name, table, _items(table))
            for space in own
            for name, value in list(vars(space).items())
            for table in (vars(value).values() if isinstance(value, Registry) else [value])
            if type(table) in {dict, list} and not name.startswith("__")
        ]
        self._names: list[tuple[Any, set[str]]] = [(space, set(vars(space))) for space in (*own, *owned)]
        functions = {function: None for _, _, held in self._before for function in _functions(held)}
        self._codes = [(each, each.__code__, each.__defaults__, dict(each.__kwdefaults__ or {})) for each in functions]

    def restore(self) -> list[str]:
        """See `_Part`."""
        found = [f"the module {name}" for name, module in self._modules.items() if sys.modules.get(name) is not module]
        sys.modules.update(self._modules)
        for space, name, value in self._before:
            if vars(space).get(name, _Part) is not value:
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(space, name, value)
                found.append(f"{_called(space)}.{name}")
        for space, names in self._names:
            for name in [name for name, value in vars(space).items() if name not in names and callable(value)]:
                # What a module imports later is its own; a name that hides another is not.
                if isinstance(space, type) or hasattr(builtins, name):
                    delattr(space, name)
                    found.append(f"{_called(space)}.{name}")
        for space, name, table, before in self._tables:
            if not _holds(table, before):
                _refill(table, before)
                found.append(f"{_called(space)}.{name}")
        for function, code, defaults, named in self._codes:
            if (
                function.__code__ is not code
                or function.__defaults__ != defaults
                or (function.__kwdefaults__ or {}) != named
            ):
                function.__code__, function.__defaults__, function.__kwdefaults__ = code, defaults, named or None
                found.append(f"{function.__module__}.{function.__qualname__}")
        return found


#: Packages whose modules are to be those that they are.
_BASES = {"robustdml", "torch", "numpy", "faiss"}
#: Constants of our modules that nothing changes.
_FIXED = (int, float, str, bool, tuple, frozenset, type(None))


def _called(space: ModuleType | type) -> str:
    return getattr(space, "__qualname__", space.__name__)


def _callables(space: ModuleType | type) -> list[tuple[str, Any]]:
    methods = (staticmethod, classmethod, property)
    return [(name, value) for name, value in list(vars(space).items()) if callable(value) or isinstance(value, methods)]


def _functions(held: Any) -> Iterator[FunctionType]:
    """What runs where ``held`` is called or asked for."""
    if isinstance(held, property):
        yield from (part for part in (held.fget, held.fset) if isinstance(part, FunctionType))
    held = held.__func__ if isinstance(held, staticmethod | classmethod) else held
    while type(held) is FunctionType:
        yield held
        held = vars(held).get("__wrapped__")  # of a decorator


def _items(table: Any) -> list[Any]:
    return list(table.items()) if isinstance(table, dict) else list(table)


def _holds(table: Any, before: list[Any]) -> bool:
    """Whether all that was in a table is in it; a dict may have more, which is how things are remembered."""
    if isinstance(table, dict):
        return all(table.get(key, _Part) is value for key, value in before)
    return len(table) == len(before) and all(one is other for one, other in zip(table, before, strict=True))


def _refill(table: Any, before: list[Any]) -> None:
    if isinstance(table, dict):
        table.update(before)
    else:
        table[:] = before


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
