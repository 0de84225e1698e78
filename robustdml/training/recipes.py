"""Recipes: a training run as a TOML file.

The table ``[train]`` sets fields of `TrainConfig` (``eps`` may be written ``"2/255"``). A list of ``[[branch]]``
tables, each with the fields of `Branch`, replaces the branches of the method by others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from robustdml.branches import Branch, Method
from robustdml.config import TrainConfig
from robustdml.errors import SpecError, UnknownNameError
from robustdml.models.backbones import is_code
from robustdml.threat import parse_eps

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

#: In bytes; those in recipes/ have some hundred.
_LARGEST = 100_000
_TOP = ("summary", "train", "branch", "frozen_batchnorm")


def read_recipe(path: str | Path, *, trust_code: bool = False) -> dict[str, Any]:
    """Read a recipe and return it as keyword arguments of `TrainConfig`.

    Args:
        path: the file.
        trust_code: allow a backbone ``package.module:factory``, which is imported and called when training begins.

    Raises:
        SpecError: the file cannot be read, is no TOML, or sets something that does not exist or cannot be.
        UnknownNameError: a name that is not known.
        BudgetError: eps outside (0, 1].
    """
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise SpecError(f"the recipe '{path}' is larger than {_LARGEST:,} bytes: is it another file?")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read the recipe '{path}': {getattr(error, 'strerror', None) or error}") from None
    except (ValueError, RecursionError) as error:  # The decoder's own error is a ValueError, as are others of its.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise SpecError(f"the recipe '{path}' is no TOML: {reason}") from None
    for key in content:
        if key not in _TOP:
            raise UnknownNameError(f"key in '{path}':", key, _TOP)
    defaults = {part.name: part.default for part in fields(TrainConfig) if part.name != "recipe"}
    values = _table(path, "train", content.get("train", {}), defaults)
    if is_code(str(values.get("backbone", ""))) and not trust_code:
        raise SpecError(
            f"the backbone of the recipe '{path}' is code, '{values['backbone']}': if you trust it, give --trust-code "
            "(trust_code=True)"
        )
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
    values = _table(path, "branch", table, {part.name: part.default for part in fields(Branch)})
    if "part" in values:
        part = values["part"]
        if not isinstance(part, list) or len(part) != 2 or not all(_is_number(share) for share in part):
            raise SpecError(f"'{path}': part of a branch must be two shares of the batch, such as [0.0, 0.5]")
        values["part"] = (float(part[0]), float(part[1]))
    if "kind" not in values:
        raise SpecError(f"'{path}': a branch has no kind, such as kind = \"mtax\"")
    return Branch(**values)


def _table(path: Path, name: str, table: object, known: Mapping[str, Any]) -> dict[str, Any]:
    """The names and values of a table, each of the kind that its default is."""
    if not isinstance(table, dict):
        raise SpecError(f"'{path}': [{name}] must be a table of names and values")
    values = dict(table)
    for key, value in values.items():
        if key not in known:
            raise UnknownNameError(f"key in [{name}] of '{path}':", key, known)
        if key == "eps" and isinstance(value, str):
            values[key] = parse_eps(value)
        elif not _fits(key, value, known[key]):
            raise SpecError(f"'{path}': {key} = {value!r} in [{name}] is not what it takes, such as {_LIKE[key]}")
    return values


#: What a value looks like where its default does not say (None, or none at all).
_LIKE = {
    "kind": '"mtax"', "targets": "5", "eps": '"2/255"', "steps": "1",
    "image_size": "64, or [256, 128] (height and width)",
    "m_per_class": "4", "validation_classes": "5", "patience": "10", "miner": '"BatchHardMiner"',
    "crop_scale": "0.08", "weights": '"IMAGENET1K_V1"',
    **{part.name: repr(part.default) for part in fields(TrainConfig) if part.default is not None},
    "batchnorm": '"stax"', "eps_factor": "4.0",
}  # fmt: skip


def _fits(key: str, value: object, default: object) -> bool:
    if key in {"kind", "batchnorm", "miner", "weights"} or isinstance(default, str):
        return isinstance(value, str)
    if key == "image_size" and isinstance(value, list):
        return len(value) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in value)
    if key == "part":  # `_branch` says what is wrong with it
        return True
    if isinstance(default, bool):
        return isinstance(value, bool)
    if key in {"eps", "crop_scale"} or isinstance(default, float):
        return _is_number(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
