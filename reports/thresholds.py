"""Bars that a model must reach, as a pipeline states them: ``worst:recall@1=0.30``.

The form is ``WHAT[@EPS]:METRIC=NUMBER``. WHAT is ``clean``, ``worst`` (the worst case over all attacks), or the name or
spec of an attack; METRIC is one that the data set's protocol asks for, by its spelling or its title (``recall@1`` or
``R@1``, ``map@r``, ``mAP``); NUMBER is a share in [0, 1]. EPS is written as budgets are (``8/255``, or with its norm:
``l2 0.5``). Without it, the budget is the one that the report quotes first; an attack that has none of that norm is
held to the bar at all of its budgets. Every model of the run must reach every bar. ``WHAT:METRIC=NUMBER at EPS`` says
the same.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robustdml.errors import BudgetError, SpecError, UnknownNameError
from robustdml.results import MetricEntry, ModelEntry, Results
from robustdml.threat import NORMS, ThreatModel, format_eps, parse_budget

from . import text as words
from .index import ANY_SIZE, Index
from .measurements import Measurement, measurements

#: Measured means carry rounding errors of this order; a recall of 3 in 10 reaches a bar of 0.3.
_SLACK = 1e-9

_FORM = "write WHAT[@EPS]:METRIC=NUMBER, such as 'worst:recall@1=0.30' or 'pgd-margin@8/255:map@r=0.1'"
_BUDGET = re.compile(rf"(?:({'|'.join(NORMS)})[ :]\s*)?([0-9.e+-]+)(?:/([0-9.e+-]+))?", re.IGNORECASE)
_WORDS = {"clean": "when {}", "worst": "in the {}", "attack": "under {}"}


@dataclass(frozen=True)
class Threshold:
    """A bar, as `parse_threshold` reads it.

    Args:
        text: as it was written.
        what: ``clean``, ``worst``, or an attack (which may still hold an eps: only the run knows its attacks' names).
        metric: in small letters (see `metric_of`).
        lowest: the smallest value that is good enough.
    """

    text: str
    what: str
    metric: str
    lowest: float


@dataclass(frozen=True)
class Violation:
    """A bar that a model missed.

    Args:
        model: its name.
        threshold: the bar.
        key: what was measured (see `Measurement.key`); None where it was not measured at all.
        problem: what is wrong, without the model's name.
    """

    model: str
    threshold: Threshold
    key: tuple[str, str | None, ThreatModel | None] | None
    problem: str

    @property
    def sentence(self) -> str:
        """The violation as one line."""
        return f"{self.model}: {self.problem} (wanted: {self.threshold.text})"


def parse_threshold(text: str) -> Threshold:
    """Read a bar.

    Raises:
        SpecError: it has another form, its number is not in [0, 1], or its budget is none.
    """
    left, equals, number = text.rpartition("=")
    what, colon, name = left.rpartition(":")
    what, name = what.strip(), name.strip().lower()
    number, at, eps = number.partition(" at ")
    if at:
        what = f"{what}@{eps.strip()}"
    if not (equals and colon and what and name):
        raise SpecError(f"cannot read the threshold '{text}': {_FORM}")
    try:
        lowest = float(number)
    except ValueError:
        lowest = math.nan
    if not 0.0 <= lowest <= 1.0:
        raise SpecError(f"the threshold '{text}' ends in '{number.strip()}', which is no number in [0, 1]: {_FORM}")
    target, at, eps = what.rpartition("@")
    if at and target in {"clean", "worst"} and (target == "clean" or _read_budget(eps) is None):
        problem = "clean images have no eps" if target == "clean" else f"'{eps}' is no budget"
        raise SpecError(f"cannot read the threshold '{text}': {problem}; {_FORM}")
    return Threshold(text, what, name, lowest)


def metric_of(threshold: Threshold, metrics: Sequence[MetricEntry]) -> MetricEntry:
    """Which of some metrics a bar is about.

    Raises:
        UnknownNameError: none of them.
    """
    for metric in metrics:
        if threshold.metric in {metric.name, metric.spelling, metric.title.lower()}:
            return metric
    raise UnknownNameError("metric", threshold.metric, [metric.spelling for metric in metrics])


def violations(results: Results, thresholds: Sequence[Threshold]) -> tuple[Violation, ...]:
    """Every bar that a model missed, or at which it was not measured: what was not measured is not good enough.

    Raises:
        UnknownNameError: a bar is about a metric that is not among those of the results.
    """
    index = Index.of(results)
    metrics = [metric_of(threshold, results.dataset.metrics) for threshold in thresholds]
    return tuple(
        found
        for model in results.models
        for own in [measurements(index, model)]
        for threshold, metric in zip(thresholds, metrics, strict=True)
        for found in _check(index, model, own, threshold, metric)
    )


def _check(
    index: Index, model: ModelEntry, own: Sequence[Measurement], threshold: Threshold, metric: MetricEntry
) -> Iterator[Violation]:
    if threshold.what == "clean":
        chosen, missing = [item for item in own if item.condition == "clean"], ""
    else:
        chosen, missing = _chosen(index, own, threshold.what)
    if not chosen:
        yield Violation(model.name, threshold, None, missing)
    for item in chosen:
        if problem := item.reason if item.status == "withheld" else _problem(item, threshold, metric):
            yield Violation(model.name, threshold, item.key, problem)


def _chosen(index: Index, own: Sequence[Measurement], what: str) -> tuple[list[Measurement], str]:
    """The measurements that a bar is about, and what to say when there is none."""
    name, eps = _split(index, what)
    if name == "worst":
        candidates, label = [item for item in own if item.condition == "worst"], "the worst case"
        missing = "no attack was judged, so there is no worst case"
    else:
        candidates = [item for item in own if item.condition == "attack" and name in {item.attack, item.attack_name}]
        near = difflib.get_close_matches(name, index.attack_names.values(), n=1)
        label, missing = name, f"the attack '{name}' was not run" + (f" (did you mean '{near[0]}'?)" if near else "")
    if not candidates:
        return [], missing
    if eps is not None:
        norm, size = eps
        if isinstance(size, ThreatModel):
            return [item for item in candidates if item.budget == size], f"{label} at {size.text} was not measured"
        at = [
            item
            for item in candidates
            if item.budget and item.budget.eps is not None and item.budget.channels is None
            if math.isclose(item.budget.eps, size, rel_tol=1e-6)
            # A bare number means L-infinity for the worst case, and the attack's own norm for an attack.
            if item.budget.norm == (norm or ("linf" if name == "worst" else item.budget.norm))
        ]
        written = format_eps(size) if norm in {None, "linf"} else f"{NORMS[norm]} {size:g}"
        return at, f"{label} at {written} was not measured"
    headline = index.headline
    norm_known = headline is not None and any(
        item.budget and item.budget.norm == headline.norm and item.budget != ANY_SIZE for item in candidates
    )
    if headline is None or not (norm_known or name == "worst"):
        return candidates, missing
    return [item for item in candidates if item.budget == headline], f"{label} at {headline.text} was not measured"


def _split(index: Index, what: str) -> tuple[str, tuple[str | None, float | ThreatModel] | None]:
    """The name and the budget in what a user wrote; a name that holds an @ itself is found whole first."""
    names = {"worst", *index.attack_names, *index.attack_names.values()}
    target, at, text = what.rpartition("@")
    eps = _read_budget(text) if at and what not in names else None
    return (what, None) if eps is None else (target.strip(), eps)


def _read_budget(text: str) -> tuple[str | None, float | ThreatModel] | None:
    """A norm (None: not said) and a size, or a budget per channel; None where the text is no budget."""
    try:
        threat = parse_budget(text)
    except BudgetError:
        threat = None
    if threat is not None and threat.channels is not None:
        return threat.norm, threat
    match = _BUDGET.fullmatch(text.strip())
    if not match:
        return None
    norm, top, bottom = match.groups()
    try:
        size = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return None
    if not (math.isfinite(size) and size >= 0):
        return None
    return (norm.lower() if norm else None), size


def _problem(item: Measurement, threshold: Threshold, metric: MetricEntry) -> str | None:
    """What is wrong with a measurement, if anything."""
    if item.score is None:
        return f"{item.label} {item.status}: {item.reason or 'no reason was recorded'}"
    value = item.score.metrics[metric.name]
    missed = value < threshold.lowest - _SLACK
    written = f"{value:.3f}"
    if missed and written == f"{threshold.lowest:.3f}":
        written = f"{value:.9g}"  # in three decimals it would be the bar itself
    shown = f"{metric.spelling} {written} {_WORDS[item.condition].format(item.label)}"
    if missed:
        return f"{shown} is below {threshold.lowest:.9g}"
    if item.attacks_failed:
        return f"{shown} may be too high, as it leaves out {words.counted(item.attacks_failed, 'attack')} that failed"
    return None
