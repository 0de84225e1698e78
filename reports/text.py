"""How numbers and names are written in a report: one spelling each, and a dash for what is absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from robustdml.results import Curve, ModelEntry, Score
from robustdml.threat import NORMS, ThreatModel, format_size

ABSENT = "—"
MINUS = "\N{MINUS SIGN}"
NO_REASON = "no reason was recorded"

#: How many of several names a sentence writes before it only counts them.
_NAMED = 5


@dataclass(frozen=True)
class Fact:
    """What, and its value."""

    label: str
    value: str


def fraction(value: float | None) -> str:
    """A recall, share or ratio with three decimals."""
    return ABSENT if value is None else f"{value:.3f}"


def nmi(model: ModelEntry) -> str:
    """The NMI, and how far it varies with the start of the clustering where that was measured."""
    spread = "" if model.nmi_spread is None else f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{model.nmi_spread:.3f}"
    drawn = "" if model.nmi_classes is None else f" (of {count(model.nmi_classes)} classes)"
    return f"{fraction(model.nmi)}{spread}{drawn}"


def interval(score: Score) -> str:
    """The 95 % interval of the headline."""
    return f"{score.low:.3f}\N{EN DASH}{score.high:.3f}"


def difference(value: float) -> str:
    """A difference of two recalls with its sign."""
    written = f"{abs(value):.3f}"
    return written if float(written) == 0 else f"{'+' if value > 0 else MINUS}{written}"


def p_value(value: float) -> str:
    """The p-value of a test, as an equation or a bound."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


_LEVELS = {0.25: "a quarter of a grey level", 0.5: "half a grey level", 1.0: "one grey level"}


def grey_levels(eps: float) -> str:
    """A change of a pixel value in words: "half a grey level", "8 grey levels"."""
    levels = round(255 * eps, 6)
    return _LEVELS.get(levels, f"{levels:.3g} grey levels")


def in_words(threat: ThreatModel, sides: tuple[int, int]) -> str:
    """What a fixed budget allows, as the end of a sentence; ``sides`` of the images in pixels."""
    pixels = sides[0] * sides[1]
    eps = threat.eps or 0.0
    if threat.channels is not None:
        return (
            f"no pixel changes by more than {', '.join(map(grey_levels, threat.channels))} (of 255) in red, green, blue"
        )
    if threat.norm == "linf":
        return f"no value of a pixel changes by more than {grey_levels(eps)} of 255"
    if threat.norm == "l2":
        return (
            f"the changes of all pixel values have the length {eps:g} together, which is "
            f"{grey_levels(eps / math.sqrt(3 * pixels))} of 255 each where they are spread evenly"
        )
    if threat.norm == "l1":
        return f"the changes of all pixel values sum to {grey_levels(eps)} of 255 at most"
    return f"at most {counted(round(eps), 'pixel')} of {count(pixels)} change, each as far as it can"


def percent(value: float) -> str:
    """A share as a whole percentage."""
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def norm(value: float | None, kind: str) -> str:
    """A norm; L-infinity in grey levels, the unit in which its budgets are given."""
    return ABSENT if value is None else format_size(value, kind)


def reached(size: float | None, kind: str) -> str:
    """An eps at which R@1 has fallen so far; None where it never did."""
    return "not reached" if size is None else format_size(size, kind)


def half_interval(curve: Curve) -> str:
    """The 95 % interval of the half-distortion; nothing where it has no lower end."""
    if curve.half_low is None:
        return ""
    low = format_size(curve.half_low, curve.norm).removeprefix(f"{NORMS[curve.norm]} ").removesuffix("/255")
    if curve.half_high is None:
        return f"{low} or more"
    high = format_size(curve.half_high, curve.norm).removeprefix(f"{NORMS[curve.norm]} ").removesuffix("/255")
    return f"{low}\N{EN DASH}{high}"


def curve(found: Curve) -> str:
    """The headlines of a curve in one line: "half-distortion in L2 0.97 (0.8 to 1.1), median eps L2 0.95"."""
    interval = half_interval(found)
    return (
        f"half-distortion in {NORMS[found.norm]}: {reached(found.half_distortion, found.norm)}"
        f"{f' ({interval})' if interval else ''}, median eps {reached(found.median, found.norm)}"
    )


def prepared(model: ModelEntry) -> str:
    """How a model's images were prepared, and whether it had said so."""
    if model.preprocessing is None:
        return "not recorded"
    used = str(model.preprocessing)
    if model.declared is None:
        return f"{used} (the model does not say how)"
    return used if model.declared == model.preprocessing else f"{used} (the model is made for: {model.declared.view})"


def count(value: int) -> str:
    """A whole number, in groups of three digits."""
    return f"{value:,}"


def counted(value: int, noun: str, plural: str | None = None) -> str:
    """A whole number with its noun: "1 query", "2 queries"."""
    return f"{count(value)} {noun if value == 1 else plural or noun + 's'}"


def named(names: Sequence[str]) -> str:
    """Names in a sentence, of which only the first five are written: "a, b, c, d, e and 3 more"."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def duration(seconds: float) -> str:
    """A time in the two units that matter."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(created: str) -> str:
    """An ISO 8601 time to the minute, in UTC; any other text as it is."""
    try:
        time = datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return created
    # A time without a zone is in UTC, by the schema.
    return (time if time.tzinfo is None else time.astimezone(timezone.utc)).strftime("%Y-%m-%d %H:%M UTC")


def shortened(name: str, limit: int) -> str:
    """A name that fits a chart label; the full one stands in the table beside every chart."""
    return name if len(name) <= limit else name[: limit - 1] + "…"
