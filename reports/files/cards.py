"""Model cards: what was measured of one model, as Markdown to read and as JSON to collect.

The first fields of the JSON are flat and called after those of RobustBench's cards (Croce et al. 2021), with recall
where these have accuracy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from robustdml.files import content_hash, write_text
from robustdml.preprocessing import in_pixels
from robustdml.results import Curve, MetricEntry, ModelEntry, Results, WorstCase

from .. import text
from ..index import Index
from ..measurements import Measurement, measurements
from ..page.method import KNOWLEDGE
from .markdown import escape, table

#: Raised by one when a field of the JSON changes its meaning or goes.
CARD_VERSION = 2


def write_cards(results: Results, folder: Path) -> tuple[Path, ...]:
    """Write ``<model>.md`` and ``<model>.json`` for every model and return their paths."""
    index = Index.of(results)
    written = []
    for model, stem in zip(results.models, _stems([model.name for model in results.models]), strict=True):
        card = json.dumps(card_data(index, model), indent=1, allow_nan=False)
        written.append(write_text(folder / f"{stem}.md", card_markdown(index, model)))
        written.append(write_text(folder / f"{stem}.json", card + "\n"))
    return tuple(written)


def card_data(index: Index, model: ModelEntry) -> dict[str, object]:
    """The card of a model as JSON values."""
    results = index.results
    invalid, worst_cases = results.invalid(model.name), _worst_cases(index, model)
    worst = next((item for item in worst_cases if item.threat == index.headline), None)
    return {
        "card_version": CARD_VERSION,
        "name": model.name,
        "dataset": results.dataset.name,
        "architecture": model.architecture,
        "method": model.method,
        "norm": worst.threat.norm if worst else None,
        "eps": worst.threat.text if worst else None,
        "clean_recall_at_1": model.clean.metrics.recall_at_1,
        "worst_case_recall_at_1": worst.score.metrics.recall_at_1 if worst else None,
        "withheld": None if invalid is None else invalid.slug,
        "model": model.model_dump(mode="json", exclude={"clean_hits"}),
        "data": results.dataset.model_dump(mode="json"),
        "threat_model": _threat(index, model),
        "worst_cases": [item.model_dump(mode="json", exclude={"hits", "model"}) for item in worst_cases],
        "curves": [curve.model_dump(mode="json", exclude={"model", "smallest"}) for curve in _curves(index, model)],
        "attacks": [
            {
                **entry.model_dump(mode="json", exclude={"citations"}),
                **cell.model_dump(mode="json", exclude={"hits", "model", "attack"}),
            }
            for cell in results.cells
            if cell.model == model.name
            for entry in results.attacks
            if entry.spec == cell.attack
        ],
        "limitations": [
            flag.model_dump(mode="json", exclude={"model"})
            for flag in results.flags
            if flag.model in {None, model.name}
        ],
        "evaluated": results.created,
        "robustdml_version": results.robustdml_version,
        "fingerprint": results.fingerprint,
        "seed": results.spec.seed,
        "environment": results.environment.model_dump(mode="json"),
        "citations": results.citations,
    }


def card_markdown(index: Index, model: ModelEntry) -> str:
    """The card of a model as Markdown."""
    results, dataset = index.results, index.results.dataset
    own = measurements(index, model)
    size = in_pixels(model.preprocessing.sides if model.preprocessing else results.image_sides)
    metrics = _headline_first(index)
    heads = [metric.title for metric in metrics]
    heads.insert(1, "95 % interval")
    attacks = [item for item in own if item.condition == "attack"]
    limitations = [flag for flag in results.flags if flag.model in {None, model.name}]
    facts = (
        ("Architecture", model.architecture),
        ("Training method", model.method or "not known"),
        ("Parameters", text.count(model.parameters)),
        ("Embedding", f"{model.embedding_dim} dimensions, effective rank {model.health.effective_rank:.1f}"),
        ("Layout by class, clean", f"NMI {text.nmi(model)}, π ratio {text.fraction(model.pi_ratio)}"),
        ("Source", model.source),
        ("Weights (SHA-256)", model.fingerprint),
        ("Data set", f"{dataset.name}, {text.counted(dataset.classes, 'class', 'classes')}"),
        ("Protocol", dataset.protocol),
        ("Queries", f"{text.count(dataset.queries)} of {text.count(dataset.queries_available)}"),
        ("Gallery", text.counted(dataset.gallery, "image")),
        ("Image size", f"{size} pixels"),
        ("Input", text.prepared(model)),
        ("Chance", f"{index.metric.title} {text.fraction(dataset.chance)}"),
        ("Threat model", _threat(index, model)),
    )
    environment = results.environment
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    lines = [
        f"# Model card: {escape(model.name)}",
        "",
        *([f"**Collapsed embeddings:** {_COLLAPSED}", ""] if model.health.collapsed else []),
        *table(("What", "Value"), [(name, escape(value)) for name, value in facts], left=2),
        "",
        "## Clean and worst case",
        "",
        "The worst case takes each query under the attack that hurts it most; the intervals are bootstrapped over "
        "classes.",
        "",
        *table(("Condition", *heads), [_measured(metrics, item) for item in own if item.condition != "attack"]),
        "",
        *(f"- {escape(metric.title)}: {escape(metric.description)}." for metric in metrics),
        *(f"- Smallest eps that breaks a query: {escape(text.curve(curve))}." for curve in _curves(index, model)),
        "",
        "## Attacks",
        "",
        *(
            table(("Attack", *heads), [_measured(metrics, item) for item in attacks])
            if attacks
            else ["No attack was run."]
        ),
        "",
        "## Limitations",
        "",
        "- A worst case is an upper bound: a stronger attack than those above can only lower it.",
        *(f"- **{escape(item.slug)}**: {escape(item.message)} {escape(item.remedy)}" for item in limitations),
        "",
        "## Evaluation",
        "",
        f"robustdml {escape(results.robustdml_version)}, {escape(text.moment(results.created))}, seed "
        f"{results.spec.seed}, fingerprint {escape(results.fingerprint)}; Python {escape(environment.python)}, "
        f"{escape(environment.platform)}, {escape(environment.device)}; {escape(packages)}.",
        "",
        "## Citations",
        "",
        *(f"    {line}" for entry in results.citations.values() for line in [*entry.strip().splitlines(), ""]),
    ]
    return "\n".join(lines).rstrip() + "\n"


#: What the attacker changes; all that is not named is clean.
_SIDES = {
    "query": "queries are attacked",
    "gallery": "gallery images are attacked",
    "both": "both are attacked at once",
}

_COLLAPSED = "this model resists attacks because it retrieves little. Do not call it robust."


def _threat(index: Index, model: ModelEntry) -> str:
    own = [cell for cell in index.results.cells if cell.model == model.name]
    met = [entry for entry in index.results.attacks if entry.spec in {cell.attack for cell in own}]
    if not met:
        return "no attack was run"
    run = {index.budget(cell) for cell in own}
    budgets = ", ".join(
        f"L\N{INFINITY} {item.text}" if item.norm == "linf" else item.text for item in index.budgets if item in run
    )
    sides = " and ".join(_SIDES[side] for side in _SIDES if side in {entry.side for entry in met})
    known = "; ".join(KNOWLEDGE[kind] for kind in KNOWLEDGE if kind in {entry.knowledge for entry in met})
    return f"{sides} within {budgets} (pixels in [0, 1]); the attacker knows: {known}"


def _worst_cases(index: Index, model: ModelEntry) -> list[WorstCase]:
    return [index.worst[key] for budget in index.budgets if (key := (model.name, budget)) in index.worst]


def _curves(index: Index, model: ModelEntry) -> list[Curve]:
    return [curve for curve in index.curves if curve.model == model.name]


def _headline_first(index: Index) -> list[MetricEntry]:
    return sorted(index.results.dataset.metrics, key=lambda metric: metric != index.metric)


def _measured(metrics: Sequence[MetricEntry], item: Measurement) -> tuple[str, ...]:
    label = escape(item.label)
    if item.score is None:
        blanks = [text.ABSENT] * (len(metrics) + 1)
        return (f"{label}: {item.status}, {escape(item.reason or 'no reason was recorded')}", *blanks)
    values = [text.fraction(item.score.metrics[metric.name]) for metric in metrics]
    left_out = f" ({text.counted(item.attacks_failed, 'attack')} failed)" if item.attacks_failed else ""
    return (label + left_out, values[0], text.interval(item.score), *values[1:])


def _stems(names: list[str]) -> list[str]:
    """File names for models: readable, safe on any file system, and different where the names are."""
    stems = []
    for name in names:
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60].strip("-.")
        safe = readable == name and not any(name.casefold() == other.casefold() for other in names if other != name)
        stems.append(name if safe else f"{readable or 'model'}-{content_hash(name.encode('utf-8', 'replace'))[:8]}")
    return stems
