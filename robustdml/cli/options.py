"""Options that several commands share, and how text becomes values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from robustdml.launcher import is_first

if TYPE_CHECKING:
    from robustdml.data import RetrievalDataset

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
    root = click.option(
        "--root", type=HomePath(), help="Folder of a data set that is named; of a table, of its images."
    )
    name = click.option(
        "--data",
        required=True,
        metavar="NAME|PATH",
        help="Data set by name (see 'robustdml list datasets'), or your own: a folder of classes, or a table.",
    )
    return name(root(command))


def skip_broken_option(command: F) -> F:
    """``--skip-broken``."""
    return click.option(
        "--skip-broken", is_flag=True, help="Go on without images that cannot be read; they are counted and listed."
    )(command)


def read_data(data: str, root: Path | None, skip_broken: bool = False) -> RetrievalDataset:
    """The data set of ``--data`` and ``--root``; where it was given by its path, what that was taken for is said."""
    from robustdml.data import DATASETS, load_dataset

    dataset = load_dataset(data, root, skip_missing=skip_broken)
    if data not in DATASETS and is_first():
        click.echo(f"Data: {dataset.title}, read as '{dataset.name}'. {dataset.protocol}")
    return dataset


def run_options(command: F) -> F:
    """``--device`` and ``--quiet``."""
    device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ... or auto.")
    quiet = click.option("--quiet", is_flag=True, help="No progress bar.")
    return device(quiet(command))
