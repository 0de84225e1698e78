"""docs/compatibility.md, made from the tests: what is done with models, photos and tables as people really have them.

python experiments/compatibility.py

A test names what it shows by a mark with three literal strings, on itself or on a parameter:

    @pytest.mark.compatible("Photos", "12-bit data in a 16-bit PNG", "brought to the range that is used")
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
#: In the order of the page.
KINDS = (
    "Models",
    "Photos",
    "Layouts",
    "Tables",
    "Duplicates",
    "Small data",
    "Paths and terminals",
    "Python",
)

_HEAD = """# Models, photos and tables as people really have them

What robustdml does with inputs that are not as a textbook has them. Each row is a test of the named file, and this
page is made from them (`python experiments/compatibility.py`): what it says is what was tested.
"""


def rows(tests: Path = ROOT / "tests") -> Iterator[tuple[str, str, str, str]]:
    """Kind, example, what happens, and the file, of every mark in the tests, in their order.

    Raises:
        ValueError: a mark is not three literal strings, or its kind is not one of `KINDS`.
    """
    for path in sorted(tests.rglob("test_*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda found: (found.lineno, found.col_offset)):
            if not (isinstance(call.func, ast.Attribute) and call.func.attr == "compatible"):
                continue
            texts = [part.value for part in call.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            place = path.relative_to(tests.parent).as_posix()
            if len(texts) != 3 or len(call.args) != 3 or texts[0] not in KINDS:
                raise ValueError(
                    f"line {call.lineno} of {place}: compatible() takes a kind ({', '.join(KINDS)}), an example and "
                    "what happens, as literal strings"
                )
            yield texts[0], texts[1], texts[2], place


def page(tests: Path = ROOT / "tests") -> str:
    """The whole page in Markdown."""
    found = list(rows(tests))
    parts = [_HEAD]
    for kind in KINDS:
        own = [row for row in found if row[0] == kind]
        if own:
            lines = [f"| {_cell(example)} | {_cell(result)} | `{place}` |" for _, example, result, place in own]
            parts.append("\n".join([f"## {kind}\n", "| what | what happens | shown by |", "|---|---|---|", *lines, ""]))
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
