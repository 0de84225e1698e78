"""Results turned into what the page shows: frozen dataclasses of finished text, so that templates only print."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustdml.results import DatasetEntry, MetricEntry, ModelEntry, Results
from robustdml.threat import NORMS, ThreatModel

from .. import text
from ..index import ANY_SIZE, Index
from ..thresholds import Threshold
from .charts import CHART_SECTIONS
from .curves import curves_section
from .data import data_section
from .examples import examples_section
from .flags import flags_section
from .method import method_section
from .published_measures import published_measures_section
from .sections import Builder, Section
from .stages import stages_section
from .tables import tables_section
from .verdicts import verdict_section

SECTIONS: tuple[Builder, ...] = (
    verdict_section,
    flags_section,
    tables_section,
    stages_section,
    curves_section,
    *CHART_SECTIONS,
    published_measures_section,
    examples_section,
    data_section,
    method_section,
)


#: Results of more bytes are compressed: they would be a large part of the page.
_LARGE_DOWNLOAD = 50_000


@dataclass(frozen=True)
class Download:
    """The results as a file that the page carries."""

    name: str
    uri: str


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    subject: str
    dataset: str
    metric: MetricEntry
    facts: tuple[text.Fact, ...]
    sections: tuple[Section, ...]
    version: str
    download: Download


def build_page(results: Results, folder: Path, bars: Sequence[Threshold] = ()) -> Page:
    """Turn results into a page, with the pictures of ``folder`` and whether the models reach the bars.

    Raises:
        RunFolderError: a picture of the results is missing from the folder, or is none.
    """
    index = Index.of(results, bars)
    return Page(
        subject=_subject(results.models),
        dataset=results.dataset.name,
        metric=index.metric,
        facts=_facts(index),
        sections=tuple(section for build in SECTIONS if (section := build(index, folder)) is not None),
        version=results.robustdml_version,
        download=_download(results),
    )


def _subject(models: tuple[ModelEntry, ...]) -> str:
    return models[0].name if len(models) == 1 else text.counted(len(models), "model")


def _facts(index: Index) -> tuple[text.Fact, ...]:
    results = index.results
    dataset = results.dataset
    own = {model.preprocessing.sides for model in results.models if model.preprocessing} or {results.image_sides}
    size = ", ".join(f"{height} \N{MULTIPLICATION SIGN} {width}" for height, width in sorted(own)) + " pixels"
    size = size if dataset.image_size else "embeddings alone"
    return (
        text.Fact("Data set", f"{dataset.name}: {text.counted(dataset.classes, 'class', 'classes')}, {size}"),
        text.Fact("Queries", f"{text.count(dataset.queries)} of {text.count(dataset.queries_available)} available"),
        text.Fact("Gallery", _gallery_size(dataset)),
        text.Fact("Threat model", _threat(index)),
        text.Fact("Attacks", _runs(results)),
        text.Fact("Created", f"{text.moment(results.created)}, in {text.duration(results.seconds)}"),
    )


def _gallery_size(dataset: DatasetEntry) -> str:
    size = text.counted(dataset.gallery, "image")
    return f"{size}; a query never finds itself" if dataset.leave_self_out else f"{size}, separate from the queries"


def _threat(index: Index) -> str:
    if not index.budgets:
        return "no attack was run"
    bounded: dict[str, list[ThreatModel]] = {}
    for budget in index.budgets:
        bounded.setdefault("" if budget == ANY_SIZE else budget.norm, []).append(budget)
    parts = []
    for norm, budgets in bounded.items():
        if not norm:
            parts.append("attacks without a budget")
            continue
        sizes = ", ".join(item.text if norm == "linf" else f"{item.eps:g}" for item in budgets)
        parts.append(f"{NORMS[norm]} up to eps = {sizes}")
    return "; ".join(parts) + "; pixels in [0, 1]"


def _runs(results: Results) -> str:
    if not results.cells:
        return "none"
    failed = sum(cell.status == "failed" for cell in results.cells)
    skipped = sum(cell.status == "skipped" for cell in results.cells)
    runs = text.counted(len(results.cells), "run")
    outcome = f"{text.count(failed)} failed" if failed else "none failed"
    outcome += f", {text.count(skipped)} skipped" if skipped else ""
    return f"{text.counted(len(results.attacks), 'attack')}, {runs} over models and eps, {outcome}"


def _download(results: Results) -> Download:
    # The results file without its spaces, which would be a third of it.
    data = results.model_dump_json().encode()
    name, kind = "results.json", "application/json"
    if len(data) > _LARGE_DOWNLOAD:
        # Without a time of its own: the same results give the same page.
        data, name, kind = gzip.compress(data, mtime=0), f"{name}.gz", "application/gzip"
    return Download(name, f"data:{kind};base64,{base64.b64encode(data).decode()}")
