"""What can go wrong with a training, each as a user meets it: one sentence with the cause and the fix, exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import Result
from command_line import cli, refused, write_images

from robustdml.models import load_checkpoint

SIX = dict.fromkeys(("red", "green", "blue", "brown", "white", "black"), 6)
CLEAN = '[[branch]]\nkind = "clean"\n'


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root")
    write_images(root / "train", SIX)
    write_images(root / "test", {"cyan": 5, "pink": 5})
    return root


def training(root: Path, out: Path, *more: object) -> Result:
    return cli(
        "train", "--data", "folder", "--root", root, "--out", out, "--backbone", "resnet-tiny", "--image-size", "16",
        "--embedding-dim", "16", "--epochs", "4", "--batch-size", "12", "--device", "cpu", "--quiet", *more,
    )  # fmt: skip


def test_a_loss_that_is_not_a_number(root, tmp_path):
    result = training(root, tmp_path / "run", "--method", "st", "--lr", "1e30")
    refused(result, r"the loss is nan in epoch 1, step 2: lower --lr, and train into another --out$")
    assert len(result.output.splitlines()) == 1  # no warning of torch beside it


def test_a_collapse_keeps_the_model_until_then(root, tmp_path):
    arguments = ("--method", "st", "--lr", "0.3", "--loss", "triplet")
    refused(
        training(root, tmp_path / "run", *arguments),
        r"the embeddings have collapsed .* after epoch 2 of 4\): lower --lr or --eps, or raise --epochs, and train "
        r"into another --out; the model of epoch 1 is kept in '.*run'$",
    )
    assert load_checkpoint(tmp_path / "run").training["kept_epoch"] == 1


def test_classes_with_one_image(tmp_path):
    write_images(tmp_path / "train", {**SIX, "one": 1, "two": 1})
    write_images(tmp_path / "test", {"cyan": 5})
    refused(
        training(tmp_path, tmp_path / "run", "--method", "st"),
        r"training classes 'one', 'two' have one image each, and training needs at least two of each class: add",
    )


def test_one_class_alone(tmp_path):
    write_images(tmp_path / "train", {"red": 6})
    write_images(tmp_path / "test", {"cyan": 5})
    refused(
        training(tmp_path, tmp_path / "run", "--method", "st"),
        "needs images of two classes at least, and there is 1: add another class",
    )
    refused(
        training(tmp_path, tmp_path / "run", "--method", "st", "--validation-classes", "1"),
        "cannot hold out 1 of 1 training classes: .* hold out none",
    )


@pytest.mark.parametrize(
    ("more", "pattern"),
    [
        (
            ("--m-per-class", 2, "--batch-size", 14),
            "need 7 classes, there are 6: raise --m-per-class or lower --batch-",
        ),
        (
            ("--m-per-class", 4, "--validation-classes", 4),
            "need 3 classes, there are 2 beside 4 held out: raise --m-per-class or lower --batch-size",
        ),
        (("--validation-classes", 5), "cannot hold out 5 of 6 training classes: .* hold out between 0 and 4"),
        (("--batch-size", 7), "divides batches of 7 among 6 classes: choose an even --batch-size, such as 8"),
        (("--loss", "s2sd(dims=512-1024)"), "cannot read the value '512-1024' in .* or quote it: '512-1024'"),
        (("--loss", "s2sd(base=raise)"), "or is a word of Python, needs quotes, as in dims='512-1024'"),
        (
            ("--method", "mdprop", "--backbone", "convnext_tiny", "--image-size", 32),
            "'convnext_tiny' has none: choose a ResNet, or a method with one BatchNorm",
        ),
    ],
)
def test_settings_that_the_data_do_not_allow(root, tmp_path, more, pattern):
    refused(training(root, tmp_path / "run", "--method", "st", *more), pattern)
    assert not (tmp_path / "run").exists()


ONE_CLASS = ("--m-per-class", 3)  # four classes one after another: a quarter of the batch is one of them
TAKING_TURNS = ("--m-per-class", 6)  # two classes one image after another: a sixth of the batch is one of each


@pytest.mark.parametrize(
    ("branches", "more", "pattern"),
    [
        (CLEAN + CLEAN, (), "only the first branch .* may be clean, and it has clean, clean: leave one clean branch"),
        ("branch = []", (), "a method needs at least one branch, and it has none: add one"),
        (CLEAN + '[[branch]]\nkind = "sax"', (), r"unknown kind of branch 'sax': did you mean 'stax'\?"),
        (CLEAN + '[[branch]]\nkind = "stax"\npart = [0.5, 1.5]', (), r"part=\[0.5, 1.5\] .* 0 <= from < to <= 1"),
        (
            CLEAN + '[[branch]]\nkind = "stax"\nbatchnorm = "own"',
            ("--backbone", "convnext_tiny", "--image-size", 32),
            "'own' needs BatchNorm, 'convnext_tiny' has none: choose a ResNet, or",
        ),
        (
            CLEAN + '[[branch]]\nkind = "mtax"\npart = [0.5, 1.0]\ntargets = 7',
            (),
            "targets=7: the MTAX part of a batch of 12 has 4 images of other classes to aim at: lower the branch's tar",
        ),
        (
            CLEAN + '[[branch]]\nkind = "mtax"',
            ("--targets", 9),
            "targets=9: .* has 8 images .* lower --targets or raise",
        ),
        *(
            (
                CLEAN + f'[[branch]]\nkind = "{kind}"\npart = [0.0, 0.25]',
                ONE_CLASS,
                rf"branch '{kind}': its part \[0, 0.25\] .* one class only, .*: widen the part or lower --m-per-class",
            )
            for kind in ("stax", "mtax", "margin")
        ),
        *(
            (
                CLEAN + f'[[branch]]\nkind = "{kind}"\npart = [0.0, 0.01]',
                (),
                rf"'{kind}': its part \[0, 0.01\] of a batch of 12 images holds 0, and it needs two: widen the part or",
            )
            for kind in ("stax", "mtax", "margin", "unadversarial")
        ),
        *(
            (
                CLEAN + f'[[branch]]\nkind = "{kind}"\npart = [0.0, 0.167]',
                TAKING_TURNS,
                rf"'{kind}': its part \[0, 0.167\] of a batch of 12 images holds no two of one class, .* widen",
            )
            for kind in ("margin", "unadversarial")
        ),
    ],
)
def test_a_list_of_branches_that_cannot_be(root, tmp_path, branches, more, pattern):
    recipe = tmp_path / "own.toml"
    recipe.write_text(branches)
    refused(training(root, tmp_path / "run", "--recipe", recipe, *more), pattern)
    assert not (tmp_path / "run").exists()


def test_a_part_that_holds_just_enough_is_trained_with(root, tmp_path):
    recipe = tmp_path / "own.toml"
    # A third of twelve with three of a class: three of one and one that is alone in its class.
    recipe.write_text(CLEAN + '[[branch]]\nkind = "unadversarial"\npart = [0.0, 0.33]\n[[branch]]\nkind = "margin"')
    result = training(root, tmp_path / "run", "--recipe", recipe, *ONE_CLASS, "--epochs", 1)
    assert result.exit_code == 0, result.output


def test_tensorboard_where_it_is_not_installed(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    refused(
        training(root, tmp_path / "run", "--method", "st", "--tensorboard"),
        r"--tensorboard needs the package tensorboard \(.*\): pip install 'robustdml\[tensorboard\]', or leave",
    )
    assert not (tmp_path / "run").exists()
    assert training(root, tmp_path / "run", "--method", "st", "--epochs", 1).exit_code == 0
