"""Configurations and data as values: what they hold is checked, compared by content, and shown in one short line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from robustdml.errors import SpecError

Key = TypeVar("Key")
Value = TypeVar("Value")

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
#: No whole number is larger, or further below 0: files and tensors hold no others.
MOST = 2**63 - 1
#: No embedding has more dimensions.
LARGEST_DIM = 65_536
#: No line that shows a value is longer, and no part of it.
LONGEST, _PART = 590, 120


def plain_scalar(value: Any) -> Any:
    """The Python number (or truth value) of a NumPy or pandas scalar, or of a tensor or array of no dimension."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def check_fields(instance: Any) -> None:
    """Refuse numbers, words and truth values of a wrong type in a dataclass; scalars of NumPy become Python's.

    Fields annotated as ``int``, ``float``, ``bool`` or ``str``, or one of these or None, are looked at.

    Raises:
        SpecError: a value is of another type.
    """
    for part in dataclasses.fields(instance):
        kinds = {kind.strip() for kind in str(part.type).split("|")}
        if kinds <= {*_KINDS, "None"}:
            given = getattr(instance, part.name)
            value = plain_scalar(given)
            _check(part.name, value, kinds)
            if value is not given:
                object.__setattr__(instance, part.name, value)


def whole(name: str, value: Any, *, least: int = 0, most: int = MOST) -> int:
    """A whole number that was given as an argument.

    Raises:
        SpecError: it is none, below ``least`` or above ``most``.
    """
    value = plain_scalar(value)
    _check(name, value, {"int"})
    check_range(name, value, least, most)
    return int(value)


def truth(name: str, value: Any) -> bool:
    """A truth value that was given as an argument.

    Raises:
        SpecError: it is none; of words each would count as true, ``"no"`` too.
    """
    value = plain_scalar(value)
    _check(name, value, {"bool"})
    return bool(value)


def place(name: str, value: Any) -> Path:
    """The path of a file or a folder that was given as an argument; ``~`` is the home folder.

    Raises:
        SpecError: it is neither text nor a path, or empty, which would be the working folder.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip():
        raise SpecError(f"{name}={brief(value)} must be the path of a file or folder ('.' is the working folder)")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SpecError(f"{name}={brief(value)}: no user has such a home folder: write the whole path") from None


def check_range(name: str, value: float, least: float, most: float, *, of: str = "") -> None:
    """Refuse a number that is too small or too large; NaN is either.

    Args:
        of: what it is a number of, for the sentence.

    Raises:
        SpecError: it is.
    """
    if not least <= value <= most:
        limit = f"at least {least}" if value < least else f"at most {most}"
        raise SpecError(f"{name}={_cut(str(value), _PART)}{of} must be {limit}")


def _check(name: str, value: Any, kinds: set[str]) -> None:
    truth = isinstance(value, bool)
    fits = (
        (value is None and "None" in kinds)
        or (truth and "bool" in kinds)
        or (isinstance(value, Integral) and not truth and kinds & {"int", "float"})
        or (isinstance(value, Real) and not truth and "float" in kinds)
        or (isinstance(value, str) and "str" in kinds)
    )
    if not fits:
        wanted = [text for kind, text in _KINDS.items() if kind in kinds] + ["None"] * ("None" in kinds)
        raise SpecError(f"{name}={brief(value)} must be {' or '.join(wanted)}")
    if isinstance(value, Integral) and not truth:
        check_range(name, int(value), -MOST, MOST)


class ByValue:
    """Compared by what it holds, arrays too, and shown in one short line.

    Dataclasses that are such have ``eq=False, repr=False``.
    """

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is type(self) and _same(vars(self), vars(other)))

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return brief(self)


def _same(one: Any, other: Any) -> bool:
    if hasattr(one, "dtype") and hasattr(other, "dtype"):
        return bool(one.shape == other.shape and one.dtype == other.dtype and (one == other).all())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(part, other[key]) for key, part in one.items())
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, partial) and isinstance(other, partial):
        return one.func == other.func and _same(one.args, other.args) and _same(one.keywords, other.keywords)
    return bool(one == other)


def brief(value: Any) -> str:
    """A value in at most `LONGEST` characters: arrays by their shape, long tables and texts by their beginning."""
    if isinstance(value, type):
        return repr(value)
    if dataclasses.is_dataclass(value):
        return _called(value, {part.name: getattr(value, part.name) for part in dataclasses.fields(value)})
    if hasattr(type(value), "model_fields"):  # pydantic's
        return _called(value, {name: getattr(value, name) for name in type(value).model_fields})
    if isinstance(value, ByValue):
        return _called(value, {name.lstrip("_"): part for name, part in vars(value).items()})
    return _cut(_part(value), LONGEST)


def _called(value: Any, parts: Mapping[str, Any]) -> str:
    inner = ", ".join(f"{name}={_cut(_part(part), _PART)}" for name, part in parts.items())
    return f"{type(value).__name__}({_cut(inner, LONGEST - 50)})"


def _part(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape") and len(value.shape):
        return f"<{value.dtype} of shape {tuple(value.shape)}>"
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str | bytes) and len(value) > 8:
        first = ", ".join(_cut(_part(key), 40) for key in list(value)[:4])
        return f"<{type(value).__name__} of {len(value)}: {first}, …>"
    text = repr(value)
    return f"<{type(value).__name__}>" if "\n" in text else text


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class BriefDict(dict[Key, Value]):
    """A dictionary that is shown in one short line."""

    def __repr__(self) -> str:
        return f"<{len(self)} entries: {_cut(', '.join(map(str, self)), 4 * _PART)}>"
