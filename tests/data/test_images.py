"""Images from files and from memory."""

import numpy as np
import pytest
from PIL import Image

from robustdml.data import ArrayImages, FileImages
from robustdml.errors import DataError

HALVES = np.zeros((4, 6, 3), np.uint8)
HALVES[:, :3] = 255


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(seed, shape=(8, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_loads_rgb(tmp_path):
    images = FileImages([write(tmp_path / "a.png", HALVES), write(tmp_path / "b.png", HALVES[:, :, 0])])
    assert len(images) == 2
    for index in range(2):
        image = images.load(index)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), HALVES)


@pytest.mark.compatible("Photos", "an EXIF tag that says the camera was turned", "turned upright")
def test_turns_upright_by_the_exif_tag(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was held so that the picture must be turned clockwise by a quarter.
    image = FileImages([write(tmp_path / "a.png", HALVES, exif=exif)]).load(0)
    np.testing.assert_array_equal(np.asarray(image), np.rot90(HALVES, k=-1))


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.compatible("Photos", "transparency, also in a palette", "shown over white")
def test_shows_transparency_over_white(tmp_path, palette):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, :, 3] = 255
    picture = Image.fromarray(pixels)
    (picture.quantize(4) if palette else picture).save(tmp_path / "a.png")
    shown = np.asarray(FileImages([tmp_path / "a.png"]).load(0))
    assert (shown[0] == 0).all()
    assert (shown[1] == 255).all()


def test_scales_deep_grey_instead_of_clipping_it(tmp_path):
    write(tmp_path / "a.png", np.array([[0, 0x8000, 0xFFFF]], np.uint16))
    assert np.asarray(FileImages([tmp_path / "a.png"]).load(0))[0, :, 0].tolist() == [0, 128, 255]


def test_refuses_pixels_of_unknown_range(tmp_path):
    write(tmp_path / "a.tif", np.ones((2, 2), np.float32))
    with pytest.raises(DataError, match=r"a\.tif' \(its pixels have mode F, whose range is unknown\): restore"):
        FileImages([tmp_path / "a.tif"]).load(0)


def test_names_a_file_that_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(
        DataError, match=r"cannot read the image '.*a\.png' \(it is no image that Pillow knows\): restore"
    ):
        FileImages([tmp_path / "a.png"]).load(0)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_names_a_file_that_is_cut_short(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", noise(0, (64, 64, 3)))
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(DataError, match=rf"cannot read the image '.*a\.{suffix}' \(.*truncated.*\): restore the file"):
        FileImages([path]).load(0)


def test_names_a_missing_file(tmp_path):
    images = FileImages([tmp_path / "a.png"])
    with pytest.raises(DataError, match=r"cannot read the image '.*a\.png' \(No such file or directory\): restore"):
        images.load(0)
    before = images.digest()
    write(tmp_path / "a.png", HALVES)
    assert images.digest() != before


def test_refuses_no_files():
    with pytest.raises(DataError, match="at least one image file"):
        FileImages([])


def test_names_and_digest_do_not_depend_on_the_place(tmp_path):
    sources = []
    for place in ("here", "there/deeper"):
        root = tmp_path / place
        sources.append(FileImages([write(root / "x" / "a.png", noise(1)), write(root / "y" / "b.png", noise(2))]))
    assert [sources[0].name(index) for index in range(2)] == ["x/a.png", "y/b.png"]
    assert sources[0].digest() == sources[1].digest()


def test_digest_changes_with_a_file_a_name_and_the_order(tmp_path):
    first, second = write(tmp_path / "a.png", noise(1)), write(tmp_path / "b.png", noise(2, (5, 5, 3)))
    before = FileImages([first, second]).digest()
    assert FileImages([second, first]).digest() != before
    renamed = write(tmp_path / "c.png", noise(2, (5, 5, 3)))
    assert renamed.stat().st_size == second.stat().st_size
    assert FileImages([first, renamed]).digest() != before
    write(second, noise(2, (9, 9, 3)))
    assert FileImages([first, second]).digest() != before


def test_arrays_come_back_as_they_are():
    array = np.stack([noise(0), noise(1)])
    images = ArrayImages(array)
    assert len(images) == 2
    assert images.load(1).mode == "RGB"
    np.testing.assert_array_equal(np.asarray(images.load(1)), array[1])
    assert images.name(1) == "image 1"


def test_digest_of_an_array_changes_with_one_pixel_and_with_the_shape():
    array = np.stack([noise(0), noise(1)])
    before = ArrayImages(array).digest()
    assert ArrayImages(array.copy()).digest() == before
    assert ArrayImages(array.reshape(2, 4, 16, 3)).digest() != before
    array[1, 7, 7, 2] ^= 1
    assert ArrayImages(array).digest() != before


@pytest.mark.parametrize(
    "array", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 3, 8, 8), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_refuses_arrays_that_are_no_images(array):
    with pytest.raises(DataError, match=r"must be uint8 of shape \(N, H, W, 3\), and these are"):
        ArrayImages(array)
