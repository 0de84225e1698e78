"""The Empirical Robustness Score (Zhou & Patel 2022), from the cells of a whole profile, and what must stand beside it.

ERS rewards collapse and knows no clean recall: `robustdml.results.Ers` carries both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from robustdml.errors import SpecError
from robustdml.profiles import ERS_ATTACKS, PROFILES, Profile
from robustdml.results import AttackEntry, Cell, Ers, ModelEntry

#: The ten terms as they are published: percentages in [0, 100]; ``tma`` is a cosine, ``es_d`` a distance in [0, 2].
TERMS = ("ca_plus", "ca_minus", "qa_plus", "qa_minus", "tma", "es_d", "es_r", "ltm", "gtm", "gtt")

#: What is read from which cell: the attack, and the measure with its factor; None stands for R@1.
_SOURCES: Mapping[str, tuple[str, str | None, float]] = {
    "ca_plus": ("ca_plus", "rank_percentile", 1.0),
    "ca_minus": ("ca_minus", "rank_percentile", 1.0),
    "qa_plus": ("qa_plus", "rank_percentile", 1.0),
    "qa_minus": ("qa_minus", "rank_percentile", 1.0),
    "tma": ("tma", "target_cosine", 1.0),
    "es_d": ("es", "embedding_shift", 1.0),
    "es_r": ("es", None, 100.0),
    "ltm": ("ltm", None, 100.0),
    "gtm": ("gtm", None, 100.0),
    "gtt": ("gtt", "first_hit_retained", 100.0),
}


#: RobRank's code reports as ES:D the shift before the last step, and as ES:R the recall after it.
_BEFORE = "es, one step less"
_COMPAT_SOURCES: Mapping[str, tuple[str, str | None, float]] = {"es_d": (_BEFORE, "embedding_shift", 1.0)}


def normalised(terms: Mapping[str, float]) -> dict[str, float]:
    """The terms on one scale, 0 for a model that is broken and 100 for one that is untouched.

    Raises:
        SpecError: a term is missing.
    """
    missing = [name for name in TERMS if name not in terms]
    if missing:
        raise SpecError(f"ERS needs ten terms, {', '.join(missing)} is not among those given: {', '.join(terms)}")
    return {
        "ca_plus": 2 * terms["ca_plus"],
        "ca_minus": 100 - terms["ca_minus"],
        "qa_plus": 2 * terms["qa_plus"],
        "qa_minus": 100 - terms["qa_minus"],
        "tma": 100 * (1 - terms["tma"]),
        "es_d": 50 * (2 - terms["es_d"]),
        "es_r": terms["es_r"],
        "ltm": terms["ltm"],
        "gtm": terms["gtm"],
        "gtt": terms["gtt"],
    }


def ers(terms: Mapping[str, float]) -> float:
    """The score: the mean of the ten normalised terms.

    Raises:
        SpecError: a term is missing.
    """
    values = normalised(terms)
    return sum(values.values()) / len(values)


def ers_records(models: Sequence[ModelEntry], attacks: Sequence[AttackEntry], cells: Sequence[Cell]) -> tuple[Ers, ...]:
    """The score of each model in each profile of which every attack was judged, with all its terms."""
    return tuple(
        found
        for model in models
        for name, profile in PROFILES.items()
        for compat in (False, True)
        for found in _record(model, name, profile, compat, attacks, [c for c in cells if c.model == model.name])
    )


def _record(
    model: ModelEntry, name: str, profile: Profile, compat: bool, attacks: Sequence[AttackEntry], cells: Sequence[Cell]
) -> Iterator[Ers]:
    keys = {entry.spec: _key(entry, profile, compat) for entry in attacks}
    specs = {spec: key for spec, key in keys.items() if key}
    judged = {
        specs[cell.attack]: cell
        for cell in cells
        if cell.attack in specs and cell.score and cell.threat.channels is None
        if math.isclose(cell.threat.eps or 0.0, profile.eps)
    }
    sources = {**_SOURCES, **(_COMPAT_SOURCES if compat else {})}
    if set(judged) != {attack for attack, _, _ in sources.values()}:
        return
    terms = {}
    for term, (attack, measure, factor) in sources.items():
        cell = judged[attack]
        recall = cell.score.metrics.recall_at_1 if cell.score else math.nan  # every judged cell has a score
        terms[term] = factor * (recall if measure is None else cell.measures[measure])
    yield Ers(
        model=model.name,
        profile=name,
        compat=compat,
        terms=terms,
        normalised=normalised(terms),
        value=ers(terms),
        collapsed=model.health.collapsed,
        clean_recall_at_1=model.clean.metrics.recall_at_1,
    )


def _key(entry: AttackEntry, profile: Profile, compat: bool) -> str | None:
    """What an attack is in the profile, run as the profile says; None where it is no part of it."""
    kinds = {attack: attack for attack in ERS_ATTACKS}
    if compat:
        del kinds["es"]
        kinds["es_robrank"] = "es"
    if entry.library != "robustdml" or entry.kind not in kinds:
        return None
    key, steps = kinds[entry.kind], profile.steps
    if entry.kind == "es_robrank" and entry.params.get("steps") == steps - 1:
        key, steps = _BEFORE, steps - 1
    wanted: dict[str, object] = {"steps": steps, "start": 0, "best": False, "candidates": 1}
    if entry.kind in {"ltm", "gtm"}:
        wanted["compat"] = "robrank" if compat else "off"
    step = entry.params.get("step")
    runs_so = (
        isinstance(step, float)
        and math.isclose(step, profile.step)
        and all(entry.params.get(name, value) == value for name, value in wanted.items())
    )
    return key if runs_so else None
