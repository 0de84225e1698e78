"""Names to things, and the small language in which a name carries its parameters.

A spec is written like a call: ``pgd``, ``pgd(goal=margin, steps=50)``, ``torchattacks.PGD(goal=stax)``. Values are
Python literals, fractions such as ``8/255``, or bare words, which stand for themselves and may have hyphens.
"""

from __future__ import annotations

import ast
import keyword
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from robustdml.errors import SpecError, UnknownNameError
from robustdml.importing import load_object
from robustdml.values import brief

T = TypeVar("T")

#: No spec is longer.
_LONGEST = 10_000

#: The words of specs that do not stand for themselves.
_WORDS: dict[str, object] = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Spec:
    """A name and its parameters, as parsed from text."""

    name: str
    params: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.params:
            return self.name
        inner = ", ".join(f"{key}={_write(value)}" for key, value in self.params.items())
        return f"{self.name}({inner})"


def _write(value: object) -> str:
    # Bare words read back as themselves; any other string needs its quotes to survive the round trip.
    if isinstance(value, str):
        bare = value.isidentifier() and not keyword.iskeyword(value) and value.lower() not in _WORDS
        return value if bare else repr(value)
    # Short where that is exact ("0.5", "1"): two attacks must not share a spec because they differ in the 7th digit.
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else repr(value)


def _value(node: ast.expr, text: str) -> object:
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id.lower(), node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        left, right = _value(node.left, text), _value(node.right, text)
        if isinstance(left, int | float) and isinstance(right, int | float) and right:
            return left / right
    if (word := _hyphenated(node)) is not None:
        return word
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        written = ast.get_source_segment(text.strip(), node) or ast.unparse(node)
        raise SpecError(
            f"cannot read the value '{written}' in '{text}': use a number, 8/255 or a word, or quote it: {written!r}"
        ) from None


def _hyphenated(node: ast.expr) -> str | None:
    """The word with hyphens that Python reads as a difference of names; None where it is no such word."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        left, right = _hyphenated(node.left), _hyphenated(node.right)
        return None if left is None or right is None else f"{left}-{right}"
    return None


def parse_spec(text: str) -> Spec:
    """Parse one spec.

    Raises:
        SpecError: the text is not of the form ``name`` or ``name(key=value, …)``.
    """
    wrong = SpecError(
        f"cannot read '{text}': write a name, or a name with parameters such as pgd(goal=margin, steps=50); a "
        "value that is no number and no word, or is a word of Python, needs quotes, as in dims='512-1024'"
    )
    if len(text) > _LONGEST:
        raise wrong
    try:
        return _parsed(text, wrong)
    except (ValueError, RecursionError, MemoryError, OverflowError):
        # Half characters, zeros, or brackets within brackets within brackets.
        raise wrong from None


def _parsed(text: str, wrong: SpecError) -> Spec:
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        # Names need not be Python identifiers ("resnet-small"); only calls are parsed.
        if text.strip() and not any(mark in text for mark in "()=,"):
            return Spec(text.strip())
        raise wrong from None
    if not isinstance(node, ast.Call):
        if any(mark in text for mark in "()=,"):
            raise wrong
        return Spec(text.strip())
    if node.args or not isinstance(node.func, ast.Name | ast.Attribute):
        raise wrong
    params = {part.arg: _value(part.value, text) for part in node.keywords if part.arg is not None}
    if len(params) != len(node.keywords):
        raise wrong
    return Spec(ast.unparse(node.func), params)


def split_specs(text: str) -> list[str]:
    """Split a list of specs at the commas that are outside of parentheses."""
    parts, depth, start = [], 0, 0
    for position, mark in enumerate(text):
        depth += {"(": 1, ")": -1}.get(mark, 0)
        if mark == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


class Registry(Generic[T]):
    """An ordered table from names to entries, with errors that name the nearest known one.

    Args:
        kind: what the entries are, in the singular, for messages ("attack").
        later: gives further entries where making them is slow: they are added when a name is asked for that is not
            there yet, or all of them are.
    """

    def __init__(self, kind: str, later: Callable[[], Iterable[tuple[str, T]]] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._later = later

    def add(self, name: str, entry: T) -> T:
        """Add an entry and return it.

        Raises:
            SpecError: the name is taken.
        """
        if name in self._entries:
            raise SpecError(f"{self.kind} '{name}' is registered twice")
        self._entries[name] = entry
        return entry

    def _all(self) -> dict[str, T]:
        later, self._later = self._later, None
        for name, entry in later() if later else ():
            self.add(name, entry)
        return self._entries

    def __repr__(self) -> str:
        return f"<Registry of {self.kind}s: {brief(list(self))}>"

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]] | str | tuple[object, ...]:
        """A registry is one of its program, and pickled as the name under which a module holds it."""
        for name, module in list(sys.modules.items()):
            for key, value in vars(module).items() if name.startswith("robustdml.") else ():
                if value is self:
                    return load_object, (f"{name}:{key}",)
        return super().__reduce__()

    def __getitem__(self, name: str) -> T:
        """The entry of that name.

        Raises:
            UnknownNameError: there is none; the message names the nearest.
        """
        if name not in self:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def items(self) -> Iterator[tuple[str, T]]:
        """Names and entries, in the order of registration."""
        return iter(self._all().items())
