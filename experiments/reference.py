"""Two pages of the documentation's site: the command line and the registries, as the program itself describes them.

python experiments/reference.py FOLDER     (`make docs` does)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click
from click.testing import CliRunner

from robustdml.cli import main


def command_line() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Every command and option",
        "What `robustdml COMMAND --help` says. What commands share is in [commands.md](commands.md).",
    ]
    for name, command in main.commands.items():
        context = click.Context(command, info_name=f"robustdml {name}")
        parts += [
            f"\n## robustdml {name}\n",
            _paragraphs(command.help or ""),
            f"\n```text\n{_usage(command, context)}\n```\n",
        ]
        options = [item for item in command.params if isinstance(item, click.Option) and not item.hidden]
        parts += ["| option | what it does |", "|---|---|"]
        parts += [f"| {_cell(_names(option, context))} | {_cell(_help(option, context))} |" for option in options]
    return "\n".join([*parts, ""])


def _usage(command: click.Command, context: click.Context) -> str:
    return " ".join([context.info_name or "", *command.collect_usage_pieces(context)])


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))


def _names(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    return f"`{record[0]}`" if record else ""


def _help(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    return " ".join(record[1].split()) if record else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def listed(kinds: Iterable[str]) -> str:
    """A table of each registry, as ``robustdml list`` gives it."""
    parts = [
        "# Everything that has a name",
        "What `robustdml list` shows: attacks, goals, metrics and the rest by the names that options take.",
    ]
    for kind in kinds:
        found = CliRunner().invoke(main, ["list", kind, "--json"], catch_exceptions=False)
        rows: list[dict[str, object]] = json.loads(found.stdout)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        parts += [f"\n## {kind.capitalize()}\n", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        parts += [f"| {' | '.join(_cell(_value(row.get(key, ''))) for key in columns)} |" for row in rows]
    return "\n".join([*parts, ""])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def pages() -> dict[str, str]:
    """The contents of each page by its file name."""
    kinds = main.commands["list"].params[0].type
    assert isinstance(kinds, click.Choice)
    return {"cli.md": command_line(), "names.md": listed(kinds.choices)}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
