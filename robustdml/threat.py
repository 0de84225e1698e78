"""The threat model: which images an attacker may send instead of the clean one.

Pixels are in [0, 1] everywhere, so that eps has one meaning: 8/255 is eight grey levels of an 8-bit image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustdml.errors import BudgetError
from robustdml.preprocessing import IMAGENET_STD, PerChannel
from robustdml.values import check_fields

if TYPE_CHECKING:
    from torch import Tensor

#: Rounding slack when a budget is verified in float32; far below one grey level (0.0039).
TOLERANCE = 1e-6

_HEADLINE_LIMIT = 8 / 255

#: No budget in another norm is larger: all pixels of any image that fits into memory changed from 0 to 1.
_LARGEST = 1e9

#: The end of a budget after normalisation.
_NORMALISED = "/normalised"

#: The norms that perturbations are measured in, with how they are written.
NORMS = {"linf": "L\N{INFINITY}", "l2": "L2", "l1": "L1", "l0": "L0"}


def parse_eps(text: str) -> float:
    """Read one budget that is the same for every channel: ``"8/255"``, ``"0.03"``.

    Raises:
        BudgetError: the text is no number or fraction, or is outside (0, 1].
    """
    if is_by_channel(text):
        raise BudgetError(
            f"eps '{text}' is a budget per channel, and here one eps stands for all of them: write it in pixels, such "
            "as 8/255 (training takes an eps after normalisation with --arithmetic published)"
        )
    numerator, slash, denominator = text.strip().partition("/")
    try:
        value = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise BudgetError(
            f"eps '{text}' is not a number: write a fraction such as 8/255 or a decimal such as 0.03"
        ) from None
    if 0.0 < value < TOLERANCE:
        raise BudgetError(f"eps {text} is below {TOLERANCE:g}, the rounding of pixels: one grey level is 1/255")
    if not 0.0 < value <= 1.0:
        raise BudgetError(
            f"eps {text} is outside (0, 1]: pixels are in [0, 1] here, so eight grey levels are written 8/255"
        )
    return value


def is_by_channel(text: str) -> bool:
    """Whether a text is of the form of a budget per channel: ``"0.01/normalised"``, ``"1/255:2/255:2/255"``."""
    return text.strip().endswith(_NORMALISED) or ":" in text


def parse_budget(text: str) -> ThreatModel:
    """Read one L-infinity budget: ``"8/255"``, ``"0.01/normalised"`` or, by channel, ``"1/255:2/255:2/255"``.

    ``0.01/normalised`` is 0.01 after ImageNet's normalisation, as papers write it: 0.01 times the standard deviation
    (0.229, 0.224, 0.225) in the pixels of each channel.

    Raises:
        BudgetError: the text is none of these, or a channel's budget is outside (0, 1].
    """
    if ":" in text:
        parts = [parse_eps(part) for part in text.split(":")]
        if len(parts) != 3:
            raise BudgetError(f"eps '{text}' has {len(parts)} channels: write three budgets, such as 1/255:2/255:2/255")
        return ThreatModel.per_channel((parts[0], parts[1], parts[2]))
    value = text.strip()
    if not value.endswith(_NORMALISED):
        return ThreatModel(parse_eps(text))
    try:
        size = float(value.removesuffix(_NORMALISED))
    except ValueError:
        raise BudgetError(f"eps '{text}' is not a number after normalisation: write it as 0.01/normalised") from None
    if not TOLERANCE <= size * min(IMAGENET_STD) <= size * max(IMAGENET_STD) <= 1:
        raise BudgetError(f"eps {text} is outside (0, 1] in pixels: 0.01/normalised is usual")
    red, green, blue = IMAGENET_STD
    return ThreatModel.per_channel((size * red, size * green, size * blue))


def parse_budgets(text: str) -> tuple[ThreatModel, ...]:
    """Read budgets separated by commas, sorted and without repeats: ``"2/255,8/255,0.01/normalised"``.

    Raises:
        BudgetError: there is none, or one of them is not a budget (see `parse_budget`).
    """
    found = {parse_budget(part) for part in text.split(",") if part.strip()}
    if not found:
        raise BudgetError("no eps given: write one or more budgets, such as --eps 2/255,8/255")
    return tuple(sorted(found, key=lambda threat: threat.order))


def format_eps(eps: float) -> str:
    """Write a budget as grey levels where it is a whole number of them: ``"8/255"``, else as a decimal.

    Below two grey levels quarters are written so, too: ``"0.25/255"``.
    """
    levels = eps * 255
    parts = 4 if levels < 2 else 1
    nearest = round(levels * parts) / parts
    return f"{nearest:g}/255" if abs(levels - nearest) < 1e-6 else f"{eps:g}"


def format_size(size: float, norm: str) -> str:
    """Write the length of a perturbation, in grey levels for L-infinity: ``"6.87/255"``, ``"L2 0.97"``."""
    return f"{255 * size:.2f}/255" if norm == "linf" else f"{NORMS[norm]} {size:.4g}"


def headline_eps(budgets: Iterable[float]) -> float | None:
    """The budget that a summary quotes: the largest up to 8/255 (the field's), else the smallest; None of none."""
    ordered = sorted(budgets)
    # The slack lets 8/255 pass in whichever precision it was written.
    return max((eps for eps in ordered if eps <= _HEADLINE_LIMIT + 1e-9), default=ordered[0] if ordered else None)


@dataclass(frozen=True)
class ThreatModel:
    """The images allowed instead of a clean one: a ball around it in a norm, intersected with [0, 1].

    Args:
        eps: the radius; None allows every image in [0, 1] (attacks that look for the smallest perturbation, or whose
            change is no additive noise), and the norm is only measured. 0 allows the clean image only.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` (of all values, in pixels of [0, 1]) or ``"l0"`` (how many pixels differ,
            in whichever channel).
        channels: L-infinity only: the radius of each channel by itself, all above 0, the largest being ``eps``; None
            where all have the same.

    Raises:
        BudgetError: no such norm, ``eps`` is below 0, not finite, or above 1 for L-infinity, or does not fit the
            channels.
    """

    eps: float | None
    norm: str = "linf"
    channels: PerChannel | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.norm not in NORMS:
            raise BudgetError(f"norm '{self.norm}' is not supported: known: {', '.join(NORMS)}")
        if self.eps is None:
            return
        if self.norm == "linf" and not 0.0 <= self.eps <= 1.0:
            raise BudgetError(f"eps {self.eps} is outside [0, 1]: pixels are in [0, 1], eight grey levels are 8/255")
        if not 0.0 <= self.eps <= _LARGEST:
            raise BudgetError(f"eps {self.eps} must be a number from 0 to {_LARGEST:g}")
        if self.channels is None:
            return
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON has lists
        if self.norm != "linf" or len(self.channels) != 3 or max(self.channels) != self.eps or min(self.channels) <= 0:
            raise BudgetError(
                f"the budgets {self.channels} of the channels must be three above 0, in L-infinity, the largest of "
                f"them {self.eps}"
            )

    @classmethod
    def per_channel(cls, radii: PerChannel) -> ThreatModel:
        """The L-infinity ball with a radius for each channel; an ordinary one where all are the same."""
        return cls(max(radii), channels=None if len(set(radii)) == 1 else radii)

    @property
    def normalised(self) -> float | None:
        """The radius after ImageNet's normalisation, where that is the same for every channel; else None."""
        if self.channels is None:
            return None
        sizes = [radius / std for radius, std in zip(self.channels, IMAGENET_STD, strict=True)]
        return sizes[0] if max(sizes) - min(sizes) < 1e-6 * max(sizes) else None

    @property
    def order(self) -> tuple[int, float, bool, tuple[float, ...]]:
        """By which budgets are sorted: by norm, then by size, a ball of some channels before that of all."""
        return list(NORMS).index(self.norm), self.eps or 0.0, self.channels is None, self.channels or ()

    @property
    def text(self) -> str:
        """The budget with its norm where that is not L-infinity: ``"8/255"``, ``"L2 0.5"``, ``"any size"``.

        By channel it is ``"1/255:2/255:2/255"``, or ``"0.01/normalised (0.584, 0.571, 0.574 of 255)"``.
        """
        if self.eps is None:
            return "any size"
        if self.channels is not None:
            if self.normalised is None:
                return ":".join(map(format_eps, self.channels))
            pixels = ", ".join(f"{255 * radius:.3f}" for radius in self.channels)
            return f"{self.normalised:g}{_NORMALISED} ({pixels} of 255)"
        return format_eps(self.eps) if self.norm == "linf" else f"{NORMS[self.norm]} {self.eps:g}"

    def project(self, adversarial: Tensor, clean: Tensor) -> Tensor:
        """An allowed image beside ``adversarial`` (the nearest one, for L-infinity); both ``(N, C, H, W)``."""
        if self.eps is None:
            return adversarial.clamp(0.0, 1.0)
        if self.channels is not None:
            radius = clean.new_tensor(self.channels).view(3, 1, 1)
            return adversarial.clamp(clean - radius, clean + radius).clamp(0.0, 1.0)
        if self.norm == "linf":
            return adversarial.clamp(clean - self.eps, clean + self.eps).clamp(0.0, 1.0)
        # Into [0, 1] first: that only shortens the perturbation, as the clean image is in it; so does the second time.
        delta = adversarial.clamp(0.0, 1.0) - clean
        return (clean + project_ball(delta, self.eps, self.norm)).clamp(0.0, 1.0)

    def distance(self, adversarial: Tensor, clean: Tensor) -> Tensor:
        """The norm of each perturbation, ``(N,)``."""
        return norm_of(adversarial - clean, self.norm)

    def allows(self, adversarial: Tensor, clean: Tensor) -> Tensor:
        """Which images are within the budget and within [0, 1], ``(N,)`` bool."""
        flat = adversarial.flatten(1)
        in_range = (flat.amin(1) >= -TOLERANCE) & (flat.amax(1) <= 1 + TOLERANCE)
        if self.eps is None:
            return in_range
        if self.channels is not None:
            reached = (adversarial - clean).abs().flatten(2).amax(2)
            return in_range & (reached <= reached.new_tensor(self.channels) + TOLERANCE).all(1)
        return in_range & (self.distance(adversarial, clean) <= self.limit)

    @property
    def limit(self) -> float:
        """The largest norm that is accepted as within the budget: eps and the rounding slack of float32."""
        if self.eps is None:
            return math.inf
        # Sums over all pixels gather the rounding of each: for them the slack is a ten-thousandth of the budget.
        return self.eps + TOLERANCE if self.norm == "linf" else self.eps * (1 + 100 * TOLERANCE)

    @property
    def inner_limit(self) -> float:
        """The largest norm at which an image lies within the budget, whichever channels were changed."""
        return self.limit if self.channels is None else min(self.channels) + TOLERANCE

    def holds(self, other: ThreatModel) -> bool:
        """Whether every image within ``other``, a budget in the same norm, is within this one too."""
        if self == other or self.eps is None:
            return self.norm == other.norm
        if self.norm != other.norm or other.eps is None:
            return False
        own, others = self.channels or (self.eps,) * 3, other.channels or (other.eps,) * 3
        return all(inner <= outer for inner, outer in zip(others, own, strict=True))


def norm_of(delta: Tensor, norm: str) -> Tensor:
    """The norm of each perturbation ``(N, C, H, W)``, ``(N,)``; L0 counts pixels that differ in any channel."""
    if norm == "l0":
        return (delta.abs().flatten(2).amax(1) > 0).sum(1).to(delta.dtype)
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    return flat.square().sum(1).sqrt() if norm == "l2" else flat.abs().sum(1)


def project_ball(delta: Tensor, eps: float, norm: str) -> Tensor:
    """The nearest perturbation of at most ``eps``; L0 keeps the pixels that change most (``(N, C, H, W)``).

    The projection onto the L1 ball is that of Duchi et al. 2008.
    """
    if norm == "linf":
        return delta.clamp(-eps, eps)
    if norm == "l2":
        length = norm_of(delta, "l2").clamp_min(1e-12)
        return delta * (eps / length).clamp_max(1.0)[:, None, None, None]
    if norm == "l0":
        size = delta.abs().flatten(2).amax(1)
        keep = min(int(eps), size.shape[1])
        mask = size.new_zeros(size.shape).scatter_(1, size.topk(keep, dim=1).indices, 1.0)
        return delta * mask.view(len(delta), 1, *delta.shape[2:])
    size = delta.flatten(1).abs()
    ordered = size.sort(dim=1, descending=True).values
    count = size.new_tensor(range(1, size.shape[1] + 1))
    excess = ordered.cumsum(1) - eps
    # The last place at which shrinking all larger values alike still leaves this one positive.
    last = (ordered * count > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, last - 1) / last).clamp_min(0.0)
    shrunk = (size - threshold).clamp_min(0.0).view_as(delta) * delta.sign()
    inside = (size.sum(1) <= eps)[:, None, None, None]
    return delta.where(inside, shrunk)
