"""Recipes: a training run as a TOML file.

The table ``[train]`` sets fields of `TrainConfig` (``eps`` may be written ``"2/255"``). A list of ``[[branch]]``
tables, each with the fields of `Branch`, replaces the branches of the method by others.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from robustdml.branches import Branch, Method
from robustdml.config import TrainConfig
from robustdml.errors import SpecError, UnknownNameError
from robustdml.threat import parse_eps

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

_TOP = ("summary", "train", "branch", "frozen_batchnorm")


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe and return it as keyword arguments of `TrainConfig`.

    Raises:
        SpecError: the file cannot be read, is no TOML, or sets something that does not exist or cannot be.
        UnknownNameError: a name that is not known.
        BudgetError: eps outside (0, 1].
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read the recipe '{path}': {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"the recipe '{path}' is no TOML: {error}") from None
    for key in content:
        if key not in _TOP:
            raise UnknownNameError(f"key in '{path}':", key, _TOP)
    values = _table(path, "train", content.get("train", {}), {part.name for part in fields(TrainConfig)} - {"recipe"})
    if "branch" in content:
        if not isinstance(content["branch"], list):
            raise SpecError(f"'{path}': write each branch as a table [[branch]]")
        branches = tuple(_branch(path, table) for table in content["branch"])
        frozen = content.get("frozen_batchnorm", False)
        values["recipe"] = Method(str(content.get("summary", path.stem)), branches, bool(frozen))
        values.setdefault("method", path.stem)
    elif "frozen_batchnorm" in content:
        raise SpecError(f"'{path}': frozen_batchnorm belongs to a list of branches; without one, name a frozen method")
    return values


def _branch(path: Path, table: object) -> Branch:
    values = _table(path, "branch", table, {part.name for part in fields(Branch)})
    if "part" in values:
        part = values["part"]
        if not isinstance(part, list) or len(part) != 2:
            raise SpecError(f"'{path}': part of a branch must be two shares of the batch, such as [0.0, 0.5]")
        values["part"] = (float(part[0]), float(part[1]))
    if "kind" not in values:
        raise SpecError(f"'{path}': a branch has no kind, such as kind = \"mtax\"")
    return Branch(**values)


def _table(path: Path, name: str, table: object, known: set[str]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SpecError(f"'{path}': [{name}] must be a table of names and values")
    for key in table:
        if key not in known:
            raise UnknownNameError(f"key in [{name}] of '{path}':", key, known)
    values = dict(table)
    if isinstance(values.get("eps"), str):
        values["eps"] = parse_eps(values["eps"])
    return values
