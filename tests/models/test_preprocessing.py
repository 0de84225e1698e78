"""What a model's preprocessing says is what the library of its backbone does to an image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models as torchvision_models

from robustdml.data import ArrayImages
from robustdml.data.tensors import ImageTensors
from robustdml.errors import SpecError
from robustdml.models import EmbeddingModel, ModelConfig, check_backbone, find_backbone
from robustdml.preprocessing import Preprocessing, declared

#: Noise, so that a crop one pixel aside or another interpolation is far off. With other sides transformers may cut one
#: pixel beside torchvision's centre: it rounds half a pixel down, and torchvision to the even one.
SHAPES = [(100, 150), (300, 225), (240, 240)]
IMAGES = [np.random.default_rng(0).integers(64, 192, (*shape, 3), dtype=np.uint8) for shape in SHAPES]
LIBRARIES_WARN = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


def off_by(preprocessing: Preprocessing, theirs) -> float:
    """The most grey levels by which the input of a network differs from what its library would give it."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    worst = 0.0
    for array in IMAGES:
        ours = ImageTensors(ArrayImages(array[None]), preprocessing).batch([0])[0]
        other = theirs(Image.fromarray(array)) * std + mean
        assert other.shape == ours.shape
        worst = max(worst, float((other - ours).abs().max() * 255))
    return worst


@pytest.mark.parametrize(
    "name", sorted(torchvision_models.list_models(module=torchvision_models, include=["*_b*", "*_v*", "*t18", "*1*"]))
)
def test_torchvisions_networks_are_prepared_for_as_their_weights_ask(name):
    preprocessing = find_backbone(name).prepared(nn.Identity(), True)
    own = torchvision_models.get_model_weights(name)["DEFAULT"].transforms()
    if name == "inception_v3":  # It normalises once more.
        network = torchvision_models.inception_v3(transform_input=True, init_weights=False)
        assert off_by(preprocessing, lambda image: network._transform_input(own(image)[None])[0]) < 2.1
    else:
        assert off_by(preprocessing, own) < 2.1
        other = "bicubic" if preprocessing.interpolation == "bilinear" else "bilinear"
        assert off_by(dataclasses.replace(preprocessing, interpolation=other), own) > 10


@LIBRARIES_WARN
@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("resnet10t", "shorter side to 201 (bicubic), centre crop 176"),
        ("resnet26", "shorter side to 256 (bicubic), centre crop 224"),
        ("tf_efficientnet_lite0", "shorter side to 256 (bicubic), centre crop 224, mean 0.5 / 0.5 / 0.5"),
        ("vgg11", "shorter side to 256 (bilinear), centre crop 224"),
        ("inception_v4", "shorter side to 341 (bicubic), centre crop 299"),
        ("vit_small_patch14_dinov2", "shorter side to 518 (bicubic), centre crop 518"),
        ("vit_base_patch16_clip_quickgelu_224.openai", "shorter side to 248 (bicubic), centre crop 224, mean 0.4815"),
        ("convnext_tiny.in12k_ft_in1k_384", "both sides to 384 (bicubic), mean 0.485"),
        ("dm_nfnet_f0.dm_in1k", "both sides to 213 (bicubic), centre crop 192"),
    ],
)
def test_timms_networks_are_prepared_for_as_timm_does(name, written):
    from timm.data import create_transform, resolve_model_data_config

    backbone = find_backbone(f"timm.{name}")
    with torch.device("meta"):
        network, _ = backbone.build(False, 224)
    preprocessing = backbone.prepared(network, True)
    assert str(preprocessing).startswith(written)
    assert off_by(preprocessing, create_transform(**resolve_model_data_config(network))) < 2.1


@LIBRARIES_WARN
def test_what_timm_does_and_cannot_be_done_here_is_refused():
    network = nn.Identity()
    network.pretrained_cfg = {"input_size": (3, 392, 392), "crop_mode": "border"}
    with pytest.raises(SpecError, match=r"392 x 392 pixels \(crop mode 'border'\) for 'some_vit'"):
        find_backbone("timm.some_vit").prepared(network, True)
    network.pretrained_cfg = {"input_size": (3, 1024, 768)}
    with pytest.raises(SpecError, match="1024 x 768 pixels"):
        find_backbone("timm.some_vit").prepared(network, True)


def hugging_face(folder, kind: str, **settings):
    import transformers

    getattr(transformers, kind)(**settings).save_pretrained(folder)
    return f"hf.{folder}", transformers.AutoImageProcessor.from_pretrained(folder)


@LIBRARIES_WARN
@pytest.mark.parametrize(
    ("kind", "settings", "written"),
    [
        ("CLIPImageProcessor", {"size": {"shortest_edge": 228}}, "shorter side to 228 (bicubic), centre crop 224"),
        ("ViTImageProcessor", {}, "both sides to 224 (bilinear), mean 0.5 / 0.5 / 0.5"),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}, "shorter side to 256 (bicubic), centre crop 224"),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, "both sides to 384 (bicubic), mean"),
        ("BitImageProcessor", {"size": {"shortest_edge": 256}}, "shorter side to 256 (bicubic), centre crop 224"),
        ("DeiTImageProcessor", {"resample": 0}, "both sides to 256 (nearest), centre crop 224"),
        ("ViTImageProcessor", {"do_normalize": False}, "both sides to 224 (bilinear), mean 0 / 0 / 0, std 1 / 1 / 1"),
    ],
)
def test_encoders_of_hugging_face_are_prepared_for_as_their_processor_does(tmp_path, kind, settings, written):
    name, processor = hugging_face(tmp_path, kind, **settings)
    preprocessing = find_backbone(name).prepared(nn.Identity(), True)
    assert str(preprocessing).startswith(written)

    def theirs(image):
        return processor(images=image, return_tensors="pt")["pixel_values"][0]

    assert off_by(preprocessing, theirs) < 1.1


@LIBRARIES_WARN
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("MobileViTImageProcessor", {}),  # blue, green, red
        ("LevitImageProcessor", {}),  # its settings do not say to what it resizes
        ("CLIPImageProcessor", {"do_center_crop": False}),
        ("CLIPImageProcessor", {"do_resize": False}),
        ("ViTImageProcessor", {"rescale_factor": 1 / 127.5}),
        ("ViTImageProcessor", {"resample": 4}),
        ("DetrImageProcessor", {}),
    ],
)
def test_a_processor_that_does_more_is_refused_and_not_passed_over(tmp_path, kind, settings):
    name, _ = hugging_face(tmp_path, kind, **settings)
    with pytest.raises(SpecError, match=rf"\({kind}\w*\) does more than to cut a square"):
        find_backbone(name).prepared(nn.Identity(), True)


@LIBRARIES_WARN
def test_an_encoder_without_a_processor_gets_the_plain_view(tmp_path):
    found = find_backbone(f"hf.{tmp_path}").prepared(nn.Identity(), True)
    assert (found.at(32), found.mean[0]) == (Preprocessing(32, mean=found.mean, std=found.std), 0.485)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ModelConfig("resnet-tiny", 5, 32), (32, 32, False, "bilinear")),
        (ModelConfig("shufflenet_v2_x0_5", 5, 224), (224, 256, False, "bilinear")),
        (ModelConfig("shufflenet_v2_x0_5", 5, 64), (64, 73, False, "bilinear")),
        (ModelConfig("shufflenet_v2_x0_5", 5, 64, resize=64), (64, 64, False, "bilinear")),
        (ModelConfig("shufflenet_v2_x0_5", 5, 64, interpolation="bicubic"), (64, 73, False, "bicubic")),
        (ModelConfig("shufflenet_v2_x0_5", 5, 64, squash=True), (64, 73, True, "bilinear")),
        (ModelConfig("own_backbones:Prepared", 5, 64), (64, 80, False, "bicubic")),
    ],
    ids=str,
)
def test_a_model_takes_from_its_backbone_what_its_configuration_leaves_open(config, expected):
    found = EmbeddingModel(config)
    assert dataclasses.astuple(found.preprocessing)[:4] == expected
    assert found.preprocessing == found.config.preprocessing == declared(found)
    assert ModelConfig(**found.config.to_dict()) == found.config
    assert isinstance(check_backbone(config), bool)  # without memory for its tensors


def test_a_configuration_that_leaves_nothing_open_does_not_ask_the_library(monkeypatch):
    from robustdml.models import external

    config = ModelConfig("own_backbones:Own", 5, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 40, False, "nearest")
    monkeypatch.setattr(external, "factory_backbone", lambda *_: (nn.Identity(), 12))
    monkeypatch.setattr("robustdml.models.backbones.declared", None)
    assert EmbeddingModel(config).config == config


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"size": 0}, "must be at least 1 pixel, and it is 0"),
        ({"size": 224, "resize": 200}, "resize=200 must be at least the 224 pixels that are cut out of it"),
        ({"size": 224, "resize": -1}, "resize=-1 must be at least 0"),
        ({"size": 8, "interpolation": "lanczos"}, "by 'lanczos': known: nearest, bilinear, bicubic"),
        ({"size": 8, "mean": (0.5,)}, r"mean=\(0.5,\) must be three numbers"),
        ({"size": 8, "std": (0.5, 0.5, float("nan"))}, "must be three numbers"),
    ],
)
def test_a_preprocessing_that_cannot_be_is_refused(fields, sentence):
    with pytest.raises(SpecError, match=sentence):
        Preprocessing(**fields)


def test_a_module_declares_its_input_by_an_attribute():
    module = nn.Identity()
    assert declared(module) is None
    module.preprocessing = {"size": 224, "resize": 256, "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5]}
    assert declared(module) == Preprocessing(224, 256, interpolation="bicubic", mean=(0.5, 0.5, 0.5))
    module.preprocessing = Preprocessing(96, squash=True)
    assert declared(module) == Preprocessing(96, 96, squash=True)
    module.preprocessing = {"size": 224, "crop": 3}
    with pytest.raises(SpecError, match=r"Identity declares cannot be read \(.*'crop'\): give size"):
        declared(module)
    module = nn.Identity()
    module.preprocessing = nn.Flatten()  # a layer that happens to be called so
    assert declared(module) is None


def test_another_size_keeps_the_share_of_the_crop():
    own = Preprocessing(224, 256, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert own.at(224) == own
    assert own.at(112) == dataclasses.replace(own, size=112, resize=128)
    assert own.at(448).at(224) == own
    assert str(own) == ("shorter side to 256 (bicubic), centre crop 224, mean 0.5 / 0.5 / 0.5, std 0.5 / 0.5 / 0.5")
    assert str(Preprocessing(32)) == "shorter side to 32 (bilinear), centre crop 32"
    assert str(Preprocessing(32, squash=True)) == "both sides to 32 (bilinear)"


def test_squashing_keeps_what_a_crop_would_cut_off():
    bars = np.zeros((1, 8, 24, 3), np.uint8)
    bars[:, :, 8:16] = 255
    cropped, squashed = (
        ImageTensors(ArrayImages(bars), Preprocessing(8, squash=squash, interpolation="nearest")).batch([0])
        for squash in (False, True)
    )
    assert cropped.min() == 1
    assert squashed[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
