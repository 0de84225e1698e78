"""A row of the table of torchattacks' attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

from ..row import LibraryRow


@dataclass(frozen=True)
class TorchattacksRow(LibraryRow):
    """One attack of the library; its own parameters beside the library's are ``hardest`` and ``target_classes``.

    Args:
        make: builds its object in place of its class: a function of `drivers`.
        run: calls it: a function of `drivers`.
        fixed: arguments that are always handed over.
        least: the least value of a whole number that must be above 1.
        choices: the words that a parameter takes.
    """

    _: KW_ONLY
    make: str | None = None
    run: str = "call"
    fixed: Mapping[str, object] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scale: float | None = 50.0
