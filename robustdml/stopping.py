"""Requests to end (Ctrl-C, SIGTERM, a terminal that hangs up): all alike, and none of them loses what is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from robustdml.errors import Terminated

#: What asks a process to end; Windows has no hang-up.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """The process was asked to end, and ends at once.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """As a shell gives it."""
        return 128 + self.number


class Asked:
    """Whether the process was asked to end.

    Args:
        number: of the first signal that did; 0 where none has.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def check(self) -> None:
        """End now, where foreign code has swallowed the first request.

        Raises:
            Stopped: it was asked.
        """
        if self.number:
            raise Stopped(self.number)


@contextmanager
def stopping(*, at_once: bool) -> Iterator[Asked]:
    """Within the block a request to end is noted down; afterwards, signals are handled as before.

    Signals that are ignored (as under ``nohup``) stay so. In another thread than the first, which alone may handle
    signals, nothing is noted.

    Args:
        at_once: raise `Stopped` where the process stands; else the block has to look, and the second request raises.
    """
    asked = Asked()

    def note(number: int, _: FrameType | None) -> None:
        again, asked.number = bool(asked.number), asked.number or number
        if at_once or again:
            raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, note)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminated(number: int, where: str) -> Terminated:
    """What is raised when a request was heeded and everything is saved, by the signal and where the work stands."""
    return Terminated(f"stopped on request {where}: repeat the command to go on from there", 128 + number)
