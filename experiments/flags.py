"""The generated parts of docs/flags.md: the kinds of flags, and which of them known models raise.

python experiments/flags.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from robustdml.flag_kinds import described

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "flags.md"


def between(page: str, part: str, content: str) -> str:
    """The page with other content between the marks of a part."""
    pattern = re.compile(rf"(<!-- {part}: made by [^>]* -->\n).*?(<!-- end of {part} -->)", re.DOTALL)
    found, count = pattern.subn(lambda marks: f"{marks[1]}\n{content}\n{marks[2]}", page)
    assert count == 1, f"the page has no part '{part}'"
    return found


def raised() -> str:
    """The table of the models that the tests know, with the flags that each raises before any attack."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from known_models import bad_models, examined, honest_models, small_digits

    digits = small_digits()
    models = {name: model for name, (model, _) in bad_models(digits).items()}
    lines = ["| model | flags |", "|---|---|"]
    for kind, known in (("known-bad", models), ("honest", honest_models(digits))):
        for name, model in known.items():
            slugs = ", ".join(f"`{flag.slug}`" for flag in examined(model, digits, name))
            lines.append(f"| {kind}: {name} | {slugs or 'none'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    page = between(PAGE.read_text(encoding="utf-8"), "kinds", described())
    PAGE.write_text(between(page, "table", raised()), encoding="utf-8")


if __name__ == "__main__":
    main()
