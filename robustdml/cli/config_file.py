"""``--config``: the options of a command in a TOML file, which those on the command line take precedence over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from robustdml.cli.options import HomePath
from robustdml.errors import SpecError, UnknownNameError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

F = TypeVar("F", bound=Callable[..., Any])

#: Options that are one text with commas in it; in a file they may be a list.
_LISTED = {"attacks", "eps", "curve", "mean", "std"}
#: They say something of this call, and not of what is done.
_OF_THE_CALL = {"config", "dry_run", "help", "debug"}


def config_option(command: F) -> F:
    """``--config FILE``: a table called as the command is, with a key for each option."""
    return click.option(
        "--config",
        type=HomePath(exists=True, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_take,
        help="TOML file with a table [evaluate] of these options; the command line takes precedence over it.",
    )(command)


def _take(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.default_map = _read(path, context.command)


def _read(path: Path, command: click.Command) -> dict[str, Any]:
    """The values of a file by the name of their parameter, each as the command line would have them.

    Raises:
        SpecError: the file cannot be read, is no TOML, or has a value that its option does not take.
        UnknownNameError: a key that is no option.
    """
    table = command.name or ""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read the configuration '{path}': {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"the configuration '{path}' is no TOML: {error}") from None
    for key in content:
        if key != table:
            raise UnknownNameError(f"table in '{path}':", key, [table])
    options = content.get(table, {})
    if not isinstance(options, dict):
        raise SpecError(f"'{path}': [{table}] must be a table of options and their values")
    known = dict(_keys(command))
    values: dict[str, Any] = {}
    for key, value in options.items():
        spelled = key.replace("-", "_")
        if spelled not in known:
            raise UnknownNameError(f"option in [{table}] of '{path}':", key, known)
        parameter = known[spelled]
        name = parameter.name or ""
        if name in values:
            raise SpecError(f"'{path}': '{key}' in [{table}] is there twice, under two names of the option")
        values[name] = _value(f"'{path}': {key} = {value!r} in [{table}]", parameter, value)
    return values


def _keys(command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
    """Every name that a parameter may have in a file: that of the argument, and the long ones of an option."""
    for parameter in command.params:
        if parameter.name in _OF_THE_CALL:
            continue
        names = [name for name in parameter.opts if name.startswith("--")] or [parameter.name or ""]
        for name in names:
            yield name.removeprefix("--").replace("-", "_"), parameter


def _value(where: str, parameter: click.Parameter, value: object) -> Any:
    """A value in the form that click converts; whether it is of the kind that the option takes is looked at here.

    Raises:
        SpecError: it is not.
    """
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not isinstance(value, bool):
            raise SpecError(f"{where} must be true or false")
        return value
    if parameter.multiple or parameter.nargs != 1:
        parts = value if isinstance(value, list) else [value]
        if not parts or not all(isinstance(part, str) for part in parts):
            raise SpecError(f"{where} must be a text, or a list of texts")
        return parts
    if parameter.name in _LISTED and isinstance(value, list):
        if not value or not all(_plain(part) for part in value):
            raise SpecError(f"{where} must be a list of texts or numbers")
        return ",".join(map(str, value))
    if not _plain(value):
        raise SpecError(f"{where} must be one text or number")
    if isinstance(parameter.type, click.types.IntParamType) and not isinstance(value, int):
        raise SpecError(f"{where} must be a whole number")
    if isinstance(parameter.type, click.types.FloatParamType) and isinstance(value, str):
        raise SpecError(f"{where} must be a number")
    # As text, which is what every option is made to read.
    return str(value)


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
