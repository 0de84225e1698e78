"""Models in files: what each kind embeds, and what is said of those that cannot be taken."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from squares import QUIET, make_dataset
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import build_suite
from robustdml.cli.main import main
from robustdml.errors import CheckpointError, RobustDMLError, SpecError
from robustdml.evaluation import evaluate, load_subjects
from robustdml.models import SourceOptions, load_model, weights_fingerprint
from robustdml.preprocessing import IMAGENET_MEAN
from robustdml.results import Results

SIZE = 16
GIVEN = SourceOptions(size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
IMAGES = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


class Small(nn.Module):
    def __init__(self, outputs: int = 5) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Linear(8, outputs)

    def forward(self, images):
        return self.fc(torch.relu(self.norm(self.conv(images))).mean((2, 3)))


def build() -> nn.Module:
    return Small()


@pytest.fixture(autouse=True)
def _unexamined(monkeypatch) -> None:
    """What is looked at before attacks has tests of its own, and takes most of the time of a small evaluation."""
    monkeypatch.setattr("robustdml.evaluation.run.examine", lambda _: [])


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(2)
    return Small().eval()


def onnx_file(path, network: Small, *, batch: int | str = "N", activation: str = "Relu", reshape: bool = False):
    """As exporters write it; with ``reshape`` as they write ``x.view(len(x), -1)`` of one batch, its length in it."""
    onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnx2torch", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    helper, arrays = onnx.helper, onnx.numpy_helper
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items() if value.ndim}
    weights |= {"shape": np.array([batch, -1])} if reshape else {}
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node(
            "BatchNormalization",
            ["c", *(f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var"))],
            ["n"],
        ),
        helper.make_node(activation, ["n"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["f"]) if reshape else helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    shown = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", shown, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", shown, [batch, 5])],
        [arrays.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def exported(path, network: nn.Module, batch: int | None):
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(network, (IMAGES[: batch or 2],), dynamic_shapes=shapes), path)
    return path


def scripted(path, network: nn.Module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, IMAGES[:2]), path)
    return path


def saved(path, held: object):
    torch.save(held, path)
    return path


def weights(path, network: nn.Module):
    safetensors.torch.save_file(network.state_dict(), path)
    return path


WITH = {"arch": f"{__file__}:build"}
FILES = {
    "TorchScript": (lambda folder, net: scripted(folder / "m.ts", net), {}),
    "torch.export": (lambda folder, net: exported(folder / "m.pt2", net, None), {}),
    "torch.export of one batch": (lambda folder, net: exported(folder / "m.pt2", net, 2), {}),
    "ONNX": (lambda folder, net: onnx_file(folder / "m.onnx", net), {}),
    "ONNX of one batch": (lambda folder, net: onnx_file(folder / "m.onnx", net, batch=1), {}),
    "ONNX that reshapes to its one batch": (
        lambda folder, net: onnx_file(folder / "m.onnx", net, batch=1, reshape=True),
        {},
    ),
    "ONNX that reshapes to its batch of two": (
        lambda folder, net: onnx_file(folder / "m.onnx", net, batch=2, reshape=True),
        {},
    ),
    "a state dict": (lambda folder, net: saved(folder / "m.pt", net.state_dict()), WITH),
    "a state dict in safetensors": (lambda folder, net: weights(folder / "m.safetensors", net), WITH),
    "a checkpoint of Lightning": (
        lambda folder, net: saved(
            folder / "m.ckpt",
            {
                "pytorch-lightning_version": "2.6.0",
                "epoch": 3,
                "state_dict": {f"model.module.{name}": value for name, value in net.state_dict().items()},
            },
        ),
        WITH,
    ),
    "averaged weights": (
        lambda folder, net: saved(
            folder / "m.pth", {"model": Small().state_dict(), "model_ema": net.state_dict(), "optimizer": {}}
        ),
        WITH,
    ),
    "a pickled module": (lambda folder, net: saved(folder / "m.pt", net), {"trust_pickle": True}),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_embeds_as_what_was_saved(kind, small, tmp_path):
    make, more = FILES[kind]
    path = make(tmp_path, small)
    given = SourceOptions(size=SIZE, mean=GIVEN.mean, std=GIVEN.std, **more)
    model = load_model(path, given)
    normalised = (IMAGES - torch.tensor(GIVEN.mean).view(3, 1, 1)) / 0.2
    images = IMAGES.clone().requires_grad_()
    found, expected = model(images), small(normalised)
    assert found.shape == expected.shape
    assert float(F.cosine_similarity(found, expected).min().detach()) > 0.9999
    (gradient,) = torch.autograd.grad(found.square().sum(), images)
    (theirs,) = torch.autograd.grad(
        small((images - torch.tensor(GIVEN.mean).view(3, 1, 1)) / 0.2).square().sum(), images
    )
    assert torch.allclose(gradient, theirs, rtol=1e-3, atol=1e-6)
    assert not model.training
    subjects = load_subjects([str(path)], options=given)
    results = evaluate(
        subjects, make_dataset(4, 4), build_suite("fgsm", "8/255"), out=tmp_path / "e", max_queries=4, options=QUIET
    )
    assert [cell.status for cell in results.cells] == ["ok"], results.cells[0].reason
    assert (results.models[0].name, results.models[0].embedding_dim) == ("m", 5)
    with pytest.raises(SpecError, match=r"does not say how its images are prepared: give .*--mean and --std"):
        load_model(path, SourceOptions(**more))


def test_an_onnx_file_that_cannot_be_converted_is_a_black_box(small, tmp_path):
    path = onnx_file(tmp_path / "m.onnx", small, activation="Mish")
    given = SourceOptions(mean=(0.0,) * 3, std=(1.0,) * 3)  # the file says its size
    (subject,) = load_subjects([str(path)], options=given)
    assert "Mish" in subject.module.black_box
    own = nn.functional.mish(small.norm(small.conv(IMAGES))).mean((2, 3))
    assert torch.allclose(subject.module(IMAGES), small.fc(own), atol=1e-5)
    data = make_dataset(4, 4)
    with pytest.raises(SpecError, match=r"'m' gives no gradients \(onnx2torch .*Mish.*give --attacks blackbox"):
        evaluate([subject], data, build_suite("margin", "8/255"), out=tmp_path / "a", options=QUIET)
    attacks = build_suite("noise,square(queries=5)", "8/255")
    results = evaluate([subject], data, attacks, out=tmp_path / "b", max_queries=4, options=QUIET)
    assert {cell.status for cell in results.cells} == {"ok"}
    other = onnx_file(tmp_path / "n.onnx", Small().eval(), activation="Mish")
    assert weights_fingerprint(load_model(other, given)) != weights_fingerprint(subject.module)


def test_the_command_attacks_a_black_box_without_gradients_and_draws_no_curve_of_it(small, tmp_path):
    path = onnx_file(tmp_path / "m.onnx", small, activation="Mish")
    given = f"evaluate {path} --mean 0 --std 1 --data digits --effort quick --max-queries 2 --quiet --out"
    shown = CliRunner().invoke(main, [*given.split(), str(tmp_path / "a"), "--curve", "linf"])
    assert shown.exit_code == 2
    assert "--curve searches along gradients, and 'm' gives none" in " ".join(shown.output.split())
    assert not (tmp_path / "a").exists()
    shown = CliRunner().invoke(main, [*given.split(), str(tmp_path / "b")], catch_exceptions=False)
    assert "attacked by the suite blackbox" in " ".join(shown.output.split())
    assert {cell.attack.partition("(")[0] for cell in Results.load(tmp_path / "b").cells} == {
        "noise", "square", "nes", "rays",
    }  # fmt: skip


def test_the_head_of_weights_is_taken_off_or_kept(tmp_path):
    from torchvision import models

    network = models.shufflenet_v2_x0_5(weights=None, num_classes=7).eval()
    path = saved(tmp_path / "w.pt", network.state_dict())
    arch = {"arch": "torchvision:shufflenet_v2_x0_5"}
    images = torch.rand(2, 3, 32, 32)
    off, on = load_model(path, SourceOptions(**arch)), load_model(path, SourceOptions(keep_head=True, **arch))
    assert off.preprocessing.mean == IMAGENET_MEAN
    features = off(images)
    assert features.shape == (2, 1024)
    assert torch.allclose(network.fc(features), on(images), atol=1e-5)
    normalised = (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / off.std
    assert torch.allclose(network(normalised), on(images), atol=1e-5)


def written(path, content: bytes):
    path.write_bytes(content)
    return path


class Foreign:
    pass


REFUSED = {
    "an absent file": (lambda folder: folder / "absent.pt", r"no checkpoint at .*timm:resnet50"),
    "weights of a ResNet": (
        lambda folder: saved(folder / "m.pt", _resnet()),
        r"is a state dict of torchvision's resnet18: add --arch torchvision:resnet18$",
    ),
    "a Lightning checkpoint": (
        lambda folder: saved(
            folder / "m.ckpt",
            {"pytorch-lightning_version": "2", "state_dict": {f"net.{name}": v for name, v in _resnet().items()}},
        ),
        "is a LightningModule checkpoint of torchvision's resnet18: add --arch torchvision:resnet18",
    ),
    "weights of nobody": (
        lambda folder: saved(folder / "m.pt", {"a.b": torch.ones(2)}),
        r"state dict of a network that is not known here \(1 tensors, the first 'a.b'\): add --arch",
    ),
    "weights of timm": (
        lambda folder: saved(folder / "m.pt", {"model": {"conv_stem.weight": torch.ones(2)}}),
        "a training checkpoint of a network of timm: add --arch timm:NAME",
    ),
    "a tensor": (lambda folder: saved(folder / "m.pt", torch.ones(3, 2)), r"holds a tensor \(3, 2\) and no weights"),
    "a pickled module": (
        lambda folder: saved(folder / "m.pt", Small()),
        r"is a pickle, which holds .*Small.* would run its code: save its state_dict\(\) instead, or give --trust-p",
    ),
    "a pickled object": (lambda folder: saved(folder / "m.pt", {"a": Foreign()}), "is a pickle, which holds .*Foreign"),
    "an HDF5 file": (lambda folder: written(folder / "m.h5", b"\x89HDF\r\n\x1a\n"), "HDF5 file, as Keras .*ONNX"),
    "a model of browsers": (
        lambda folder: written(folder / "m.json", b'{"format": "graph-model", "generatedBy": "2.0"}'),
        "a model of TensorFlow.js: export it to ONNX",
    ),
    "a page": (
        lambda folder: written(folder / "m.pt", b"<!DOCTYPE html><html>"),
        "a web page: the download went wrong",
    ),
    "a pointer": (
        lambda folder: written(folder / "m.pt", b"version https://git-lfs.github.com/spec/v1\noid"),
        "a pointer of Git LFS .*git lfs pull",
    ),
    "half an archive": (lambda folder: written(folder / "m.pt", b"PK\x03\x04half"), "a damaged archive"),
    "nothing": (lambda folder: written(folder / "m.pt", b""), "an empty file"),
    "a text": (lambda folder: written(folder / "m.txt", b"hello, this is a text"), "no file of a model"),
    "a damaged safetensors": (
        lambda folder: written(folder / "m.safetensors", (20).to_bytes(8, "little") + b'{"a": 1, "b": 2}' + b" " * 20),
        "damaged safetensors",
    ),
    "a folder of transformers": (lambda folder: _folder(folder, "config.json"), "folder of transformers: write hf:"),
    "a SavedModel": (lambda folder: _folder(folder, "saved_model.pb"), "SavedModel of TensorFlow: export it to ONNX"),
}


def _folder(folder, name: str):
    (folder / "model").mkdir()
    (folder / "model" / name).write_text("{}")
    return folder / "model"


def _resnet() -> dict[str, torch.Tensor]:
    from torchvision import models

    with torch.device("meta"):
        network = models.resnet18(weights=None)
    return {name: torch.empty_strided(value.shape, [0] * value.ndim) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_taken_is_called_by_its_name(what, tmp_path):
    make, sentence = REFUSED[what]
    with pytest.raises(RobustDMLError, match=sentence):
        load_subjects([str(make(tmp_path))])


def test_weights_of_another_network_are_refused(small, tmp_path):
    path = saved(tmp_path / "m.pt", small.state_dict())
    with pytest.raises(CheckpointError, match=r"not those of torchvision:resnet18, \d+ missing \('conv1.weight'\)"):
        load_model(path, SourceOptions(arch="torchvision:resnet18"))
    with pytest.raises(CheckpointError, match=r"are not those of .*, 2 of another shape \('fc.weight'\)"):
        load_model(saved(tmp_path / "n.pt", Small(9).state_dict()), SourceOptions(**WITH))
    with pytest.raises(SpecError, match="--arch runs/x is no network"):
        load_model(path, SourceOptions(arch="runs/x"))
    with pytest.raises(CheckpointError, match=r"is a whole model \(TorchScript\) and needs no network"):
        load_model(scripted(tmp_path / "m.ts", small), SourceOptions(**WITH))


def test_an_onnx_file_of_something_else_is_refused(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", Small().eval())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="is an ONNX file that onnxruntime cannot load"):
        load_model(path)
