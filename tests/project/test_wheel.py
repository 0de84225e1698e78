"""What a user gets: the built wheel and source archive, looked into and imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: What packaging reads; the rest of a checkout (environments, runs, caches) stays out of the copy.
INPUTS = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "robustdml", "attacks", "reports", "tests")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive; built from a copy, so that nothing is left in the checkout.

    `python -m build` makes the wheel from the source archive, and so shows that the archive is complete.
    """
    copy = tmp_path_factory.mktemp("checkout")
    for name in INPUTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, copy)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def unpacked(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


def files(*folders: str) -> set[str]:
    """The files of the checkout's packages under their installed names."""
    return {
        ("" if folder == "robustdml" else "robustdml/") + path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".pyi"}
    }


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """So also: no top-level attacks/ or reports/, no stubs that would shadow them, no tests."""
    content = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert content == files("robustdml", "attacks", "reports")


def test_the_wheel_holds_what_is_not_python(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"robustdml/py.typed", "robustdml/citations.bib", "robustdml/reports/page/templates/report.html.j2"} <= names
    assert [name for name in names if name.endswith("/licenses/LICENSE")]


def test_the_wheel_names_its_command(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    assert wheel.read(name).decode().split() == ["[console_scripts]", "robustdml", "=", "robustdml.cli:program"]


def test_the_source_archive_can_be_built_from(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    templates = {f"reports/page/templates/{path.name}" for path in (ROOT / "reports" / "page" / "templates").iterdir()}
    assert templates | {"setup.py", "pyproject.toml", "LICENSE", "attacks/__init__.py", "robustdml/py.typed"} <= names


def test_the_installed_package_finds_its_parts_in_itself(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from importlib.util import find_spec\n"
        f"sys.path.insert(0, {str(unpacked)!r})\n"
        "import robustdml, robustdml.reports.page.render as html\n"
        "print(*robustdml.__path__)\n"
        "print(find_spec('robustdml.attacks').origin)\n"
        "print((html.TEMPLATES / 'report.html.j2').is_file(), html.__file__)\n"
        "print('torch' in sys.modules)\n"
    )
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    package = unpacked / "robustdml"
    assert done.stdout.splitlines() == [
        str(package),
        str(package / "attacks" / "__init__.py"),
        f"True {package / 'reports' / 'page' / 'render.py'}",
        "False",
    ]


def test_type_checkers_see_the_installed_package(unpacked: Path, tmp_path: Path) -> None:
    """The stubs of a checkout must not stand in for the packages, nor a missing `py.typed` hide them."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "from robustdml.attacks import PGD\n"
        "from robustdml.reports import render_report\n"
        "reveal_type(PGD.steps)\n"
        "reveal_type(render_report)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", probe.name]
    environment = {**os.environ, "MYPYPATH": str(unpacked)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert 'type is "int"' in done.stdout
    assert "robustdml.results.Results" in done.stdout
