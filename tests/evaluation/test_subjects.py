"""Models named on the command line: one subject each, or one for each BatchNorm branch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from robustdml.errors import SpecError
from robustdml.evaluation import load_subjects
from robustdml.models import (
    EmbeddingModel,
    ModelConfig,
    branch_layout,
    branch_names,
    convert_to_multibn,
    load_checkpoint,
    save_checkpoint,
)

BRANCHES = ("clean", "stax", "mtax")
IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def with_branches(model: nn.Module) -> nn.Module:
    """Three branches that differ in their statistics and in their affine parameters."""
    convert_to_multibn(model, BRANCHES)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            for place, branch in enumerate(BRANCHES):
                if f".branches.{branch}." in name and tensor.is_floating_point():
                    tensor.mul_(1 + 0.3 * place)
    return model.eval()


def through(model: nn.Module, branch: str) -> torch.Tensor:
    with torch.no_grad(), branch_layout(model, [(branch, None)]):
        return model(IMAGES)


def embeddings(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(IMAGES)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Run folders of a model with branches and of one without."""
    for name in ("mdprop", "st"):
        model = EmbeddingModel(ModelConfig("resnet-tiny", image_size=16))
        save_checkpoint(with_branches(model) if name == "mdprop" else model, tmp_path / name, {"method": name})
    return tmp_path


def test_every_branch_is_a_subject_and_the_deployed_one_keeps_the_name(runs):
    plain, *every = load_subjects([str(runs / "st"), str(runs / "mdprop")], branches="all")
    assert (plain.name, plain.source) == ("st", str(runs / "st"))
    assert [subject.name for subject in every] == ["mdprop", "mdprop[stax]", "mdprop[mtax]"]
    assert [subject.source for subject in every] == [
        f"{runs / 'mdprop'}, BatchNorm branch {branch}" for branch in ("clean (deployed)", "stax", "mtax")
    ]
    assert {(subject.method, subject.preprocessing.size) for subject in every} == {("mdprop", 16)}


def test_a_subject_is_an_ordinary_model_of_its_branch_alone(runs):
    whole = load_checkpoint(runs / "mdprop").model
    subjects = load_subjects([str(runs / "mdprop")], branches="all")
    for branch, subject in zip(BRANCHES, subjects, strict=True):
        assert branch_names(subject.module) == ()
        assert torch.equal(embeddings(subject.module), through(whole, branch))
    assert not torch.allclose(embeddings(subjects[0].module), embeddings(subjects[1].module))
    # White box: gradients go through the branch too.
    images = IMAGES.clone().requires_grad_()
    (ours,) = torch.autograd.grad(subjects[1].module(images)[:, 0].sum(), images)
    with branch_layout(whole, [("stax", None)]):
        (theirs,) = torch.autograd.grad(whole(images)[:, 0].sum(), images)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_only_the_deployed_branch_unless_all_are_asked_for(runs):
    (subject,) = load_subjects([str(runs / "mdprop")])
    assert (subject.name, subject.source) == ("mdprop", str(runs / "mdprop"))
    assert torch.equal(embeddings(subject.module), through(load_checkpoint(runs / "mdprop").model, "clean"))


def test_a_given_name_is_that_of_every_branch(runs):
    subjects = load_subjects([f"mine={runs / 'mdprop'}"], branches="all")
    assert [subject.name for subject in subjects] == ["mine", "mine[stax]", "mine[mtax]"]


def test_a_module_of_ones_own_is_taken_through_each_of_its_branches(tmp_path, monkeypatch):
    (tmp_path / "module_with_branches.py").write_text(
        "from squares import SmallNet\n"
        "from robustdml.models import convert_to_multibn\n"
        "def build():\n    return convert_to_multibn(SmallNet(), ('clean', 'stax')).eval()\n"
        "def plain():\n    return SmallNet()\n"
    )
    monkeypatch.chdir(tmp_path)
    sources = ["module_with_branches:build", "module_with_branches:plain"]
    subjects = load_subjects(sources, branches="all")
    assert [(subject.name, subject.source) for subject in subjects] == [
        ("build", f"{sources[0]}, BatchNorm branch clean (deployed)"),
        ("build[stax]", f"{sources[0]}, BatchNorm branch stax"),
        ("plain", sources[1]),
    ]
    assert branch_names(subjects[1].module) == ()
    assert [subject.name for subject in load_subjects(sources)] == ["build", "plain"]


def test_an_unknown_choice_is_refused(runs):
    with pytest.raises(SpecError, match="branches='stax' must be one of: deployed, all"):
        load_subjects([str(runs / "mdprop")], branches="stax")
