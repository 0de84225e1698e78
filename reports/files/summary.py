"""A run in a few lines of Markdown, fit for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from robustdml.results import Curve, Flag, ModelEntry, Results, WorstCase

from .. import text
from ..index import Index
from ..measurements import Measurement, measurements, weakest
from ..thresholds import Violation
from .markdown import escape, table

#: Longer names are cut, and more lines only counted: a comment is read at a glance, the report has them all.
_NAME, _LINES = 60, 20


def markdown_summary(results: Results, missed: Sequence[Violation] | None = None) -> str:
    """The verdict, the hardest attack of each model and the warnings.

    Args:
        missed: the bars that were missed; None where none was set.
    """
    index = Index.of(results)
    dataset = results.dataset
    lines = [
        f"### Retrieval under attack: {escape(dataset.name)}",
        "",
        *table(
            ("Model", f"Clean {index.metric.title}", "NMI", "π ratio", _worst_head(index), "Kept", "Hardest attack"),
            _rows(index),
        ),
        "",
        f"{text.counted(dataset.queries, 'query', 'queries')}, {text.counted(dataset.gallery, 'gallery image')}; "
        f"chance {text.fraction(dataset.chance)}; 95 % intervals from a bootstrap over classes. "
        "NMI and π ratio are of the clean gallery. Worst case: each query under the attack that hurts it most.",
    ]
    if results.curves:
        lines += ["", *_listed([_curve(results, curve) for curve in results.curves])]
    if missed is not None:
        lines += ["", "**Thresholds:** " + (f"{len(missed)} missed" if missed else "all reached"), ""]
        lines += _listed([escape(violation.sentence) for violation in missed])
    failed = sum(cell.status == "failed" for cell in results.cells)
    if failed:
        lines += ["", f"**{failed} of {text.counted(len(results.cells), 'attack run')} failed.**"]
    # Failures are counted above; one flag for each would bury the others.
    warnings = [flag for flag in results.flags if flag.slug != "attack-failed"]
    if warnings:
        lines += ["", "**Flags**", "", *_listed([_flag(flag) for flag in warnings])]
    lines += [
        "",
        f"robustdml {escape(results.robustdml_version)}, {escape(text.moment(results.created))}, "
        f"fingerprint {escape(results.fingerprint)}",
    ]
    return "\n".join(lines) + "\n"


def _curve(results: Results, curve: Curve) -> str:
    invalid = results.invalid(curve.model)
    found = f"invalid: {escape(invalid.title)}" if invalid else escape(text.curve(curve))
    return f"{escape(text.shortened(curve.model, _NAME))}: {found}"


def _worst_head(index: Index) -> str:
    at = "" if index.headline is None else f" at {index.headline.text}"
    return f"Worst-case {index.metric.title}{at}"


def _rows(index: Index) -> list[list[str]]:
    return [_row(index, model, measurements(index, model)) for model in index.results.models]


def _row(index: Index, model: ModelEntry, own: tuple[Measurement, ...]) -> list[str]:
    worst = None if index.headline is None else index.worst.get((model.name, index.headline))
    hardest = weakest(own, index.headline)
    invalid = index.results.invalid(model.name)
    kept = None if invalid or worst is None else worst.relative_recall
    name = escape(text.shortened(model.name, _NAME))
    return [
        f"{name} (collapsed)" if model.health.collapsed else name,
        f"{text.fraction(model.clean.value)} ({text.interval(model.clean)})",
        text.nmi(model),
        text.fraction(model.pi_ratio),
        f"invalid: {escape(invalid.title)}" if invalid else _worst(worst),
        text.ABSENT if kept is None else text.percent(kept),
        text.ABSENT
        if hardest is None or hardest.score is None
        else f"{escape(text.shortened(hardest.attack_name or '', _NAME))} {text.fraction(hardest.score.value)}",
    ]


def _worst(worst: WorstCase | None) -> str:
    return text.ABSENT if worst is None else f"{text.fraction(worst.score.value)} ({text.interval(worst.score)})"


def _flag(flag: Flag) -> str:
    about = "" if flag.model is None else f" ({escape(text.shortened(flag.model, _NAME))})"
    kind = f"{flag.grade.capitalize()}: {escape(flag.title)} " if flag.grade else ""
    return f"{kind}**{escape(flag.slug)}**{about}: {escape(flag.message)} {escape(flag.remedy)}"


def _listed(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - _LINES} more, in the report"] if len(lines) > _LINES else []
    return [f"- {line}" for line in (*lines[:_LINES], *more)]
