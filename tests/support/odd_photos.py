"""Image files that Pillow does not write itself: 16 bits of colour."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np


def write_png16(path: Path, values: np.ndarray) -> Path:
    """A PNG of 16 bits: ``(H, W)``, or ``(H, W, C)`` of grey and alpha, colour, or colour and alpha."""
    values = values if values.ndim == 3 else values[..., None]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def write_tiff16(path: Path, values: np.ndarray, order: str = "<", more: dict[int, int] | None = None) -> Path:
    """An uncompressed TIFF of 16 bits, ``(H, W)`` or ``(H, W, 3)``, with that order of bytes and further short tags."""
    values = values if values.ndim == 3 else values[..., None]
    height, width, channels = values.shape
    content = values.astype(f"{order}u2").tobytes()
    bits = 8 + len(content)
    tags = {
        256: width, 257: height, 259: 1, 262: 2 if channels == 3 else 1, 273: 8, 277: channels, 278: height,
        279: len(content), **(more or {}),
    }  # fmt: skip
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()]
    bit_entry = struct.pack(f"{order}HHI", 258, 3, channels)
    bit_entry += struct.pack(f"{order}HH", 16, 0) if channels == 1 else struct.pack(f"{order}I", bits)
    entries.append(bit_entry)
    entries.sort(key=lambda entry: struct.unpack(f"{order}H", entry[:2]))
    places = bits + 2 * channels
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + struct.pack(f"{order}I", 0)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", places)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + content + struct.pack(f"{order}{channels}H", *[16] * channels) + directory)
    return path
