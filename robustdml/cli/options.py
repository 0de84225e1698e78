"""Options that several commands share, and how text becomes values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def data_options(command: F) -> F:
    """``--data`` and ``--root``."""
    root = click.option("--root", type=click.Path(path_type=Path), help="Folder of the data set, where it needs one.")
    name = click.option("--data", required=True, metavar="NAME", help="Data set; see 'robustdml list datasets'.")
    return name(root(command))


def run_options(command: F) -> F:
    """``--device`` and ``--quiet``."""
    device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ... or auto.")
    quiet = click.option("--quiet", is_flag=True, help="No progress bar.")
    return device(quiet(command))
