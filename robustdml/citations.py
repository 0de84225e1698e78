"""BibTeX of what robustdml uses, by citation key, so that a run can cite itself: the file ``citations.bib``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_ENTRY = re.compile(r"@[a-z]+\{(?P<key>[a-z0-9]+),\n(  [a-z]+ = \{[^\n]+\},\n)*  [a-z]+ = \{[^\n]+\}\n\}")


def read_bibtex(text: str) -> dict[str, str]:
    """The entries of a file by their keys, each as it is written.

    The form is strict: one field a line, indented by two spaces, and an empty line between entries.

    Raises:
        ValueError: an entry has another form, or two have one key.
    """
    entries: dict[str, str] = {}
    for entry in text.strip().split("\n\n"):
        found = _ENTRY.fullmatch(entry)
        if found is None or entry.count("{") != entry.count("}"):
            raise ValueError(f"no BibTeX entry of one field a line: {entry!r}")
        if found["key"] in entries:
            raise ValueError(f"two BibTeX entries have the key {found['key']}")
        entries[found["key"]] = entry
    return entries


BIBTEX = read_bibtex(Path(__file__).with_name("citations.bib").read_text(encoding="utf-8"))

#: What every evaluation uses: its metrics and its search.
_ALWAYS = ("musgrave2020reality", "roth2020revisiting", "douze2024faiss")


def citations(keys: Iterable[str]) -> dict[str, str]:
    """The BibTeX of ``keys`` and of what every evaluation uses; unknown keys (of foreign attacks) are left out."""
    return {key: BIBTEX[key] for key in dict.fromkeys([*keys, *_ALWAYS]) if key in BIBTEX}
