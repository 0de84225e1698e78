"""What every table of the page gets, read off the finished page: a download as CSV, and labels for cards on a phone."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

#: A table, up to the end of the box that it is scrolled in.
_TABLE = re.compile(r"<table\b(.*?)</table>(\s*</div>)?", re.DOTALL)
_CAPTION = re.compile(r'<caption id="([\w-]+)"|\bid="([\w-]+)"')
#: A spreadsheet takes what begins so for a formula, and carries it out.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def finished(page: str) -> tuple[str, str]:
    """The page with a link to the CSV of each table behind it, and the style sheet of its cards."""
    rules: list[str] = []

    def add(found: re.Match[str]) -> str:
        number = len(rules)
        table = _Reader()
        table.feed(found[0])
        heads = next(iter(table.rows), [])
        rules.append("".join(_label(number, place, head) for place, head in enumerate(heads) if place))
        named = _CAPTION.search(found[0])
        name = f"{(named[1] or named[2]).removesuffix('-title') if named else f'table-{number}'}.csv"
        data = base64.b64encode(table_csv(table.rows).encode("utf-8-sig")).decode()
        href = f"data:text/csv;charset=utf-8;base64,{data}"
        return (
            f'<table data-cards="{number}"{found[1]}</table>{found[2] or ""}\n'
            f'<p class="csv"><a download="{name}" href="{href}">CSV of this table</a></p>'
        )

    return _TABLE.sub(add, page), f"@media (max-width: 40rem) {{\n{''.join(rules)}}}\n"


def table_csv(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV (RFC 4180) in which no cell is a formula: those that would be begin with an apostrophe."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


def _harmless(cell: str) -> str:
    if not cell.startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _label(number: int, place: int, head: str) -> str:
    text = "".join(mark if mark.isascii() and mark.isalnum() else f"\\{ord(mark):x} " for mark in head)
    return f'[data-cards="{number}"] td:nth-child({place + 1})::before {{ content: "{text}"; }}\n'


@dataclass
class _Reader(HTMLParser):
    """The cells of a table: a number where one is given, else the text, of a row's head without its notes."""

    rows: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._cell: str | None = None
        self._number: str | None = None
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `html.parser.HTMLParser`."""
        found = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"th", "td"}:
            self._cell, self._number = "", found.get("data-value")
        elif tag == "span" and (self._skipping or found.get("class") in {"note", "unseen", "mark"}):
            self._skipping += 1

    def handle_endtag(self, tag: str) -> None:
        """See `html.parser.HTMLParser`."""
        if tag in {"th", "td"} and self._cell is not None:
            self.rows[-1].append(self._number if self._number is not None else " ".join(self._cell.split()))
            self._cell = None
        elif tag == "span" and self._skipping:
            self._skipping -= 1

    def handle_data(self, data: str) -> None:
        """See `html.parser.HTMLParser`."""
        if self._cell is not None and not self._skipping:
            self._cell += data
