"""Progress bars with the time left, on standard error, only where someone watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Call it with a number of finished units and, if wanted, a new description.
Advance = Callable[..., None]


@contextmanager
def progress(description: str, total: int, *, enabled: bool, done: int = 0) -> Iterator[Advance]:
    """A bar for the block; yields ``advance(units, description=None)``.

    Args:
        done: units that an earlier, interrupted run finished.
    """
    columns = (
        # Without markup: a model may be called mdprop[stax].
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not enabled, transient=False) as bar:
        task = bar.add_task(description, total=total, completed=done)

        def advance(units: int = 1, text: str | None = None) -> None:
            bar.update(task, advance=units, **({"description": text} if text else {}))  # type: ignore[arg-type]

        yield advance
