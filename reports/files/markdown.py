"""Markdown whose names and messages are shown as they are: no markup, link, mention or issue number of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from robustdml.printable import plain

_MARKUP = re.compile(r"([\\`*_\[\]<>|~&$])")
#: What a forge turns into a mention, an issue or a link; an empty comment behind it prevents that.
_LINKS = re.compile(r"((?<!\w)@(?=\w)|#(?=[\w ])|:(?=//)|\bwww(?=\.))")


def escape(text: str) -> str:
    """A text that Markdown shows literally, in a sentence or in a table (not at the start of a line)."""
    return _LINKS.sub(r"\1<!-- -->", _MARKUP.sub(r"\\\1", plain(text)))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """The lines of a table of escaped texts; all but the first ``left`` columns hold numbers and stand to the right."""
    marks = ["---" if place < left else "---:" for place in range(len(columns))]
    return [f"| {' | '.join(row)} |" for row in (columns, marks, *rows)]
