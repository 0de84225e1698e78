"""From per-query records to the numbers of the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from robustdml.evaluation.metrics import METRIC_NAMES, score
from robustdml.evaluation.records import Records
from robustdml.results import Cell, WorstCase

#: The records of one model by (attack spec, eps).
ModelRecords = Mapping[tuple[str, float], Records]


def relative(recall: float, clean: float) -> float | None:
    """Adversarial over clean R@1; None where the clean one is 0."""
    return recall / clean if clean > 0 else None


def cell(model: str, attack: str, eps: float, records: Records, clean_recall: float, *, seed: int) -> Cell:
    """One model under one attack at one budget."""
    result = score(records.values, records.labels, seed=seed)
    return Cell(
        model=model,
        attack=attack,
        eps=eps,
        status="ok",
        score=result,
        relative_recall=relative(result.metrics.recall_at_1, clean_recall),
        largest_norm_returned=float(records.norm_returned.max()),
        largest_norm=float(records.norm.max()),
        queries_projected=int(records.projected.sum()),
        queries_unchanged=int((records.norm == 0).sum()),
        forward_images=records.forward_images,
        seconds=records.seconds,
    )


def worst_case(model: str, eps: float, clean: Records, attacked: ModelRecords, failed: int, *, seed: int) -> WorstCase:
    """Each query under what hurts it most: the clean image, or any attack at this or a smaller budget.

    The minimum is taken per query and only then averaged; a smaller budget's image is allowed at a larger one.
    """
    within = [records for (_, budget), records in attacked.items() if budget <= eps]
    values = {name: worst_values([clean, *within], name) for name in METRIC_NAMES}
    result = score(values, clean.labels, seed=seed)
    return WorstCase(
        model=model,
        eps=eps,
        score=result,
        relative_recall=relative(result.metrics.recall_at_1, float(clean.values["recall_at_1"].mean())),
        attacks=sum(1 for _, budget in attacked if budget == eps),
        attacks_failed=failed,
    )


def worst_values(records: Sequence[Records], name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The smallest value of a metric per query, over records of the same queries in the same order."""
    return np.min([part.values[name] for part in records], axis=0)  # type: ignore[no-any-return]


def best_attack(cells: Iterable[Cell]) -> Cell | None:
    """The cell with the lowest R@1, the first of equals; None where every attack failed."""
    judged = [candidate for candidate in cells if candidate.score is not None]
    return min(judged, key=lambda item: item.score.metrics.recall_at_1 if item.score else 2.0, default=None)
