"""Work in copies of this process, which may be killed at any moment, and what it leaves in its folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

#: What says when and where something was made, and not what.
_OF_THE_CALL = {"seconds", "created", "checksum", "command", "configuration"}


def apart(work: Callable[[], object], *, cpu: float = 0.0, steps: int = 0, output: Path | None = None) -> int:
    """Do the work in a copy of this process; its exit code, negative where a signal ended it.

    Args:
        cpu: seconds of processor time after which it is killed, wherever it is; 0: never.
        steps: of writing files, before which it is killed; 0: never.
        output: a file for what it prints.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that a copy does not have
        process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 1
    try:
        printed = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(printed, 1), os.dup2(printed, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        if steps:
            _die_writing(steps)
        if cpu:
            signal.setitimer(signal.ITIMER_PROF, cpu)  # which ends a process that does not handle it
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def _die_writing(steps: int) -> None:
    left = iter(range(steps - 1, -1, -1))

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            if next(left, 1) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return counted

    os.fsync, Path.replace, Path.unlink = before(os.fsync), before(Path.replace), before(Path.unlink)


def content(folder: Path) -> dict[str, Any]:
    """What every file of a folder says, without when it was made, and where."""
    return {str(path.relative_to(folder)): _said(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()}


def _said(path: Path, folder: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text().replace(str(folder), "FOLDER")))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".safetensors":
        # Not byte for byte: metadata are written in any order.
        return {name: tensor.numpy().tobytes() for name, tensor in safetensors.torch.load_file(path).items()}
    if path.suffix == ".pt":
        return sorted(torch.load(path, weights_only=True))
    # Records hold the seconds that they took, and pages when they were made.
    return "there"


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(part) for name, part in value.items() if name not in _OF_THE_CALL}
    return [_timeless(part) for part in value] if isinstance(value, list) else value
