"""What an import costs, and that it finds this package whatever lies in the working folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def run(code: str, folder: Path) -> list[str]:
    """The lines that a fresh interpreter prints, started in a folder."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "module", ["robustdml", "robustdml.results", "robustdml.threat", "robustdml.reports", "robustdml.cli"]
)
def test_it_needs_no_torch(module: str, tmp_path: Path) -> None:
    heavy = "sorted({'torch', 'torchvision', 'torchattacks', 'art', 'faiss', 'sklearn'} & sys.modules.keys())"
    assert run(f"import sys, {module}; print({heavy})", tmp_path) == ["[]"]


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from robustdml.cli import main\n"
        "for command in ([], ['train'], ['evaluate'], ['report'], ['compare'], ['list'], ['demo']):\n"
        "    assert main([*command, '--help'], standalone_mode=False) in (0, None)\n"
        "print('torch' in sys.modules)\n"
    )
    assert run(code, tmp_path)[-1] == "False"


def test_comparing_runs_and_writing_every_output_need_no_torch(tmp_path: Path) -> None:
    """Not only to start: nothing on the way through these commands loads it."""
    commands = (
        ["compare", "nowhere", "nowhere"],
        ["report", "nowhere", "--junit", "j", "--markdown", "m", "--cards", "c", "--fail-under", "worst:recall@1=0"],
    )
    code = (
        "import sys\n"
        "import robustdml\n"
        "from robustdml.cli import main\n"
        "robustdml.report, robustdml.compare, robustdml.Results, robustdml.TrainConfig\n"
        f"for command in {commands!r}:\n"
        "    try:\n"
        "        main(command)\n"
        "    except SystemExit as end:\n"
        "        print(end.code)\n"
        "print(sorted({'torch', 'faiss', 'sklearn'} & sys.modules.keys()))\n"
    )
    assert run(code, tmp_path) == ["2", "2", "[]"]


@pytest.mark.parametrize("folder", ["attacks", "reports"])
def test_folders_of_the_same_names_are_left_to_their_owner(folder: str, tmp_path: Path) -> None:
    """A research repository has its own `attacks/`: both must be importable there, each under its name."""
    for name in ("attacks", "reports"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'the user'\n", encoding="utf-8")
    code = (
        f"import sys, robustdml.{folder} as ours\n"
        f"print(ours.__name__, '{folder}' in sys.modules, hasattr(ours, 'OWNER'))\n"
        f"import {folder} as theirs\n"
        "print(theirs.OWNER)\n"
    )
    assert run(code, tmp_path) == [f"robustdml.{folder} False False", "the user"]


def test_each_module_loads_without_a_warning(tmp_path: Path) -> None:
    """Not even one from a library: warnings are errors in these interpreters."""
    run("import robustdml.attacks, robustdml.training, robustdml.evaluation, robustdml.reports", tmp_path)


#: What a process shares, as one value: random states, warning filters, the environment.
STATE = """
import os, random, sys, warnings
import numpy

def state():
    return random.getstate(), repr(numpy.random.get_state()), repr(warnings.filters), dict(os.environ)
libraries = lambda: sorted({'torch', 'torchvision', 'torchattacks', 'art', 'faiss', 'sklearn'} & sys.modules.keys())
before = state()
"""


def test_importing_the_attacks_imports_no_library_of_attacks_and_changes_nothing(tmp_path: Path) -> None:
    code = STATE + (
        "import robustdml.attacks\n"
        "print(libraries(), state() == before)\n"
        "robustdml.attacks.build_attack('margin', 0.1)\n"
        "print(sorted({'torchattacks', 'art'} & sys.modules.keys()))\n"
    )
    assert run(code, tmp_path) == ["[] True", "[]"]


def test_a_plan_is_read_and_results_are_assembled_without_torch(tmp_path: Path) -> None:
    code = STATE + (
        "from robustdml.evaluation import assemble\n"
        "from robustdml.evaluation.plan import Plan\n"
        "import robustdml.reports, robustdml.retrieval\n"
        "print(libraries())\n"
    )
    assert run(code, tmp_path) == ["[]"]


@pytest.mark.parametrize(
    ("spec", "library"), [("torchattacks.FGSM", "torchattacks"), ("art.FastGradientMethod", "art")]
)
def test_a_library_of_attacks_is_imported_for_its_first_attack(spec: str, library: str, tmp_path: Path) -> None:
    """It may set what it needs in the environment, and nothing else."""
    code = STATE + (
        "import torchvision, robustdml.models\n"  # they set filters of their own
        "from robustdml.attacks import build_attack\n"
        "before = state()\n"
        f"build_attack('{spec}', 0.1)\n"
        "print(sorted({'torchattacks', 'art'} & sys.modules.keys()), state()[:3] == before[:3])\n"
    )
    assert run(code, tmp_path) == [f"['{library}'] True"]


def test_evaluating_a_small_model_of_the_digits_needs_no_slow_library_before_its_first_attack(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def model():\n"
        "    from robustdml.models import EmbeddingModel, ModelConfig\n"
        "    return EmbeddingModel(ModelConfig('resnet-tiny', image_size=32))\n",
        encoding="utf-8",
    )
    code = STATE + (
        "from robustdml.attacks import PGD\n"
        "from robustdml.cli import main\n"
        "def stop(*args, **kwargs):\n"
        "    print(libraries(), flush=True)\n"
        "    os._exit(0)\n"
        "PGD.__call__ = stop\n"
        "main(['evaluate', 'own:model', '--data', 'digits', '--attacks', 'margin', '--out', 'run', '--quiet'])\n"
    )
    assert run(code, tmp_path) == ["['faiss', 'torch']"]


def test_listing_the_attacks_needs_no_torch(tmp_path: Path) -> None:
    code = STATE + (
        "from robustdml.cli import main\n"
        "main(['list', 'attacks', '--json'], standalone_mode=False)\n"
        "print(libraries(), state() == before)\n"
    )
    assert run(code, tmp_path)[-1] == "[] True"
