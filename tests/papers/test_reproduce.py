"""The tables of MDProp: what they say, their settings beside ours, and each row from files to figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import cli, refused
from official_layouts import LAYOUTS

from robustdml.config import RunOptions, TrainConfig
from robustdml.errors import DataError, UnknownNameError
from robustdml.models import BACKBONES
from robustdml.papers import ROWS, differences, read_outcomes, reproduce, settings_of
from robustdml.papers.mdprop import LOSSES, PROTOCOLS, TRAINING
from robustdml.training import METHODS, build_loss, read_recipe

ROOT = Path(__file__).parents[2]
QUIET = RunOptions(device="cpu", progress=False)
#: A row for each layout, and between them each kind of loss and of method.
QUICK = {
    "cub": "cub-resnet50-s2sd-mdprop5",
    "cars": "cars-resnet50-arc-st-frozen",
    "cars-devkit": "cars-resnet50-ms-mp12",
    "sop": "sop-resnet50-ms-advprop",
    "inshop": "inshop-resnet50-ms-mdprop5",
}


def test_the_recipe_is_the_paper_s_training_with_nothing_left_open():
    assert TrainConfig(**read_recipe(ROOT / "recipes" / "paper.toml")) == TRAINING


def test_no_difference_from_the_paper_is_silent():
    """Every setting that differs has its reason, and recipes/README.md says so."""
    said = " ".join((ROOT / "recipes" / "README.md").read_text().split())
    for _, row in ROWS.items():
        found = differences(row)
        assert all(each.reason for each in found), row.name
        for each in found:
            assert each.reason in said, each.setting
            assert each.setting in said, each.setting


def test_every_field_of_a_training_is_among_the_settings():
    """A new option of training cannot become a silent difference: here it must get a setting."""
    free = {"recipe", "pretrained", "seed", "image_size"}
    probes = {
        "method": "at", "backbone": "resnet18", "embedding_dim": 64, "resize": 300, "squash": True,
        "crop_scale": 0.5, "weights": "IMAGENET1K_V2", "loss": "triplet", "miner": "none",
        "loss_learning_rate": 1.0, "loss_weight_decay": 1.0, "epochs": 1, "batch_size": 28, "m_per_class": 4,
        "learning_rate": 1.0, "weight_decay": 1.0, "eps": 0.5, "attack_steps": 3, "targets": 4,
        "arithmetic": "pixels", "schedule": "cosine", "validation_classes": 3, "patience": 2,
        "clip_gradient": 1.0, "average_weights": 0.5, "precision": "bf16",
    }  # fmt: skip
    assert set(TRAINING.to_dict()) == free | set(probes)
    row = ROWS["cub-resnet50-ms-mdprop5"]
    known = {each.setting for each in differences(row)}
    for name, value in probes.items():
        found = {each.setting for each in differences(row, replace(TRAINING, **{name: value}))}
        assert 1 <= len(found - known) <= 2, name


def test_rows_hold_the_supplement_s_figures_and_can_be_trained():
    mdprop, plain = ROWS["cub-resnet50-ms-mdprop5"], ROWS["cub-resnet50-ms-st-frozen"]
    gain = mdprop.published["clean"]["recall_at_1"] - plain.published["clean"]["recall_at_1"]
    assert gain == pytest.approx(2.96, abs=0.011)  # "up to 2.95 %"
    arc = [ROWS[f"cars-resnet50-arc-{name}"].published["stax"]["recall_at_1"] for name in ("mdprop5", "st-frozen")]
    assert arc[0] / arc[1] == pytest.approx(2.12, abs=0.005)  # "up to 2.12 times"
    assert mdprop.published["stax"] == {"recall_at_1": 57.27, "recall_at_4": 82.21, "nmi": 68.06, "pi_ratio": 0.836}
    for _, row in ROWS.items():
        assert row.published or row.note
        assert row.config.method in METHODS
        assert row.backbone in BACKBONES
        assert set(row.published) <= {"clean", *PROTOCOLS}
    for text in LOSSES.values():
        build_loss(text, None, classes=4, embedding_dim=128, features=16)
    with pytest.raises(UnknownNameError, match="did you mean 'cub-resnet50-ms-mdprop5'"):
        ROWS["cub-resnet50-ms-mdprop6"]


def check(name: str, layout: str, tmp_path: Path) -> None:
    """A row from the files of its data set to the figures of its table."""
    row = ROWS[name]
    root = LAYOUTS[layout](tmp_path)
    found = reproduce(row, root, tmp_path / "out", small=True, options=QUIET)
    by_key = {(each.protocol, each.metric): each for each in found}
    for protocol in ("clean", *PROTOCOLS):
        each = by_key[protocol, "recall_at_1"]
        assert 0 <= each.low <= each.ours <= each.high <= 100
        assert each.published == row.published.get(protocol, {}).get("recall_at_1")
    assert by_key["standard", "recall_at_1"].ours <= by_key["clean", "recall_at_1"].ours
    folder = tmp_path / "out" / f"{name}-miniature"
    table = (folder / "reproduction.md").read_text()
    for each in found:
        if each.published is not None:
            assert f"{each.published:.2f}" in table or f"{each.published:.3f}" in table
    assert read_outcomes(tmp_path / "out", row, small=True) == found
    assert read_outcomes(tmp_path / "out", row) == []  # a miniature is not taken for the row
    about = json.loads((folder / "seed-0" / "model" / "model.json").read_text())["training"]
    assert (about["loss"], about["method"], about["arithmetic"]) == (
        LOSSES[row.loss], row.method, row.config.arithmetic
    )  # fmt: skip
    assert (about["targets"], about["crop_scale"], about["validation_classes"]) == (row.targets or 5, 0.08, 0)
    page = (folder / "seed-0" / "report" / "report.html").read_text()
    assert "0.01/normalised (0.584, 0.571, 0.574 of 255)" in page


@pytest.mark.parametrize("layout", QUICK)
def test_a_miniature_of_a_row_runs_from_files_to_its_table(layout, tmp_path):
    check(QUICK[layout], layout, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ROWS if name not in QUICK.values()])
def test_a_miniature_of_every_other_row_does_too(name, tmp_path):
    check(name, name.partition("-")[0], tmp_path)


def test_what_is_missing_is_asked_for_with_instructions(tmp_path):
    row = ROWS["cars-resnet50-ms-mdprop5"]
    with pytest.raises(DataError, match=r"not built in \(root\): get CARS196 from .*https://.* and give as root"):
        reproduce(row, None, tmp_path, options=QUIET)
    with pytest.raises(DataError, match=r"absent' does not exist.*: get CARS196 from"):
        reproduce(row, tmp_path / "absent", tmp_path, options=QUIET)


def test_the_command_lists_rows_prints_settings_and_refuses_what_it_cannot_do(tmp_path):
    listed = cli("reproduce", "mdprop", "--list", "--out", tmp_path)
    assert listed.exit_code == 0
    line = next(line for line in listed.output.splitlines() if "cub-resnet50-ms-mdprop5" in line)
    assert re.findall(r"\d+\.\d\d", line) == ["65.76", "57.27", "61.41", "20.61"]
    assert len(ROWS) <= len(listed.output.splitlines())
    shown = cli("reproduce", "mdprop", "cub-resnet50-arc-mdprop5", "--settings").output
    assert "robustdml train --recipe recipes/paper.toml --data cub" in shown
    assert '--loss "clampedsoftmax"' in shown
    different = [line[2:].partition(":")[0] for line in shown.splitlines() if line.startswith("!")]
    assert different == [
        each.setting for each in settings_of(ROWS["cub-resnet50-arc-mdprop5"]) if each.paper != each.ours
    ]
    refused(cli("reproduce", "mdprop"), "no row given: robustdml reproduce mdprop --list names them")
    refused(cli("reproduce", "mdprop", "cub-resnet50-ms-mdprop5", "--seeds", "0,0"), "must be different whole numbers")
    refused(cli("reproduce", "mdprop", "cub-resnet50-ms-mdprop5"), "get CUB200-2011 from")
