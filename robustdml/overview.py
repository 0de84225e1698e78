"""Results at a glance: for a console, for a notebook, and as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any, Literal, get_args

from robustdml.bits import unpack_hits
from robustdml.errors import UnknownNameError
from robustdml.importing import needed
from robustdml.printable import plain
from robustdml.threat import NORMS, format_size

if TYPE_CHECKING:  # the results know this module
    from robustdml.results import Flag, Results, Score

#: What `Results.to_pandas` gives.
Table = Literal["scores", "queries", "flags"]
#: Flags of a glance: the page has all.
_FLAGS = 8

_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL = "padding:.2em .8em;white-space:nowrap;text-align:{};border-bottom:1px solid #8885"


def text_of(results: Results) -> str:
    """What was measured, in a few lines of text."""
    heads, rows = _table(results)
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(cells))
        for row in (heads, *rows)
        if (cells := list(zip(row, widths, strict=True)))
    ]
    return "\n".join([_title(results), *(line.rstrip() for line in lines), *_remarks(results)])


def html_of(results: Results) -> str:
    """The same as HTML: a table and the flags, without a script."""
    heads, rows = _table(results)
    body = [_row("th", heads), *(_row("td", row) for row in rows)]
    notes = "".join(f"<li>{escape(line)}</li>" for line in _remarks(results))
    return (
        f'<div><p>{escape(_title(results))}</p><table style="{_STYLE}">{"".join(body)}</table>'
        + (f"<ul>{notes}</ul>" if notes else "")
        + "</div>"
    )


def frame_of(results: Results, table: str) -> Any:
    """The rows of `score_rows`, `query_rows` or `flag_rows` as a frame of pandas.

    Raises:
        UnknownNameError: there is no such table.
        MissingPackageError: pandas is not installed.
    """
    if table not in _ROWS:
        raise UnknownNameError("table of results", str(table), get_args(Table))
    return needed("pandas", "pandas", "to_pandas()").DataFrame.from_records(list(_ROWS[table](results)))


def score_rows(results: Results) -> Iterator[dict[str, Any]]:
    """A row for each model clean, in each worst case, and under each attack at each budget."""
    names = {attack.spec: attack for attack in results.attacks}
    for model in results.models:
        yield {
            "model": model.name,
            "condition": "clean",
            "attack": None,
            "knowledge": None,
            "norm": None,
            "eps": 0.0,
            "status": "ok",
            **_scores(results, model.clean),
            "relative_recall": 1.0 if model.clean.value else None,
            "withheld": False,
            "seconds": None,
            "reason": None,
        }
        withheld = results.invalid(model.name) is not None
        for worst in (worst for worst in results.worst if worst.model == model.name):
            yield {
                "model": model.name,
                "condition": "worst",
                "norm": worst.norm,
                "eps": worst.eps,
                "status": "ok",
                **_scores(results, worst.score),
                "relative_recall": worst.relative_recall,
                "withheld": withheld,
            }
        for cell in (cell for cell in results.cells if cell.model == model.name):
            yield {
                "model": model.name,
                "condition": "attack",
                "attack": names[cell.attack].name,
                "knowledge": names[cell.attack].knowledge,
                "norm": cell.threat.norm,
                "eps": cell.eps,
                "status": cell.status,
                **_scores(results, cell.score),
                "relative_recall": cell.relative_recall,
                "withheld": withheld,
                "seconds": cell.seconds,
                "reason": cell.reason,
            }


def query_rows(results: Results) -> Iterator[dict[str, Any]]:
    """A row for each query of each model clean, in each worst case, and under each attack: was its first hit right."""
    names = {attack.spec: attack.name for attack in results.attacks}
    queries, count = results.queries, results.dataset.queries
    judged: list[tuple[str, str, str | None, str | None, float | None, str]] = [
        (model.name, "clean", None, None, 0.0, model.clean_hits) for model in results.models
    ]
    judged += [(one.model, "worst", None, one.norm, one.eps, one.hits) for one in results.worst]
    judged += [
        (cell.model, "attack", names[cell.attack], cell.threat.norm, cell.eps, cell.hits)
        for cell in results.cells
        if cell.hits is not None
    ]
    for model, condition, attack, norm, eps, bits in judged:
        for number, place, hit in zip(queries.ids, queries.classes, unpack_hits(bits, count), strict=True):
            yield {
                "model": model,
                "condition": condition,
                "attack": attack,
                "norm": norm,
                "eps": eps,
                "query": number,
                "class": queries.class_names[place],
                "hit": hit,
            }


def flag_rows(results: Results) -> Iterator[dict[str, Any]]:
    """A row for each flag, the gravest first."""
    names = {attack.spec: attack.name for attack in results.attacks}
    for flag in results.flags:
        own = flag.model_dump()
        yield own | {"attack": None if flag.attack is None else names.get(flag.attack, flag.attack)}


_ROWS = {"scores": score_rows, "queries": query_rows, "flags": flag_rows}


def flag_line(flag: Flag) -> str:
    """A flag as one line."""
    return f"{(flag.grade or 'flag').capitalize()} ({flag.slug}): {flag.title}. {flag.message} {flag.remedy}"


def _scores(results: Results, score: Score | None) -> dict[str, Any]:
    metrics = {
        metric.name: None if score is None else score.metrics.root.get(metric.name)
        for metric in results.dataset.metrics
    }
    return {**metrics, "low": score and score.low, "high": score and score.high}


def _title(results: Results) -> str:
    data = results.dataset
    asked = f"{data.queries:,} queries"
    if data.queries < data.queries_available:
        asked = f"{data.queries:,} of {data.queries_available:,} queries"
    return (
        f"{data.headline_metric.title} on {plain(data.name)}: {asked}, {data.gallery:,} gallery images, "
        f"{len(results.attacks)} attack{'s' * (len(results.attacks) != 1)}; 95 % intervals; a random ranking: "
        f"{data.chance:.3f}"
    )


def _table(results: Results) -> tuple[list[str], list[list[str]]]:
    """The headline of each model clean, in each worst case, and how far its curves reach."""
    budgets = list(dict.fromkeys(worst.threat for worst in results.worst))
    norms = list(dict.fromkeys(curve.norm for curve in results.curves))
    worst = {(one.model, one.threat): _with_interval(one.score) for one in results.worst}
    half = {(curve.model, curve.norm): _half(curve.half_distortion, curve.norm) for curve in results.curves}
    heads = ["model", "clean", *(f"worst at {budget.text}" for budget in budgets)]
    heads += [f"half-distortion in {NORMS[norm]}" for norm in norms]
    rows = []
    for model in results.models:
        found = [worst.get((model.name, budget), "-") for budget in budgets]
        found += [half.get((model.name, norm), "-") for norm in norms]
        if results.invalid(model.name) is not None:
            found = ["invalid" for _ in found]
        rows.append([plain(model.name), _with_interval(model.clean), *found])
    return heads, rows


def _with_interval(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _half(size: float | None, norm: str) -> str:
    return "not reached" if size is None else format_size(size, norm)


def _remarks(results: Results) -> list[str]:
    """Grave flags, and what was not judged."""
    grave = [flag for flag in results.flags if flag.grade in {"invalid", "grave"}]
    lines = [plain(flag_line(flag)) for flag in grave[:_FLAGS]]
    if len(results.flags) > len(lines):
        rest = len(results.flags) - len(lines)
        word = f"{'more ' if lines else ''}flag{'s' * (rest > 1)}"
        lines.append(f"{rest} {word}: to_pandas('flags'), or the report.")
    for status in ("failed", "skipped"):
        reasons = [cell.reason for cell in results.cells if cell.status == status]
        if reasons:
            first = plain(reasons[0] or "")
            lines.append(f"{len(reasons)} of {len(results.cells)} attack runs {status}, the first since {first}.")
    return lines


def _row(kind: str, cells: list[str]) -> str:
    parts = (
        f'<{kind} style="{_CELL.format("right" if place else "left")}">{escape(cell)}</{kind}>'
        for place, cell in enumerate(cells)
    )
    return f"<tr>{''.join(parts)}</tr>"
