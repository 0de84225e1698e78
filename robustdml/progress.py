"""Progress bars with the time left, on standard error or below a notebook's cell, only where someone watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from html import escape
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Call it with a number of finished units and, if wanted, a new description.
Advance = Callable[..., None]

#: Seconds between two pictures of a notebook's bar.
_PAUSE = 0.25


@contextmanager
def progress(description: str, total: int, *, enabled: bool, done: int = 0) -> Iterator[Advance]:
    """A bar for the block; yields ``advance(units, description=None)``.

    Args:
        done: units that an earlier, interrupted run finished.
    """
    if enabled and in_notebook():
        bar = _CellBar(description, total, done)
        try:
            yield bar.advance
        finally:
            bar.show()
        return
    columns = (
        # Without markup: a model may be called mdprop[stax].
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not enabled, transient=False) as shown:
        task = shown.add_task(description, total=total, completed=done)

        def advance(units: int = 1, text: str | None = None) -> None:
            shown.update(task, advance=units, **({"description": text} if text else {}))  # type: ignore[arg-type]

        yield advance


def in_notebook() -> bool:
    """Whether this is a notebook's kernel, which shows HTML and no terminal."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class _CellBar:
    """A bar below a notebook's cell. Those of rich and tqdm need ipywidgets there, or write a line for each step."""

    def __init__(self, description: str, total: int, done: int) -> None:
        self._text, self._total, self._first, self._done = description, total, done, done
        self._started, self._shown = time.monotonic(), 0.0
        # By name: where there is a notebook, there is IPython, and it is needed nowhere else.
        self._display: Any = sys.modules["IPython"].display
        self._place = self._display.display(self._picture(), display_id=True)

    def advance(self, units: int = 1, text: str | None = None) -> None:
        self._done += units
        self._text = text or self._text
        if time.monotonic() - self._shown > _PAUSE:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        self._place.update(self._picture())

    def _picture(self) -> Any:
        spent = time.monotonic() - self._started
        new = self._done - self._first
        left = (
            f", left {_clock(spent / new * (self._total - self._done))}" if new > 0 and self._done < self._total else ""
        )
        return self._display.HTML(
            f'<progress value="{self._done}" max="{self._total}"></progress> {escape(self._text)} '
            f"{self._done:,}/{self._total:,}, {_clock(spent)}{left}"
        )


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
