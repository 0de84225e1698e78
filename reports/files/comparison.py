"""What changed from one run to another, for pipelines: Markdown for a comment, and JUnit XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from robustdml.files import write_text
from robustdml.printable import plain

from .. import text
from ..merging.changes import Change, ModelChanges, RunChanges
from .junit import add, document
from .markdown import escape, table

#: What stands for a verdict in Markdown, in which nothing has a colour.
_SIGNS = {"better": "+ better", "worse": "**- worse**", "unclear": "="}
#: Longer names are cut.
_NAME = 60


def write_comparison(
    changes: RunChanges, *, markdown: str | Path | None = None, junit: str | Path | None = None
) -> tuple[Path, ...]:
    """Write what is asked for, and return the files in the order of the arguments."""
    written = []
    if markdown:
        written.append(write_text(Path(markdown), comparison_markdown(changes)))
    if junit:
        written.append(write_text(Path(junit), comparison_junit(changes)))
    return tuple(written)


def comparison_markdown(changes: RunChanges) -> str:
    """The verdict of each model, and a row for each condition, short enough for a comment on a pull request."""
    lines = [f"### {escape(changes.metric.title)}: {escape(changes.before)} → {escape(changes.after)}", ""]
    for model in changes.models:
        counts = ", ".join(f"{model.count(verdict)} {verdict}" for verdict in ("better", "worse"))
        lines += [f"**{_names(model)}**: {counts}, {model.count('unclear')} not clearly different", ""]
        lines += table(("Condition", "Before", "After", "Change", "p", ""), [_row(change) for change in model.changes])
        lines += ["", *(f"- {escape(curve.line)}" for curve in model.curves)]
        lines += [f"- {escape(note)}" for note in (*(["the weights are the same"] * model.same_weights), *model.notes)]
        lines.append("")
    if changes.unmatched:
        lines += [f"Not in both runs: {', '.join(map(escape, changes.unmatched))}.", ""]
    return "\n".join([*lines, escape(changes.method)]) + "\n"


def _names(model: ModelChanges) -> str:
    names = [model.before] if model.before == model.after else [model.before, model.after]
    return " → ".join(escape(text.shortened(name, _NAME)) for name in names)


def _row(change: Change) -> list[str]:
    before, after = (text.ABSENT if score is None else f"{score.value:.3f}" for score in (change.before, change.after))
    label = escape(text.shortened(change.label, _NAME))
    if change.before is None or change.after is None or change.verdict is None:
        return [label, before, after, text.ABSENT, text.ABSENT, escape(change.reason or "")]
    p_value = text.ABSENT if change.p_value is None else f"{change.p_value:.2g}"
    difference = change.after.value - change.before.value
    return [label, before, after, f"{difference:+.3f}", p_value, _SIGNS[change.verdict]]


def comparison_junit(changes: RunChanges) -> str:
    """A suite for each model and a test for each condition.

    What got worse is a failure, what was judged before and not after is an error, and what was not judged before is
    skipped. All else passes.
    """
    root = ElementTree.Element("testsuites", name="robustdml compare")
    for model in changes.models:
        name = plain(model.after if model.before == model.after else f"{model.before} -> {model.after}")
        suite = ElementTree.SubElement(root, "testsuite", name=name)
        for change in model.changes:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=plain(change.label), time="0.000")
            if change.verdict == "worse":
                add(case, "failure", change.line(changes.metric.title), "worse")
            elif change.lost_sight:
                add(case, "error", change.reason or "", "not-judged")
            elif change.verdict is None:
                add(case, "skipped", change.reason or "", None)
            if change.before is not None and change.after is not None:
                ElementTree.SubElement(case, "system-out").text = change.line(changes.metric.title)
    return document(root)
