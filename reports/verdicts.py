"""What the numbers say, per model and between models: the facts from which the page forms its sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdml.results import ModelEntry, WorstCase

from . import text
from .index import Index
from .sections import Section


@dataclass(frozen=True)
class Worst:
    """The worst case of a model at the headline eps; ``relative`` is None where the clean R@1 is 0."""

    recall: str
    interval: str
    relative: str | None
    attacks: str
    failed: int
    at_chance: bool


@dataclass(frozen=True)
class Verdict:
    """One model in a few numbers; ``worst`` is None where no attack ran to its end."""

    model: str
    clean: str
    clean_interval: str
    worst: Worst | None
    collapsed: bool
    effective_rank: str
    mean_cosine: str


@dataclass(frozen=True)
class Comparison:
    """Which model has the highest worst-case R@1.

    Args:
        leaders: the model of the highest value, or those that share it.
        recall: that value.
        within: models whose interval overlaps with that of a leader.
        below: whether there are models whose interval lies below.
        collapsed: leaders whose embedding space is collapsed.
        incomplete: leaders that some attack failed on: their value may look better than it is.
        unmeasured: models that have no worst case.
    """

    leaders: tuple[str, ...]
    recall: str
    within: tuple[str, ...]
    below: bool
    collapsed: tuple[str, ...]
    incomplete: tuple[str, ...]
    unmeasured: tuple[str, ...]


def verdicts(index: Index) -> tuple[Verdict, ...]:
    """A verdict for each model, in the order of the run."""
    return tuple(_verdict(index, model) for model in index.results.models)


def _verdict(index: Index, model: ModelEntry) -> Verdict:
    worst = _headline_worst(index, model.name)
    return Verdict(
        model=model.name,
        clean=text.fraction(model.clean.metrics.recall_at_1),
        clean_interval=text.interval(model.clean),
        worst=None if worst is None else _worst(worst, index.results.dataset.chance_recall_at_1),
        collapsed=model.health.collapsed,
        effective_rank=f"{model.health.effective_rank:.1f} of {model.embedding_dim}",
        mean_cosine=text.fraction(model.health.mean_cosine),
    )


def _worst(worst: WorstCase, chance: float) -> Worst:
    recall = worst.score.metrics.recall_at_1
    return Worst(
        recall=text.fraction(recall),
        interval=text.interval(worst.score),
        relative=None if worst.relative_recall is None else text.percent(worst.relative_recall),
        attacks=text.counted(worst.attacks, "attack"),
        failed=worst.attacks_failed,
        at_chance=recall <= chance,
    )


def compare(index: Index) -> Comparison | None:
    """Compare the models by their worst case at the headline eps; None where fewer than two have one."""
    models = index.results.models
    found = {model.name: worst for model in models if (worst := _headline_worst(index, model.name))}
    if len(found) < 2:
        return None
    highest = max(worst.score.metrics.recall_at_1 for worst in found.values())
    leaders = tuple(name for name, worst in found.items() if worst.score.metrics.recall_at_1 == highest)
    others = [name for name in found if name not in leaders]
    lowest_bound = min(found[name].score.recall_at_1_low for name in leaders)
    within = tuple(name for name in others if found[name].score.recall_at_1_high >= lowest_bound)
    return Comparison(
        leaders=leaders,
        recall=text.fraction(highest),
        within=within,
        below=len(within) < len(others),
        collapsed=tuple(model.name for model in models if model.name in leaders and model.health.collapsed),
        incomplete=tuple(name for name in leaders if found[name].attacks_failed),
        unmeasured=tuple(model.name for model in models if model.name not in found),
    )


def headline(index: Index) -> str | None:
    """The headline eps as it is written; None where nothing was attacked."""
    return None if index.headline is None else index.headline.text


def _headline_worst(index: Index, model: str) -> WorstCase | None:
    return None if index.headline is None else index.worst.get((model, index.headline))


@dataclass(frozen=True)
class Verdicts:
    """What the section of verdicts prints; ``headline`` is None where nothing was attacked."""

    headline: str | None
    chance: str
    verdicts: tuple[Verdict, ...]
    comparison: Comparison | None


def verdict_section(index: Index, folder: Path) -> Section:
    """The verdicts and their comparison."""
    chance = text.fraction(index.results.dataset.chance_recall_at_1)
    data = Verdicts(headline(index), chance, verdicts(index), compare(index))
    return Section("verdict", "Verdict", "verdict.html.j2", data)
