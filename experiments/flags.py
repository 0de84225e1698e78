"""The generated parts of docs/flags.md: the kinds of flags, and which of them known models raise.

python experiments/flags.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from page import write

from robustdml.flag_kinds import described

ROOT = Path(__file__).parents[1]


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
    return "\n".join(lines)


def main() -> None:
    write("flags.md", "kinds", described())
    write("flags.md", "table", raised())


if __name__ == "__main__":
    main()
