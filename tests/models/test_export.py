"""A trained model leaves as torchvision knows it: same names, same embeddings."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
import torchvision
from safetensors import safe_open
from torch.nn import functional as F

from robustdml.errors import SpecError
from robustdml.models import (
    EmbeddingModel,
    ModelConfig,
    branch_layout,
    convert_to_multibn,
    export,
    to_torchvision,
)


def normalised(images):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    return (images - mean) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32", "convnext_tiny"])
def test_the_embeddings_are_the_same(name):
    torch.manual_seed(0)
    model = EmbeddingModel(ModelConfig(name, embedding_dim=7, image_size=64)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(F.normalize(to_torchvision(model)(normalised(images)), dim=1), model(images))


def test_a_branch_becomes_a_model_whose_weights_torchvision_loads(tmp_path):
    torch.manual_seed(0)
    model = EmbeddingModel(ModelConfig("resnet18", embedding_dim=7, image_size=32))
    convert_to_multibn(model, ["clean", "stax"])
    model.train()
    with branch_layout(model, [("stax", None)]):
        model(torch.rand(8, 3, 32, 32))  # statistics of their own
    model.eval()
    images, made = torch.rand(2, 3, 32, 32), {}
    for branch in ("clean", "stax"):
        path = export(model, tmp_path / f"{branch}.safetensors", branch)
        plain = torchvision.models.resnet18(num_classes=7)
        plain.load_state_dict(safetensors.torch.load_file(path))
        plain.eval()
        with torch.no_grad(), branch_layout(model, [(branch, None)]):
            made[branch] = F.normalize(plain(normalised(images)), dim=1)
            assert torch.equal(made[branch], model(images))
    assert not torch.equal(made["clean"], made["stax"])
    default = safetensors.torch.load_file(export(model, tmp_path / "default.safetensors"))
    clean = safetensors.torch.load_file(tmp_path / "clean.safetensors")
    assert default.keys() == clean.keys()
    assert all(torch.equal(value, clean[name]) for name, value in default.items())
    with safe_open(tmp_path / "clean.safetensors", "pt") as file:
        assert file.metadata()["model"] == "torchvision.models.resnet18(num_classes=7)"


@pytest.mark.parametrize("name", ["resnet-tiny", "squeezenet1_0"])
def test_what_is_no_torchvision_model_with_a_classifier_is_refused(name):
    with pytest.raises(SpecError, match=f"backbone '{name}' has no torchvision model with a linear classifier"):
        to_torchvision(EmbeddingModel(ModelConfig(name)))


def test_an_unknown_branch_is_refused():
    model = EmbeddingModel(ModelConfig("resnet18"))
    convert_to_multibn(model, ["clean", "stax"])
    with pytest.raises(SpecError, match="no BatchNorm branch 'mtax': the model has clean, stax"):
        to_torchvision(model, "mtax")
