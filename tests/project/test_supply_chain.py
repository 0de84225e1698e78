"""What is installed beside robustdml and is old: what of it is used; and what a source distribution holds."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CODE = """
import sys
for name in ("requests", "urllib3", "idna", "chardet", "robustbench"):
    sys.modules[name] = None  # whoever imports it fails
import torch
from robustdml.attacks import ATTACKS, build_attack
from robustdml.contracts import batch_references
names = [name for name in ATTACKS if name.startswith("torchattacks.")]
built = [build_attack(name, "8/255") for name in names]
import robustdml, robustdml.cli, robustdml.reports
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
images = torch.rand(8, 3, 8, 8)
changed = robustdml.attack(model, images, torch.arange(8) % 2, "torchattacks.PGD")
assert changed.shape == images.shape and not torch.equal(changed, images)
print(len(built))
"""


def test_torchattacks_works_without_the_old_requests_that_it_requires():
    """SECURITY.md says so."""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-1500:]
    assert int(ended.stdout) > 20


@pytest.mark.slow
def test_a_source_distribution_has_all_that_the_repository_has(tmp_path):
    """Tests, pages, recipes and pins: what one needs to change it, and to have the same numbers."""
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), "."]
    copy = tmp_path / "checkout"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(command, cwd=copy, capture_output=True, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {name for name in tracked if name.split("/")[0] in {"tests", "docs", "recipes", "constraints.txt"}}
    wanted |= {"CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"}
    assert wanted - held == set()


def test_what_continuous_integration_runs_is_a_script():
    """It once held a comment that a replacement had torn apart, and failed before its first command."""
    script = ROOT / ".ci" / "run"
    read = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")
    assert script.read_text("utf-8").splitlines()[-1] == "make test"
