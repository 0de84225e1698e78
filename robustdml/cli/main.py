"""The command group, and what happens to errors: one sentence and an exit code, and a traceback on request only."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
import traceback
from typing import Any

import click

from robustdml._version import __version__
from robustdml.cli.check import check
from robustdml.cli.compare import compare
from robustdml.cli.demo import demo
from robustdml.cli.doctor import doctor
from robustdml.cli.evaluate import evaluate
from robustdml.cli.export import export
from robustdml.cli.list import list_
from robustdml.cli.report import report
from robustdml.cli.reproduce import reproduce
from robustdml.cli.train import train
from robustdml.cli.verify import verify
from robustdml.errors import EndedElsewhere, RobustDMLError, Terminated
from robustdml.launcher import is_first
from robustdml.printable import sentence
from robustdml.stopping import Stopped, stopping

_TORCH_PAIR = (
    "torch and torchvision do not fit each other on this machine: install a matching pair from one source, for example "
    "'pip install torch==2.14.1 torchvision==0.29.1' (a CPU-only torch beside a CUDA torchvision fails like this)"
)

#: Errors of the system that are nobody's fault here, and may come without the name of a file.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
#: A launcher ends all processes as soon as one has ended; the one that says why is given so many seconds for it.
_A_WORD = 2.0


#: Exit codes of a fault that is not the user's, and of a run that was interrupted.
_OURS, _STOPPED = 1, 130


class _Failure(click.ClickException):
    exit_code = RobustDMLError.exit_code


class _Ended(click.ClickException):
    def __init__(self, error: Terminated) -> None:
        super().__init__(str(error))
        setattr(self, "exit_code", error.exit_code)  # noqa: B010 -- of the class, as click has it typed


class _Group(click.Group):
    """A group that turns errors into one sentence and an exit code."""

    #: Whether the traceback of an error is wanted too.
    debug = False

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.main`; what a terminal has no character for is written as its number."""
        self.debug = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        alone = kwargs.pop("standalone_mode", True)
        kwargs["standalone_mode"] = False  # Errors come here, and are not told by click.
        if not alone:
            return super().main(*args, **kwargs)
        try:
            code = super().main(*args, **kwargs)
            sys.exit(code if isinstance(code, int) else 0)
        except click.Abort:
            sys.exit(_STOPPED)
        except Exception as error:
            if self.debug:
                traceback.print_exc()
            if isinstance(error, click.UsageError) and error.ctx is not None:
                click.echo(error.ctx.get_usage(), err=True)
                click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
            click.echo(f"Error: {_said(error)}", err=True)
            sys.exit(error.exit_code if isinstance(error, click.ClickException) else _OURS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`; no system hands a program such words, but Python may."""
        if found := next((word for word in args if not _possible(word)), None):
            raise click.UsageError(f"'{found}' holds a zero, or half a character: write it without", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with stopping(at_once=True):
                return super().invoke(ctx)
        except click.UsageError as error:
            if is_first():
                raise
            time.sleep(_A_WORD)
            ctx.exit(error.exit_code)
        except EndedElsewhere as error:
            time.sleep(_A_WORD)
            ctx.exit(error.exit_code)
        except Terminated as error:
            raise _Ended(error) from error
        except RobustDMLError as error:
            raise _Failure(str(error)) from error
        except (RuntimeError, ImportError) as error:
            # torchvision registers its operators when it is imported; beside a torch of another build that fails.
            if "torchvision" in str(error):
                raise _Failure(f"{_TORCH_PAIR} ({error})") from error
            raise
        except OSError as error:
            if error.filename is None and error.errno not in _OF_THE_DISK:
                raise
            # What is not a file of ours: what is read, standard output, a temporary folder of a library.
            place = "a file or the output" if error.filename is None else f"'{error.filename}'"
            raise _Failure(
                f"{place} cannot be used ({error.strerror}): check the path, its permissions and the free disk space"
            ) from error
        except KeyboardInterrupt as error:
            click.echo("\nStopped. Repeat the command to go on from what is finished.", err=True)
            ctx.exit(error.exit_code if isinstance(error, Stopped) else _STOPPED)


def _possible(word: str) -> bool:
    try:
        return b"\0" not in word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _said(error: Exception) -> str:
    """What is written of an error, on one line."""
    if isinstance(error, click.ClickException):
        return sentence(error.format_message())
    found = f"{type(error).__name__}: {error}"
    return (
        f"{sentence(found[:200])} - this is a fault of robustdml and not yours: please report it, with the command and "
        "what it writes with --debug; what was finished is kept, and the same command goes on from there"
    )


def _debug_option() -> click.Option:
    def remember(context: click.Context, _: click.Parameter, given: bool) -> None:
        root = context.find_root().command
        if given and isinstance(root, _Group):
            root.debug = True

    text = "Show the traceback of an error too."
    return click.Option(["--debug"], is_flag=True, is_eager=True, expose_value=False, callback=remember, help=text)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robustdml")
def main() -> None:
    """How robust is an image-retrieval model really? Train, attack, evaluate, report.

    Budgets (eps) are in pixels of [0, 1]: eight grey levels are written 8/255.

    Exit codes: 0 done; 1 a fault of robustdml, to be reported; 2 cannot be done, with one sentence that says why;
    3 done, and below a --fail-under or worse than before; 4 done, and something of it cannot be believed, or failed;
    129, 130, 143 asked to end, and everything is saved.
    """


for _command in (train, check, evaluate, report, compare, verify, export, list_, reproduce, demo, doctor):
    _command.params.append(_debug_option())
    main.add_command(_command)
main.params.append(_debug_option())


def program() -> None:
    """`main` as a program, which ends with the exit code of the command and, where that is not 0, ends at once.

    Code of strangers may have left threads that never end, or functions for the end of the program: neither keeps a
    pipeline waiting, or makes a success of what was none.
    """
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not code:
            raise
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
