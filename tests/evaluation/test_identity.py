"""Records are believed for what they were made of: another model, image, surrogate or library is another run."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from squares import QUIET, SmallNet
from torch import nn

from robustdml.attacks import build_attack, build_suite
from robustdml.cli import main
from robustdml.contracts import foreign_code
from robustdml.data import load_dataset
from robustdml.errors import RunFolderError
from robustdml.evaluation import evaluate
from robustdml.importing import load_object

MARGIN = build_suite("margin", "8/255")


def run(squares, out, model=None, attacks=MARGIN):
    return evaluate({"net": model or SmallNet()}, squares, attacks, out=out, options=QUIET)


class _Changed(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change = SmallNet(), change

    def forward(self, images):
        return self.change(self.net, images)


def test_the_same_model_resumes_also_where_rounding_differs(squares, tmp_path):
    first = run(squares, tmp_path, _Changed(lambda net, x: net(x)))
    again = run(squares, tmp_path, _Changed(lambda net, x: net.double()(x.double()).float()))
    assert again.cells == first.cells


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda net, x: net(x * 0.9), "embeddings"),
        (lambda net, x: net(x.flip(1)), "embeddings"),
        (lambda net, x: net((x * 255).round() / 255), "gradients"),
        (lambda net, x: net(x).detach() + 0 * x.mean(), "gradients"),
        (lambda net, x: net(x).detach(), "gradients"),
    ],
    ids=["scale", "channels", "rounding", "detached", "without gradients"],
)
def test_a_model_whose_code_changed_is_refused(squares, tmp_path, change, what):
    run(squares, tmp_path, _Changed(lambda net, x: net(x)))
    with pytest.raises(RunFolderError, match=f"'net' has the same weights and other {what} on the same images"):
        run(squares, tmp_path, _Changed(change))
    with pytest.raises(RunFolderError, match=r"holds another run .*the weights of net"):
        run(squares, tmp_path, SmallNet(1))


def test_images_of_the_same_size_and_other_content_are_another_run(tmp_path):
    def fill(seed):
        random = np.random.default_rng(seed)
        for part, names in (("train", "ab"), ("test", "cd")):
            for name in names:
                for number in range(4):
                    path = tmp_path / "data" / part / name / f"{number}.bmp"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(random.integers(0, 255, (10, 10, 3), dtype=np.uint8)).save(path)

    fill(0)
    run(load_dataset("folder", tmp_path / "data"), tmp_path / "out")
    fill(1)
    with pytest.raises(RunFolderError, match=r"differs in: the images or the labels of the data set\)"):
        run(load_dataset("folder", tmp_path / "data"), tmp_path / "out")


def _module(folder, name, text, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (folder / f"{name}.py").write_text(text)


SURROGATE = "import torch\nfrom squares import SmallNet\ndef build():\n    return SmallNet({seed})\n"
ATTACK = (
    "from robustdml.attacks import Noise\nclass Mine(Noise):\n"
    "    def __call__(self, model, images, references, *, seed):\n"
    "        return images * {factor}\n"
)


def test_another_surrogate_behind_the_same_name_is_another_run(squares, tmp_path, monkeypatch):
    spec = "transfer(surrogate='its_surrogate:build', attack=margin)"
    _module(tmp_path, "its_surrogate", SURROGATE.format(seed=1), monkeypatch)
    first = run(squares, tmp_path / "out", attacks=[build_attack(spec, 32 / 255)])
    _module(tmp_path, "its_surrogate", SURROGATE.format(seed=2), monkeypatch)
    attack = build_attack(spec, 32 / 255)
    with pytest.raises(RunFolderError, match=r"differs in: the code or the surrogate of transfer\(surrogate"):
        run(squares, tmp_path / "out", attacks=[attack])
    # And no cache answers for the one that was there.
    assert run(squares, tmp_path / "new", attacks=[attack]).cells[0].score
    assert first.spec.foreign != run(squares, tmp_path / "new", attacks=[attack]).spec.foreign


def test_other_code_of_ones_own_attack_is_another_run(squares, tmp_path, monkeypatch):
    _module(tmp_path, "my_attack", ATTACK.format(factor=0.99), monkeypatch)
    run(squares, tmp_path / "out", attacks=[build_attack("my_attack:Mine", 8 / 255)])
    _module(tmp_path, "my_attack", ATTACK.format(factor=0.98), monkeypatch)
    with pytest.raises(RunFolderError, match=r"differs in: the code or the surrogate of noise"):
        run(squares, tmp_path / "out", attacks=[build_attack("my_attack:Mine", 8 / 255)])


INNER = "transfer(surrogate='squares:SmallNet', attack='my_inner:Mine()')"


@pytest.mark.parametrize("spec", ["my_inner:Mine", INNER, "my_inner:with_goal", "my_inner:ours"])
@pytest.mark.parametrize("file", ["my_inner", "my_helper"])
def test_other_code_that_an_attack_uses_is_another_run(squares, tmp_path, monkeypatch, spec, file):
    code = (
        "from dataclasses import dataclass\nfrom my_helper import factor\nfrom robustdml.attacks import PGD, Noise\n"
        "from robustdml.attacks.goals.untargeted import Margin\n# {}\n"
        "class Mine(Noise):\n    def __call__(self, model, images, references, *, seed):\n"
        "        return images * factor\n"
        "@dataclass(frozen=True)\nclass Goal(Margin):\n    pass\n"
        "def with_goal(eps):\n    return PGD(Goal(), eps, steps=1)\n"
        "def ours(eps):\n    return Mine(eps)\n"
    )
    helper = "factor = 0.99  # {}\n"
    for number in (1, 2):
        changed = {"my_inner": 1, "my_helper": 1, file: number}
        _module(tmp_path, "my_helper", helper.format(changed["my_helper"]), monkeypatch)
        _module(tmp_path, "my_inner", code.format(changed["my_inner"]), monkeypatch)
        attack = build_attack(spec, 8 / 255)
        if number == 1:
            run(squares, tmp_path / "out", attacks=[attack])
        else:
            with pytest.raises(RunFolderError, match="differs in: the code or the surrogate of"):
                run(squares, tmp_path / "out", attacks=[attack])


HOLDS = """
from functools import partial
from my_held import Change, change
class Kept:
    __slots__ = ("change",)
def kept():
    one = Kept()
    one.change = Change()
    return one
def closed():
    made = Change()
    return lambda images: made(images)
"""


@pytest.mark.parametrize(
    "hold",
    [
        lambda held: held.partial(held.change, 1),
        lambda held: held.Change().__call__,
        lambda held: held.kept(),
        lambda held: held.closed(),
        lambda held: lambda images, by=held.change: by(images),
    ],
    ids=["partial", "method", "slots", "closure", "default"],
)
def test_whatever_holds_the_code_it_counts(tmp_path, monkeypatch, hold):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for factor in (1, 2):
        text = f"def change(*images): return {factor}\nclass Change:\n    def __call__(self, images): return {factor}\n"
        _module(tmp_path, "my_held", text, monkeypatch)
        held = {"__name__": "squares"}  # its own code is the same both times
        exec(HOLDS, held)
        found.append(foreign_code([hold(SimpleNamespace(**held))]))
    assert found[0] != found[1]


WRITTEN = """
from dataclasses import dataclass
def helper(x):
    return x * {factor} if x not in {{"a", "b", "c"}} else limit
limit = {limit}
class Base:
    def again(self, x):
        return helper(x){more}
@dataclass(frozen=True)
class Mine(Base):
    share: float = {share}
    def __call__(self, x):
        return [self.again(y) for y in x]
from robustdml.importing import code_digest
print(code_digest(Mine))
"""


def test_what_is_written_in_a_notebook_is_told_from_its_next_version():
    """There is no file: the same text has the same identity in another process, and any other text another one."""
    base = {"factor": 2, "limit": 3, "more": "", "share": 0.5}
    versions = [base, base, *({**base, name: other} for name, other in zip(base, (3, 4, " + 1", 0.25), strict=True))]
    found = [
        subprocess.run([sys.executable, "-c", WRITTEN.format(**version)], capture_output=True, text=True, check=True)
        for version in versions
    ]
    same, again, *others = [done.stdout.strip() for done in found]
    assert len(same) == 64
    assert same == again
    assert len({same, *others}) == 5


def test_imports_of_a_package_that_a_file_is_no_part_of_are_none(tmp_path, monkeypatch):
    text = "try:\n    from .helper import x\nexcept ImportError:\n    x = 1\nclass Mine:\n    pass\n"
    _module(tmp_path, "my_script", text, monkeypatch)
    assert foreign_code(load_object("my_script:Mine")())


def test_another_version_of_a_library_is_another_run(squares, tmp_path, monkeypatch):
    run(squares, tmp_path)
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "9.9" if name == "torchattacks" else version(name))
    with pytest.raises(RunFolderError, match=r"differs in: the version of torchattacks\)"):
        run(squares, tmp_path)


def test_the_working_folder_counts_for_models_attacks_surrogates_and_backbones(tmp_path, monkeypatch):
    from robustdml.evaluation import load_subjects
    from robustdml.models import find_backbone

    text = SURROGATE.format(seed=1) + ATTACK.format(factor=0.9)
    text += "def backbone():\n    net = SmallNet()\n    net.num_features = 8\n    return net\n"
    _module(tmp_path, "everything", text, monkeypatch)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part not in {"", str(tmp_path)}])
    before = list(sys.path)
    assert isinstance(load_subjects(["everything:build"])[0].module, SmallNet)
    assert type(build_attack("everything:Mine", 8 / 255)).__name__ == "Mine"
    assert find_backbone("everything:backbone").build(False, 10)[1] == 8
    transfer = build_attack("transfer(surrogate='everything:build')", 8 / 255)
    assert transfer.identity()
    assert sys.path == before


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("json", "not of the form"),
        ("json:nothing", "has no 'nothing'"),
        (":x", "not of the form"),
        ("no_such:x", "No module"),
    ],
)
def test_what_cannot_be_loaded_says_why(path, reason):
    with pytest.raises(ImportError, match=reason):
        load_object(path)


def test_names_within_names_are_loaded():
    assert load_object("torch:nn.Linear") is torch.nn.Linear


def test_a_model_that_answers_in_two_ways_can_be_resumed(squares, tmp_path):
    noisy = _Changed(lambda net, x: net(x + 0.1 * torch.rand_like(x)))
    run(squares, tmp_path, noisy)
    assert run(squares, tmp_path, noisy).cells[0].status == "ok"
    for change in (lambda net, x: net(x + 0.2 * torch.rand_like(x)), lambda net, x: net(x)):
        with pytest.raises(RunFolderError, match="other embeddings on the same images"):
            run(squares, tmp_path, _Changed(change))


def test_the_sentence_reaches_the_command_line(tmp_path):
    done = CliRunner().invoke(main, ["evaluate", "json:nothing", "--data", "digits", "--out", str(tmp_path / "o")])
    assert done.exit_code == 2
    assert "has no 'nothing'" in " ".join(done.output.split())
