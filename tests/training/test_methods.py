"""Branches as data: what can be listed, what is refused, and recipes in files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from command_line import cli, refused
from torch.nn import functional as F

from robustdml.attacks import GOALS, build_attack
from robustdml.config import TrainConfig
from robustdml.contracts import batch_references
from robustdml.errors import BudgetError, SpecError, UnknownNameError
from robustdml.models import BACKBONES, EmbeddingModel, ModelConfig
from robustdml.training import METHODS, Branch, Method, read_recipe
from robustdml.training.adversarial import example_maker


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"kind": "sax"}, UnknownNameError, "unknown kind of branch 'sax': did you mean 'stax'"),
        ({"kind": "stax", "part": (0.5, 0.5)}, SpecError, "0 <= from < to <= 1"),
        ({"kind": "stax", "part": (0.5, 1.5)}, SpecError, "0 <= from < to <= 1"),
        ({"kind": "clean", "steps": 2}, SpecError, "the clean branch is the whole batch as it is"),
        ({"kind": "stax", "targets": 2}, SpecError, "targets=2 of branch 'stax'"),
        ({"kind": "mtax", "targets": 0}, SpecError, "targets=0 of branch 'mtax'"),
        ({"kind": "mtax", "steps": 0}, SpecError, "steps=0 of branch 'mtax' must be at least 1"),
        ({"kind": "mtax", "eps": 2}, BudgetError, "outside"),
        ({"kind": "mtax", "eps_factor": 0.0}, SpecError, "eps_factor=0.0 of branch 'mtax' must be above 0"),
        ({"kind": "mtax", "eps": 0.1, "eps_factor": 2.0}, SpecError, "leave it out beside an eps"),
        ({"kind": "clean", "eps_factor": 2.0}, SpecError, "and for clean images"),
        ({"kind": "mtax", "batchnorm": "a.b"}, SpecError, "must be a word"),
    ],
)
def test_an_impossible_branch_is_refused(values, error, sentence):
    with pytest.raises(error, match=sentence):
        Branch(**values)


@pytest.mark.parametrize("kinds", [("stax", "clean"), ("clean", "clean")])
def test_only_the_first_branch_of_a_method_may_be_clean(kinds):
    with pytest.raises(
        SpecError, match=f"may be clean, and it has {', '.join(kinds)}: leave one clean branch, and put"
    ):
        Method("", tuple(Branch(kind) for kind in kinds))
    with pytest.raises(SpecError, match="needs at least one branch, and it has none"):
        Method("", ())


def test_a_method_may_do_without_clean_images():
    method = Method("", (Branch("margin", "robust"), Branch("stax", "stax")))
    assert method.batchnorms == ("robust", "stax")  # the first is deployed


def test_the_paper_s_methods_have_the_batchnorms_that_it_says():
    assert {name: len(METHODS[name].batchnorms) for name in METHODS} == {
        "st": 1, "at": 1, "advprop": 2, "mp1": 2, "mdprop": 3, "robust": 3, "mp3": 4, "unadversarial": 2,
        "unadversarial-shared": 1, "robust-frozen": 1, "st-frozen": 1, "at-frozen": 1,
    }  # fmt: skip


def test_robust_is_mdprop_with_images_made_at_four_times_the_eps_of_the_run():
    config, model = TrainConfig(eps=0.02), EmbeddingModel(ModelConfig("resnet-tiny", image_size=32))
    made = [example_maker(branch, config, model, GOALS) for branch in METHODS["robust"].branches[1:]]
    assert [maker.eps for maker in made] == pytest.approx([0.08, 0.08])
    strip = [dataclasses.replace(branch, eps_factor=1.0) for branch in METHODS["robust"].branches]
    assert tuple(strip) == METHODS["mdprop"].branches
    assert METHODS["robust"].branches[1].budget(0.5) == 1.0  # no pixel moves further than from black to white


def test_robust_frozen_is_robust_through_one_batchnorm_that_stays_as_it_is():
    found, robust = METHODS["robust-frozen"], METHODS["robust"]
    assert [dataclasses.replace(branch, batchnorm="clean") for branch in robust.branches] == list(found.branches)
    assert found.frozen_batchnorm
    assert found.branches[1].budget(8 / 255) == 32 / 255


def test_parts_of_a_batch_meet_without_a_gap_whatever_its_size():
    for name, method in METHODS.items():
        for size in range(4, 40):
            rows = [branch.rows(size) for branch in method.branches if branch.part != (0.0, 1.0)]
            assert [part.stop for part in rows[:-1]] == [part.start for part in rows[1:]], name
            assert not rows or (rows[0].start, rows[-1].stop) == (0, size)


RECIPE = """
summary = "MDProp with a hard margin"
[train]
backbone = "resnet-tiny"
epochs = 3
eps = "16/255"
[[branch]]
kind = "clean"
[[branch]]
kind = "margin"
batchnorm = "margin"
part = [0.0, 0.5]
eps = "8/255"
steps = 3
[[branch]]
kind = "mtax"
batchnorm = "mtax"
part = [0.5, 1.0]
targets = 2
eps_factor = 2
"""


def test_a_recipe_in_a_file_is_a_configuration(tmp_path):
    path = tmp_path / "hard.toml"
    path.write_text(RECIPE)
    config = TrainConfig(**read_recipe(path))
    assert (config.method, config.backbone, config.epochs, config.eps) == ("hard", "resnet-tiny", 3, 16 / 255)
    assert config.recipe == Method(
        "MDProp with a hard margin",
        (
            Branch("clean"),
            Branch("margin", "margin", (0.0, 0.5), eps=8 / 255, steps=3),
            Branch("mtax", "mtax", (0.5, 1.0), targets=2, eps_factor=2),
        ),
    )


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("[train]\nepoch = 3", UnknownNameError, "did you mean 'epochs'"),
        ("[train]\neps = '8'", BudgetError, "eight grey levels are written 8/255"),
        ("[trian]", UnknownNameError, "did you mean 'train'"),
        ("train = 3", SpecError, "must be a table"),
        ("epochs =", SpecError, "is no TOML"),
        ("[[branch]]\nbatchnorm = 'a'", SpecError, "a branch has no kind"),
        ("[[branch]]\nkind = 'stax'\npart = 0.5", SpecError, "two shares of the batch"),
        ("[branch]\nkind = 'stax'", SpecError, r"write each branch as a table \[\[branch\]\]"),
        (
            "[[branch]]\nkind = 'stax'\n[[branch]]\nkind = 'clean'",
            SpecError,
            "it has stax, clean: leave one clean branch",
        ),
        ("[train]\nepochs = 'three'", SpecError, "epochs = 'three' in .train. is not what it takes, such as 20"),
        ("[train]\nepochs = 2.5", SpecError, "epochs = 2.5 in .train. is not what it takes"),
        ("[train]\npretrained = 1", SpecError, "pretrained = 1 in .train. is not what it takes, such as False"),
        ("[train]\nbackbone = 18", SpecError, "backbone = 18 in .train. is not what it takes"),
        ("[train]\npatience = true", SpecError, "patience = True in .train. is not what it takes, such as 10"),
        ("[[branch]]\nkind = 3", SpecError, "kind = 3 in .branch. is not what it takes, such as .mtax."),
        ("[[branch]]\nkind = 'mtax'\nsteps = 'two'", SpecError, "steps = 'two' in .branch. is not what it takes"),
        ("[[branch]]\nkind = 'stax'\npart = ['a', 'b']", SpecError, "two shares of the batch"),
        ("frozen_batchnorm = true", SpecError, "belongs to a list of branches"),
    ],
)
def test_a_wrong_recipe_is_refused_with_a_sentence(tmp_path, text, error, sentence):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(error, match=sentence):
        read_recipe(path)
    with pytest.raises(SpecError, match="cannot read the recipe"):
        read_recipe(tmp_path / "absent.toml")


def test_unadversarial_images_come_nearer_to_their_own_class():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 6 * 6, 8))
    embed = lambda images: F.normalize(model(images), dim=1)  # noqa: E731
    images, labels = torch.rand(12, 3, 6, 6), torch.arange(12) // 3

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, batch):
            return embed(batch)

    with torch.no_grad():
        references = batch_references(embed(images), labels)
    attack = build_attack("unadversarial(targets=2, steps=5)", 16 / 255)
    rows = attack.target_rows(references, seed=1)
    assert (labels[rows] == labels[:, None]).all()
    assert (rows != torch.arange(12)[:, None]).all()
    moved = attack(Model(), images, references, seed=1)
    with torch.no_grad():
        wanted = references.embeddings[rows]
        before = (references.embeddings[:, None] - wanted).norm(dim=2).mean(1)
        after = (embed(moved)[:, None] - wanted).norm(dim=2).mean(1)
    assert (after < before).all()


def test_a_query_alone_in_its_class_aims_at_itself_and_more_targets_than_there_are_repeat():
    labels = torch.tensor([0, 1, 1])
    references = batch_references(F.normalize(torch.randn(3, 4), dim=1), labels)
    goal = GOALS["unadversarial"](targets=3)
    assert goal.target_rows(references, seed=0).tolist() == [[0, 0, 0], [2, 2, 2], [1, 1, 1]]
    assert dataclasses.replace(goal, targets=1).target_rows(references, seed=0).tolist() == [[0], [2], [1]]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "recipes").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_recipe_that_is_shipped_can_be_read(path):
    config = TrainConfig(**read_recipe(path))
    assert config.method in METHODS or config.recipe
    assert config.backbone in BACKBONES


def test_a_recipe_runs_no_code_that_was_not_asked_for(tmp_path, monkeypatch):
    (tmp_path / "evil_recipe_code.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    (tmp_path / "r.toml").write_text('[train]\nbackbone = "evil_recipe_code:build"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"is code, 'evil_recipe_code:build': if you trust it, give --trust-code"):
        read_recipe(tmp_path / "r.toml")
    assert read_recipe(tmp_path / "r.toml", trust_code=True) == {"backbone": "evil_recipe_code:build"}
    command = ("train", "--data", "digits", "--recipe", tmp_path / "r.toml", "--out", tmp_path / "run", "--quiet")
    refused(cli(*command), "is code, 'evil_recipe_code:build'")
    assert not (tmp_path / "ran").exists()
    refused(cli(*command, "--trust-code"), "cannot make the backbone 'evil_recipe_code:build'")
    assert (tmp_path / "ran").exists()
    refused(cli(*command, "--backbone", "resnet-tinny"), "unknown backbone 'resnet-tinny'")
