"""R@1 over eps: from the smallest perturbation that breaks each query, of all that the attacks of a run found.

A query that is broken within eps is broken within every larger one, so that a curve falls by construction. What breaks
a query bounds its smallest eps from above, and so the whole curve: a better attack can only lower it. Every attack on
the query counts, whatever its budget; the curve is given in the norms in which `robustdml.attacks.Bisection` searched.

**Half-distortion** (Maho, Furon & Le Merrer 2021, "RoBIC") is the eps at which half of the queries are lost that are
right when clean: one number without a parameter. The **median** eps is that at which R@1 is one half.

**Local optimality** (Cina et al. 2025, "AttackBench") says how near the curve of one attack comes to that of all. With
A the area under its R@1 over eps from 0 to the largest smallest eps of any query, A* that under the curve of all, and C
that of a model which nothing breaks, it is ``1 - (A - A*) / (C - A*)``. An attack with budgets has a curve with steps
at these alone: both areas are then taken over these steps, up to the largest, so that it is not blamed for their width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from robustdml.evaluation.records import Records
from robustdml.results import AttackEntry, Curve, CurvePoint, Norm, Optimality
from robustdml.retrieval.metrics import score
from robustdml.threat import ThreatModel

Floats = npt.NDArray[np.float64]

#: The eps at which R@1 is told: from a budget that breaks undefended real models to one that few withstand.
CURVE_BUDGETS: Mapping[Norm, tuple[float, ...]] = {
    "linf": tuple(levels / 255 for levels in (0.25, 0.5, 1, 2, 4, 8, 16)),
    "l2": (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0),
    "l1": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
}

#: What searches for the smallest perturbation.
SEARCH = "bisection"

#: Whose numbers these are.
CITATIONS = ("maho2021robic", "cina2025attackbench")

#: An attack with budgets has a curve from so many of them on.
_FEWEST_BUDGETS = 3

_DRAWS, _MISSED_ON_EACH_SIDE = 1000, 0.025


def curves(
    model: str,
    clean: Records,
    attacked: Mapping[tuple[str, ThreatModel], Records],
    attacks: Sequence[AttackEntry],
    *,
    seed: int,
    random: bool = False,
) -> list[Curve]:
    """The curve of a model in each norm in which the smallest perturbation was searched for.

    Args:
        clean: the records of the clean queries.
        attacked: those of each attack at each budget that was judged.
        attacks: all attacks of the run.
        seed: of the bootstrap.
        random: whether the model draws at random. Then the images of the search alone count: the least of many draws is
            no robustness of any of them.
    """
    on_query = {entry.spec: entry for entry in attacks if entry.side == "query"}
    own = {key: records for key, records in attacked.items() if key[0] in on_query}
    found = []
    for norm in CURVE_BUDGETS:
        search = next((s for s, _ in own if (on_query[s].kind, on_query[s].norm) == (SEARCH, norm)), None)
        if search is not None:
            counted = {key: records for key, records in own.items() if not random or key[0] == search}
            found.append(_curve(model, norm, search, clean, counted, on_query, seed))
    return found


def _curve(
    model: str,
    norm: Norm,
    search: str,
    clean: Records,
    attacked: Mapping[tuple[str, ThreatModel], Records],
    entries: Mapping[str, AttackEntry],
    seed: int,
) -> Curve:
    sizes = {key: _broken_by(records, clean, norm) for key, records in attacked.items()}
    smallest: Floats = np.minimum.reduce([*sizes.values()])
    recall = float((smallest > 0).mean())
    half = _reached(smallest, recall / 2) if recall else math.inf
    low, high = _interval(smallest, clean.labels, seed) if recall else (math.inf, math.inf)
    optimality = tuple(_optimality(smallest, sizes, entries, norm))
    return Curve(
        model=model,
        norm=norm,
        attack=search,
        smallest=tuple(map(_finite, smallest.tolist())),
        median=_finite(_reached(smallest, 0.5)),
        half_distortion=_finite(half),
        half_low=_finite(low),
        half_high=_finite(high),
        points=tuple(_point(smallest, clean, norm, eps, seed) for eps in CURVE_BUDGETS[norm]),
        optimality=optimality if len(optimality) > 1 else (),
    )


def _broken_by(records: Records, clean: Records, norm: str) -> Floats:
    """How large the perturbation is that breaks each query: 0 where none was needed, inf where it holds."""
    found: Floats = np.where(records.values["recall_at_1"] > 0.5, np.inf, records.norms[norm])
    found[clean.values["recall_at_1"] <= 0.5] = 0.0
    return found


def _reached(smallest: Floats, recall: float) -> float:
    """The smallest eps at which R@1 is at most so much; inf where it stays above."""
    lost = math.ceil(len(smallest) * (1 - recall) - 1e-9)
    return float(np.sort(smallest)[lost - 1]) if lost else 0.0


def _interval(smallest: Floats, labels: npt.NDArray[np.int64], seed: int) -> tuple[float, float]:
    """The 95 % interval of the half-distortion: queries of a class fall together, so classes are drawn."""
    order = np.argsort(smallest, kind="stable")
    sizes, (_, group) = smallest[order], np.unique(labels[order], return_inverse=True)
    count = int(group.max()) + 1
    found = []
    for drawn in np.random.default_rng(seed).integers(count, size=(_DRAWS, count)):
        weights = np.bincount(drawn, minlength=count)[group] * (sizes > 0)
        lost = np.cumsum(weights)
        if lost[-1]:
            found.append(float(sizes[np.searchsorted(lost, lost[-1] / 2)]))
    # Where a quantile lies between two, the outer one: there is no mean of a finite and an infinite size.
    found.sort()
    missed = int(len(found) * _MISSED_ON_EACH_SIDE)
    return found[missed], found[-1 - missed]


def _point(smallest: Floats, clean: Records, norm: str, eps: float, seed: int) -> CurvePoint:
    held = (smallest > ThreatModel(eps, norm).limit).astype(np.float64)
    found = score({"recall_at_1": held}, clean.labels, headline="recall_at_1", seed=seed)
    return CurvePoint(eps=eps, recall=found.value, low=found.low, high=found.high)


def _optimality(
    smallest: Floats,
    sizes: Mapping[tuple[str, ThreatModel], Floats],
    entries: Mapping[str, AttackEntry],
    norm: str,
) -> Iterator[Optimality]:
    for spec, entry in entries.items():
        cells = {threat: found for (own, threat), found in sizes.items() if own == spec and threat.channels is None}
        if not cells or entry.norm != norm or entry.budget == "unrestricted":
            continue
        own: Floats = np.minimum.reduce([*cells.values()])
        budgets = sorted(threat.limit for threat in cells if threat.eps is not None)
        if entry.budget == "fixed" and len(budgets) < _FEWEST_BUDGETS:
            continue
        value = local_optimality(own, smallest, budgets if entry.budget == "fixed" else ())
        if value is not None:
            yield Optimality(attack=spec, value=value)


def local_optimality(own: Floats, best: Floats, budgets: Sequence[float] = ()) -> float | None:
    """How near the curve of one attack comes to the curve of all, in [0, 1] (see the module).

    Args:
        own: ``(N,)``, the smallest eps at which the attack broke each query: 0 where it is wrong when clean, inf where
            it held.
        best: ``(N,)``, the same of all attacks together, at most ``own``.
        budgets: at which the attack was run, ascending; none where it chose the size itself.

    Returns:
        None where no attack broke anything.
    """
    if budgets:
        steps = np.array([0.0, *budgets, np.inf])
        own, best = steps[np.searchsorted(steps, own)], steps[np.searchsorted(steps, best)]
    end = float(best[np.isfinite(best)].max(initial=0.0)) if not budgets else budgets[-1]
    # The area under the share of queries whose smallest eps is above e, from e = 0 to the end.
    area, least = float(np.minimum(own, end).mean()), float(np.minimum(best, end).mean())
    unbroken = end * float((best > 0).mean())
    return None if unbroken - least <= 1e-12 else float(np.clip(1 - (area - least) / (unbroken - least), 0.0, 1.0))


def _finite(size: float) -> float | None:
    return size if math.isfinite(size) else None
