"""What happened to each query, as hexadecimal text."""

from __future__ import annotations

from collections.abc import Iterable


def pack_hits(hits: Iterable[bool]) -> str:
    """Write one bit per query (by R@1: is its first hit relevant) as hexadecimal text, the first query first."""
    bits = "".join("1" if hit else "0" for hit in hits)
    return "".join(f"{int(bits[at : at + 4].ljust(4, '0'), 2):x}" for at in range(0, len(bits), 4))


def unpack_hits(text: str, count: int) -> list[bool]:
    """Read the bits of ``count`` queries (see `pack_hits`).

    Raises:
        ValueError: the text is no hexadecimal number of that many bits.
    """
    if len(text) != -(-count // 4):
        raise ValueError(f"{len(text)} hexadecimal digits for {count} queries")
    return [bit == "1" for digit in text for bit in f"{int(digit, 16):04b}"][:count]
