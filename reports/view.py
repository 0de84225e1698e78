"""Results turned into what the page shows: frozen dataclasses of finished text, so that templates only print."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from robustdml.results import AttackEntry, DatasetEntry, ModelEntry, Results
from robustdml.threat import NORMS, format_eps

from . import text
from .charts import Chart, build_chart
from .gallery import Gallery, build_gallery
from .index import ANY_SIZE, Budget, Index
from .tables import DETAIL_COLUMNS, NO_REASON, BudgetTable, Column, DetailRow, budget_tables, detail_rows
from .verdicts import Comparison, Verdict, compare, headline, verdicts

KNOWLEDGE = {
    "gradients": "gradients (white-box)",
    "scores": "scores only",
    "decisions": "decisions only",
    "transfer": "another model (transfer)",
    "none": "nothing of the model",
}


@dataclass(frozen=True)
class Fact:
    """A line of the header: what, and its value."""

    label: str
    value: str


@dataclass(frozen=True)
class Warned:
    """A caution with the names of what it is about."""

    slug: str
    message: str
    remedy: str
    model: str | None
    attack: str | None


@dataclass(frozen=True)
class Failure:
    """An attack that failed on a model at a budget, and why."""

    model: str
    attack: str
    eps: str
    reason: str


@dataclass(frozen=True)
class ModelRow:
    """Where a model comes from and whether its embedding space is alive."""

    name: str
    collapsed: bool
    columns: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class AttackRow:
    """The full configuration of an attack."""

    name: str
    spec: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    subject: str
    dataset: str
    facts: tuple[Fact, ...]
    chance: str
    headline: str | None
    verdicts: tuple[Verdict, ...]
    comparison: Comparison | None
    warnings: tuple[Warned, ...]
    failures: tuple[Failure, ...]
    tables: tuple[BudgetTable, ...]
    detail_columns: tuple[Column, ...]
    details: tuple[DetailRow, ...]
    chart: Chart
    gallery: Gallery
    models: tuple[ModelRow, ...]
    attacks: tuple[AttackRow, ...]
    environment: tuple[Fact, ...]
    citations: str
    version: str
    download: str


def build_page(results: Results, folder: Path) -> Page:
    """Turn results into a page, with the pictures of ``folder``.

    Raises:
        RunFolderError: a picture of the results is missing from the folder, or is none.
    """
    index = Index.of(results)
    return Page(
        subject=_subject(results.models),
        dataset=results.dataset.name,
        facts=_facts(index),
        chance=text.fraction(results.dataset.chance_recall_at_1),
        headline=headline(index),
        verdicts=verdicts(index),
        comparison=compare(index),
        warnings=_warnings(index),
        failures=_failures(index),
        tables=budget_tables(index),
        detail_columns=DETAIL_COLUMNS,
        details=detail_rows(index),
        chart=build_chart(index),
        gallery=build_gallery(index, folder),
        models=tuple(_model(model) for model in results.models),
        attacks=tuple(_attack(attack) for attack in results.attacks),
        environment=_environment(results),
        citations="\n\n".join(entry.strip() for entry in results.citations.values()),
        version=results.robustdml_version,
        download=_data_uri(results),
    )


def _subject(models: tuple[ModelEntry, ...]) -> str:
    return models[0].name if len(models) == 1 else text.counted(len(models), "model")


def _facts(index: Index) -> tuple[Fact, ...]:
    results = index.results
    dataset = results.dataset
    return (
        Fact("Data set", f"{dataset.name} ({text.counted(dataset.classes, 'class', 'classes')})"),
        Fact("Protocol", dataset.protocol),
        Fact("Queries", f"{text.count(dataset.queries)} of {text.count(dataset.queries_available)} available"),
        Fact("Gallery", _gallery_size(dataset)),
        Fact("Image size", f"{dataset.image_size} \N{MULTIPLICATION SIGN} {dataset.image_size} pixels"),
        Fact("Threat model", _threat(index)),
        Fact("Attacks", _runs(results)),
        Fact("Chance level", f"R@1 {text.fraction(dataset.chance_recall_at_1)} for a random ranking"),
        Fact("Created", f"{text.moment(results.created)}, in {text.duration(results.seconds)}"),
        Fact("robustdml", results.robustdml_version),
        Fact("Fingerprint", results.fingerprint),
    )


def _gallery_size(dataset: DatasetEntry) -> str:
    size = text.counted(dataset.gallery, "image")
    return f"{size}; a query never finds itself" if dataset.leave_self_out else f"{size}, separate from the queries"


def _threat(index: Index) -> str:
    if not index.budgets:
        return "no attack was run"
    bounded: dict[str, list[Budget]] = {}
    for budget in index.budgets:
        bounded.setdefault(budget.norm, []).append(budget)
    parts = []
    for norm, budgets in bounded.items():
        if norm == ANY_SIZE.norm:
            parts.append("attacks without a budget")
            continue
        sizes = ", ".join(format_eps(item.eps or 0.0) if norm == "linf" else f"{item.eps:g}" for item in budgets)
        parts.append(f"{NORMS[norm]} up to eps = {sizes}")
    return "; ".join(parts) + "; pixels in [0, 1]"


def _runs(results: Results) -> str:
    if not results.cells:
        return "none"
    failed = sum(cell.status == "failed" for cell in results.cells)
    runs = text.counted(len(results.cells), "run")
    outcome = f"{text.count(failed)} failed" if failed else "none failed"
    return f"{text.counted(len(results.attacks), 'attack')}, {runs} over models and eps, {outcome}"


def _warnings(index: Index) -> tuple[Warned, ...]:
    return tuple(
        Warned(
            caution.slug,
            caution.message,
            caution.remedy,
            caution.model,
            None if caution.attack is None else index.attack_name(caution.attack),
        )
        for caution in index.results.warnings
    )


def _failures(index: Index) -> tuple[Failure, ...]:
    return tuple(
        Failure(cell.model, index.attack_name(cell.attack), index.budget(cell).text, cell.reason or NO_REASON)
        for cell in index.results.cells
        if cell.status != "ok"
    )


def _model(model: ModelEntry) -> ModelRow:
    columns = (
        model.source,
        model.architecture,
        model.method or text.ABSENT,
        text.count(model.embedding_dim),
        text.count(model.parameters),
        f"{model.health.effective_rank:.1f}",
        text.fraction(model.health.mean_cosine),
    )
    return ModelRow(model.name, model.health.collapsed, columns, model.fingerprint)


def _attack(attack: AttackEntry) -> AttackRow:
    columns = (
        attack.library,
        attack.goal,
        KNOWLEDGE[attack.knowledge],
        NORMS[attack.norm],
        ", ".join(attack.citations) or text.ABSENT,
    )
    return AttackRow(attack.name, attack.spec, columns)


def _environment(results: Results) -> tuple[Fact, ...]:
    environment = results.environment
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    return (
        Fact("Python", environment.python),
        Fact("Platform", environment.platform),
        Fact("Device", environment.device),
        Fact("Packages", packages or text.ABSENT),
        Fact("Seed", str(results.spec.seed)),
    )


def _data_uri(results: Results) -> str:
    # The same text that `Results.save` writes: the download is the results file.
    encoded = base64.b64encode(results.model_dump_json(indent=1).encode()).decode()
    return f"data:application/json;base64,{encoded}"
