"""Where experiments write what they measured: between marks of the pages of docs/."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def write(page: str, part: str, content: str) -> None:
    """Put ``content`` between the marks of a part of a page.

    Raises:
        ValueError: the page has no such marks.
    """
    path = DOCS / page
    pattern = rf"(<!-- {re.escape(part)}: made by [^>]* -->\n).*?(<!-- end of {re.escape(part)} -->)"
    text, count = re.subn(
        pattern,
        lambda marks: f"{marks[1]}\n{content.strip()}\n\n{marks[2]}",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"docs/{page} has {count} parts '{part}', and should have one")
    path.write_text(text, encoding="utf-8")
