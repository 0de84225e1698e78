"""The threat model: which images an attacker may send instead of the clean one.

Pixels are in [0, 1] everywhere, so that eps has one meaning: 8/255 is eight grey levels of an 8-bit image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustdml.errors import BudgetError

if TYPE_CHECKING:
    from torch import Tensor

#: Rounding slack when a budget is verified in float32; far below one grey level (0.0039).
TOLERANCE = 1e-6

_HEADLINE_LIMIT = 8 / 255


def parse_eps(text: str) -> float:
    """Read one budget: ``"8/255"``, ``"0.03"``.

    Raises:
        BudgetError: the text is no number or fraction, or is outside (0, 1].
    """
    numerator, slash, denominator = text.strip().partition("/")
    try:
        value = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise BudgetError(
            f"eps '{text}' is not a number: write a fraction such as 8/255 or a decimal such as 0.03"
        ) from None
    if not 0.0 < value <= 1.0:
        raise BudgetError(
            f"eps {text} is outside (0, 1]: pixels are in [0, 1] here, so eight grey levels are written 8/255"
        )
    return value


def parse_eps_list(text: str) -> tuple[float, ...]:
    """Read budgets separated by commas, sorted and without repeats: ``"2/255,8/255"``.

    Raises:
        BudgetError: there is none, or one of them is not a budget (see `parse_eps`).
    """
    values = sorted({parse_eps(part) for part in text.split(",") if part.strip()})
    if not values:
        raise BudgetError("no eps given: write one or more budgets, such as --eps 2/255,8/255")
    return tuple(values)


def format_eps(eps: float) -> str:
    """Write a budget as grey levels where it is a whole number of them: ``"8/255"``, else as a decimal."""
    levels = eps * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-6 else f"{eps:g}"


def headline_eps(budgets: Iterable[float]) -> float | None:
    """The budget that a summary quotes: the largest up to 8/255 (the field's), else the smallest; None of none."""
    ordered = sorted(budgets)
    # The slack lets 8/255 pass in whichever precision it was written.
    return max((eps for eps in ordered if eps <= _HEADLINE_LIMIT + 1e-9), default=ordered[0] if ordered else None)


@dataclass(frozen=True)
class ThreatModel:
    """The L-infinity ball of radius ``eps`` around the clean image, intersected with [0, 1].

    Args:
        eps: the radius, in pixels of [0, 1]; 0 allows the clean image only.

    Raises:
        BudgetError: ``eps`` is outside [0, 1].
    """

    eps: float
    norm: str = "linf"

    def __post_init__(self) -> None:
        if not 0.0 <= self.eps <= 1.0:
            raise BudgetError(f"eps {self.eps} is outside [0, 1]: pixels are in [0, 1], eight grey levels are 8/255")
        if self.norm != "linf":
            raise BudgetError(f"norm '{self.norm}' is not supported: known: linf")

    def project(self, adversarial: Tensor, clean: Tensor) -> Tensor:
        """The nearest allowed image to ``adversarial``; both ``(N, C, H, W)``."""
        return adversarial.clamp(clean - self.eps, clean + self.eps).clamp(0.0, 1.0)

    def distance(self, adversarial: Tensor, clean: Tensor) -> Tensor:
        """The norm of each perturbation, ``(N,)``, in pixels of [0, 1]."""
        return (adversarial - clean).flatten(1).abs().amax(1)

    def allows(self, adversarial: Tensor, clean: Tensor) -> Tensor:
        """Which images are within the budget and within [0, 1], ``(N,)`` bool."""
        flat = adversarial.flatten(1)
        in_range = (flat.amin(1) >= -TOLERANCE) & (flat.amax(1) <= 1 + TOLERANCE)
        return in_range & (self.distance(adversarial, clean) <= self.eps + TOLERANCE)
