"""Backbones and the embedding model around them."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from robustdml.errors import SpecError, UnknownNameError
from robustdml.models import BACKBONES, EmbeddingModel, ModelConfig, check_backbone
from robustdml.models.small import ResidualBlock

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Recorder(nn.Module):
    """A backbone that keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.given = None

    def forward(self, images):
        self.given = images
        return images.mean((2, 3))


@pytest.mark.parametrize("training", [True, False])
def test_embeddings_are_points_on_the_unit_sphere(embedding_model, training):
    embeddings = embedding_model.train(training)(IMAGES)
    assert embeddings.shape == (5, 7)
    assert embeddings.dtype == torch.float32
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(5), atol=1e-6)
    assert not torch.allclose(embeddings[0], embeddings[1], atol=1e-3)


def test_the_model_normalises_inside_itself(embedding_model):
    embedding_model.backbone, embedding_model.head = Recorder(), nn.Identity()
    gray = torch.full((2, 3, 8, 8), 0.5)
    embeddings = embedding_model(gray)
    expected = torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
    assert torch.allclose(embedding_model.backbone.given, expected.view(1, 3, 1, 1).expand(2, 3, 8, 8))
    assert torch.allclose(embeddings, F.normalize(expected, dim=0).expand(2, 3))


def test_the_model_leaves_its_input_alone(embedding_model):
    images = IMAGES.clone()
    embedding_model(images)
    assert torch.equal(images, IMAGES)


def test_normalisation_moves_with_the_model_and_is_not_a_weight(embedding_model):
    assert embedding_model.double().mean.dtype == torch.float64
    assert {"mean", "std"}.isdisjoint(embedding_model.state_dict())


def test_unknown_backbone_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown backbone 'resnet-tny': did you mean 'resnet-tiny'"):
        EmbeddingModel(ModelConfig("resnet-tny"))


@pytest.mark.parametrize("field", [{"embedding_dim": 0}, {"image_size": 7}, {"embedding_dim": -3}])
def test_config_refuses_sizes_that_cannot_be(field):
    with pytest.raises(SpecError, match=r"must be (at least 1|between 8 and 2048 pixels)"):
        ModelConfig("resnet-tiny", **field)


def test_config_as_json_values_rebuilds_it():
    config = ModelConfig("resnet18", embedding_dim=64, image_size=224)
    ours = {"backbone": "resnet18", "embedding_dim": 64, "image_size": 224}
    fields = ("mean", "std", "resize", "squash", "interpolation")
    assert config.to_dict() == {**ours, **dict.fromkeys(fields)}
    own = EmbeddingModel(config).config
    values = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 256, False, "bilinear")
    assert own.to_dict() == {**ours, **dict(zip(fields, values, strict=True))}
    assert ModelConfig(**own.to_dict()) == own
    assert ModelConfig(**config.to_dict()) == config


@pytest.mark.parametrize("name", [name for name, entry in BACKBONES.items() if not entry.pretrained])
def test_small_backbones_have_no_pretrained_weights(name):
    with pytest.raises(SpecError, match="no pretrained weights: leave --pretrained out"):
        EmbeddingModel(ModelConfig(name), pretrained=True)


def test_pretrained_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(
        SpecError, match=r"weights of 'resnet18' cannot be downloaded \(no route to host\): connect"
    ) as caught:
        EmbeddingModel(ModelConfig("resnet18"), pretrained=True)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth elsewhere and put it into" in str(caught.value)


def size_for(name):
    """64 pixels, but for networks whose last map would vanish or does not divide into windows."""
    return {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 70}.get(name, 64)


#: RegNets are made in full (see `check_backbone`): the largest would take gigabytes, and add nothing.
LARGE = {"regnet_x_32gf", "regnet_y_32gf", "regnet_y_128gf", "regnet_x_16gf", "regnet_y_16gf"}
WITHOUT_BATCHNORM = ("alexnet", "convnext", "squeezenet", "swin", "vit")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BACKBONES) - LARGE))
def test_every_backbone_embeds_and_says_whether_it_has_batchnorm(name):
    expected = not name.startswith(WITHOUT_BATCHNORM) and (not name.startswith("vgg") or name.endswith("_bn"))
    assert check_backbone(ModelConfig(name, embedding_dim=12, image_size=size_for(name))) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The default weight initialization of")
@pytest.mark.parametrize("name", sorted({name for name, entry in BACKBONES.items() if entry.pretrained} - LARGE))
def test_torchvision_backbones_lose_their_classifier_only(name):
    size = size_for(name)
    with torch.device("cpu" if name.startswith("regnet") else "meta"), torch.random.fork_rng(devices=[]):
        network, features = BACKBONES[name].build(False, size)
        assert network.train()(torch.empty(2, 3, size, size)).shape == (2, features)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert not any(module.out_features == 1000 for module in linear)


@pytest.mark.parametrize(("name", "size"), [("inception_v3", 32), ("maxvit_t", 64), ("vit_b_16", 40)])
def test_a_backbone_that_cannot_take_such_images_is_refused(name, size):
    with pytest.raises(SpecError, match=f"'{name}' cannot (take|be made for) images of {size} pixels"):
        check_backbone(ModelConfig(name, image_size=size))


@pytest.mark.parametrize("name", ["resnet-tiny", "resnet-small", "resnet18-slim", "resnet18-small"])
def test_small_backbones_see_every_row_for_itself(name):
    network, features = BACKBONES[name].build(False, 16)
    network.eval()
    with torch.no_grad():
        whole = network(IMAGES)
        assert whole.shape == (5, features)
        assert torch.allclose(network(IMAGES[2:3]), whole[2:3], atol=1e-4)


def test_two_models_of_one_config_share_nothing(embedding_model):
    twin = EmbeddingModel(embedding_model.config)
    before = copy.deepcopy(twin.state_dict())
    with torch.no_grad():
        for parameter in embedding_model.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in twin.state_dict().items())


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("resnet-tiny", 0.485),
        ("resnet18", 0.485),
        ("timm.tf_efficientnet_lite0", 0.5),
        ("timm.efficientnet_lite0", 0.485),
        ("timm.resnet10t", 0.485),
        ("own_backbones:Own", 0.485),
    ],
)
def test_a_backbone_brings_its_own_statistics(name, mean):
    model = EmbeddingModel(ModelConfig(name, embedding_dim=5, image_size=64))
    assert model.config.mean[0] == mean == pytest.approx(float(model.mean[0]))
    assert model.config.std[0] == (0.5 if mean == 0.5 else 0.229) == pytest.approx(float(model.std[0]))


def test_statistics_that_are_given_take_precedence_over_the_backbones():
    model = EmbeddingModel(ModelConfig("resnet-tiny", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    assert (model.config.mean, model.config.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("field", [{"mean": (0.5, 0.5)}, {"std": (0.0, 0.5, 0.5)}, {"mean": (0.5, 0.5, 127.5)}])
def test_statistics_that_cannot_be_are_refused(field):
    with pytest.raises(SpecError, match="must be three numbers, one for each channel"):
        ModelConfig("resnet-tiny", **field)


def test_a_residual_block_is_that_of_torchvision():
    torch.manual_seed(0)
    shortcut = nn.Sequential(nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6))
    theirs = BasicBlock(4, 6, 2, shortcut)
    ours = ResidualBlock(4, 6, 2, copy.deepcopy(shortcut))
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(3, 4, 8, 8)
    assert torch.equal(ours(features), theirs(features))


def test_weights_are_had_by_name_with_the_view_that_they_were_made_for(monkeypatch):
    asked = []
    plain = torchvision.models.resnet50

    def offline(*_, weights, **options):
        asked.append(weights)
        return plain(**options)

    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **options: offline(name, **options))
    with torch.device("meta"):
        first = EmbeddingModel(ModelConfig("resnet50", image_size=224), pretrained="IMAGENET1K_V1")
        newest = EmbeddingModel(ModelConfig("resnet50", image_size=224), pretrained=True)
    assert asked == ["IMAGENET1K_V1", "DEFAULT"]
    assert [model.preprocessing.resize for model in (first, newest)] == [256, 232]
    assert BACKBONES["resnet50"].named_weights(True) == "IMAGENET1K_V2"
    assert BACKBONES["resnet50"].named_weights("IMAGENET1K_V1") == "IMAGENET1K_V1"
    assert BACKBONES["resnet50"].named_weights(False) is None


def test_weights_that_do_not_exist_are_refused_by_name():
    with pytest.raises(UnknownNameError, match=r"weights of torchvision's resnet18.* 'IMAGENET1K_V2'.*IMAGENET1K_V1"):
        EmbeddingModel(ModelConfig("resnet18"), pretrained="IMAGENET1K_V2")
    with pytest.raises(SpecError, match=r"only torchvision's backbones have several by name.* timm.resnet50.tv_in1k"):
        EmbeddingModel(ModelConfig("timm.resnet10t"), pretrained="IMAGENET1K_V1")
