"""Models by the name that a library has for them: they embed a photo as the library itself does."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from squares import QUIET, make_dataset
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import build_suite
from robustdml.errors import CheckpointError, MissingPackageError, SpecError, UnknownNameError
from robustdml.evaluation import evaluate, load_subjects
from robustdml.models import SourceOptions, find_backbone, load_model
from robustdml.models.sources.agreement import agreement, photos
from robustdml.preprocessing import Preprocessing

LIBRARIES_WARN = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)
#: Noise, which no two ways of resizing make alike.
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def embedded(model: nn.Module, image: Image.Image) -> torch.Tensor:
    pixels = torch.as_tensor(np.array(image)).permute(2, 0, 1)
    return model((model.preprocessing.square(pixels).float() / 255)[None])


def same_as(model: nn.Module, own, image: Image.Image = NOISE) -> None:
    """Apart from what all images have in common, which makes the cosines of an untrained network meaningless."""
    with torch.no_grad():
        other = photos()[1]
        ours, theirs = embedded(model, image) - embedded(model, other), own(image) - own(other)
    assert float(F.cosine_similarity(ours, theirs)) > 0.999


@pytest.fixture(autouse=True)
def _unexamined(monkeypatch) -> None:
    """What is looked at before attacks has tests of its own, and takes most of the time of a small evaluation."""
    monkeypatch.setattr("robustdml.evaluation.run.examine", lambda _: [])


def runs(source: str, tmp_path, *, options=None, image_size: int | None = None, suite: str = "fgsm"):
    """The results of a small evaluation of a source."""
    subjects = load_subjects([source], options=options or SourceOptions())
    attacks = build_suite(suite, "8/255")
    results = evaluate(
        subjects, make_dataset(4, 4), attacks, out=tmp_path / "run", image_size=image_size, max_queries=6, options=QUIET
    )
    assert [cell.reason for cell in results.cells if cell.status != "ok"] == []
    return results


@LIBRARIES_WARN
def test_timm(tmp_path):
    import timm

    torch.manual_seed(1)
    model = load_model("timm:test_resnet?pretrained=false")
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet").eval()
    whole.load_state_dict(model.network.state_dict(), strict=False)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(whole))
    same_as(model, lambda image: whole.forward_head(whole.forward_features(transform(image)[None]), pre_logits=True))
    (entry,) = runs("timm:test_resnet?pretrained=false", tmp_path, image_size=48).models
    assert (entry.name, entry.architecture) == ("test_resnet", "timm:test_resnet")
    assert (entry.preprocessing.size, entry.declared.size) == (48, 160)


def test_results_are_shown_in_a_line(tmp_path):
    results = runs("squares:SmallNet", tmp_path)
    assert repr(results) == str(results)
    assert len(repr(results)) < 600
    assert f"SmallNet {results.models[0].clean.value:.3f}" in repr(results)


def test_torchvision(tmp_path):
    from torchvision import models

    model = load_model("torchvision:shufflenet_v2_x0_5?pretrained=false")
    own = models.ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()
    same_as(model, lambda image: model.network(own(image)[None]))
    assert model.network(torch.rand(1, 3, 64, 64)).shape == (1, 1024)  # its classifier is off
    source = "shuffle=torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1?pretrained=false"
    (entry,) = runs(source, tmp_path, image_size=48).models
    assert (entry.name, entry.architecture) == ("shuffle", "torchvision:shufflenet_v2_x0_5")


@LIBRARIES_WARN
def test_hugging_face(tmp_path):
    import transformers

    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**small, image_size=32, patch_size=8)
    folder = tmp_path / "classifier"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    with pytest.raises(SpecError, match=r"does not say how its images are prepared: give --size, --mean and --std"):
        load_model(f"hf:{folder}")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    model = load_model(f"hf:{folder}")
    # Its pooler was never trained, so it is not asked.
    own, _ = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    same_as(model, lambda image: own(**processor(images=image, return_tensors="pt")).last_hidden_state.mean(1))
    runs(f"hf:{folder}", tmp_path)


@LIBRARIES_WARN
@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_a_model_of_images_and_texts_embeds_as_it_compares_with_texts(tmp_path, kind):
    import transformers

    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        text_config={**small, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2},
    )
    whole = transformers.AutoModel.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path
    )
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}")

    def own(image):
        found = whole.get_image_features(**processor(images=image, return_tensors="pt"))
        return found.pooler_output

    same_as(model, own)
    assert find_backbone(f"hf:{tmp_path}").build(False, 32)[1] == embedded(model, NOISE).shape[1]


@LIBRARIES_WARN
def test_open_clip(tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="the extra [openclip] is not installed")
    vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
    (tmp_path / "tiny.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "tiny.json")
    model = load_model("open_clip:tiny?pretrained=false")
    whole, _, prepare = open_clip.create_model_and_transforms("tiny", pretrained=None)
    whole.load_state_dict(model.network.network.state_dict())
    same_as(model, lambda image: whole.eval().encode_image(prepare(image)[None]))
    runs("open_clip:tiny?pretrained=false", tmp_path)
    with pytest.raises(SpecError, match=r"no weights 'laion' of tiny: write .*'open_clip:tiny\?pretrained=false'"):
        load_model("open_clip:tiny/laion")


def test_code_of_a_file_of_a_module_and_an_instance(tmp_path, monkeypatch):
    code = "import torch\nfrom beside import D\ndef build():\n    torch.manual_seed(0)\n"
    code += "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(300, D))\n"
    for folder, size in (("one", 4), ("two", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.py").write_text(code.replace("beside", f"beside_{folder}"))
        (tmp_path / folder / f"beside_{folder}.py").write_text(f"D = {size}\n")
    before = list(sys.path)
    entries = [runs(f"{tmp_path / name}/model.py:build", tmp_path / name).models[0] for name in ("one", "two")]
    assert [(entry.name, entry.embedding_dim) for entry in entries] == [("build", 4), ("build", 5)]
    assert sys.path == before
    monkeypatch.chdir(tmp_path / "one")
    module = load_model("model.py:build")
    assert not module.training  # however it was returned
    assert load_model("model:build").state_dict().keys() == module.state_dict().keys()
    assert load_model(module) is module
    given = SourceOptions(size=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    prepared = load_model(module, given)
    images = torch.rand(2, 3, 10, 10)
    normalised = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
    assert torch.allclose(prepared(images), module(normalised), atol=1e-6)
    assert prepared.preprocessing == Preprocessing(10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    with pytest.raises(CheckpointError, match=r"there is no file '.*absent\.py'"):
        load_model("absent.py:build")


def test_what_is_given_takes_precedence_and_a_share_is_kept():
    own = Preprocessing(224, 256, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    given = SourceOptions(size=112, interpolation="bilinear").completed(own, "it")
    assert given == Preprocessing(112, 128, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert SourceOptions(crop=0.5).completed(own, "it").resize == 448
    assert SourceOptions().completed(None, "it") is None
    for options, sentence in {
        (("mean", (0.1, 0.2, 0.3)),): "mean and std go together",
        (("crop", 1.5),): r"crop=1.5 must be in \(0, 1\]",
        (("mean", (123.7,) * 3), ("std", (58.0,) * 3)): r"must be three numbers, one for each channel, in \[0, 1\]",
        (("interpolation", "lanczos"),): "cannot be resized by 'lanczos'",
    }.items():
        with pytest.raises(SpecError, match=sentence):
            SourceOptions(**dict(options))
    with pytest.raises(SpecError, match="'it' does not say what size its images have: give --size too"):
        SourceOptions(interpolation="bicubic").completed(None, "it")


class Pixels(nn.Module):
    """A network whose embedding is the image, so that no difference of preparation is lost."""

    def forward(self, images):
        return images.flatten(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"interpolation": "nearest"},
        {"resize": 32},
        {"squash": True},
        {"mean": (0.485, 0.456, 0.406)},
        {"mean": (0.3, 0.5, 0.7)},
    ],
    ids=str,
)
def test_a_preparation_unlike_the_librarys_is_refused_with_both_numbers(wrong):
    from robustdml.models.sources.loading import sourced
    from robustdml.models.sources.sourced import Found

    right = {"size": 32, "resize": 40, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.2,) * 3}

    def own(image):
        pixels = torch.as_tensor(np.array(image)).permute(2, 0, 1)
        square = Preprocessing(**right).square(pixels)
        return ((square.float() / 255 - 0.5) / 0.2).flatten(1).reshape(1, -1)

    good, bad = Preprocessing(**right), Preprocessing(**{**right, **wrong})
    model = sourced("mine", Found(Pixels(), "pixels", good, own), SourceOptions())
    assert agreement(model, good, own) > 0.9999
    with pytest.raises(SpecError, match=r"'mine' embeds photos otherwise .* cosine is 0\.\d+, and at least 0\.999"):
        sourced("mine", Found(Pixels(), "pixels", bad, own), SourceOptions())


@LIBRARIES_WARN
@pytest.mark.parametrize(
    ("source", "error", "sentence"),
    [
        ("timm:resnet10", UnknownNameError, "unknown timm model 'resnet10': did you mean 'resnet10t'"),
        ("timm:test_resnet?pretraind=false", SpecError, r"write timm:NAME, or 'timm:NAME\?pretrained=false'"),
        ("timm:", SpecError, "write timm:NAME"),
        ("torchvision:resnet51", UnknownNameError, "torchvision 'resnet51': did you mean 'resnet50'"),
        ("torchvision:resnet50/V3", UnknownNameError, "known: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2"),
        ("torchvision:deeplabv3_resnet50", UnknownNameError, "unknown classification model of torchvision"),
        ("mteb:openai/clip", MissingPackageError, "name the model itself, as hf:openai/clip"),
        ("runs/absent", CheckpointError, "no checkpoint at 'runs/absent'"),
        ("absent.module:build", CheckpointError, "No module named 'absent'"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_a_sentence(source, error, sentence):
    with pytest.raises(error, match=sentence):
        load_model(source)


@LIBRARIES_WARN
@pytest.mark.parametrize("source", ["timm:resnet10t", "hf:facebook/dinov2-small", "open_clip:RN50/openai"])
def test_without_a_network_what_is_not_cached_is_refused_at_once(monkeypatch, tmp_path, source):
    if source.startswith("open_clip"):
        pytest.importorskip("open_clip", reason="the extra [openclip] is not installed")
        # Where open_clip does without the hub it asks a server of its own.
        monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
        monkeypatch.setattr("open_clip.factory.create_model_and_transforms", None)
    import huggingface_hub

    monkeypatch.setattr("socket.getaddrinfo", lambda *_: (_ for _ in ()).throw(OSError("not known")))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(SpecError, match=r"(cache, and the hub cannot be reached|open_clip cannot make).*connect this"):
        load_model(source)
    assert offline == huggingface_hub.constants.HF_HUB_OFFLINE


def test_an_absent_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'robustdml\[openclip\]'"):
        load_model("open_clip:RN50/openai")
