"""Names and messages as one line of text that any program prints, and nothing obeys."""

from __future__ import annotations

import unicodedata

#: Joiners and marks without which some scripts and emoji fall apart.
_NEEDED = "\u200c\u200d\u200e\u200f"


def shown(name: str) -> str:
    """A file's name as text that can be written in UTF-8: bytes that are none of it as ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def plain(text: str) -> str:
    """A text on one line, with a replacement character for all that is no character to be shown.

    These are control characters, half surrogates and non-characters, which XML cannot hold, and marks that turn the
    direction of what follows.
    """
    return "".join("\ufffd" if _hidden(mark) else mark for mark in " ".join(text.split()))


def _hidden(mark: str) -> bool:
    if mark in _NEEDED:
        return False
    return unicodedata.category(mark) in {"Cc", "Cf", "Cs"} or ord(mark) & 0xFFFE == 0xFFFE
