"""``--log-to``: finished evaluations in a tracker of experiments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from robustdml.cli.output import Output

if TYPE_CHECKING:
    from robustdml.trackers import Tracker

F = TypeVar("F", bound=Callable[..., Any])


def log_to_option(command: F) -> F:
    """``--log-to``, which may be given several times."""
    return click.option(
        "--log-to",
        multiple=True,
        metavar="TRACKER",
        help="Also log metrics, parameters, results and page to mlflow, wandb or package.module:function. Repeatable.",
    )(command)


def trackers_of(names: tuple[str, ...]) -> dict[str, Tracker]:
    """The trackers of ``--log-to``, found before hours of measuring.

    Raises:
        RobustDMLError: one is not there.
    """
    from robustdml.trackers import find_tracker

    return {name: find_tracker(name) for name in names}


def tell(trackers: dict[str, Tracker], folder: Path, output: Output) -> None:
    """Tell each of the evaluation in a folder."""
    from robustdml.results import Results
    from robustdml.trackers import track

    for name, tracker in trackers.items():
        track(Results.load(folder), folder, name, tracker)
        output.note(f"Logged to {name}.")
