"""The generated parts of docs/flags.md: the kinds of flags.

python experiments/flags.py
"""

from __future__ import annotations

import re
from pathlib import Path

from robustdml.flag_kinds import described

PAGE = Path(__file__).parents[1] / "docs" / "flags.md"


def between(page: str, part: str, content: str) -> str:
    """The page with other content between the marks of a part."""
    pattern = re.compile(rf"(<!-- {part}: made by [^>]* -->\n).*?(<!-- end of {part} -->)", re.DOTALL)
    found, count = pattern.subn(lambda marks: f"{marks[1]}\n{content}\n{marks[2]}", page)
    assert count == 1, f"the page has no part '{part}'"
    return found


def main() -> None:
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), "kinds", described()), encoding="utf-8")


if __name__ == "__main__":
    main()
