"""From the records of a run to its results. Needs the run folder alone, so that any process can do it at any time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdml._version import __version__
from robustdml.citations import citations
from robustdml.errors import RunFolderError
from robustdml.evaluation.analyses.curves import CITATIONS, curves
from robustdml.evaluation.analyses.ers import ers_records
from robustdml.evaluation.flags import by_grade, flags
from robustdml.evaluation.measures import described
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.records import Records
from robustdml.evaluation.store import RECORDS_FOLDER, CellKey, Store, understood
from robustdml.flag_kinds import FLAG_KINDS
from robustdml.results import Cell, Flag, Results, StageEntry, WorstCase, pack_hits
from robustdml.retrieval.metrics import score
from robustdml.threat import ThreatModel

#: The records of one model by attack spec and budget.
ModelRecords = Mapping[tuple[str, ThreatModel], Records]


def assemble(run: str | Path, *, seconds: float = 0.0) -> Results:
    """The results of what is there of a run; what is not there is named as not run.

    Args:
        run: the run folder of an evaluation, finished or not.
        seconds: that the call took which finished the run.

    Raises:
        RunFolderError: there is no plan or no model in it yet, or a file is damaged or belongs to another run.
    """
    run = Path(run)
    plan = Plan.load(run)
    store = Store(run, plan.fingerprint)
    with understood(run / RECORDS_FOLDER):
        return _assembled(run, plan, store, seconds)


def _assembled(run: Path, plan: Plan, store: Store, seconds: float) -> Results:
    models, cells, worst, drawn, missing = [], [], [], [], []
    detected = list(plan.flags)
    shown: dict[str, Any] = {"examples": []}
    for name, _ in plan.spec.models:
        found = store.read_model(name)
        if found is None:
            missing.append(name)
            continue
        entry, clean = found
        models.append(entry)
        raised = store.read_flags(name)
        detected += raised
        own, attacked = model_cells(plan, store, name, clean)
        cells += own
        random = any(flag.slug == "stochastic" for flag in raised)
        worst += worst_cases(plan, name, clean, attacked, own, random=random)
        drawn += curves(name, clean, attacked, plan.attacks, seed=plan.spec.seed, random=random)
        for field, parts in store.read_shown(name).items():
            shown.setdefault(field, []).extend(parts)
    if not models:
        raise RunFolderError(f"no model of the evaluation in '{run}' was begun: repeat its command")
    return Results(
        robustdml_version=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        fingerprint=plan.fingerprint,
        spec=plan.spec,
        dataset=plan.dataset,
        queries=plan.queries,
        models=tuple(models),
        attacks=plan.attacks,
        cells=tuple(cells),
        measures=described({name for cell in cells for name in cell.measures}),
        worst=tuple(worst),
        ers=ers_records(models, plan.attacks, cells),
        curves=tuple(drawn),
        flags=by_grade((*map(_not_run, missing), *flags(plan.dataset, models, plan.attacks, cells, worst, detected))),
        environment=plan.environment,
        command=plan.command,
        configuration=plan.configuration,
        citations=citations(
            [
                *(key for entry in plan.attacks for key in entry.citations),
                *(metric.citation for metric in plan.dataset.metrics),
                *(CITATIONS if drawn else ()),
                *(key for parts in shown.values() for part in parts for key in part.get("citations", ())),
            ]
        ),
        seconds=round(seconds, 3),
        **shown,
    )


def model_cells(plan: Plan, store: Store, model: str, clean: Records) -> tuple[list[Cell], ModelRecords]:
    """The cells of a model, and the records of those that were judged, without pictures."""
    cells, attacked = [], {}
    for key in plan.cells(model):
        records = store.read_all(key)
        if records is not None and records.ids.tolist() == list(plan.queries.ids):
            attacked[key.attack, key.threat] = replace(records, pictures={}, embeddings={})
            cells.append(cell(plan, key, records, clean))
        else:
            cells.append(_without_score(store, key, records, len(plan.queries.ids)))
    return cells, attacked


def _without_score(store: Store, key: CellKey, records: Records | None, queries: int) -> Cell:
    failure = store.read_failure(key)
    done = 0 if records is None else len(records)
    reason = f"not run: the evaluation was stopped before it, with {done} of {queries} queries done"
    return Cell(
        model=key.model,
        attack=key.attack,
        threat=key.threat,
        status="skipped" if failure is None else failure.status,
        reason=reason if failure is None else failure.reason,
        unsound=failure is not None and failure.unsound,
    )


def _not_run(model: str) -> Flag:
    return FLAG_KINDS["model-not-run"].flag(
        f"{model} is not among these results: the evaluation was stopped before it."
    )


def relative(value: float, clean: float) -> float | None:
    """Adversarial over clean headline; None where the clean one is 0."""
    return value / clean if clean > 0 else None


def hits(values: npt.NDArray[np.float64]) -> str:
    """The headline of each query as the bits of the results."""
    return pack_hits((values > 0.5).tolist())


def cell(plan: Plan, key: CellKey, records: Records, clean: Records) -> Cell:
    """One model under one attack at one budget."""
    headline = plan.dataset.headline
    result = score(records.values, records.labels, headline=headline, seed=plan.spec.seed)
    recall = records.values["recall_at_1"]
    norm = records.norms[key.threat.norm]
    right = clean.values["recall_at_1"] > 0.5
    broken = right & (recall < 0.5)
    return Cell(
        model=key.model,
        attack=key.attack,
        threat=key.threat,
        status="ok",
        score=result,
        hits=hits(records.values[headline]),
        relative_recall=relative(result.value, float(clean.values[headline].mean())),
        largest_norm_returned=float(records.norm_returned.max()),
        largest_norm=float(norm.max()),
        median_norm_broken=float(np.median(norm[broken])) if broken.any() else None,
        queries_projected=int(records.projected.sum()),
        # Many attacks leave a query alone that is wrong already: nothing was to be done there.
        queries_unchanged=int((right & (records.norms["linf"] == 0)).sum()),
        queries_undone=records.undone,
        forward_images=records.forward_images,
        gradient_images=records.gradient_images,
        seconds=records.seconds,
        measures={name: total / count for name, (total, count) in records.measures.items()},
        stages=tuple(StageEntry(**{**vars(done), "reason": done.reason or None}) for done in records.stages),
    )


def worst_cases(
    plan: Plan, model: str, clean: Records, attacked: ModelRecords, cells: Sequence[Cell], *, random: bool = False
) -> list[WorstCase]:
    """The worst case of a model at every fixed budget that was run and judged, by norm and size.

    Args:
        random: whether the model draws at random, so that each record is of one draw.
    """
    on_query = {entry.spec for entry in plan.attacks if entry.side == "query"}
    attacked = {key: records for key, records in attacked.items() if key[0] in on_query}
    cells = [item for item in cells if item.attack in on_query]
    threats = {threat for _, threat in attacked if threat.eps is not None}
    ordered = sorted(threats, key=lambda threat: threat.order)
    return [_worst_case(plan, model, threat, clean, attacked, cells, random) for threat in ordered]


def _worst_case(
    plan: Plan,
    model: str,
    threat: ThreatModel,
    clean: Records,
    attacked: ModelRecords,
    cells: Sequence[Cell],
    random: bool,
) -> WorstCase:
    """Each query under what hurts it most: the clean image, or any image within the ball that any attack found.

    The minimum is taken per query and only then averaged. An image made under another budget, another norm or none
    counts where it lies in the ball. Of a model that draws at random the least of many records is the least of many
    draws, and says nothing of attacks: there the one attack counts that leaves the lowest headline.
    """
    headline = plan.dataset.headline
    values = {name: value.copy() for name, value in clean.values.items()}
    for (_, own_threat), records in attacked.items():
        # What was made within a ball that this one holds lies within, and was enforced to; else the norm has to tell.
        within = threat.channels is not None and threat.holds(own_threat)
        inside = (records.norms[threat.norm] <= threat.inner_limit) | within
        if random:
            alone = {name: np.where(inside, records.values[name], value) for name, value in clean.values.items()}
            values = min(values, alone, key=lambda found: found[headline].mean())
            continue
        for name, lowest in values.items():
            np.minimum(lowest, records.values[name], out=lowest, where=inside)
    result = score(values, clean.labels, headline=headline, seed=plan.spec.seed)
    own = [item for item in cells if item.threat == threat]
    return WorstCase(
        model=model,
        threat=threat,
        score=result,
        hits=hits(values[headline]),
        relative_recall=relative(result.value, float(clean.values[headline].mean())),
        attacks=sum(item.status == "ok" for item in own),
        attacks_failed=sum(item.status == "failed" for item in own),
    )


def best_attack(cells: Iterable[Cell]) -> Cell | None:
    """The cell with the lowest R@1, the first of equals; None where every attack failed."""
    judged = [candidate for candidate in cells if candidate.score is not None]
    return min(judged, key=lambda item: item.score.metrics.recall_at_1 if item.score else 2.0, default=None)
