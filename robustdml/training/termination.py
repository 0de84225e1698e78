"""SIGTERM as a request: the step under way is finished, everything is saved, then the process ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def termination() -> Iterator[threading.Event]:
    """Within the block, SIGTERM sets the event and does nothing else; afterwards, the handler is as before."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # Only the main thread may handle signals; a training in another one is ended by its owner.
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
