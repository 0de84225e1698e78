"""Options that several commands share, and how text becomes values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class HomePath(click.Path):
    """A path in which ``~`` is the home folder: shells do not expand it after the ``=`` of ``--out=~/x``."""

    def __init__(self, **checks: Any) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        text = str(value)
        return super().convert(str(Path(text).expanduser()) if text.startswith("~") else value, param, ctx)


def data_options(command: F) -> F:
    """``--data`` and ``--root``."""
    root = click.option("--root", type=HomePath(), help="Folder of the data set, where it needs one.")
    name = click.option("--data", required=True, metavar="NAME", help="Data set; see 'robustdml list datasets'.")
    return name(root(command))


def run_options(command: F) -> F:
    """``--device`` and ``--quiet``."""
    device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ... or auto.")
    quiet = click.option("--quiet", is_flag=True, help="No progress bar.")
    return device(quiet(command))
