"""What numbers of an evaluation say of each other: contradictions, each with its place.

Everything that follows from other numbers of the same file is derived here again. What follows from the records alone
is derived by ``robustdml verify``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustdml.results import Cell, Curve, EmbeddingMap, Results, Score, WorstCase

#: Of what is computed in another order.
_SLACK, _ERS_SLACK = 1e-9, 1e-6
_RECALL = "recall_at_"


def malformed(results: Results) -> Iterator[str]:
    """What no results can have, wherever they come from; nothing where there is no fault."""
    yield from _data(results)
    yield from _named(results)
    for place, score, hits in _scores(results):
        yield from (f"{place}: {found}" for found in _score(results, score, hits))
    queries = results.dataset.queries
    for curve in results.certified:
        bits = _bits(curve.hits, queries)
        if bits is None or len(curve.radii) != queries or not _same(bits.bit_count() / queries, curve.recall_at_1):
            yield f"what is certified of '{curve.model}' is not of the {queries} queries"
    for changed in results.natural:
        bits = _bits(changed.hits, queries)
        if bits is None or not _same(bits.bit_count() / queries, changed.value):
            yield f"{changed.model}, {changed.name} {changed.severity}: {changed.value} is not the mean of its hits"
    for drawn in results.curves:
        if len(drawn.smallest) != queries:
            yield f"the curve of '{drawn.model}' in {drawn.norm} is not of the {queries} queries"


def contradictions(results: Results) -> Iterator[str]:
    """What does not follow from the other numbers of results that an evaluation wrote, as it should."""
    for place, score, _ in _scores(results):
        yield from (f"{place}: {found}" for found in _ordered(score))
    for cell in results.cells:
        yield from (f"{_place(cell)}: {found}" for found in _cell(results, cell))
    for worst in results.worst:
        yield from (f"{_place(worst)}: {found}" for found in _worst(results, worst))
    planned, budgets = set(results.spec.models), set(results.spec.attacks)
    for model in results.models:
        if (model.name, model.fingerprint) not in planned:
            yield f"'{model.name}' with its weights is not among the models of spec"
    for cell in results.cells:
        if (cell.attack, cell.threat.eps) not in budgets:
            yield f"{_place(cell)}: it is not among the attacks of spec"
    for curve in results.curves:
        yield from _curve(results, curve)
    for ers in results.ers:
        model = next(model for model in results.models if model.name == ers.model)
        mean = math.fsum(ers.normalised.values()) / max(1, len(ers.normalised))
        if abs(ers.value - mean) > _ERS_SLACK or ers.collapsed != model.health.collapsed:
            yield f"ERS of {ers.model}: it does not follow from its terms"
        if not _same(ers.clean_recall_at_1, model.clean.metrics.recall_at_1):
            yield f"ERS of {ers.model}: its clean recall is not that of the model"


def _data(results: Results) -> Iterator[str]:
    dataset, queries = results.dataset, results.queries
    names = {metric.name for metric in dataset.metrics}
    if not {"recall_at_1", dataset.headline} <= names:
        yield f"recall_at_1 or the headline {dataset.headline} is not among the metrics"
    if not len(queries.ids) == len(queries.classes) == dataset.queries:
        yield f"queries has not the {dataset.queries} entries that dataset.queries says"
    if not 0 < dataset.queries <= dataset.queries_available:
        yield f"dataset: {dataset.queries} queries of {dataset.queries_available} that there are"
    yield from _twice("query id", queries.ids)
    classes = len(queries.class_names)
    used = [*queries.classes, *(index for drawn in results.maps for index in _classes(drawn))]
    if any(not 0 <= index < classes for index in used):
        yield f"a class index is outside of the {classes} class names"


def _classes(drawn: EmbeddingMap) -> Iterator[int]:
    yield from (index for *_, index in drawn.gallery)
    yield from (path.class_index for path in drawn.paths)


def _named(results: Results) -> Iterator[str]:
    if not results.models:
        yield "there is no model"
    yield from _twice("model", (model.name for model in results.models))
    yield from _twice("attack", (attack.spec for attack in results.attacks))
    yield from _twice("cell", map(_place, results.cells))
    yield from _twice("worst case", map(_place, results.worst))
    models, attacks = {model.name for model in results.models}, {attack.spec for attack in results.attacks}
    shown = (results.examples, results.maps, results.certified, results.natural, results.curves)
    for kind in (results.cells, results.worst, results.ers, *shown):
        for part in kind:
            attack = getattr(part, "attack", None)
            if part.model not in models or (attack is not None and attack not in attacks):
                yield f"'{part.model}' under '{attack}' is not among the models and attacks listed"


def _twice(kind: str, keys: Iterable[object]) -> Iterator[str]:
    for key, count in Counter(keys).items():
        if count > 1:
            yield f"the {kind} '{key}' is listed twice"
            return


def _place(part: Cell | WorstCase) -> str:
    attack = getattr(part, "attack", None)
    return f"{part.model}, {attack if attack else 'worst case'} at {part.threat.text} ({part.threat.eps!r})"


def _scores(results: Results) -> Iterator[tuple[str, Score, str]]:
    """Each score with its place and its bits."""
    for model in results.models:
        yield f"{model.name}, clean", model.clean, model.clean_hits
    for cell in results.cells:
        if cell.score is not None:
            yield _place(cell), cell.score, cell.hits or ""
    for worst in results.worst:
        yield _place(worst), worst.score, worst.hits


def _score(results: Results, score: Score, hits: str) -> Iterator[str]:
    dataset = results.dataset
    names = {metric.name for metric in dataset.metrics}
    if set(score.metrics.root) != names or score.headline != dataset.headline:
        yield f"a score has other metrics than {', '.join(sorted(names))}"
        return
    bits = _bits(hits, dataset.queries)
    if bits is None:
        yield f"its hits are no {dataset.queries} bits"
    elif not _same(bits.bit_count() / dataset.queries, score.value):
        yield f"a {score.headline} of {score.value} is not the mean of its hits"


def _ordered(score: Score) -> Iterator[str]:
    if score.low > score.high:
        yield f"the interval from {score.low} to {score.high} is upside down"
    names = (name for name in score.metrics.root if name.startswith(_RECALL))
    recalls = sorted((int(name.removeprefix(_RECALL)), name) for name in names)
    for (_, one), (_, other) in pairwise(recalls):
        if score.metrics[one] > score.metrics[other] + _SLACK:
            yield f"{one} is {score.metrics[one]} and {other} less, {score.metrics[other]}"
    if score.metrics.recall_at_1 < 1 and score.metrics.root.get("map_at_r") == 1:
        yield "map_at_r is 1 and recall_at_1 is not"


def _cell(results: Results, cell: Cell) -> Iterator[str]:
    if cell.score is None:
        return
    clean = next(model.clean for model in results.models if model.name == cell.model)
    yield from _relative(cell.score.value, clean.value, cell.relative_recall)
    if cell.threat.eps is not None and (cell.largest_norm or 0) > cell.threat.limit:
        yield f"a perturbation of norm {cell.largest_norm} is beyond the budget"
    if max(cell.queries_projected, cell.queries_unchanged, cell.queries_undone) > results.dataset.queries:
        yield "more queries are counted than there are"


def _relative(value: float, clean: float, relative: float | None) -> Iterator[str]:
    if (relative is None) != (clean == 0) or (relative is not None and not _same(relative * clean, value)):
        yield f"a relative recall of {relative} is not {value} of {clean}"


def _worst(results: Results, worst: WorstCase) -> Iterator[str]:
    """No query of a worst case survives what breaks it within the ball, and none falls that nothing breaks."""
    model = next(model for model in results.models if model.name == worst.model)
    yield from _relative(worst.score.value, model.clean.value, worst.relative_recall)
    on_query = {attack.spec for attack in results.attacks if attack.side == "query"}
    own = [cell for cell in results.cells if cell.model == worst.model and cell.attack in on_query]
    within = [cell for cell in own if cell.threat == worst.threat]
    counts = tuple(sum(cell.status == status for cell in within) for status in ("ok", "failed"))
    if counts != (worst.attacks, worst.attacks_failed):
        said = f"{worst.attacks} attacks and {worst.attacks_failed} failed ones"
        yield f"it says {said}, the cells {counts[0]} and {counts[1]}"
    queries = results.dataset.queries
    survived, clean = _bits(worst.hits, queries) or 0, _bits(model.clean_hits, queries) or 0
    held = {id(cell): _bits(cell.hits or "", queries) or 0 for cell in own if cell.score is not None}
    least = clean
    for bits in held.values():
        least &= bits
    if survived & ~clean or any(survived & ~held[id(cell)] for cell in within if id(cell) in held):
        yield "a query survives it that is wrong when clean, or under one of its attacks"
    if least & ~survived:
        yield "a query falls that no attack breaks"


def _curve(results: Results, curve: Curve) -> Iterator[str]:
    """What follows from the smallest eps of each query."""
    place = f"{curve.model}, curve in {curve.norm}"
    clean = next(model.clean for model in results.models if model.name == curve.model)
    if not _same(curve.recall(0.0), clean.metrics.recall_at_1):
        yield f"{place}: it does not begin at the clean R@1"
    if any(not _same(curve.recall(point.eps), point.recall) for point in curve.points):
        yield f"{place}: an R@1 does not follow from the smallest eps of the queries"
    for share, size in ((0.5, curve.median), (clean.metrics.recall_at_1 / 2, curve.half_distortion)):
        if size is not None and curve.recall(size) > share + _SLACK:
            yield f"{place}: at {size} R@1 is still above {share}"


def _bits(hits: str, count: int) -> int | None:
    """Hits as one number; None where they are not of so many queries."""
    digits = -(-count // 4)
    if len(hits) != digits or set(hits) - set("0123456789abcdef"):
        return None
    bits = int(hits, 16) if hits else 0
    return None if bits & ((1 << (4 * digits - count)) - 1) else bits


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= _SLACK
