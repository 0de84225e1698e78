"""Natural change: images stay images, strengths grow, and a query is changed equally however queries are sharded."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from squares import QUIET, SmallNet

from robustdml.evaluation import build_panel, evaluate
from robustdml.evaluation.analyses.changes import CHANGES, every_change
from robustdml.reports import render_report
from robustdml.results import unpack_hits
from robustdml.seeding import stream


def picture(size: int) -> np.ndarray:
    """A smooth image with edges, of every brightness, black at no place and white at none."""
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.random((size, size, 3)), (size / 12, size / 12, 0))
    image = (smooth - smooth.min()) / np.ptp(smooth)
    image[size // 4 : size // 2, size // 4 : size // 2] = (0.7, 0.4, 0.2)
    return np.round(255 * (0.1 + 0.8 * image)) / 255


def changed(name: str, image: np.ndarray, severity: int, item: int = 3) -> np.ndarray:
    return CHANGES[name](image, severity, stream(0, "test", item))


@pytest.mark.parametrize("size", [10, 32, 96])
def test_every_change_gives_an_8_bit_image_of_the_same_size_and_changes_it(size):
    image = picture(size)
    for name, change, severity in every_change():
        found = changed(name, image, severity)
        assert found.shape == image.shape
        assert found.min() >= 0
        assert found.max() <= 1
        assert np.abs(255 * found - np.round(255 * found)).max() < 1e-9
        again = change(image.copy(), severity, stream(0, "test", 3))
        assert np.array_equal(found, again)
        assert np.abs(found - image).max() > 0, f"{name} {severity} changes nothing"


def test_there_are_15_corruptions_and_5_severities_and_geometry():
    families = {name: change.family for name, change in CHANGES.items()}
    assert sum(family != "geometry" for family in families.values()) == 15
    assert {change.severities for change in CHANGES._all().values() if change.family != "geometry"} == {5}
    assert {name for name, family in families.items() if family == "geometry"} == {
        "rotation", "shift", "scale", "crop", "flip",
    }  # fmt: skip


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize(
    "name",
    ["gaussian-noise", "shot-noise", "impulse-noise", "motion-blur", "zoom-blur", "contrast", "jpeg", "brightness"],
)
def test_severities_grow(name, size):
    image = picture(size)
    far = [
        np.mean([np.square(changed(name, image, severity, item) - image).mean() for item in range(4)])
        for severity in range(1, 6)
    ]
    assert all(less <= more for less, more in pairwise(far)), far
    assert far[0] < far[2] < far[4], far


@pytest.mark.parametrize("name", ["defocus-blur", "motion-blur", "zoom-blur", "glass-blur"])
def test_a_blur_keeps_what_is_flat(name):
    flat = np.full((32, 32, 3), 102 / 255)
    assert np.allclose(changed(name, flat, 5), flat, atol=1 / 255)


def test_closed_forms():
    image = picture(32)
    assert np.array_equal(changed("flip", image, 1), image[:, ::-1])
    mean = image.mean((0, 1))
    assert np.allclose(changed("contrast", image, 4), mean + 0.3 * (image - mean), atol=0.5 / 255 + 1e-9)
    grey = np.full((32, 32, 3), 0.5)
    noise = changed("gaussian-noise", grey, 5) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    shot = changed("shot-noise", grey, 5)
    assert shot.mean() == pytest.approx(0.5, abs=0.01)
    assert shot.std() == pytest.approx(np.sqrt(0.5 / 50), rel=0.05)
    hit = changed("impulse-noise", grey, 5) != grey[0, 0, 0].round(0)
    assert np.isin(changed("impulse-noise", grey, 5)[hit], [0, 1, 128 / 255]).all()
    black = np.zeros((32, 32, 3))
    assert np.allclose(changed("brightness", black, 5), 0.3, atol=0.5 / 255)
    red = np.zeros((32, 32, 3))
    red[..., 0] = 0.5
    assert np.allclose(changed("brightness", red, 5)[0, 0], [0.8, 0, 0], atol=0.5 / 255)


def test_geometry_moves_as_far_as_it_says():
    size, image = 51, np.zeros((51, 51, 3))
    image[25, 25] = 1
    assert changed("rotation", image, 5)[25, 25, 0] == 1  # about the middle
    line = np.zeros((size, size, 3))
    line[25] = 1
    rows, columns = np.nonzero(changed("rotation", line, 5)[..., 0] > 0.5)
    slope = abs(np.polyfit(columns, rows, 1)[0])
    assert slope == pytest.approx(np.tan(np.radians(30)), rel=0.05)
    peak = np.unravel_index(changed("shift", image, 5)[..., 0].argmax(), (size, size))
    assert [abs(int(place) - 25) for place in peak] == [5, 5]  # a tenth of 51
    square = np.zeros((size, size, 3))
    square[15:36, 15:36] = 1
    side = np.sqrt((changed("scale", square, 5)[..., 0] > 0.5).sum())
    assert side / 21 in (pytest.approx(1.3, rel=0.05), pytest.approx(1 / 1.3, rel=0.05))
    ramp = np.repeat(np.linspace(0, 1, size)[None, :, None], size, 0).repeat(3, 2)
    assert np.ptp(changed("crop", ramp, 5)) == pytest.approx(0.7, abs=0.02)


def test_the_panel_is_equal_however_sharded_and_stands_on_the_page(squares, tmp_path):
    panel = build_panel("natural")
    whole = evaluate({"net": SmallNet()}, squares, [], out=tmp_path / "a", options=QUIET, panels=[panel])
    parts = evaluate({"net": SmallNet()}, squares, [], out=tmp_path / "b", options=QUIET, panels=[panel], shard_size=5)
    assert whole.natural == parts.natural
    assert [(found.name, found.severity) for found in whole.natural] == [(n, s) for n, _, s in every_change()]
    count = len(squares.query)
    for found in whole.natural:
        assert sum(unpack_hits(found.hits, count)) / count == found.value
        assert found.low <= found.value <= found.high
    assert {"hendrycks2019benchmarking", "engstrom2019exploring"} <= whole.citations.keys()
    page = render_report(whole, tmp_path / "a")
    assert "R@1 under natural change" in page
    assert "worst tenth of the classes" in page
