"""What every table of the page gets, read off the finished page: labels for the cards that a phone shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_TABLE = re.compile(r"<table\b(.*?)</table>", re.DOTALL)


def finished(page: str) -> tuple[str, str]:
    """The page with a number on each table, and the style sheet of its cards."""
    rules: list[str] = []

    def add(found: re.Match[str]) -> str:
        number, reader = len(rules), _Heads()
        reader.feed(found[0].partition("</tr>")[0])
        rules.append("".join(_label(number, place, head) for place, head in enumerate(reader.heads) if place))
        return f'<table data-cards="{number}"{found[1]}</table>'

    return _TABLE.sub(add, page), f"@media (max-width: 40rem) {{\n{''.join(rules)}}}\n"


def _label(number: int, place: int, head: str) -> str:
    text = "".join(mark if mark.isascii() and mark.isalnum() else f"\\{ord(mark):x} " for mark in head)
    return f'[data-cards="{number}"] td:nth-child({place + 1})::before {{ content: "{text}"; }}\n'


@dataclass
class _Heads(HTMLParser):
    """The cells of the first row of a table, without their notes."""

    heads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._cell: str | None = None
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `html.parser.HTMLParser`."""
        if tag in {"th", "td"}:
            self._cell = ""
        elif tag == "span" and (self._skipping or dict(attrs).get("class") in {"note", "unseen", "mark"}):
            self._skipping += 1

    def handle_endtag(self, tag: str) -> None:
        """See `html.parser.HTMLParser`."""
        if tag in {"th", "td"} and self._cell is not None:
            self.heads.append(" ".join(self._cell.split()))
            self._cell = None
        elif tag == "span" and self._skipping:
            self._skipping -= 1

    def handle_data(self, data: str) -> None:
        """See `html.parser.HTMLParser`."""
        if self._cell is not None and not self._skipping:
            self._cell += data
