"""Backbones of timm, of Hugging Face, and of one's own."""

from __future__ import annotations

import importlib
import json

import pytest
import torch

from robustdml.errors import MissingPackageError, SpecError, UnknownNameError
from robustdml.importing import call_factory
from robustdml.models import EmbeddingModel, ModelConfig, check_backbone, find_backbone
from robustdml.models.external import hugging_face_processor


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_timm_network_embeds_images():
    assert check_backbone(ModelConfig("timm.resnet10t", embedding_dim=5, image_size=64))
    assert not check_backbone(ModelConfig("timm.test_vit", embedding_dim=5, image_size=160))
    model = EmbeddingModel(ModelConfig("timm.mobilenetv3_small_050", embedding_dim=5, image_size=64)).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 64, 64)).shape == (2, 5)
    with pytest.raises(UnknownNameError, match="unknown timm model 'resnet10': did you mean 'resnet10t'"):
        find_backbone("timm.resnet10").build(False, 64)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_hugging_face_encoder_of_a_local_folder_embeds_images(tmp_path, kind):
    import transformers

    config = {
        "vit": lambda: transformers.ViTConfig(
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        ),
        "resnet": lambda: transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
    }[kind]()
    saved = transformers.AutoModel.from_config(config).eval()
    saved.save_pretrained(tmp_path / "encoder")
    name = f"hf.{tmp_path / 'encoder'}"
    model = EmbeddingModel(ModelConfig(name, embedding_dim=5, image_size=32), pretrained=True).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert model(images).shape == (2, 5)
        loaded = model.backbone(images)
        output = saved(pixel_values=images)
        expected = output.pooler_output if output.pooler_output is not None else output.last_hidden_state.mean(1)
        torch.testing.assert_close(loaded, expected.flatten(1))
    assert check_backbone(ModelConfig(name, embedding_dim=5, image_size=32)) == (kind == "resnet")
    with pytest.raises(SpecError, match="Hugging Face cannot make '/no/such/folder'"):
        find_backbone("hf./no/such/folder").build(False, 32)


def test_code_in_a_repository_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    """transformers would ask on a terminal, and run the code on a yes."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    code = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nraise SystemExit(0)\n"
    for name in ("configuration_own.py", "modeling_own.py", "image_processing_own.py"):
        (folder / name).write_text(code)
    names = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names}))
    own = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "image_processing_own.Own"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(text) or "y")
    with pytest.raises(SpecError, match="Hugging Face cannot make"):
        find_backbone(f"hf.{folder}").build(True, 32)
    with pytest.raises(Exception, match=r"trust_remote_code|custom code"):
        hugging_face_processor(str(folder))
    assert not asked
    assert not list(tmp_path.rglob("ran"))


def test_a_network_of_ones_own_embeds_images():
    model = EmbeddingModel(ModelConfig("own_backbones:Own", embedding_dim=5))
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    for name, sentence in {
        "own_backbones:Absent": "cannot make the backbone 'own_backbones:Absent'",
        "no_such_module:make": "No module named 'no_such_module'",
        "own_backbones:broken": "RuntimeError: no such file: weights.pt",
        "sys:exit": "it tried to end the program",
        "own_backbones:ending": r"it tried to end the program \(exit code 0\)",
        "own_backbones:Silent": "a whole number num_features",
    }.items():
        with pytest.raises(SpecError, match=sentence):
            EmbeddingModel(ModelConfig(name))
    with pytest.raises(SpecError, match="brings its own weights"):
        EmbeddingModel(ModelConfig("own_backbones:Own"), pretrained=True)


def test_a_factory_may_train_what_it_returns():
    """A backbone is tried before the training, for which no gradients are needed; the factory may need them."""
    assert not check_backbone(ModelConfig("own_backbones:trained", embedding_dim=5, image_size=8))
    with torch.inference_mode():
        call_factory("own_backbones:trained", "the model")


@pytest.mark.parametrize(("name", "package"), [("timm.resnet10t", "timm"), ("hf.some/name", "transformers")])
def test_an_absent_package_says_how_to_install_it(monkeypatch, name, package):
    original = importlib.import_module

    def without(wanted, *arguments):
        if wanted == package:
            raise ImportError("not installed")
        return original(wanted, *arguments)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingPackageError, match=r"pip install 'robustdml\[(timm|hf)\]'"):
        find_backbone(name).build(False, 64)
