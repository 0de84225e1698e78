"""Damage to bytes and to JSON, drawn at random. Imports nothing of robustdml, which the fuzzer instruments."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

#: What JSON and TOML values are replaced by.
JSON_VALUES: list[Any] = [
    None, True, False, -1, 0, 2**31, 2**64, 10**30, -(10**400), 1e308, -1e308, 5e-324, "", "x" * 20000, "\0", "\ud800",
    "\x1b[31m", "<script>alert(1)</script>", "../../../etc/passwd", "/dev/zero", "sys:exit", "nan", [], {},
    [[]], [{}], {"": ""},
    list(range(5000)), {"a": {"b": None}}, "2026-99-99T99:99:99", "0001-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59-14:00", "=cmd|'/c calc'!A1", 32.5, "32",
]  # fmt: skip


class Drawing:
    """Choices of a random generator."""

    def __init__(self, drawn: random.Random) -> None:
        self.random = drawn

    def one(self, choices: Any) -> Any:
        """One of them."""
        return self.random.choice(list(choices))

    def damaged(self, data: bytes) -> bytes:
        """Bytes of which some are others, gone, doubled or new."""
        changed = bytearray(data)
        for _ in range(self.random.choice([1, 1, 2, 8])):
            place = self.random.randrange(len(changed) + 1)
            match self.random.randrange(6):
                case 0 if changed:
                    changed[min(place, len(changed) - 1)] ^= 1 << self.random.randrange(8)
                case 1:
                    del changed[place:]
                case 2:
                    changed[place:place] = self.one([b"\0", b"\xff\xfe", b"{", b'"', b"NaN", b"\n", b"-", b"9" * 400])
                case 3:
                    del changed[place : place + self.random.randrange(1, 64)]
                case 4:
                    changed[place:place] = changed[place : place + self.random.randrange(1, 256)]
                case _:
                    changed += self.one([b"\0" * 1000, b"trailing", data[:1000]])
        return bytes(changed)

    def rewritten(self, content: Any) -> Any:
        """A JSON value of which one part, anywhere, is another, gone, doubled or renamed."""
        holders = [found for found in _holders(content) if len(found)]
        holder = self.random.choice(holders)
        key = self.one(holder) if isinstance(holder, dict) else self.random.randrange(len(holder))
        match self.random.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[self.one(["", "x" * 300, "__class__", "\0", "eps"])] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder += [holder[key]] * self.random.choice([1, 2000])
            case 3 if isinstance(holder[key], int | float):
                holder[key] = self.one([-holder[key], holder[key] + 1, holder[key] * 1e9, float("nan"), float("inf")])
            case _:
                holder[key] = self.one(JSON_VALUES)
        return content


def _holders(content: Any) -> Iterator[Any]:
    if isinstance(content, dict | list):
        yield content
        for part in content.values() if isinstance(content, dict) else content:
            yield from _holders(part)
