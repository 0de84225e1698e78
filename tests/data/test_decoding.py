"""Photos as cameras, phones and microscopes write them, to upright RGB."""

import importlib

import numpy as np
import pytest
from odd_photos import write_png16, write_tiff16
from PIL import Image, features

from robustdml.data import FileImages
from robustdml.data.decoding import read_image
from robustdml.errors import DataError

RAMP = np.linspace(0, 1, 32)[None] * np.ones((4, 1))


def ramp(bits):
    return np.round(RAMP * (2**bits - 1)).astype(np.uint16)


def colours(bits):
    """Red rises, green falls, blue is the middle."""
    return np.stack([ramp(bits), ramp(bits)[:, ::-1], np.full_like(ramp(bits), 2 ** (bits - 1))], axis=2)


EXPECTED = np.round(RAMP * 255)


@pytest.mark.compatible(
    "Photos", "8, 10, 12 or 14 bits in a 16-bit PNG, TIFF or PGM", "brought to the range that is used"
)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "tif", "big.tif"])
def test_the_bits_that_are_used_fill_the_range(tmp_path, bits, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        Image.fromarray(ramp(bits)).save(path)
    else:
        write_tiff16(path, ramp(bits), ">" if kind == "big.tif" else "<")
    image, remarks = read_image(path)
    assert np.abs(np.asarray(image)[..., 0] - EXPECTED).max() <= 1
    assert remarks == (() if bits == 16 else (f"{bits} of its 16 bits are used",))


@pytest.mark.compatible("Photos", "the same in colour, with and without transparency", "likewise")
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "tif", "big.tif"])
def test_colours_of_16_bits_keep_their_lower_bytes(tmp_path, bits, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        write_png16(path, colours(bits))
    else:
        write_tiff16(path, colours(bits), ">" if kind == "big.tif" else "<")
    found = np.asarray(read_image(path)[0]).astype(int)
    assert np.abs(found[..., 0] - EXPECTED).max() <= 1
    assert np.abs(found[..., 1] - EXPECTED[:, ::-1]).max() <= 1
    assert np.abs(found[..., 2] - 128).max() <= 1


@pytest.mark.parametrize("layers", [2, 4])
def test_transparency_of_16_bits_is_over_white(tmp_path, layers):
    values = np.zeros((2, 4, layers), np.uint16)
    values[0, :, -1] = 65535
    found = np.asarray(read_image(write_png16(tmp_path / "a.png", values))[0])
    assert (found[0] == 0).all()
    assert (found[1] == 255).all()


@pytest.mark.parametrize("opaque", [4095, 65535])
def test_transparency_may_have_other_bits_than_the_colours(tmp_path, opaque):
    values = np.concatenate([colours(12), np.full_like(ramp(12)[..., None], opaque)], axis=2)
    found = np.asarray(read_image(write_png16(tmp_path / "a.png", values))[0]).astype(int)
    assert np.abs(found[..., 0] - EXPECTED).max() <= 1
    assert np.abs(found[..., 2] - 128).max() <= 1


def test_a_named_largest_value_sets_the_range(tmp_path):
    dim = ramp(8)  # a dark picture of a camera of 12 bits
    image, remarks = read_image(write_tiff16(tmp_path / "a.tif", dim, more={281: 4095}))
    assert np.asarray(image).max() == 255 >> 4
    assert remarks == ("12 of its 16 bits are used",)


def test_white_is_zero_where_the_file_says_so(tmp_path):
    image, _ = read_image(write_tiff16(tmp_path / "a.tif", ramp(12), more={262: 0}))
    assert np.abs(np.asarray(image)[..., 0] - EXPECTED[:, ::-1]).max() <= 1


def test_a_pgm_says_its_range_in_its_header(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 32 4 4095\n" + (ramp(12) // 16).astype(">u2").tobytes())
    assert np.abs(np.asarray(read_image(tmp_path / "a.pgm")[0])[..., 0] - EXPECTED / 16).max() <= 1


def test_16_bits_are_turned_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp(12)).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png")[0].size == (4, 32)


@pytest.mark.compatible("Photos", "CMYK, CIELAB, YCbCr, 1 bit, grey with alpha", "converted to RGB")
@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr", "1", "LA", "La", "RGBa", "PA", "P", "RGBX", "HSV"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    white = Image.new("RGB", (8, 8), "white")
    if mode == "LAB":
        picture = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (255, 128, 128)])
    elif mode in {"La", "RGBa"}:
        picture = white.convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    elif mode == "PA":
        picture = white.convert("P").convert("PA")
    else:
        picture = white.convert(mode)
    from robustdml.data.decoding import _to_rgb

    found = _to_rgb(picture)
    assert found.mode == "RGB"
    assert np.asarray(found).min() >= 250


@pytest.mark.compatible(
    "Photos", "GIF, WebP, PNG, AVIF or TIFF with several pictures", "the first is taken, and that is said"
)
@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_several_pictures_is_taken(tmp_path, suffix):
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[blue, red], duration=100)
    image, remarks = read_image(tmp_path / f"a.{suffix}")
    assert np.abs(np.asarray(image).reshape(-1, 3).mean(0) - (255, 0, 0)).max() < 3
    assert remarks == ("the first of 3 pictures",)


@pytest.mark.compatible("Photos", "a phone's JPEG with a depth map or preview in it (MPO)", "its picture")
def test_a_picture_with_a_preview_is_one_picture(tmp_path):
    Image.new("RGB", (16, 16), "red").save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")]
    )
    image, remarks = read_image(tmp_path / "a.jpg")
    assert (image.size, remarks) == ((16, 16), ())


@pytest.mark.compatible("Photos", "EXIF data that cannot be read", "the photo as it lies, and that is said")
def test_broken_exif_data_are_no_broken_photo(tmp_path):
    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    image, _ = read_image(tmp_path / "a.jpg")
    assert image.size == (8, 4)


@pytest.mark.compatible(
    "Photos", "a photo that is damaged or cut off within", "is broken; its EXIF data are not blamed"
)
@pytest.mark.parametrize("zeroed", [False, True])
@pytest.mark.parametrize(
    ("suffix", "how"), [("png", {}), ("jpg", {}), ("gif", {}), ("tif", {"compression": "tiff_lzw"}), ("jp2", {})]
)
def test_a_photo_that_is_damaged_within_is_broken(tmp_path, suffix, how, zeroed):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path, **how)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + (bytes(len(content) - half) if zeroed else b""))
    if zeroed and suffix == "jpg":  # whose decoder reads zeros as grey
        assert read_image(path)[1] == ()
        return
    with pytest.raises(DataError, match=rf"cannot read the image '.*a\.{suffix}'"):
        FileImages([path]).load(0)


@pytest.mark.compatible("Photos", "a photo of 200 megapixels", "is read")
def test_large_photos_are_read(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    assert read_image(tmp_path / "a.png")[0].size == (64, 64)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.compatible("Photos", "WebP and AVIF", "are read")
@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_new_formats_are_read(tmp_path, suffix):
    if not features.check(suffix):
        pytest.skip(f"this Pillow has no {suffix}")
    Image.new("RGB", (16, 16), "red").save(tmp_path / f"a.{suffix}")
    assert np.abs(np.asarray(read_image(tmp_path / f"a.{suffix}")[0])[0, 0] - (255, 0, 0)).max() < 8


@pytest.mark.compatible("Photos", "HEIC", "is read with the extra `heif`; without it one sentence says so")
def test_heic_is_read_with_its_package(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(tmp_path / "a.heic")
    assert np.abs(np.asarray(read_image(tmp_path / "a.heic")[0])[0, 0] - (255, 0, 0)).max() < 8

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(DataError, match=r"a\.heic' \(it is a HEIC or AVIF photo, which needs: pip install 'robustdml"):
        FileImages([tmp_path / "a.heic"]).load(0)


def test_what_was_done_stands_in_the_image(tmp_path):
    Image.fromarray(ramp(10)).save(tmp_path / "a.png")
    assert FileImages([tmp_path / "a.png"]).load(0).info["remarks"] == ("10 of its 16 bits are used",)
