"""A folder of 60 files as phones and cameras leave them: every format and defect, in class folders.

python experiments/camera_folder.py FOLDER
find -L FOLDER ! -type d | wc -l          # as many as evaluate says: used + left out
robustdml evaluate MODEL --data FOLDER --skip-broken --out ...
"""

from __future__ import annotations

import importlib
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, features

#: Classes, by what they hold most of.
CLASSES = ("phone", "camera", "scans", "web", "caf\u00e9")


def picture(seed: int, side: int = 48) -> Image.Image:
    """Smooth blobs with some noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray((smooth + random.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8))


def make(root: Path) -> dict[str, int]:
    """Write the folder; return how many files are photos that can be read, are left out by kind, and are broken."""
    root = root.absolute()  # a link's own folder is where its relative path would start
    root.mkdir(parents=True)
    counts = {"used": 0, "left out": 0, "broken": 0}
    seeds = iter(range(1000))

    def put(kind: str, name: str, write: Callable[[Path], object]) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        counts[kind] += 1

    def photo(name: str, mode: str = "RGB", **options: object) -> None:
        image = picture(next(seeds)).convert(mode)
        put("used", name, lambda path: image.save(path, **options))  # type: ignore[arg-type]

    def deep(name: str, bits: int) -> None:
        grey = np.asarray(picture(next(seeds)).convert("L")).astype(np.uint16)
        values = (grey.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
        put("used", name, lambda path: Image.fromarray(values).save(path))

    def broken(name: str, content: bytes) -> None:
        put("broken", name, lambda path: path.write_bytes(content))

    def other(name: str, content: bytes = b"x") -> None:
        put("left out", name, lambda path: path.write_bytes(content))

    turned = Image.Exif()
    turned[0x0112] = 6
    for number in range(4):
        photo(f"phone/IMG_{number:04d}.JPG", exif=turned if number % 2 else Image.Exif(), quality=90)
    photo("phone/portrait.jpg", format="MPO", save_all=True, append_images=[picture(900, 16)])
    photo("phone/WhatsApp Image 2024-05-01 at 12.00.00.jpeg")
    photo("phone/\N{GRINNING FACE} holiday: day 1.jpg")
    for number in range(3):
        photo(f"camera/DSC_{number:04d}.jpg", subsampling=0)
    photo("camera/no_suffix", format="JPEG")
    photo("camera/from_windows.jfif", format="JPEG")
    photo("camera/cmyk.jpg", mode="CMYK")
    photo("camera/lossless.tif", compression="tiff_lzw")
    for bits in (8, 10, 12, 14, 16):
        deep(f"scans/{bits}_bits.png", bits)
    deep("scans/deep.tif", 12)
    photo("scans/grey.png", mode="L")
    photo("scans/page.bmp")
    photo("web/palette.gif", mode="P")
    photo("web/animated.gif", mode="P", save_all=True, append_images=[picture(901).convert("P")])
    layered = picture(next(seeds)).convert("RGBA")
    layered.putalpha(128)
    put("used", "web/transparent.png", layered.save)
    clear = picture(next(seeds)).convert("P")
    put("used", "web/palette_alpha.png", lambda path: clear.save(path, transparency=0))
    photo("web/new.webp")
    if features.check("avif"):
        photo("web/newer.avif")
    else:
        photo("web/newer.jp2")
    photo("web/moving.webp", save_all=True, append_images=[picture(902)], duration=100)
    photo(f"{unicodedata.normalize('NFC', CLASSES[-1])}/one.png")
    photo(f"{unicodedata.normalize('NFC', CLASSES[-1])}/two.png")
    photo(f"{unicodedata.normalize('NFD', CLASSES[-1])}/three.png")
    photo("alone/only_one.jpg")
    elsewhere = root.with_name(f"{root.name}-elsewhere")
    elsewhere.mkdir()
    picture(next(seeds)).save(elsewhere / "linked.jpg")
    (root / "web" / "more").symlink_to(elsewhere)
    counts["used"] += 1
    not_utf8 = bytes(root / "camera") + b"/\xe9t\xe9.png"
    picture(next(seeds)).save(root / "camera" / "made.png")
    (root / "camera" / "made.png").rename(Path(not_utf8.decode("utf-8", "surrogateescape")))
    counts["used"] += 1
    try:
        importlib.import_module("pillow_heif").from_pillow(picture(next(seeds), 64)).save(
            root / "phone" / "IMG_0042.HEIC"
        )
        counts["used"] += 1
    except ImportError:
        broken("phone/IMG_0042.HEIC", b"\0\0\0\x18ftypheic" + bytes(64))

    whole = root / "phone" / "IMG_0000.JPG"
    broken("phone/cut_short.jpg", whole.read_bytes()[:400])
    broken("camera/empty.jpg", b"")
    broken("web/not_found.jpg", b"<html>404</html>")
    broken("scans/zeros.png", bytes(2000))
    broken("web/cut_short.png", (root / "scans" / "grey.png").read_bytes()[:600])

    other("phone/.DS_Store")
    other("phone/._IMG_0000.JPG")
    other("phone/IMG_0001.MOV", b"\0\0\0\x14ftypqt  ")
    other("phone/IMG_0001.AAE")
    other("camera/Thumbs.db")
    other("camera/DSC_0001.NEF", b"II*\0")
    other("camera/DSC_0001.xmp")
    other("scans/desktop.ini")
    other("__MACOSX/phone/._IMG_0000.JPG")
    other("web/@eaDir/new.webp/SYNOPHOTO_THUMB_M.jpg")
    other(".thumbnails/0.jpg")
    other("readme.txt")
    put("left out", "album_cover.jpg", picture(903).save)
    put("left out", "phone/moved.jpg", lambda path: path.symlink_to(root / "phone" / "gone.jpg"))
    put("left out", "phone/on_the_phone.jpg", lambda path: path.symlink_to("/storage/emulated/0/DCIM/0.jpg"))
    put("left out", "phone/again.jpg", lambda path: path.symlink_to("IMG_0000.JPG"))
    while sum(counts.values()) < 60:
        photo(f"camera/DSC_1{counts['used']:03d}.jpg")
    return counts


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
