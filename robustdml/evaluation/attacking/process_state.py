"""The state of the process and of torch in it, which attacks must leave as it was: what is read, and put back."""

from __future__ import annotations

import contextlib
import gc
import io
import locale
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import overrides as functions
from torch.backends import cuda
from torch.utils import _python_dispatch as operators
from torch.utils._device import DeviceContext

_GLOBAL_HOOKS = tuple(
    name for name in vars(torch.nn.modules.module) if name.startswith("_global_") and name.endswith("_hooks")
)
_TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)]


class ProcessState:
    """The state of the process as it is now."""

    def __init__(self) -> None:
        self._before = {name: read() for name, (read, _) in _STATES.items()}
        self._streams = (sys.stdout, sys.stderr)
        self._descriptors = [(number, _duplicate(number)) for number in (1, 2)]

    def restore(self) -> list[str]:
        """Put it back, and name what was changed and matters."""
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
        return [*found, *self._restore_streams()]

    def _restore_streams(self) -> list[str]:
        found = []
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


def _blocked() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ())) if hasattr(signal, "pthread_sigmask") else set()


def _set_blocked(before: set[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _timers() -> tuple[bool, ...]:
    return tuple(signal.getitimer(kind) != (0.0, 0.0) for kind in _TIMERS)


def _set_timers(before: Sequence[bool]) -> None:
    for kind, runs in zip(_TIMERS, before, strict=True):
        if not runs:
            signal.setitimer(kind, 0)


def _limits() -> dict[int, tuple[int, int]]:
    try:
        import resource  # there is none on Windows
    except ImportError:
        return {}
    kinds = [value for name, value in vars(resource).items() if name.startswith("RLIMIT_")]
    return {kind: resource.getrlimit(kind) for kind in kinds}


def _set_limits(before: Mapping[int, tuple[int, int]]) -> None:
    import resource

    for kind, limits in before.items():
        resource.setrlimit(kind, limits)


def _umask() -> int:
    before = os.umask(0o77)
    os.umask(before)
    return before


def _set_environment(before: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def _set_filters(before: Sequence[Any]) -> None:
    warnings.filters = list(before)


def _hooks() -> tuple[Any, ...]:
    return sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, sys.stdin


def _set_hooks(before: Sequence[Any]) -> None:
    sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, sys.stdin = before


def _collecting() -> tuple[Any, ...]:
    return gc.isenabled(), gc.get_threshold(), tuple(gc.callbacks)


def _set_collecting(before: tuple[Any, ...]) -> None:
    enabled, thresholds, callbacks = before
    (gc.enable if enabled else gc.disable)()
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks


def _set_list(held: list[Any]) -> Callable[[Sequence[Any]], None]:
    def write(before: Sequence[Any]) -> None:
        held[:] = before

    return write


_ENTERED: list[torch.inference_mode] = []


def _gradients() -> tuple[bool, bool]:
    return torch.is_inference_mode_enabled(), torch.is_grad_enabled()


def _set_gradients(before: tuple[bool, bool]) -> None:
    if torch.is_inference_mode_enabled() != before[0]:
        _ENTERED.append(torch.inference_mode(before[0]))  # which is left when nobody holds it
        _ENTERED[-1].__enter__()
    torch.set_grad_enabled(before[1])


def _autocast() -> tuple[Any, ...]:
    kinds = tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda"))
    return (*kinds, torch.is_autocast_cache_enabled())


def _set_autocast(before: Sequence[Any]) -> None:
    for kind, (enabled, dtype) in zip(("cpu", "cuda"), before[:2], strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(before[2])


def _deterministic() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )


def _set_deterministic(before: Sequence[bool]) -> None:
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    torch.utils.deterministic.fill_uninitialized_memory = before[2]  # type: ignore[attr-defined]


#: Kinds of attention in `torch.backends.cuda`; older versions of torch lack some.
_ATTENTION = [kind for kind in ("flash", "mem_efficient", "math", "cudnn") if hasattr(cuda, f"enable_{kind}_sdp")]


def _libraries() -> tuple[bool, ...]:
    flags, attention = torch.backends.cudnn, [getattr(cuda, f"{kind}_sdp_enabled")() for kind in _ATTENTION]
    own = (flags.enabled, flags.benchmark, flags.deterministic, flags.allow_tf32)
    return (*own, torch._C._get_mkldnn_enabled(), *attention)


def _set_libraries(before: Sequence[bool]) -> None:
    flags = torch.backends.cudnn
    flags.enabled, flags.benchmark, flags.deterministic, flags.allow_tf32 = before[:4]
    torch._C._set_mkldnn_enabled(before[4])
    for kind, value in zip(_ATTENTION, before[5:], strict=True):
        getattr(cuda, f"enable_{kind}_sdp")(value)


def _global_hooks() -> dict[str, dict[Any, Any]]:
    return {name: dict(getattr(torch.nn.modules.module, name)) for name in _GLOBAL_HOOKS}


def _set_global_hooks(before: Mapping[str, Mapping[Any, Any]]) -> None:
    for name, hooks in before.items():
        now = getattr(torch.nn.modules.module, name)
        now.clear()
        now.update(hooks)


def _flushes_small_numbers() -> bool:
    return float(torch.tensor(1e-308, dtype=torch.float64) * 0.01) == 0


def _default_device() -> str | None:
    context = next((mode for mode in functions._get_current_function_mode_stack() if _of_a_device(mode)), None)
    return None if context is None else str(context.device)


def _of_a_device(mode: Any) -> bool:
    return isinstance(mode, DeviceContext)


def _modes() -> tuple[int, ...]:
    """Of what stands between a program and torch's functions, apart from the default device."""
    found = [*functions._get_current_function_mode_stack(), *operators._get_current_dispatch_mode_stack()]
    return tuple(id(mode) for mode in found if not _of_a_device(mode))


def _set_modes(before: Sequence[int]) -> None:
    kinds: Any = (
        (functions, functions._get_current_function_mode_stack),
        (operators, operators._get_current_dispatch_mode_stack),
    )
    for kind, stack in kinds:
        taken = [kind._pop_mode() for _ in stack()]
        for mode in reversed(taken):
            if id(mode) in before or _of_a_device(mode):
                kind._push_mode(mode)


def _saved_hooks() -> Any:
    try:
        return torch._C._autograd._top_saved_tensors_default_hooks(True)
    except (AttributeError, TypeError):  # torch has another way to ask for them
        return None


def _set_saved_hooks(before: Any) -> None:
    while _saved_hooks() not in (None, before):
        torch._C._autograd._pop_saved_tensors_default_hooks()


#: What is read and written of the process, by the name that a message gives it. The modes of torch come first, for
#: they stand before all else.
_STATES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "modes of torch": (_modes, _set_modes),
    "torch's default device": (_default_device, torch.set_default_device),
    "torch's default type": (torch.get_default_dtype, torch.set_default_dtype),
    "whether gradients are computed": (_gradients, _set_gradients),
    "hooks of saved tensors": (_saved_hooks, _set_saved_hooks),
    "autocast": (_autocast, _set_autocast),
    "torch's deterministic algorithms": (_deterministic, _set_deterministic),
    "torch's anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch's precision of products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch's rounding of small numbers": (_flushes_small_numbers, torch.set_flush_denormal),
    "flags of cuDNN and its like": (_libraries, _set_libraries),
    "hooks of all modules": (_global_hooks, _set_global_hooks),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the working folder": (os.getcwd, os.chdir),
    "environment variables": (lambda: dict(os.environ), _set_environment),
    "signal handlers": (_handlers, _set_handlers),
    "blocked signals": (_blocked, _set_blocked),
    "timers that send signals": (_timers, _set_timers),
    "limits of the process": (_limits, _set_limits),
    "permissions of new files": (_umask, os.umask),
    "tracing": (sys.gettrace, sys.settrace),
    "profiling": (sys.getprofile, sys.setprofile),
    "what is called for errors, or the standard input": (_hooks, _set_hooks),
    "garbage collection": (_collecting, _set_collecting),
    "warning filters": (lambda: list(warnings.filters), _set_filters),
    "errors of NumPy": (np.geterr, lambda before: np.seterr(**before)),
    "NumPy's way of printing": (np.get_printoptions, lambda before: np.set_printoptions(**before)),
    "the locale": (lambda: locale.setlocale(locale.LC_ALL), lambda before: locale.setlocale(locale.LC_ALL, before)),
    "what is logged": (lambda: logging.root.manager.disable, logging.disable),
    "the search path of modules": (lambda: list(sys.path), _set_list(sys.path)),
    "Python's recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
}
#: Restored without a word: libraries change them, and no number depends on them.
_HARMLESS = {
    "warning filters",
    "errors of NumPy",
    "the number of threads",
    "environment variables",
    "NumPy's way of printing",
    "the locale",
    "what is logged",
}
