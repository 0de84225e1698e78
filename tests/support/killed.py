"""Trainings on a few digits in processes of their own, which may be killed; importable by those processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from few_digits import few_digits

from robustdml.attacks import GOALS
from robustdml.config import RunOptions, TrainConfig
from robustdml.training import train

KILLED = -signal.SIGKILL
_CALLS = {"call", "c_call"}
# Each process is a copy of one that has imported everything.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["robustdml.attacks", "robustdml.training"])


def train_apart(config: TrainConfig, out: Path, options: RunOptions, *, dies: int = 0, at: str = "") -> tuple[int, int]:
    """Train in another process, which is killed at one of its calls: the same moment in every run, unlike a second.

    Args:
        dies: the number of the call; 0: it is not killed.
        at: calls of which function; empty: of all functions of robustdml, and of C functions by them.

    Returns:
        The exit code, and how many such calls there were.
    """
    calls = _PROCESSES.Value("q", 0, lock=False)
    process = _PROCESSES.Process(target=_train, args=(config, out, options, dies, at, calls))
    process.start()
    process.join(300)
    assert process.exitcode is not None, "it neither ended nor died"
    return process.exitcode, calls.value


def _train(config: TrainConfig, out: Path, options: RunOptions, dies: int, at: str, calls: Any) -> None:
    sys.setprofile(_die_at(dies, at, calls))
    train(few_digits(10), config, out, goals=GOALS, options=options)


def _die_at(dies: int, at: str, calls: Any) -> Callable[[FrameType, str, object], None]:
    def count(frame: FrameType, event: str, _: object) -> None:
        name = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"
        if (event == "call" and name == at) if at else (event in _CALLS and name.startswith("robustdml.")):
            calls.value += 1
            if calls.value == dies:
                os.kill(os.getpid(), signal.SIGKILL)

    return count
