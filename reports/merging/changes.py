"""What got better or worse from one run to another, and whether by more than chance explains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from robustdml.errors import RunFolderError, UnknownNameError
from robustdml.importing import needed
from robustdml.results import MetricEntry, ModelEntry, Results, Score
from robustdml.threat import NORMS, format_size
from robustdml.values import ByValue

from .. import text
from ..index import Index
from ..measurements import Measurement, measurements
from ..statistics import compare_all

#: Searches do not tell sizes apart that are nearer to each other than this.
_NEAR = 1.01

Verdict = Literal["better", "worse", "unclear"]
Measured = tuple[Measurement, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Change(ByValue):
    """One condition (clean, a worst case, an attack) before and after.

    Args:
        label: the condition for a reader.
        condition: which kind it is.
        before: its score; None where the attack failed or was skipped.
        after: the same.
        reason: why there is no comparison; None where there is.
        lost: queries that were right before and are wrong after; None where the queries are not the same.
        won: queries that were wrong before and are right after.
        p_value: of McNemar's exact test on these, corrected by Holm over all tests of the comparison.
        verdict: on the headline; None where there is no comparison.
    """

    label: str
    condition: Literal["clean", "worst", "attack"]
    before: Score | None
    after: Score | None
    reason: str | None = None
    lost: int | None = None
    won: int | None = None
    p_value: float | None = None
    verdict: Verdict | None = None

    @property
    def lost_sight(self) -> bool:
        """Whether it was judged before and is not any more, so that nobody knows whether it got worse."""
        return self.before is not None and self.after is None

    def line(self, metric: str) -> str:
        """Before and after in a line, with the metric called so."""
        before, after = ("not judged" if score is None else f"{score.value:.3f}" for score in (self.before, self.after))
        p_value = "" if self.p_value is None else f" (p = {self.p_value:.2g})"
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.label}: {metric} {before} -> {after}{p_value}{reason}"

    @property
    def differences(self) -> dict[str, float] | None:
        """After less before, by the name of each metric that both have; None where one score is missing."""
        if self.before is None or self.after is None:
            return None
        before, after = self.before.metrics.root, self.after.metrics.root
        return {name: after[name] - value for name, value in before.items() if name in after}


@dataclass(frozen=True, eq=False, repr=False)
class CurveChange(ByValue):
    """The curve of a model in one norm before and after; None where R@1 never fell so far.

    Args:
        norm: as it is named in results.
        half: half-distortion before and after.
        median: median eps before and after.
        rose: queries that need a larger eps than before, by more than a hundredth; None where the queries are not the
            same.
        fell: queries that need a smaller one.
    """

    norm: str
    half: tuple[float | None, float | None]
    median: tuple[float | None, float | None]
    rose: int | None
    fell: int | None

    @property
    def line(self) -> str:
        """In a line."""
        half, median = (
            " -> ".join("not reached" if size is None else format_size(size, self.norm) for size in sizes)
            for sizes in (self.half, self.median)
        )
        line = f"{NORMS[self.norm]}: half-distortion {half}, median eps {median}"
        return (
            line if self.rose is None else f"{line}; {self.rose} queries need a larger eps, {self.fell} a smaller one."
        )


@dataclass(frozen=True, eq=False, repr=False)
class ModelChanges(ByValue):
    """One model before, and the one that it is compared with.

    Args:
        before: the name of the first.
        after: the name of the second.
        same_weights: whether they are the same by their hash.
        notes: what makes the comparison less than it seems.
        changes: clean first, then budget by budget the worst case and the attacks.
        curves: those that both have.
    """

    before: str
    after: str
    same_weights: bool
    notes: tuple[str, ...]
    changes: tuple[Change, ...]
    curves: tuple[CurveChange, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """Conditions with a verdict."""
        return sum(change.verdict == verdict for change in self.changes)


@dataclass(frozen=True, eq=False, repr=False)
class RunChanges(ByValue):
    """Two runs.

    Args:
        before: the first, as it was named.
        after: the second.
        metric: the headline of both, on which changes are judged.
        metrics: all that both have.
        unpaired: why the queries cannot be compared one by one; None where they can. Then a change counts where the
            95 % intervals of the headline do not overlap, which is stricter than a test.
        models: the pairs.
        unmatched: models of one run that the other does not have.
    """

    before: str
    after: str
    metric: MetricEntry
    metrics: tuple[MetricEntry, ...]
    unpaired: str | None
    models: tuple[ModelChanges, ...]
    unmatched: tuple[str, ...]

    @property
    def method(self) -> str:
        """How it was judged what is better and what is worse, in a sentence."""
        if self.unpaired is not None:
            return f"No test, as {self.unpaired}: a difference counts where the 95 % intervals do not overlap."
        tests = sum(change.p_value is not None for model in self.models for change in model.changes)
        return f"p: McNemar's exact test on the same queries, corrected by Holm over all {tests} tests."

    @property
    def worse(self) -> tuple[tuple[ModelChanges, Change], ...]:
        """What got worse, and what was judged before and is not any more."""
        return tuple(
            (model, change)
            for model in self.models
            for change in model.changes
            if change.verdict == "worse" or change.lost_sight
        )

    def summary(self) -> str:
        """What got better or worse of each pair: text."""
        lines = []
        for model in self.models:
            name = model.before if model.before == model.after else f"{model.before} -> {model.after}"
            count = ", ".join(f"{model.count(verdict)} {verdict}" for verdict in ("better", "worse", "unclear"))
            lines.append(f"{name}: {self.metric.title} under {len(model.changes)} conditions: {count}")
            for change in model.changes:
                if change.before is not None and change.after is not None and change.verdict is not None:
                    values = f"{change.before.value:.3f} -> {change.after.value:.3f}"
                    lines.append(f"  {change.label}: {values} ({change.verdict})")
            lines += [f"  note: {note}" for note in model.notes]
        if self.unmatched:
            lines.append(f"not in both: {', '.join(self.unmatched)}")
        if self.unpaired:
            lines.append(f"no test, as {self.unpaired}: a difference counts where the 95 % intervals do not overlap")
        return "\n".join(lines)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each condition of each pair of models: before, after, p and verdict.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        rows = [
            {
                "model_before": model.before,
                "model_after": model.after,
                "condition": change.condition,
                "label": change.label,
                "before": change.before and change.before.value,
                "after": change.after and change.after.value,
                "lost": change.lost,
                "won": change.won,
                "p_value": change.p_value,
                "verdict": change.verdict,
                "reason": change.reason,
            }
            for model in self.models
            for change in model.changes
        ]
        return needed("pandas", "pandas", "to_pandas()").DataFrame.from_records(rows)


def compare_runs(before: str | Path | Results, after: str | Path | Results) -> RunChanges:
    """Compare two runs, or two models of them.

    Args:
        before: a run folder, ``folder:model``, or results.
        after: the same. Models are matched by name, unless there is one on either side.

    Raises:
        RunFolderError: a folder has no readable results, no model is in both, or their headlines are two metrics.
        UnknownNameError: a run has no model of the name given.
    """
    (first, ours), (second, theirs) = _open(before), _open(after)
    before, after = (_called(one, word) for one, word in ((before, "before"), (after, "after")))
    names = {metric.name for metric in second.dataset.metrics}
    if first.dataset.headline != second.dataset.headline:
        raise RunFolderError(
            f"'{before}' is judged by {first.dataset.headline} and '{after}' by {second.dataset.headline}: evaluate "
            "both under one protocol"
        )
    pairs, unmatched = _matched(ours, theirs)
    if not pairs:
        raise RunFolderError(
            f"no model is in both '{before}' and '{after}': name one of each, as in '{before}:{ours[0].name}' "
            f"and '{after}:{theirs[0].name}'"
        )
    unpaired = _unpaired(first, second)
    sides = Index.of(first), Index.of(second)
    measured = [(measurements(sides[0], one), measurements(sides[1], two)) for one, two in pairs]
    judge = _judge_by_test if unpaired is None else _judge_by_intervals
    changes = judge([pair for own in measured for pair in _shared(*own)])
    models = []
    for (one, two), own in zip(pairs, measured, strict=True):
        count = len(_shared(*own))
        same, notes = one.fingerprint == two.fingerprint, (*_prepared(one, two), *_notes(*own))
        drawn = tuple(_curves(sides[0], one.name, sides[1], two.name, paired=unpaired is None))
        models.append(ModelChanges(one.name, two.name, same, notes, tuple(changes[:count]), drawn))
        changes = changes[count:]
    shared = tuple(metric for metric in first.dataset.metrics if metric.name in names)
    return RunChanges(before, after, first.dataset.headline_metric, shared, unpaired, tuple(models), unmatched)


def _called(run: str | Path | Results, word: str) -> str:
    return f"results {word}" if isinstance(run, Results) else str(run)


def _open(run: str | Path | Results) -> tuple[Results, tuple[ModelEntry, ...]]:
    """A run and those of its models that are meant."""
    if isinstance(run, Results):
        return run, run.models
    text, path = str(run), Path(run).expanduser()
    for place in reversed([place for place, mark in enumerate(text) if mark == ":"]):
        # Folders and names may hold colons themselves: the longest path that exists is meant.
        if not path.exists() and Path(text[:place]).exists():
            name, results = text[place + 1 :], Results.load(Path(text[:place]))
            found = tuple(model for model in results.models if model.name == name)
            if not found:
                raise UnknownNameError("model", name, [model.name for model in results.models])
            return results, found
    results = Results.load(path)
    return results, results.models


def _matched(
    ours: Sequence[ModelEntry], theirs: Sequence[ModelEntry]
) -> tuple[list[tuple[ModelEntry, ModelEntry]], tuple[str, ...]]:
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])], ()
    names = {model.name: model for model in theirs}
    pairs = [(model, names[model.name]) for model in ours if model.name in names]
    both = {model.name for model, _ in pairs}
    return pairs, tuple(model.name for model in (*ours, *theirs) if model.name not in both)


def _unpaired(first: Results, second: Results) -> str | None:
    if first.dataset.fingerprint != second.dataset.fingerprint:
        return f"the data differ ({first.dataset.name} and {second.dataset.name}, by their hashes)"
    if first.queries != second.queries:
        return f"the queries differ ({first.dataset.queries} and {second.dataset.queries} of them)"
    return None


def _shared(ours: Measured, theirs: Measured) -> list[tuple[Measurement, Measurement]]:
    """What was measured on both sides."""
    found = {item.key: item for item in theirs}
    return [(item, found[item.key]) for item in ours if item.key in found]


def _prepared(before: ModelEntry, after: ModelEntry) -> Iterator[str]:
    one, two = before.preprocessing, after.preprocessing
    if one is not None and two is not None and one != two:
        yield f"its images were not prepared alike, from which a difference may come: {one} before, {two} after"


def _notes(ours: Measured, theirs: Measured) -> Iterator[str]:
    sides = [
        {item.key: item.label for item in own if item.condition == "attack" and item.score} for own in (ours, theirs)
    ]
    for own, other, where in ((sides[0], sides[1], "before"), (sides[1], sides[0], "after")):
        alone = [label for key, label in own.items() if key not in other]
        if alone:
            yield (
                f"only judged {where}: {text.named(alone)}; "
                "the worst cases are over different attacks, so that their difference may come from that alone"
            )


def _curves(first: Index, ours: str, second: Index, theirs: str, *, paired: bool) -> Iterator[CurveChange]:
    after = {curve.norm: curve for curve in second.curves if curve.model == theirs}
    for one in first.curves:
        if one.model == ours and one.norm in after:
            two = after[one.norm]
            pairs = [_sizes(*sizes) for sizes in zip(one.smallest, two.smallest, strict=True)] if paired else []
            yield CurveChange(
                norm=one.norm,
                half=(one.half_distortion, two.half_distortion),
                median=(one.median, two.median),
                rose=sum(new > old * _NEAR for old, new in pairs) if paired else None,
                fell=sum(old > new * _NEAR for old, new in pairs) if paired else None,
            )


def _sizes(before: float | None, after: float | None) -> tuple[float, float]:
    """What nothing breaks needs more than any other."""
    return math.inf if before is None else before, math.inf if after is None else after


def _judge_by_test(pairs: Sequence[tuple[Measurement, Measurement]]) -> list[Change]:
    tests = iter(compare_all((one.hits, two.hits) for one, two in pairs if one.hits and two.hits))
    changes = []
    for one, two in pairs:
        change = _unjudged(one, two)
        if one.hits and two.hits:
            test = next(tests)
            better = test.only_second > test.only_first
            verdict: Verdict = ("better" if better else "worse") if test.significant else "unclear"
            change = replace(change, lost=test.only_first, won=test.only_second, p_value=test.p_value, verdict=verdict)
        changes.append(change)
    return changes


def _judge_by_intervals(pairs: Sequence[tuple[Measurement, Measurement]]) -> list[Change]:
    return [replace(_unjudged(one, two), verdict=_apart(one.score, two.score)) for one, two in pairs]


def _apart(before: Score | None, after: Score | None) -> Verdict | None:
    if before is None or after is None:
        return None
    if after.low > before.high:
        return "better"
    return "worse" if after.high < before.low else "unclear"


def _unjudged(one: Measurement, two: Measurement) -> Change:
    reasons = [
        f"{item.status} {where}: {item.reason or 'no reason was recorded'}"
        for item, where in ((one, "before"), (two, "after"))
        if item.score is None
    ]
    return Change(one.label, one.condition, one.score, two.score, reason="; ".join(reasons) or None)
