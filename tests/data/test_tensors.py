"""Pixels for models: the view of an evaluation, and the random views of training."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from robustdml.data import ArrayImages, FileImages
from robustdml.data.augment import augmentation
from robustdml.data.tensors import ImageTensors, TrainTensors
from robustdml.errors import DataError, SpecError, UnknownNameError
from robustdml.preprocessing import Preprocessing

NAMES = ["crop", "crop-flip", "none", "shift"]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 20, 12, 3), dtype=np.uint8)


class CountedImages(ArrayImages):
    """Images that count how often they are decoded."""

    def __init__(self, array):
        super().__init__(array)
        self.loads = 0

    def load(self, index):
        self.loads += 1
        return super().load(index)


def test_batch_has_the_promised_shape_type_and_range():
    batch = ImageTensors(ArrayImages(PIXELS), 8).batch([4, 0, 4])
    assert batch.shape == (3, 3, 8, 8)
    assert batch.dtype == torch.float32
    assert 0 <= batch.min() < batch.max() <= 1
    assert torch.equal(batch[0], batch[2])
    assert not torch.equal(batch[0], batch[1])


def test_batch_of_no_rows_is_empty():
    images = ImageTensors(ArrayImages(PIXELS), 8)
    assert images.batch([]).shape == (0, 3, 8, 8)
    assert TrainTensors(images, "none").batch([], []).shape == (0, 3, 8, 8)


def test_pixels_are_untouched_where_the_size_fits():
    square = PIXELS[:, :12]
    batch = ImageTensors(ArrayImages(square), 12).batch(np.array([2]))
    torch.testing.assert_close(batch[0], torch.from_numpy(square[2] / np.float32(255)).permute(2, 0, 1))


def test_crops_the_centre_of_the_long_side():
    bars = np.zeros((1, 8, 24, 3), np.uint8)
    bars[:, :, 8:16] = 255
    assert ImageTensors(ArrayImages(bars), 8).batch([0]).min() == 1


def test_shrinks_with_antialiasing():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::8] = 255  # Off the sampling points of plain bilinear interpolation, which would see only black.
    batch = ImageTensors(ArrayImages(stripes), 8).batch([0])
    assert (batch[..., 1:-1] - 1 / 8).abs().max() < 0.01


def test_original_keeps_size_and_pixels():
    original = ImageTensors(ArrayImages(PIXELS), 8).original(3)
    assert original.dtype == torch.uint8
    np.testing.assert_array_equal(original.permute(1, 2, 0).numpy(), PIXELS[3])


@pytest.mark.parametrize(("cached", "loads"), [(6, 6), (2, 6 + 4), (0, 12)])
@pytest.mark.parametrize("size", [8, PIXELS.shape[1]], ids=["smaller views", "views as large"])
def test_decodes_once_while_the_cache_has_room(cached, loads, size):
    """For views of images, which are smaller, or for the images themselves where they are not."""
    source = CountedImages(PIXELS)
    images = ImageTensors(source, size, cache_bytes=cached * min(size * size * 3, PIXELS[0].nbytes))
    first = images.batch(range(6))
    assert torch.equal(images.batch(np.arange(6)), first)
    assert source.loads == loads


def test_of_two_models_the_one_at_work_has_the_room():
    source = CountedImages(PIXELS)
    one = ImageTensors(source, 8, cache_bytes=6 * 8 * 8 * 3)
    other = one.prepared(Preprocessing(8, squash=True, resize=9))
    first = one.batch(range(6))
    for _ in range(2):
        other.batch(range(6))
    assert source.loads == 12
    assert torch.equal(one.batch(range(6)), first)


def test_evaluation_and_training_share_the_cache():
    source = CountedImages(PIXELS)
    images = ImageTensors(source, 8)
    images.batch([0])
    TrainTensors(images, "crop").batch([0, 0], [1, 2])
    assert source.loads == 1


def test_refuses_an_image_size_below_one():
    with pytest.raises(SpecError, match="the image size must be at least 1 pixel, and it is 0"):
        ImageTensors(ArrayImages(PIXELS), 0)


def test_a_damaged_file_is_named(tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    images = ImageTensors(FileImages([tmp_path / "good.png", tmp_path / "bad.png"]), 8)
    with pytest.raises(DataError, match=r"bad\.png"):
        images.batch([0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_augmented_batch_has_the_promised_shape_type_and_range(name):
    views = TrainTensors(ImageTensors(ArrayImages(np.full_like(PIXELS, 255)), 16), name).batch(range(6), range(6))
    assert views.shape == (6, 3, 16, 16)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_view_depends_on_its_image_and_seed_alone(name):
    rows, seeds = [0, 1, 2, 3, 3], [10, 11, 12, 13, 14]
    train = TrainTensors(ImageTensors(ArrayImages(PIXELS), 8), name)
    together = train.batch(rows, seeds)
    order = [4, 2, 0, 3, 1]
    torch.manual_seed(5)
    shuffled = train.batch([rows[place] for place in order], [seeds[place] for place in order])
    assert torch.equal(shuffled, together[order])
    torch.rand(7)
    for place in range(5):
        alone = train.batch(np.array([rows[place]]), np.array([seeds[place]]))
        assert torch.equal(alone[0], together[place])


@pytest.mark.parametrize("name", NAMES)
def test_travels_to_worker_processes(name):
    train = TrainTensors(ImageTensors(ArrayImages(PIXELS), 8), name)
    there = pickle.loads(pickle.dumps(train))
    assert torch.equal(there.batch([1, 2], [3, 4]), train.batch([1, 2], [3, 4]))


@pytest.mark.parametrize("name", ["crop", "crop-flip", "shift"])
def test_other_seeds_give_other_views(name):
    views = TrainTensors(ImageTensors(ArrayImages(PIXELS), 8), name).batch([3, 3, 3], [1, 2, 3])
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[1], views[2])


def test_no_augmentation_is_the_view_of_an_evaluation():
    images = ImageTensors(ArrayImages(PIXELS), 8)
    assert torch.equal(TrainTensors(images, "none").batch([1, 2], [5, 6]), images.batch([1, 2]))


def test_flips_only_where_the_name_says_so():
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[None, None, :, None], (1, 32, 32, 3)).copy()
    images = ImageTensors(ArrayImages(ramp), 16)
    rises = {
        name: {bool(view[0, 8, 11] > view[0, 8, 4]) for view in TrainTensors(images, name).batch([0] * 20, range(20))}
        for name in ("crop", "crop-flip", "shift")
    }
    assert rises == {"crop": {True}, "crop-flip": {True, False}, "shift": {True}}


def test_shift_moves_a_little_and_fills_with_black():
    white = ImageTensors(ArrayImages(np.full((1, 32, 32, 3), 255, np.uint8)), 32)
    views = TrainTensors(white, "shift").batch([0] * 20, range(20))
    assert (views[:, :, 12:20, 12:20] > 0.999).all()
    assert (views.amin(dim=(1, 2, 3)) < 1).sum() > 15
    assert views.min() == 0


def test_leaves_the_global_generator_alone():
    train = TrainTensors(ImageTensors(ArrayImages(PIXELS), 8), "crop-flip")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train.batch([0, 1], [8, 9])
    assert torch.equal(torch.rand(3), expected)


def test_refuses_another_number_of_seeds_than_rows():
    with pytest.raises(ValueError, match="zip"):
        TrainTensors(ImageTensors(ArrayImages(PIXELS), 8), "none").batch([0, 1], [5])


def test_unknown_augmentation_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown augmentation 'crop_flip': did you mean 'crop-flip'\? known: "):
        augmentation("crop_flip", 8)


@pytest.mark.parametrize(("scale", "least"), [(None, 0.4), (0.08, 0.08), (0.9, 0.9)])
def test_crops_take_no_smaller_share_of_the_area_than_is_said(scale, least):
    """One channel rises to the right, another downwards: how far each rises in a view is the side that it shows."""
    rising = np.zeros((1, 64, 64, 3), np.uint8)
    rising[..., 0], rising[..., 1] = np.arange(64)[None, None, :] * 4, np.arange(64)[None, :, None] * 4
    views = TrainTensors(ImageTensors(ArrayImages(rising), 16), "crop", scale).batch([0] * 200, range(200))
    area = torch.stack([views[:, channel].amax((1, 2)) - views[:, channel].amin((1, 2)) for channel in (0, 1)]).prod(0)
    # The outermost pixels of a view lie half a pixel inside of its crop.
    area *= (16 / 15) ** 2 * (255 / 256) ** 2
    assert area.min() > least - 0.05
    assert area.min() < least + 0.05


def test_a_crop_scale_without_a_crop_is_refused():
    with pytest.raises(SpecError, match=r"crop_scale=0.08: the images of this data set are not cropped .*'shift'"):
        TrainTensors(ImageTensors(ArrayImages(PIXELS), 8), "shift", 0.08)
