"""What a command says, where, and in which form: alike for all commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import wraps
from typing import Any, TextIO, TypeVar, cast

import click

from robustdml.printable import harmless

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Output:
    """Standard output has what was asked for, as text or as one JSON document; all else goes to standard error.

    Args:
        as_json: ``--json``: standard output holds one JSON document and nothing else, or, where the command cannot be
            carried out, nothing at all.
        quiet: ``--quiet``: no progress bar, and no `note`.
        stdout: where the document goes; None is standard output as it is then.
    """

    as_json: bool = False
    quiet: bool = False
    stdout: TextIO | None = None

    def note(self, line: str) -> None:
        """Say what helps someone who watches."""
        if not self.quiet:
            click.echo(harmless(line), err=True)

    def warn(self, line: str) -> None:
        """Say what must not be missed."""
        click.echo(harmless(line), err=True)

    def line(self, line: str) -> None:
        """A line of what was asked for; with ``--json`` the document of `document` says it."""
        if not self.as_json:
            click.echo(harmless(line))

    def document(self, value: object) -> None:
        """All that was asked for, as JSON values; called once, and printed with ``--json`` alone."""
        if self.as_json:
            click.echo(json.dumps(value, indent=1, allow_nan=False), file=self.stdout)


#: As where neither option is given.
TEXT = Output()


def output_options(command: F) -> F:
    """``--json`` and ``--quiet``; the command gets one ``output``."""

    @click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on standard output, all else on the other."
    )
    @click.option("--quiet", is_flag=True, help="No progress and no notes: results and warnings alone.")
    @wraps(command)
    def with_output(as_json: bool, quiet: bool, **given: Any) -> Any:
        stdout = sys.stdout
        # What a model's or an attack's own code prints is no part of the document.
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            return command(output=Output(as_json, quiet, stdout), **given)

    return cast(F, with_output)
