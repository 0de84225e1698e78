"""What a finished evaluation says on the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from robustdml.cli.output import TEXT, Output
from robustdml.overview import flag_line
from robustdml.printable import plain
from robustdml.threat import NORMS, ThreatModel, format_size

if TYPE_CHECKING:
    from robustdml.reports import Outputs
    from robustdml.results import Cell, Curve, DatasetEntry, Flag, ModelEntry, Results, Score


def data_lines(dataset: DatasetEntry) -> Iterator[str]:
    """What of the data was left out, changed or there twice, as lines of the console."""
    if dataset.left_out:
        parts = ", ".join(f"{part.what} ({part.count:,})" for part in dataset.left_out)
        yield f"Data: {dataset.images:,} images used; left out: {parts}; listed in left-out.csv."
    for part in dataset.remarks:
        names = ", ".join(part.names) + (", ..." if part.count > len(part.names) else "")
        yield f"Data: of {part.count:,} images: {part.what} ({names})."


def _half_distortion(curve: Curve | None) -> str:
    if curve is None:
        return "-"
    return "not reached" if curve.half_distortion is None else format_size(curve.half_distortion, curve.norm)


def summarise(results: Results, output: Output = TEXT) -> None:
    """Print what was measured on what, the headline of each model clean and in its worst cases, and every flag."""
    if not output.as_json:
        _print_table(results)
    for line in (*_headlines(results), *data_lines(results.dataset), *_beside(results)):
        output.line(line)
    # Failures are counted below: one line for each would bury the rest.
    for flag in results.flags:
        if flag.slug != "attack-failed":
            output.line(flag_line(flag))
    for status in ("failed", "skipped"):
        reasons = [cell.reason for cell in results.cells if cell.status == status]
        if reasons:
            output.line(
                f"{len(reasons)} of {len(results.cells)} attack runs {status}, the first since {reasons[0]}; "
                "the report gives all reasons."
            )


def _print_table(results: Results) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    title = (
        f"{results.dataset.headline_metric.title} on {escape(results.dataset.name)}, {results.dataset.queries} queries"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("model", overflow="fold", min_width=4)
    table.add_column("clean", justify="right", min_width=5)
    budgets = list(dict.fromkeys(worst.threat for worst in results.worst))
    for budget in budgets:
        table.add_column(f"worst at {budget.text}", justify="right", min_width=5)
    curves = {(curve.model, curve.norm): curve for curve in results.curves}
    drawn = list(dict.fromkeys(curve.norm for curve in results.curves))
    for norm in drawn:
        table.add_column(f"half-distortion in {NORMS[norm]}", justify="right")
    for model in results.models:
        own = [item for item in results.worst if item.model == model.name]
        withheld = results.invalid(model.name) is not None
        recalls = {item.threat: "invalid" if withheld else f"{item.score.value:.3f}" for item in own}
        clean = f"{model.clean.value:.3f}"
        own_curves = [curves.get((model.name, norm)) for norm in drawn]
        sizes = ["invalid" if curve and withheld else _half_distortion(curve) for curve in own_curves]
        table.add_row(escape(model.name), clean, *(recalls.get(budget, "-") for budget in budgets), *sizes)
    Console().print(table)


def _headlines(results: Results) -> Iterator[str]:
    """Images and gallery; then for each model its headline with the interval, clean and at each budget."""
    data, metric = results.dataset, results.dataset.headline_metric.title
    sizes = {model.name: model.preprocessing.sides for model in results.models if model.preprocessing}
    texts = {name: f"{sides[0]} x {sides[1]}" for name, sides in sizes.items()}
    one = next(iter(texts.values()), f"{data.image_size} x {data.image_size}")
    named = one if len(set(texts.values())) < 2 else ", ".join(f"{size} ({name})" for name, size in texts.items())
    drawn = "" if data.queries == data.queries_available else f" (a sample of {data.queries_available:,})"
    silent = [model.name for model in results.models if model.declared is None]
    named += " pixels"
    if silent:
        named += f" (chosen by --image-size or the data set: {', '.join(silent)} does not say)"
    yield plain(f"Images of {named}; {data.queries:,} queries{drawn}; {data.gallery:,} images in the gallery.")
    for model in results.models:
        yield plain(f"{model.name}, clean: {metric} {_scored(model.clean)}.")
        if results.invalid(model.name) is not None:
            yield plain(f"{model.name}, worst case: invalid, as the flag says that is listed below.")
            continue
        for worst in (worst for worst in results.worst if worst.model == model.name):
            hardest = _hardest(results, model, worst.threat)
            under = "" if hardest is None else f"; hardest alone: {_attack(results, hardest)}"
            yield plain(f"{model.name}, worst case at {worst.threat.text}: {metric} {_scored(worst.score)}{under}.")


def _scored(score: Score) -> str:
    return f"{score.value:.3f} (95 % interval {score.low:.3f} to {score.high:.3f})"


def _hardest(results: Results, model: ModelEntry, budget: ThreatModel) -> Cell | None:
    """The attack on queries under which the headline is lowest at a budget, the first of equals."""
    on_queries = {entry.spec for entry in results.attacks if entry.side == "query"}
    own = [
        cell
        for cell in results.cells
        if cell.model == model.name and cell.threat == budget and cell.score and cell.attack in on_queries
    ]
    return min(own, key=lambda cell: cell.score.value if cell.score else 1.0, default=None)


def _attack(results: Results, cell: Cell) -> str:
    name = next(entry.name for entry in results.attacks if entry.spec == cell.attack)
    return f"{name} {cell.score.value:.3f}" if cell.score else name


def _beside(results: Results) -> Iterator[str]:
    """What was measured beside the attacks."""
    for found in results.certified:
        kind = "votes of" if found.certificate == "vote" else "the mean embedding of"
        yield (
            f"{found.model} smoothed by noise of sigma {found.sigma:g}, by {kind} {found.samples} copies: R@1 "
            f"{found.recall_at_1:.3f}, certified {found.recall(found.sigma):.3f} within L2 {found.sigma:g}"
        )
    for model in results.models:
        changes = [change for change in results.natural if change.model == model.name and change.family != "geometry"]
        if changes:
            hardest, mean = min(changes, key=lambda change: change.value), sum(change.value for change in changes)
            yield (
                f"{model.name} under common corruptions: {mean / len(changes):.3f} on average, {hardest.value:.3f} "
                f"under the worst ({hardest.title}, severity {hardest.severity})"
            )


def data_of(results: Results) -> dict[str, Any]:
    """What `summarise` says, as JSON values; ``results.json`` of the run has everything."""
    data = results.dataset
    return {
        "dataset": data.name,
        "metric": data.headline,
        "queries": data.queries,
        "queries_available": data.queries_available,
        "gallery": data.gallery,
        "models": [_model_data(results, model) for model in results.models],
        "attack_runs": {
            status: sum(cell.status == status for cell in results.cells) for status in ("ok", "failed", "skipped")
        },
        "flags": [flag_data(flag) for flag in results.flags],
        "seconds": results.seconds,
        "fingerprint": results.fingerprint,
    }


def _model_data(results: Results, model: ModelEntry) -> dict[str, Any]:
    withheld = results.invalid(model.name)
    sides = model.preprocessing.sides if model.preprocessing else (results.dataset.image_size,) * 2
    worst = []
    for found in (found for found in results.worst if found.model == model.name and withheld is None):
        hardest = _hardest(results, model, found.threat)
        worst.append(
            {
                "budget": found.threat.text,
                "norm": found.threat.norm,
                "eps": found.threat.eps,
                **_score_data(found.score),
                "hardest_attack": None if hardest is None else hardest.attack,
                "attacks_failed": found.attacks_failed,
            }
        )
    return {
        "name": model.name,
        "source": model.source,
        "image_size": list(sides),
        "clean": _score_data(model.clean),
        "worst": worst,
        "invalid": None if withheld is None else withheld.slug,
    }


def _score_data(score: Score) -> dict[str, Any]:
    return {"value": score.value, "low": score.low, "high": score.high, "metrics": dict(score.metrics.root)}


def flag_data(flag: Flag) -> dict[str, Any]:
    """A flag as JSON values."""
    return flag.model_dump(mode="json")


def files_data(written: Outputs) -> dict[str, Any]:
    """The page and the files beside it, and what is below a bar, as JSON values."""
    return {
        "report": str(written.page),
        "files": [str(path) for path in written.others],
        "below": [violation.sentence for violation in written.violations],
    }
