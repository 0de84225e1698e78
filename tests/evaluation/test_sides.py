"""Images that are no squares, as re-identification takes them: from the command to the page."""

import threading

import numpy as np
import pytest
import torch
from command_line import cli, refused
from PIL import Image
from squares import QUIET, make_dataset
from torch import nn

from robustdml.attacks import build_suite
from robustdml.errors import SpecError
from robustdml.evaluation import evaluate
from robustdml.preprocessing import Preprocessing
from robustdml.reports import render_report
from robustdml.results import Results

ATTACKS = (
    "noise,margin,standard,patch,universal,square,nes,rays,shift,torchattacks.PGD,torchattacks.PGDL2,"
    "art.FastGradientMethod,art.SpatialTransformation"
)


class Tall(nn.Module):
    """Takes images of 24 x 12 alone."""

    def __init__(self, declares=True):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 12, 8))
        if declares:
            self.preprocessing = {"size": 12, "height": 24, "squash": True}

    def forward(self, images):
        assert images.shape[1:] == (3, 24, 12)
        return self.layers(images)


def pixels(height, width):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8))


@pytest.mark.parametrize(("height", "width"), [(48, 24), (50, 20), (20, 50), (24, 12), (13, 13)])
@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("resize", [0, 16])
def test_every_image_gets_the_sides(height, width, squash, resize):
    view = Preprocessing(12, resize, squash, height=24)
    assert view.square(pixels(height, width)).shape == (3, 24, 12)
    assert view.sides == (24, 12)


def test_a_picture_is_squashed_or_covered():
    bars = torch.zeros(3, 24, 24, dtype=torch.uint8)
    bars[:, :, 6:18] = 255  # the middle half of the width
    covered = Preprocessing(12, height=24).square(bars)
    assert covered.min() == 255
    squashed = Preprocessing(12, squash=True, height=24).square(bars)
    assert squashed[0, 0, 0] == 0
    assert squashed[0, 0, 6] == 255


def test_sides_are_said_in_words():
    assert Preprocessing(128, squash=True, height=256).view == "both sides to 256 x 128 (bilinear)"
    assert Preprocessing(128, 144, squash=True, height=256).view == (
        "both sides to 288 x 144 (bilinear), centre crop 256 x 128"
    )
    assert Preprocessing(128, height=256).view == "enough to cover 256 x 128 (bilinear), centre crop 256 x 128"
    assert Preprocessing(64, height=64) == Preprocessing(64)
    assert Preprocessing.plain((256, 128)) == Preprocessing(128, squash=True, height=256)
    assert Preprocessing(224, 256).at((256, 128)) == Preprocessing(128, 146, height=256)
    assert Preprocessing(128, height=256).at(64) == Preprocessing(64)
    with pytest.raises(SpecError, match="the image size must be at least 1 pixel, and it is -1"):
        Preprocessing(12, height=-1)


@pytest.mark.compatible(
    "Photos", "images of 256 x 128, as in re-identification", "`--image-size 256x128`, or as a model declares"
)
@pytest.mark.parametrize("declares", [True, False])
def test_attacks_and_page_take_height_and_width(tmp_path, declares):
    results = evaluate(
        {"tall": Tall(declares)},
        make_dataset(),
        [*build_suite(ATTACKS, "8/255"), *build_suite("pgd(norm=l2)", "0.5")],
        out=tmp_path,
        max_queries=4,
        image_size=None if declares else (24, 12),
        options=QUIET,
    )
    assert {cell.status: cell.reason for cell in results.cells} == {"ok": None}
    assert results.models[0].preprocessing.sides == results.image_sides == (24, 12)
    page = render_report(results, tmp_path)
    assert "24 \N{MULTIPLICATION SIGN} 12 pixels" in page
    assert "both sides to 24 x 12" in page


def test_the_command_takes_height_and_width(tmp_path, monkeypatch):
    for place in ("a/0", "a/1", "b/0", "b/1"):
        path = tmp_path / "set" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(30, 20).permute(1, 2, 0).numpy()).rotate(90 * len(place)).save(path)
    (tmp_path / "tall_model.py").write_text(
        "import torch\n"
        "def tall():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 12, 8))\n"
    )
    monkeypatch.chdir(tmp_path)
    common = ("evaluate", "tall_model:tall", "--data", "set", "--attacks", "noise", "--out", "out", "--quiet")
    done = cli(*common, "--image-size", "24x12")
    assert done.exit_code == 0, done.output
    assert Results.load("out").image_sides == (24, 12)
    refused(cli(*common, "--image-size", "4x12"), "image_size 4 x 12 must be between 8 and 2048 pixels")
    wrong = cli(*common, "--image-size", "24xtall")
    assert wrong.exit_code == 2
    assert "'24xtall' is no side in pixels, nor height and width, as in 224 or 256x128" in wrong.output


def test_a_progress_bar_of_a_library_is_no_thread_that_goes_on(tmp_path):
    """tqdm starts its monitor at the first bar of a process, which attacks of ART draw."""
    from tqdm.auto import tqdm

    for kind in tqdm.__mro__[:-1]:
        if getattr(kind, "monitor", None) is not None:
            kind.monitor.exit()
            kind.monitor = None
    before = set(threading.enumerate())
    attack = build_suite("art.ProjectedGradientDescent", "8/255", "quick")
    results = evaluate({"tall": Tall()}, make_dataset(), attack, out=tmp_path, max_queries=2, options=QUIET)
    assert "TMonitor" in {type(thread).__name__ for thread in set(threading.enumerate()) - before}
    assert [(cell.status, cell.reason) for cell in results.cells] == [("ok", None)]


def test_attacks_that_take_squares_alone_are_skipped(tmp_path):
    attacks = build_suite("torchattacks.DIFGSM,torchattacks.TIFGSM,torchattacks.Pixle,art.SimBA", "8/255", "quick")
    results = evaluate({"tall": Tall()}, make_dataset(), attacks, out=tmp_path, max_queries=2, options=QUIET)
    assert {cell.status for cell in results.cells} == {"skipped"}
    assert results.cells[0].reason == (
        "torchattacks.DIFGSM takes square images alone, and these are 24 x 12 pixels: leave it out"
    )
