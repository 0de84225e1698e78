"""``robustdml check``: the flags of a model, without attacks."""

from __future__ import annotations

import re

import pytest
from command_line import cli, write_images
from squares import QUIET, SmallNet, make_dataset
from torch import nn

from robustdml.evaluation import check, evaluate

CODE = """
import torch
from torch import nn

class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(48, 12)

    def forward(self, images):
        return self.head(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))

class Detached(Pooled):
    def forward(self, images):
        return super().forward(images.detach())
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_images(tmp_path, {"train/red": 4, "train/green": 4, "test/cyan": 5, "test/pink": 5, "test/grey": 5})
    (tmp_path / "checked_models.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_exit_code_says_whether_a_flag_is_grave(folder):
    args = ("--data", "folder", "--root", folder, "--image-size", "16", "--quiet")
    good = cli("check", "checked_models:Pooled", *args)
    assert (good.exit_code, good.output) == (0, "Flags: 0, 0 of them grave or invalid.\n")
    bad = cli("check", "checked_models:Detached", *args)
    assert bad.exit_code == 4
    assert "Invalid (no-gradient): The model gives no gradient. Detached gives embeddings from which" in bad.output
    assert bad.output.endswith("Flags: 1, 1 of them grave or invalid.\n")


@pytest.mark.slow
def test_calibration_shows_what_the_suite_misses(folder):
    result = cli("check", "checked_models:Pooled", "--data", "digits", "--quiet", "--calibrate")
    rows = re.findall(r"^ +(\d+)  (\S+) +([.\d]+)  ([.\d]+) +([.\d]+) +(\d+) +(\d+)$", result.output, re.MULTILINE)
    assert len(rows) == 6
    for _, _, clean, exact, reached, missed, _ in rows:
        assert float(exact) <= float(reached) <= float(clean)
        assert int(missed) <= 1
    last = re.search(r"Pooled: (\d+) of (\d+) \(one random image finds (\d+)\)$", result.output, re.M)
    found, planted, by_chance = map(int, last.groups())
    assert found == planted >= 32 > by_chance


def test_the_library_call_is_what_an_evaluation_begins_with(tmp_path):
    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = SmallNet()

        def forward(self, images):
            return self.net((images * 255).round() / 255)

    models, data = {"net": SmallNet(), "rounds": Rounds()}, make_dataset()
    found = check(models, data, options=QUIET)
    assert {flag.model for flag in found} == {"rounds"}
    assert found == evaluate(models, data, [], out=tmp_path, options=QUIET).flags
