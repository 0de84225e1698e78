"""From per-query records to the numbers of the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from robustdml.evaluation.records import Records
from robustdml.results import AttackEntry, Cell, Norm, WorstCase, pack_hits
from robustdml.retrieval.metrics import METRIC_NAMES, score
from robustdml.threat import NORMS, ThreatModel

#: The records of one model by (attack spec, eps).
ModelRecords = Mapping[tuple[str, float | None], Records]


def relative(recall: float, clean: float) -> float | None:
    """Adversarial over clean R@1; None where the clean one is 0."""
    return recall / clean if clean > 0 else None


def hits(values: npt.NDArray[np.float64]) -> str:
    """Per-query R@1 as the bits of the results."""
    return pack_hits((values > 0.5).tolist())


def cell(model: str, attack: AttackEntry, eps: float | None, records: Records, clean: Records, *, seed: int) -> Cell:
    """One model under one attack at one budget."""
    result = score(records.values, records.labels, seed=seed)
    recall = records.values["recall_at_1"]
    norm = records.norms[attack.norm]
    right = clean.values["recall_at_1"] > 0.5
    broken = right & (recall < 0.5)
    return Cell(
        model=model,
        attack=attack.spec,
        eps=eps,
        status="ok",
        score=result,
        hits=hits(recall),
        relative_recall=relative(result.metrics.recall_at_1, float(clean.values["recall_at_1"].mean())),
        largest_norm_returned=float(records.norm_returned.max()),
        largest_norm=float(norm.max()),
        median_norm_broken=float(np.median(norm[broken])) if broken.any() else None,
        queries_projected=int(records.projected.sum()),
        # Many attacks leave a query alone that is wrong already: nothing was to be done there.
        queries_unchanged=int((right & (records.norms["linf"] == 0)).sum()),
        forward_images=records.forward_images,
        gradient_images=records.gradient_images,
        seconds=records.seconds,
        measures={name: total / count for name, (total, count) in records.measures.items()},
    )


def worst_cases(
    model: str,
    attacks: Sequence[AttackEntry],
    clean: Records,
    attacked: ModelRecords,
    cells: Sequence[Cell],
    *,
    seed: int,
) -> list[WorstCase]:
    """The worst case of a model at every fixed budget that was run and judged, by norm and size."""
    norms = {entry.spec: entry.norm for entry in attacks if entry.side == "query"}
    attacked = {key: records for key, records in attacked.items() if key[0] in norms}
    cells = [item for item in cells if item.attack in norms]
    budgets = {(norms[spec], eps) for spec, eps in attacked if eps is not None}
    ordered = sorted(budgets, key=lambda budget: (list(NORMS).index(budget[0]), budget[1]))
    return [_worst_case(model, eps, norm, norms, clean, attacked, cells, seed=seed) for norm, eps in ordered]


def _worst_case(
    model: str,
    eps: float,
    norm: Norm,
    norms: Mapping[str, Norm],
    clean: Records,
    attacked: ModelRecords,
    cells: Sequence[Cell],
    *,
    seed: int,
) -> WorstCase:
    """Each query under what hurts it most: the clean image, or any image within the ball that any attack found.

    The minimum is taken per query and only then averaged. An image made under another budget, another norm or none
    counts where it lies in the ball.
    """
    limit = ThreatModel(eps, norm).limit
    values = {name: clean.values[name].copy() for name in METRIC_NAMES}
    for records in attacked.values():
        inside = records.norms[norm] <= limit
        for name, lowest in values.items():
            np.minimum(lowest, records.values[name], out=lowest, where=inside)
    result = score(values, clean.labels, seed=seed)
    own = [item for item in cells if norms[item.attack] == norm and item.eps == eps]
    return WorstCase(
        model=model,
        eps=eps,
        norm=norm,
        score=result,
        hits=hits(values["recall_at_1"]),
        relative_recall=relative(result.metrics.recall_at_1, float(clean.values["recall_at_1"].mean())),
        attacks=sum(item.status == "ok" for item in own),
        attacks_failed=sum(item.status == "failed" for item in own),
    )


def best_attack(cells: Iterable[Cell]) -> Cell | None:
    """The cell with the lowest R@1, the first of equals; None where every attack failed."""
    judged = [candidate for candidate in cells if candidate.score is not None]
    return min(judged, key=lambda item: item.score.metrics.recall_at_1 if item.score else 2.0, default=None)
