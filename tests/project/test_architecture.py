"""The architecture as a test: who may import whom."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it along
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
HOMES = {"robustdml": "robustdml", "attacks": "robustdml.attacks", "reports": "robustdml.reports"}

#: The layers, each with those that it may import; every layer may import itself and the foundation, which is what
#: stands in `robustdml/` itself.
MAY_IMPORT = {
    "foundation": set(),
    "data": set(),
    "models": set(),
    "retrieval": {"data", "models"},
    "evaluation": {"data", "models", "retrieval"},
    "training": {"data", "models", "retrieval"},
    "attacks": {"models"},
    "reports": set(),
    "papers": {"data", "models", "retrieval", "evaluation", "training", "attacks", "reports"},
    "api": {"data", "models", "retrieval", "evaluation", "training", "attacks", "reports"},
    "cli": {"data", "models", "retrieval", "evaluation", "training", "attacks", "reports", "papers"},
}
#: Modules that name every layer and import none of them before they are used.
ENTRANCES = {"robustdml", "robustdml.__main__"}
#: How the names of the only modules begin that know a third-party attack library.
ADAPTERS = {library: f"robustdml.attacks.libraries.{library}" for library in ("torchattacks", "art")}


@dataclass(frozen=True)
class Import:
    """One imported module, as it is written and as it is meant."""

    importer: str
    imported: str
    relative: bool
    when: str  # "loading" the module, "calling" a function of it, or "typing": for type checkers only

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}"


def module_name(path: Path) -> str:
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    parts = [HOMES[folder], *rest]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, Path]:
    return {module_name(path): path for folder in HOMES for path in sorted((ROOT / folder).rglob("*.py"))}


def is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def statements(node: ast.AST, when: str = "loading") -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import statement below a node, with when it is carried out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, when
        elif isinstance(child, ast.If) and is_type_checking(child):
            yield from statements(child, "typing")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(child, "calling" if when == "loading" else when)
        else:
            yield from statements(child, when)


def imports(name: str, path: Path, modules: set[str]) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for statement, when in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield Import(name, alias.name, False, when)
            continue
        base = statement.module or ""
        if statement.level:
            above = package.split(".")[: len(package.split(".")) - statement.level + 1]
            base = ".".join([*above, *([statement.module] if statement.module else [])])
        for alias in statement.names:
            whole = f"{base}.{alias.name}"
            yield Import(name, whole if whole in modules else base, statement.level > 0, when)


def layer(name: str) -> str:
    _, _, rest = name.partition(".")
    first = rest.partition(".")[0]
    return first if first in MAY_IMPORT else "foundation"


SOURCES = sources()
IMPORTS = sorted(
    {found for name, path in SOURCES.items() for found in imports(name, path, set(SOURCES))},
    key=lambda found: (found.importer, found.imported, found.when),
)
OWN = [found for found in IMPORTS if found.imported.partition(".")[0] == "robustdml"]


def test_the_reader_of_imports_sees_all_forms(tmp_path: Path) -> None:
    path = tmp_path / "sub.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "import art.attacks as a, torch\n"
        "from . import sibling\n"
        "from ..errors import X\n"
        "if TYPE_CHECKING:\n    from robustdml import results\n"
        "class C:\n    def f(self):\n        with open('x'):\n            from robustdml import Results\n",
        encoding="utf-8",
    )
    found = imports("robustdml.pack.sub", path, {"robustdml.pack.sibling", "robustdml.errors", "robustdml.results"})
    assert {(one.imported, one.relative, one.when) for one in found} == {
        ("typing", False, "loading"),
        ("art.attacks", False, "loading"),
        ("torch", False, "loading"),
        ("robustdml.pack.sibling", True, "loading"),
        ("robustdml.errors", True, "loading"),
        ("robustdml.results", False, "typing"),
        ("robustdml", False, "calling"),
    }


def test_every_folder_is_a_layer() -> None:
    folders = {path.parent.name for path in (ROOT / "robustdml").glob("*/__init__.py")}
    assert folders | {"attacks", "reports", "foundation"} == set(MAY_IMPORT)


def test_imports_go_down_only() -> None:
    wrong = [
        str(found)
        for found in OWN
        if found.importer not in ENTRANCES
        and layer(found.imported) not in {layer(found.importer), "foundation"} | MAY_IMPORT[layer(found.importer)]
    ]
    assert not wrong


def test_no_module_inside_imports_an_entrance() -> None:
    """`from robustdml import x` inside the package would load through the lazy names, whatever x is."""
    assert not [str(found) for found in OWN if found.imported in ENTRANCES]


def test_the_package_itself_loads_nothing_but_its_version() -> None:
    assert {found.imported for found in OWN if found.importer == "robustdml" and found.when == "loading"} == {
        "robustdml._version"
    }


def test_no_cycles() -> None:
    graph: dict[str, set[str]] = {name: set() for name in SOURCES}
    for found in OWN:
        if found.when != "typing":
            graph[found.importer].add(found.imported)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_attacks_and_reports_import_themselves_relatively_and_the_core_absolutely() -> None:
    wrong = [
        str(found)
        for found in OWN
        if layer(found.importer) in {"attacks", "reports"}
        and found.relative != (layer(found.imported) == layer(found.importer))
    ]
    assert not wrong


def test_the_core_imports_attacks_and_reports_from_the_facade() -> None:
    wrong = [
        str(found)
        for found in OWN
        if layer(found.imported) in {"attacks", "reports"} - {layer(found.importer)}
        and found.imported not in {"robustdml.attacks", "robustdml.reports"}
    ]
    assert not wrong


@pytest.mark.parametrize(("library", "adapter"), ADAPTERS.items())
def test_one_module_knows_the_library(library: str, adapter: str) -> None:
    importers = {found.importer for found in IMPORTS if found.imported.partition(".")[0] == library}
    assert importers
    assert all(name.startswith(adapter) for name in importers), importers


def test_reports_and_results_never_name_torch() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if (layer(found.importer) == "reports" or found.importer == "robustdml.results")
        and found.imported.partition(".")[0] in {"torch", "torchvision"}
    ]
    assert not wrong


def test_nothing_imports_the_folders_as_packages() -> None:
    """Not the tests and benchmarks either: `attacks` and `robustdml.attacks` would be two sets of classes."""
    tops = ("robustdml", "attacks", "reports", "tests", "bench", "experiments")
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]
        for statement, _ in statements(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in statement.names]
            if isinstance(statement, ast.Import)
            else [statement.module or ""] * (statement.level == 0)
        )
        if name.partition(".")[0] in {"attacks", "reports"}
    ]
    assert not wrong


def test_every_library_is_declared() -> None:
    """What is imported is a dependency in its own right, not one that another happens to bring."""

    def normalized(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {normalized(re.split(r"[^\w.-]", line)[0]) for line in project["dependencies"]}
    homes = metadata.packages_distributions()
    needed = {found.imported.partition(".")[0] for found in IMPORTS if found.when != "typing"}
    libraries = needed - sys.stdlib_module_names - {"robustdml"}
    # Where a library is not installed (tomli, on a Python that has its own), its name is that of its distribution.
    undeclared = {
        library for library in libraries if not {normalized(home) for home in homes.get(library, [library])} & declared
    }
    assert not undeclared


def test_json_of_files_is_read_in_one_way():
    """`strict_json` alone knows of names that stand there twice, of NaN and of what is nested too deeply."""
    found = {
        path.name
        for folder in HOMES
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bjson\.loads?\(", path.read_text())
    }
    assert found == {"files.py"}
