"""Names and messages as one line of text that any program prints, and nothing obeys."""

from __future__ import annotations

import re
import unicodedata

#: No error is told in more characters, nor quotes more of a value that is too long for that.
_LONGEST, _QUOTED = 300, (120, 60, 30)
#: Joiners and marks without which some scripts and emoji fall apart.
_NEEDED = "\u200c\u200d\u200e\u200f"


def shown(name: str) -> str:
    """A file's name as text that can be written in UTF-8: bytes that are none of it as ``\\xff``."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of characters that stand for no byte
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(text: str) -> str:
    """A text on one line, with a replacement character for all that is no character to be shown.

    These are control characters, half surrogates and non-characters, which XML cannot hold, and marks that turn the
    direction of what follows.
    """
    return "".join("\ufffd" if _hidden(mark) else mark for mark in " ".join(text.split()))


def harmless(text: str) -> str:
    """The same for text of several lines, whose spaces count."""
    return "".join("\ufffd" if mark != "\n" and _hidden(mark) else mark for mark in text)


def sentence(text: str) -> str:
    """The message of an error as one line: where it is long, the middle of what it quotes is left out, then its own."""
    line = plain(shown(text))
    for most in _QUOTED:
        if len(line) > _LONGEST:
            line = _quoting_less(line, most)
    return _without_middle(line, _LONGEST)


def _quoting_less(line: str, most: int) -> str:
    return re.sub(rf"'([^']{{{most},}})'", lambda found: f"'{_without_middle(found[1], most)}'", line)


def _without_middle(text: str, longest: int) -> str:
    # What is wrong stands at the beginning, and what to do about it at the end.
    end = longest // 2 - 2
    return text if len(text) <= longest else f"{text[: longest - end - 3]} … {text[-end:]}"


def _hidden(mark: str) -> bool:
    if mark in _NEEDED:
        return False
    return unicodedata.category(mark) in {"Cc", "Cf", "Cs"} or ord(mark) & 0xFFFE == 0xFFFE
