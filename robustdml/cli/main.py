"""The command group, and what happens to errors: one sentence and an exit code, never a traceback for bad input."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
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
from robustdml.printable import shown

_TORCH_PAIR = (
    "torch and torchvision do not fit each other on this machine: install a matching pair from one source, for example "
    "'pip install torch==2.14.1 torchvision==0.29.1' (a CPU-only torch beside a CUDA torchvision fails like this)"
)

#: A launcher ends all processes as soon as one has ended; the one that says why is given so many seconds for it.
_A_WORD = 2.0


class _Failure(click.ClickException):
    exit_code = RobustDMLError.exit_code


class _Ended(click.ClickException):
    exit_code = Terminated.exit_code


class _Group(click.Group):
    """A group that turns the package's own errors into one sentence and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.main`; what a terminal has no character for is written as its number."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
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
            raise _Ended(str(error)) from error
        except RobustDMLError as error:
            raise _Failure(shown(str(error))) from error
        except (RuntimeError, ImportError) as error:
            # torchvision registers its operators when it is imported; beside a torch of another build that fails.
            if "torchvision" in str(error):
                raise _Failure(f"{_TORCH_PAIR} ({error})") from error
            raise
        except OSError as error:
            if error.filename is None:
                raise
            path = Path(str(error.filename))
            place = path.parent if path.suffix == ".tmp" else path
            raise _Failure(
                f"'{place}' cannot be used ({error.strerror}): check the path, its permissions and the free disk space"
            ) from error
        except KeyboardInterrupt:
            click.echo("\nStopped. Repeat the command to go on from what is finished.", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robustdml")
def main() -> None:
    """How robust is an image-retrieval model really? Train, attack, evaluate, report.

    Budgets (eps) are in pixels of [0, 1]: eight grey levels are written 8/255.

    Exit codes: 0 done; 1 'check' found something grave; 2 cannot be done, with one sentence that says why; 3 done, and
    below a --fail-under; 4 done, and something of it cannot be believed, or failed; 143 asked to end, and everything is
    saved.
    """


for _command in (train, check, evaluate, report, compare, verify, export, list_, reproduce, demo, doctor):
    main.add_command(_command)
