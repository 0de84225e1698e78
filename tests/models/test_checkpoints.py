"""Checkpoints: what was saved comes back, and nothing else is taken for one."""

import json
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from robustdml.errors import CheckpointError, SpecError
from robustdml.files import sealed
from robustdml.models import (
    EmbeddingModel,
    ModelConfig,
    branch_layout,
    convert_to_multibn,
    fold,
    load_checkpoint,
    save_checkpoint,
    weights_fingerprint,
)
from robustdml.models.checkpoints import CONFIG_FILE, WEIGHTS_FILE
from robustdml.preprocessing import Preprocessing

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
TRAINING = {"method": "mdprop", "dataset": "digits", "epochs": 3, "share": 0.1, "classes": ["ä", "b"]}
BRANCHES = ("clean", "stax", "mtax")


@pytest.fixture
def multi(embedding_model, scramble):
    """The model with three different branches."""
    convert_to_multibn(embedding_model, BRANCHES)
    scramble(embedding_model)
    return embedding_model


@pytest.fixture
def folder(embedding_model, tmp_path):
    """A whole checkpoint."""
    save_checkpoint(embedding_model, tmp_path / "model", TRAINING)
    return tmp_path / "model"


def edit(folder, **fields):
    about = json.loads((folder / CONFIG_FILE).read_text())
    del about["checksum"]
    (folder / CONFIG_FILE).write_text(sealed(about | fields))


def test_an_ordinary_model_comes_back_bit_equal(embedding_model, folder):
    found = load_checkpoint(folder)
    assert found.branches == ()
    assert found.training == TRAINING
    assert found.model.config == embedding_model.config
    assert not any(module.training for module in found.model.modules())
    assert torch.equal(found.model(IMAGES), embedding_model(IMAGES))
    assert weights_fingerprint(found.model) == weights_fingerprint(embedding_model)
    assert found.deployed() is found.model
    assert {path.name for path in folder.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}


def test_a_model_with_branches_comes_back_bit_equal_in_each(multi, tmp_path):
    save_checkpoint(multi, tmp_path, TRAINING)
    found = load_checkpoint(str(tmp_path))
    assert found.branches == BRANCHES
    outputs = []
    for branch in BRANCHES:
        with branch_layout(multi, [(branch, None)]), branch_layout(found.model, [(branch, None)]):
            outputs.append(multi(IMAGES))
            assert torch.equal(found.model(IMAGES), outputs[-1])
        assert torch.equal(found.deployed(branch)(IMAGES), outputs[-1])
        assert isinstance(found.deployed(branch), EmbeddingModel)
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert torch.equal(found.deployed()(IMAGES), outputs[0])


def test_a_model_in_another_memory_layout_comes_back_with_the_same_weights(embedding_model, tmp_path):
    embedding_model.to(memory_format=torch.contiguous_format)
    save_checkpoint(embedding_model, tmp_path, {})
    found = load_checkpoint(tmp_path).model
    assert weights_fingerprint(found) == weights_fingerprint(embedding_model)
    assert torch.allclose(found(IMAGES), embedding_model(IMAGES), atol=1e-5)


def test_an_unknown_branch_cannot_be_deployed(multi, tmp_path):
    save_checkpoint(multi, tmp_path, {})
    with pytest.raises(SpecError, match="no BatchNorm branch 'adv': the model has clean, stax, mtax"):
        load_checkpoint(tmp_path).deployed("adv")


def test_saving_again_replaces(multi, folder):
    save_checkpoint(multi, folder, {"method": "other"})
    assert load_checkpoint(folder).branches == BRANCHES
    assert load_checkpoint(folder).training == {"method": "other"}


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at '.*nowhere': give the --out folder"):
        load_checkpoint(tmp_path / "nowhere")


def break_nothing_there(folder):
    for path in folder.iterdir():
        path.unlink()


def break_no_weights(folder):
    (folder / WEIGHTS_FILE).unlink()


def break_no_config(folder):
    (folder / CONFIG_FILE).unlink()


def break_other_files(folder):
    break_nothing_there(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": [1.0]}))


def break_a_file(folder):
    break_nothing_there(folder)
    folder.rmdir()
    folder.write_bytes(pickle.dumps({"weight": [1.0]}))


@pytest.mark.parametrize(
    "damage", [break_nothing_there, break_no_weights, break_no_config, break_other_files, break_a_file]
)
def test_what_is_no_checkpoint_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(
        CheckpointError, match=r"is not a robustdml checkpoint \(a folder with model\.json and"
    ) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert "package.module:factory" in str(caught.value)


class Executed:
    """An object that fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a checkpoint was unpickled",)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / CONFIG_FILE).write_text(""),
        lambda folder: (folder / CONFIG_FILE).write_text("{"),
        lambda folder: (folder / CONFIG_FILE).write_text("null"),
        lambda folder: (folder / CONFIG_FILE).write_text("[1, 2]"),
        lambda folder: (folder / CONFIG_FILE).write_text('{"architectures": ["BertModel"], "vocab_size": 30522}'),
        lambda folder: (folder / CONFIG_FILE).write_bytes(b"\xff\xfe\x00\x01"),
        lambda folder: edit(folder, format="someone-elses-model"),
        lambda folder: edit(folder, version=3),
        lambda folder: edit(folder, model={"backbone": "resnet-tiny", "depth": 3}),
        lambda folder: edit(folder, model={"backbone": "resnet-unknown"}),
        lambda folder: edit(folder, model={"backbone": "resnet-tiny", "embedding_dim": "7"}),
        lambda folder: edit(folder, model={"backbone": "resnet-tiny", "embedding_dim": -1}),
        lambda folder: edit(folder, model={"backbone": "resnet-tiny", "embedding_dim": 9}),
        lambda folder: edit(folder, model={"backbone": "resnet-small", "embedding_dim": 7}),
        lambda folder: edit(folder, model=None),
        lambda folder: edit(folder, branches=["clean", "stax"]),
        lambda folder: edit(folder, branches=["clean", "clean"]),
        lambda folder: edit(folder, branches=[1, 2]),
        lambda folder: edit(folder, branches=None),
        lambda folder: edit(folder, training=None),
        lambda folder: (folder / WEIGHTS_FILE).write_bytes(b""),
        lambda folder: (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-100]),
        lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\x00" * 5000),
        lambda folder: (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(Executed())),
        lambda folder: (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save({"weight": torch.zeros(3)})),
    ],
)
def test_what_is_damaged_or_foreign_is_refused_in_one_sentence(folder, damage):
    damage(folder)
    with pytest.raises(CheckpointError, match="is not a checkpoint that this robustdml can read") as caught:
        load_checkpoint(folder)
    assert str(caught.value).startswith(f"'{folder}' ")
    assert str(caught.value).endswith("train again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": {"backbone": "resnet-tny"}}, r"unknown backbone 'resnet-tny': did you mean 'resnet-tiny'"),
        ({"version": 3}, r"its format is 'robustdml-embedding-model', version 3\)"),
        ({"format": "other"}, r"its format is 'other', version 2\)"),
        ({"branches": ["clean", "stax"]}, r"Error\(s\) in loading state_dict"),
    ],
)
def test_the_refusal_says_why(folder, fields, reason):
    edit(folder, **fields)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(folder)


def test_a_file_of_pickled_weights_is_never_opened(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Executed()))
    with pytest.raises(CheckpointError, match="is not a robustdml checkpoint"):
        load_checkpoint(path)


def test_the_fingerprint_changes_with_every_weight_and_buffer(convnet):
    model = convnet()
    found = {weights_fingerprint(model)}
    for name, tensor in model.state_dict().items():
        with torch.no_grad():
            value = tensor.view(-1)[-1].clone()
            tensor.view(-1)[-1] += 1
            found.add(weights_fingerprint(model))
            tensor.view(-1)[-1] = value
        assert weights_fingerprint(model) in found, name
    assert len(found) == 1 + len(model.state_dict())


def test_the_fingerprint_does_not_depend_on_mode_or_gradients(multi):
    before = weights_fingerprint(multi)
    multi.train()
    multi.requires_grad_(False)
    for parameter in multi.parameters():
        parameter.grad = torch.ones_like(parameter)
    with branch_layout(multi, [("stax", None)]):
        assert weights_fingerprint(multi) == before


def test_the_fingerprint_depends_on_shapes_types_and_names():
    def linear(shape, name="weight", dtype=torch.float32):
        module = nn.Module()
        module.register_buffer(name, torch.zeros(shape, dtype=dtype))
        return module

    models = [linear((2, 3)), linear((3, 2)), linear((6,)), linear((2, 3), "bias"), linear((2, 3), dtype=torch.int32)]
    assert len({weights_fingerprint(model) for model in models}) == len(models)


def test_the_fingerprint_of_a_folded_model_is_that_of_its_branch(multi):
    found = {weights_fingerprint(fold(multi, branch)) for branch in BRANCHES}
    assert len(found) == 3
    assert weights_fingerprint(fold(multi, "clean")) in found


def test_a_checkpoint_whose_backbone_is_code_is_loaded_on_trust_only(tmp_path):
    model = EmbeddingModel(ModelConfig("own_backbones:Own", embedding_dim=5)).eval()
    save_checkpoint(model, tmp_path, {})
    with pytest.raises(CheckpointError, match="is code, 'own_backbones:Own': if you trust it, give --trust-code"):
        load_checkpoint(tmp_path)
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_checkpoint(tmp_path, trust_code=True).model(images), model(images))


def test_a_file_of_another_program_is_told_what_it_lacks(tmp_path):
    (tmp_path / CONFIG_FILE).write_text('{"format": "other"}')
    (tmp_path / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"\(model.json has no 'version'\)"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_version_1_means_imagenets_statistics_and_the_plain_view(folder, embedding_model):
    about = json.loads((folder / CONFIG_FILE).read_text())
    assert about["version"] == 2
    model = {key: about["model"][key] for key in ("backbone", "embedding_dim", "image_size")}
    edit(folder, version=1, model=model)
    found = load_checkpoint(folder).model
    assert found.preprocessing == Preprocessing(16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert torch.equal(found(IMAGES), embedding_model(IMAGES))


def test_a_checkpoint_of_version_1_is_not_asked_how_its_backbone_would_have_it(tmp_path):
    own = ModelConfig("own_backbones:Prepared", 5, 32)
    save_checkpoint(EmbeddingModel(own), tmp_path, TRAINING)
    assert load_checkpoint(tmp_path, trust_code=True).model.preprocessing.resize == 40
    edit(tmp_path, version=1, model={"backbone": own.backbone, "embedding_dim": 5, "image_size": 32})
    found = load_checkpoint(tmp_path, trust_code=True).model.preprocessing
    assert (found.resize, found.interpolation) == (32, "bilinear")


def test_the_preprocessing_comes_back(tmp_path):
    given = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3), "resize": 20, "squash": True, "interpolation": "bicubic"}
    model = EmbeddingModel(ModelConfig("resnet-tiny", 5, 16, **given)).eval()
    save_checkpoint(model, tmp_path, TRAINING)
    found = load_checkpoint(tmp_path).model
    assert found.config == model.config
    torch.testing.assert_close(found(IMAGES), model(IMAGES))
    edit(tmp_path, model={**model.config.to_dict(), "std": [0.1, 0.0, 0.3]})
    with pytest.raises(CheckpointError, match=r"std=\(0.1, 0.0, 0.3\) must be three numbers"):
        load_checkpoint(tmp_path)


def test_no_flipped_bit_in_weights_or_configuration_changes_what_is_believed(folder, embedding_model):
    random = np.random.default_rng(0)
    for name, flips in ((WEIGHTS_FILE, 100), (CONFIG_FILE, 100)):
        whole, refused = (folder / name).read_bytes(), 0
        for place in random.integers(0, 8 * len(whole), flips).tolist():
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            (folder / name).write_bytes(damaged)
            try:
                found = load_checkpoint(folder)
            except CheckpointError:
                refused += 1
            else:
                assert (found.model.config, found.training) == (embedding_model.config, TRAINING)
                assert weights_fingerprint(found.model) == weights_fingerprint(embedding_model)
        (folder / name).write_bytes(whole)
        assert refused == flips if name == WEIGHTS_FILE else refused > flips / 2


def test_weights_of_another_model_of_the_same_shape_are_refused(folder, embedding_model, scramble):
    scramble(embedding_model)
    theirs = safetensors.torch.save({name: value.contiguous() for name, value in embedding_model.state_dict().items()})
    (folder / WEIGHTS_FILE).write_bytes(theirs)
    with pytest.raises(CheckpointError, match=r"model\.safetensors was changed since it was written"):
        load_checkpoint(folder)


def test_a_configuration_that_was_changed_by_hand_is_refused(folder):
    text = (folder / CONFIG_FILE).read_text()
    (folder / CONFIG_FILE).write_text(text.replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(CheckpointError, match="its content does not fit its checksum"):
        load_checkpoint(folder)
