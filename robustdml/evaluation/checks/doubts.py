"""What follows from an examination for attacks: which gradients of a model lead somewhere, if any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import nn

from robustdml.contracts import Doubts
from robustdml.evaluation.checks.detectors import (
    Detector,
    Probe,
    gradient_branch,
    gradient_mismatch,
    misleading_gradients,
    nan_gradients,
    no_gradient,
    passed,
    survives_anything,
    zero_gradients,
)
from robustdml.models import Straightened, copied
from robustdml.results import Flag

#: Of a model that draws at random, forward passes of which attacks take the mean.
DRAWS = 16
#: Other models that images are made on.
_SURROGATES = 3

#: What gradients must pass for attacks to go by them.
_OF_GRADIENTS: tuple[Detector, ...] = (
    no_gradient,
    zero_gradients,
    nan_gradients,
    gradient_branch,
    misleading_gradients,
    gradient_mismatch,
    survives_anything,
)

#: What says that gradients are missing or mislead.
_MISLED = frozenset(
    {
        "no-gradient",
        "zero-gradients",
        "misleading-gradients",
        "gradient-mismatch",
        "gradient-branch",
        "saturated-outputs",
        "survives-anything",
    }
)


def doubts_of(asked: Probe, flags: Sequence[Flag], surrogates: Sequence[tuple[str, nn.Module]] = ()) -> Doubts | None:
    """What attacks are to make of the flags of a model; None where its gradients can be trusted.

    Args:
        asked: as it was examined.
        surrogates: other models that take images of the same size, by name.
    """
    slugs = {flag.slug for flag in flags}
    draws, misled = DRAWS if "stochastic" in slugs else 1, bool(slugs & _MISLED)
    if draws == 1 and not misled:
        return None
    if not misled:
        return Doubts(draws)
    ways = {around: replace(asked, model=Straightened(asked.model, around=around)) for around in (False, True)}
    led = [around for around, way in ways.items() if passed((no_gradient, zero_gradients), way)]
    trusted = [around for around in led if draws == 1 and passed(_OF_GRADIENTS, ways[around])]
    return Doubts(
        draws,
        misled=True,
        own=not slugs & {"no-gradient", "zero-gradients"},
        straight=tuple(trusted[:1] or led),
        trusted=bool(trusted),
        surrogates=tuple(_copies(surrogates)),
    )


def _copies(models: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    for name, module in models[:_SURROGATES]:
        with suppress(Exception):  # Some cannot be copied, and attacks may change what they are handed.
            yield name, copied(module)


def answered(flags: Sequence[Flag], doubts: Doubts) -> list[Flag]:
    """The flags with what the standard evaluation does about them.

    Where the gradients that it goes by pass all checks, or where it takes the mean over draws, a recall can be read
    off it, and the flag is no longer invalid.
    """
    found = []
    for flag in flags:
        grade, way = flag.grade, ""
        if flag.slug in _MISLED:
            way = _way(doubts)
            grade = "grave" if doubts.trusted else grade
        elif flag.slug == "stochastic":
            way = (
                f"The standard evaluation climbed the mean of {doubts.draws} draws, and judges each image by one more; "
                "the worst case is that of a single attack."
            )
            grade = "grave"
        message = f"{flag.message} {way}".rstrip()
        found.append(flag.model_copy(update={"grade": grade, "message": message}))
    return found


def _way(doubts: Doubts) -> str:
    others = " and ".join([*(f"images made on {name}" for name, _ in doubts.surrogates), "what scores alone find"])
    if doubts.trusted:
        around = "around what comes before the network" if doubts.straight[0] else "through what has no slope"
        return f"The standard evaluation took gradients straight {around}, which pass these checks, then {others}."
    tried = f"straight-through gradients, {others}" if doubts.straight else others
    return f"The standard evaluation tried what was left: {tried}."
