"""`robustdml verify` and `evaluate --save-images` from the outside."""

from __future__ import annotations

import pytest
from command_line import cli, refused, write_images


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on images of one's own with a model of one's own, and what the command line needs to name both."""
    root = tmp_path_factory.mktemp("images")
    for part in ("train", "test"):
        write_images(root / part, {f"{part}-a": 4, f"{part}-b": 4})
    out = root / "out"
    known = ("--data", "folder", "--root", root)
    asked = ("--attacks", "noise", "--image-size", 16, "--save-images", "--quiet", "--out", out)
    assert cli("evaluate", "own=own_backbones:Own", *known, *asked).exit_code == 0
    return out, known


def test_an_honest_run_is_verified_also_by_its_model(run):
    out, known = run
    result = cli("verify", out)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "Problems: 0.")
    result = cli("verify", out, "--model", "own_backbones:Own", *known)
    assert result.exit_code == 0, result.output
    assert "Judged again: 8 attacked queries of 1 files." in result.output


def test_what_does_not_hold_is_listed_and_ends_with_4(run):
    out, known = run
    (path,) = (out / "adversarial").rglob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"!")
    try:
        result = cli("verify", out, "--model", "own_backbones:Own", *known)
    finally:
        path.write_bytes(content)
    assert result.exit_code == 4
    assert f"Problem: '{path}' is damaged or belongs to another run" in result.output
    assert result.output.splitlines()[-1] == "Problems: 1."
    assert cli("verify", out.parent).exit_code == 4


def test_what_cannot_be_verified_is_one_sentence(run, tmp_path):
    refused(cli("verify", tmp_path / "nowhere"), "no run in")
    refused(cli("verify", run[0], "--model", "own_backbones:Own"), "--model and --data go together")
