"""Training on images that are no squares, as re-identification has them, and past images that cannot be read."""

import csv

import pytest
import torch
from command_line import cli, refused
from few_digits import few_digits
from PIL import Image
from squares import QUIET

import robustdml
from robustdml.attacks import GOALS
from robustdml.config import TrainConfig
from robustdml.errors import DataError, RobustDMLError, SpecError
from robustdml.models import EmbeddingModel, ModelConfig, check_backbone, load_checkpoint, to_torchvision
from robustdml.training import read_recipe, train

SMALL = {"backbone": "resnet-tiny", "embedding_dim": 8, "epochs": 1, "batch_size": 16, "validation_classes": 0}


@pytest.mark.compatible(
    "Photos", "training at 256 x 128", "the model keeps height and width, and evaluation takes them"
)
def test_a_model_keeps_height_and_width_from_training_to_the_file(tmp_path):
    config = TrainConfig("mdprop", image_size=(24, 12), targets=2, **SMALL)
    for _ in range(2):  # the second returns what the first has written
        result = train(few_digits(20), config, tmp_path / "run", goals=GOALS, options=QUIET)
    found = load_checkpoint(tmp_path / "run").model
    assert found.config == result.model.config
    assert found.config.image_size == (24, 12)
    assert str(found.preprocessing).startswith("both sides to 24 x 12 (bilinear), mean")


@pytest.mark.parametrize(
    ("given", "kept", "view"),
    [
        ({"image_size": (24, 24)}, 24, "shorter side to 24 (bilinear), centre crop 24"),
        ({"image_size": [24, 12]}, (24, 12), "both sides to 24 x 12 (bilinear)"),
        ({"image_size": (24, 12), "resize": 16}, (24, 12), "enough to cover 32 x 16 (bilinear), centre crop 24 x 12"),
        ({"image_size": (12, 24), "resize": 24, "squash": True}, (12, 24), "both sides to 12 x 24 (bilinear)"),
    ],
)
def test_what_training_sees_is_what_the_model_keeps(tmp_path, given, kept, view):
    result = train(few_digits(20), TrainConfig("st", **given, **SMALL), tmp_path / "run", goals=GOALS, options=QUIET)
    assert result.model.config.image_size == kept
    assert result.model.preprocessing.view == view


@pytest.mark.parametrize("size", [(24,), (24, 12, 3), "24x12", (24, 1.5), (4, 64), (64, 4096), 0])
def test_sides_that_cannot_be_are_refused(size):
    with pytest.raises(SpecError, match="image_size"):
        ModelConfig("resnet-tiny", image_size=size)


@pytest.mark.compatible("Models", "vision transformers of timm, made for one size", "are made for the size asked for")
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "swin_t", "timm.vit_tiny_patch16_224"]
)
def test_networks_take_the_sides_of_re_identification(name):
    check_backbone(ModelConfig(name, image_size=(256, 128)))


def test_a_network_for_squares_alone_says_so():
    with pytest.raises(SpecError, match="'vit_b_16' takes squares only, and images of 256 x 128 pixels are asked for"):
        check_backbone(ModelConfig("vit_b_16", image_size=(256, 128)))


def test_the_exported_network_gives_the_same_for_other_sides():
    model = EmbeddingModel(ModelConfig("resnet18", 8, (32, 16))).eval()
    images = torch.rand(2, 3, 32, 16)
    with torch.no_grad():
        plain = torch.nn.functional.normalize(to_torchvision(model)((images - model.mean) / model.std))
        assert torch.allclose(plain, model(images), atol=1e-6)


def test_a_recipe_takes_height_and_width(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[train]\nimage_size = [256, 128]\n")
    assert TrainConfig(**read_recipe(recipe)).image_size == (256, 128)
    recipe.write_text("[train]\nimage_size = [256, 128, 3]\n")
    with pytest.raises(SpecError, match=r"image_size = \[256, 128, 3\].*such as 64, or \[256, 128\]"):
        read_recipe(recipe)


@pytest.fixture
def photos(tmp_path):
    """Five classes for each half, four photos each; two training photos and one of the test are broken."""
    for half in ("train", "test"):
        for number in range(5):
            folder = tmp_path / "data" / half / f"{half}-{number}"
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (20, 40), (50 * number, 60 * index, 90)).save(folder / f"{index}.png")
    for name in ("train/train-0/1.png", "train/train-3/2.png", "test/test-1/0.png"):
        (tmp_path / "data" / name).write_bytes(b"no image")
    return tmp_path / "data"


def command(photos, out, *more):
    return ("train", "--data", photos, "--method", "st", "--backbone", "resnet-tiny", "--image-size", "24x12",
            "--epochs", 1, "--batch-size", 10, "--m-per-class", 2, "--quiet", "--out", out, *more)  # fmt: skip


def test_training_names_all_images_that_cannot_be_read(photos, tmp_path):
    result = cli(*command(photos, tmp_path / "run"))
    refused(result, r"2 of 20 images cannot be read: .*train-0/1.png .*; .*train-3/2.png .*--skip-broken")
    assert not (tmp_path / "run").exists()


@pytest.mark.compatible(
    "Photos", "training photos that cannot be read", "all are named; `train --skip-broken` goes on and lists them"
)
def test_training_goes_on_past_images_that_cannot_be_read(photos, tmp_path):
    shown = cli(*command(photos, tmp_path / "run", "--skip-broken"))
    assert "left out: images that cannot be read (2); listed in left-out.csv" in shown.output
    rows = list(csv.DictReader((tmp_path / "run" / "left-out.csv").read_text().splitlines()))
    assert {row["name"].rsplit("train/")[-1] for row in rows} == {"train-0/1.png", "train-3/2.png"}
    assert all(row["detail"] for row in rows)


def test_too_few_images_that_can_be_read_are_refused(photos, tmp_path):
    for path in photos.glob("train/*/*.png"):
        if path.parent.name != "train-4":
            path.write_bytes(b"no image")
    result = cli(*command(photos, tmp_path / "run", "--skip-broken"))
    refused(result, "training needs images of two classes at least, and there is 1")


def test_python_goes_on_past_them_too(photos, tmp_path):
    settings = {"backbone": "resnet-tiny", "image_size": (24, 12), "epochs": 1, "batch_size": 10, "m_per_class": 2}
    result = robustdml.train(photos, "st", tmp_path / "run", skip_broken=True, progress=False, **settings)
    assert [len(part.names) for part in result.left_out if part.reason == "images that cannot be read"] == [2]


def test_the_backbone_of_a_recipe_that_is_code_is_run_in_python_where_it_is_trusted(photos, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[train]\nmethod = "st"\nbackbone = "odd_backbones:number_0"\nimage_size = 16\nepochs = 1\n')
    with pytest.raises(RobustDMLError, match="trust"):
        robustdml.train("digits", recipe, tmp_path / "run", progress=False)
    with pytest.raises(DataError, match="cannot be read"):  # it comes as far as the photos
        robustdml.train(photos, recipe, tmp_path / "run", trust_code=True, progress=False, validation_classes=0)
