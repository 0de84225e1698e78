"""The public surface is a list, and the list is true."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import robustdml

PACKAGES = [
    "robustdml",
    "robustdml.api",
    "robustdml.attacks",
    "robustdml.cli",
    "robustdml.data",
    "robustdml.evaluation",
    "robustdml.models",
    "robustdml.papers",
    "robustdml.reports",
    "robustdml.retrieval",
    "robustdml.training",
]


#: What a program writes after ``robustdml.``; a name that goes, or comes, is said in the changelog.
PUBLIC = """
    EmbeddingModel Monitor Results RetrievalDataset RobustDMLError SourceOptions TrainConfig attack compare
    convert_to_multibn evaluate lightning_callback load_checkpoint load_dataset load_model report train
"""


def body(module: ModuleType) -> list[ast.stmt]:
    """The statements of a module, those for type checkers included."""
    assert module.__file__
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    inner = [part for statement in tree.body if isinstance(statement, ast.If) for part in statement.body]
    return [*tree.body, *inner]


def offered(module: ModuleType) -> set[str]:
    """The names that a module's source offers: those it defines, and those it re-exports as ``X as X``."""
    names: set[str] = set()
    for statement in body(module):
        if isinstance(statement, ast.ImportFrom):
            names |= {alias.name for alias in statement.names if alias.name == alias.asname}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def as_isort_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: the order that ruff asks of a literal list."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def public(module: ModuleType) -> list[str]:
    names: list[str] = module.__all__
    return [name for name in names if name != "__version__"]


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_every_package_is_listed_here() -> None:
    root = Path(robustdml.__file__).parent
    found = {f"robustdml.{path.parent.name}" for path in root.glob("*/__init__.py")}
    assert found | {"robustdml", "robustdml.attacks", "robustdml.reports"} == set(PACKAGES)


def test_the_list_is_sorted(package: ModuleType) -> None:
    assert public(package) == sorted(set(public(package)), key=as_isort_sorts)


def test_every_listed_name_is_there(package: ModuleType) -> None:
    assert not [name for name in package.__all__ if not hasattr(package, name)]


def test_every_offered_name_is_listed(package: ModuleType) -> None:
    assert offered(package) <= set(public(package))


def test_every_listed_name_is_the_packages_own(package: ModuleType) -> None:
    """A list does not hand on what belongs to a library."""
    homes = {name: getattr(getattr(package, name), "__module__", "robustdml") for name in public(package)}
    assert {name: home for name, home in homes.items() if home.partition(".")[0] != "robustdml"} == {}


def test_the_lazy_names_are_those_that_type_checkers_see() -> None:
    assert offered(robustdml) == set(public(robustdml))
    assert set(dir(robustdml)) == set(robustdml.__all__)


def test_the_public_list_is_this_one() -> None:
    assert robustdml.__all__ == ["__version__", *PUBLIC.split()]


@pytest.mark.parametrize("name", public(robustdml))
def test_a_lazy_name_is_the_one_its_home_offers(name: str) -> None:
    home = importlib.import_module(robustdml._HOMES[name])
    assert getattr(robustdml, name) is getattr(home, name)
    assert name in getattr(home, "__all__", [name])


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'robustdml' has no attribute 'trian'"):
        _ = robustdml.trian  # type: ignore[attr-defined]
