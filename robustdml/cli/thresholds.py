"""``--fail-under``, and how a command ends when a model is below the bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from robustdml.cli.output import Output

if TYPE_CHECKING:
    from robustdml.data import Protocol
    from robustdml.reports import Threshold, Violation

F = TypeVar("F", bound=Callable[..., Any])

#: The exit code of a command that did all its work and found a model below a bar.
BELOW = 3


def fail_under_option(command: F) -> F:
    """``--fail-under`` or ``--bar``, which may be given several times."""
    return click.option(
        "--fail-under",
        "--bar",
        "fail_under",
        multiple=True,
        metavar="WHAT[@EPS]:METRIC=NUMBER",
        help="Say on the page whether each model reaches this, and end with exit code 3 if one does not, e.g. "
        "'worst:recall@1=0.30' or 'worst:recall@1=0.3 at 1/255'. WHAT: clean, worst or an attack; "
        "METRIC: one of 'robustdml list metrics' that the data set asks for. Repeatable.",
    )(command)


def read_thresholds(texts: Sequence[str]) -> list[Threshold]:
    """What ``--fail-under`` was given.

    Raises:
        RobustDMLError: one cannot be read.
    """
    from robustdml.reports import parse_threshold

    return [parse_threshold(text) for text in texts]


def check_metrics(thresholds: Sequence[Threshold], protocol: Protocol) -> None:
    """Refuse a bar on a metric that will not be measured, before hours of measuring.

    Raises:
        UnknownNameError: there is one.
    """
    from robustdml.evaluation import metric_entries
    from robustdml.reports import metric_of

    for threshold in thresholds:
        metric_of(threshold, metric_entries(protocol))


def say_below(violations: Sequence[Violation], output: Output) -> None:
    """Say each violation on a line of its own; the command then ends with exit code 3."""
    for violation in violations:
        output.warn(f"Below the bar: {violation.sentence}")
