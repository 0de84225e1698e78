"""What the numbers say, per model and between models: the facts from which the page forms its sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdml.results import ModelEntry, Score, WorstCase
from robustdml.threat import NORMS, ThreatModel

from .. import text
from ..index import ANY_SIZE, Index
from ..thresholds import violations
from .ranking_tables import Answers, Pair, Ranking, rank
from .sections import Section


@dataclass(frozen=True)
class Bar:
    """The headline as a length, in percent of the whole width, with its interval and the chance level."""

    length: str
    low: str
    high: str
    chance: str


@dataclass(frozen=True)
class Worst:
    """The worst case of a model at the headline budget; ``relative`` is None where the clean headline is 0."""

    recall: str
    interval: str
    bar: Bar
    relative: str | None
    attacks: str
    failed: int
    at_chance: bool


@dataclass(frozen=True)
class Rank:
    """The place of a model among those that have a worst case, and the other models of that place."""

    place: int
    sharing: tuple[str, ...]


@dataclass(frozen=True)
class Half:
    """The half-distortion of a model in one norm, its interval, and the median eps."""

    norm: str
    size: str
    interval: str
    median: str


@dataclass(frozen=True)
class Verdict:
    """One model in a few numbers; ``worst`` is None where no attack with a budget ran to its end."""

    model: str
    clean: str
    clean_interval: str
    clean_bar: Bar
    worst: Worst | None
    #: One for each norm in which a curve was measured.
    halves: tuple[Half, ...]
    #: None where fewer than two models can be compared.
    rank: Rank | None
    collapsed: bool
    effective_rank: str
    mean_cosine: str
    #: The title of the flag for which no worst case is given here; empty where there is none such.
    invalid: str


@dataclass(frozen=True)
class Versus:
    """Two models, the better one first."""

    first: str
    second: str
    difference: str
    only_first: str
    only_second: str
    p_value: str
    significant: bool


@dataclass(frozen=True)
class Smaller:
    """Where models part that are all broken at the headline budget.

    Args:
        headline: that budget, as it is written.
        chance: the headline of a random ranking, which no model exceeds there.
        budget: the largest smaller one of the same norm at which the worst cases of the models differ: significantly,
            if there is such a one; None where there is none.
        readings: each model and its worst-case headline at ``budget``, falling.
        significant: whether the test on the same queries separates any two of them there.
    """

    headline: str
    chance: str
    budget: str | None
    readings: tuple[tuple[str, str], ...]
    significant: bool


@dataclass(frozen=True)
class Comparison:
    """Which model has the highest worst-case headline, and whether the test on the same queries bears it out.

    Args:
        leaders: the model of the highest value, or those that share it.
        recall: that value.
        even: comparisons of the first leader with the models of a lower value from which the test does not separate it.
        ahead: the comparison with the best model that is significantly lower; None where there is none.
        collapsed: leaders whose embedding space is collapsed.
        incomplete: leaders that some attack failed on: their value may look better than it is.
        unmeasured: models that have no worst case.
        invalid: models that have one which is withheld, for a flag that says why.
        pairs: every two models by worst-case headline, and by clean headline.
        count: the number of models compared.
        smaller: where to look instead; None unless no model exceeds chance.
    """

    leaders: tuple[str, ...]
    recall: str
    even: tuple[Versus, ...]
    ahead: Versus | None
    #: Of the model in ``ahead``.
    ahead_recall: str
    collapsed: tuple[str, ...]
    incomplete: tuple[str, ...]
    unmeasured: tuple[str, ...]
    invalid: tuple[str, ...]
    pairs: tuple[Versus, ...]
    clean_pairs: tuple[Versus, ...]
    count: int
    smaller: Smaller | None


@dataclass(frozen=True)
class Sole:
    """What is said of a model that stands alone.

    Args:
        at_chance: whether its worst case is no more than chance.
        uncertain: whether the interval of its worst case begins there.
        smaller: smaller budgets of the same norm, the largest first, and its worst case at each.
    """

    model: str
    clean: str
    recall: str
    lost: str
    at_chance: bool
    uncertain: bool
    smaller: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """Whether a model reaches a bar; ``problems`` says why not."""

    bar: str
    model: str
    passed: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class FlagLine:
    """A kind of flag in one line."""

    title: str
    slug: str
    alarming: bool


@dataclass(frozen=True)
class Verdicts:
    """What the section of verdicts prints; ``headline`` is None where nothing with a budget was attacked.

    Args:
        allowed: what the headline budget allows, in words.
        outcomes: each bar that was asked for, for each model.
        sole: None unless there is one model, and it has a worst case.
        flags: each kind once, the gravest first.
    """

    headline: str | None
    allowed: str
    outcomes: tuple[Outcome, ...]
    sole: Sole | None
    #: Whether attacks were run, if only such without a budget.
    attacked: bool
    chance: str
    verdicts: tuple[Verdict, ...]
    comparison: Comparison | None
    flags: tuple[FlagLine, ...]


def verdict_section(index: Index, folder: Path) -> Section:
    """The verdicts, best model first, and their comparison."""
    results = index.results
    ranking = _ranking(index)
    data = Verdicts(
        headline=headline(index),
        allowed=text.in_words(index.headline, results.image_sides) if headline(index) and index.headline else "",
        outcomes=_outcomes(index),
        sole=_sole(index, ranking),
        attacked=bool(results.cells),
        chance=text.fraction(results.dataset.chance),
        verdicts=verdicts(index, ranking),
        comparison=compare(index, ranking),
        flags=_flags(index),
    )
    return Section("verdict", "Verdict", "verdict.html.j2", data)


def _flags(index: Index) -> tuple[FlagLine, ...]:
    kinds = {flag.slug: flag for flag in reversed(index.results.flags)}
    order = dict.fromkeys(flag.slug for flag in index.results.flags)
    return tuple(FlagLine(kinds[slug].title or slug, slug, kinds[slug].grade != "note") for slug in order)


def _outcomes(index: Index) -> tuple[Outcome, ...]:
    missed = violations(index.results, index.bars)
    return tuple(
        Outcome(bar.text, model.name, not problems, problems)
        for bar in index.bars
        for model in index.results.models
        for problems in [tuple(it.problem for it in missed if (it.model, it.threshold) == (model.name, bar))]
    )


def _sole(index: Index, ranking: Ranking) -> Sole | None:
    model = index.results.models[0]
    worst = _headline_worst(index, model.name) if model.name in ranking.order else None
    if len(index.results.models) > 1 or worst is None:
        return None
    smaller = [
        (budget.text, text.fraction(found.score.value))
        for budget in reversed(index.budgets)
        if budget.norm == worst.threat.norm and budget != ANY_SIZE and (budget.eps or 0.0) < (worst.threat.eps or 0.0)
        if (found := index.worst.get((model.name, budget)))
    ]
    return Sole(
        model=model.name,
        clean=text.fraction(model.clean.value),
        recall=text.fraction(worst.score.value),
        lost=text.percent(1 - worst.relative_recall) if worst.relative_recall is not None else "",
        at_chance=worst.score.value <= index.results.dataset.chance,
        uncertain=worst.score.low <= index.results.dataset.chance,
        smaller=tuple(smaller),
    )


def headline(index: Index) -> str | None:
    """The headline budget as it is written; None where nothing was attacked, or nothing within a budget."""
    return None if index.headline in (None, ANY_SIZE) else index.headline.text


def _ranking(index: Index) -> Ranking:
    """The models that have a worst case at the headline budget, by it."""
    return _ranking_at(index, index.headline)


def _ranking_at(index: Index, budget: ThreatModel | None) -> Ranking:
    found = {model.name: index.worst.get((model.name, budget)) for model in index.results.models} if budget else {}
    return rank({name: Answers(worst.score.value, worst.hits) for name, worst in found.items() if worst})


def _headline_worst(index: Index, model: str) -> WorstCase | None:
    return None if index.headline is None else index.worst.get((model, index.headline))


def verdicts(index: Index, ranking: Ranking) -> tuple[Verdict, ...]:
    """A verdict for each model: by rank, those without a worst case last."""
    models = {model.name: model for model in index.results.models}
    rest = [name for name in models if name not in ranking.order]
    return tuple(_verdict(index, models[name], ranking) for name in (*ranking.order, *rest))


def _verdict(index: Index, model: ModelEntry, ranking: Ranking) -> Verdict:
    invalid = index.results.invalid(model.name)
    worst = _headline_worst(index, model.name)
    chance = index.results.dataset.chance
    ranked = len(ranking.order) > 1 and model.name in ranking.ranks
    return Verdict(
        model=model.name,
        clean=text.fraction(model.clean.value),
        clean_interval=text.interval(model.clean),
        clean_bar=_bar(model.clean, chance),
        worst=None if worst is None else _worst(worst, chance),
        halves=tuple(
            Half(
                NORMS[curve.norm],
                text.reached(curve.half_distortion, curve.norm),
                text.half_interval(curve),
                text.reached(curve.median, curve.norm),
            )
            for curve in index.curves
            if curve.model == model.name
        ),
        rank=Rank(ranking.ranks[model.name], ranking.sharing(model.name)) if ranked else None,
        collapsed=model.health.collapsed,
        effective_rank=f"{model.health.effective_rank:.1f} of {model.embedding_dim}",
        mean_cosine=text.fraction(model.health.mean_cosine),
        invalid="" if invalid is None else invalid.title,
    )


def _worst(worst: WorstCase, chance: float) -> Worst:
    recall = worst.score.value
    return Worst(
        recall=text.fraction(recall),
        interval=text.interval(worst.score),
        bar=_bar(worst.score, chance),
        relative=None if worst.relative_recall is None else text.percent(worst.relative_recall),
        attacks=text.counted(worst.attacks, "attack"),
        failed=worst.attacks_failed,
        at_chance=recall <= chance,
    )


def _bar(score: Score, chance: float) -> Bar:
    lengths = (score.value, score.low, score.high, chance)
    return Bar(*(f"{100 * length:.2f}" for length in lengths))


def compare(index: Index, ranking: Ranking) -> Comparison | None:
    """Compare the models by their worst case at the headline budget; None where fewer than two have one."""
    if len(ranking.order) < 2:
        return None
    worst = {name: _headline_worst(index, name) for name in ranking.order}
    recalls = {name: found.score.value for name, found in worst.items() if found}
    first = ranking.order[0]
    leaders = tuple(name for name in ranking.order if recalls[name] == recalls[first])
    others = [ranking.between(first, name) for name in ranking.order if name not in leaders]
    ahead = next((pair for pair in others if pair.paired.significant), None)
    models = index.results.models
    invalid = tuple(model.name for model in models if index.results.invalid(model.name))
    clean = rank({model.name: Answers(model.clean.value, model.clean_hits) for model in models})
    return Comparison(
        leaders=leaders,
        recall=text.fraction(recalls[first]),
        even=tuple(_versus(pair) for pair in others if not pair.paired.significant),
        ahead=None if ahead is None else _versus(ahead),
        ahead_recall=text.fraction(None if ahead is None else recalls[ahead.second]),
        collapsed=tuple(model.name for model in models if model.name in leaders and model.health.collapsed),
        incomplete=tuple(name for name, found in worst.items() if name in leaders and found and found.attacks_failed),
        unmeasured=tuple(model.name for model in models if model.name not in {*ranking.order, *invalid}),
        invalid=invalid,
        pairs=tuple(_versus(pair) for pair in ranking.pairs),
        clean_pairs=tuple(_versus(pair) for pair in clean.pairs),
        count=len(ranking.order),
        smaller=_smaller(index, ranking) if recalls[first] <= index.results.dataset.chance else None,
    )


def _smaller(index: Index, ranking: Ranking) -> Smaller | None:
    """Where the models part; None where the headline has no size that could be smaller."""
    usual = index.headline
    if usual is None or usual.eps is None:
        return None
    tried = [
        (budget, found)
        for budget in reversed(index.budgets)
        if budget.norm == usual.norm and budget.eps is not None and budget.eps < usual.eps
        # Models that some budget does not have are not told apart by it.
        if set((found := _ranking_at(index, budget)).order) == set(ranking.order)
        and any(pair.difference for pair in found.pairs)
    ]
    separating = [(budget, found) for budget, found in tried if any(pair.paired.significant for pair in found.pairs)]
    readings: tuple[tuple[str, str], ...] = ()
    for budget, found in (separating or tried)[:1]:
        recalls = {name: index.worst[name, budget].score.value for name in found.order}
        readings = tuple((name, text.fraction(recall)) for name, recall in recalls.items())
    return Smaller(
        headline=usual.text,
        chance=text.fraction(index.results.dataset.chance),
        budget=next((budget.text for budget, _ in separating or tried), None),
        readings=readings,
        significant=bool(separating),
    )


def _versus(pair: Pair) -> Versus:
    return Versus(
        first=pair.first,
        second=pair.second,
        difference=text.fraction(pair.difference),
        only_first=text.count(pair.paired.only_first),
        only_second=text.count(pair.paired.only_second),
        p_value=text.p_value(pair.paired.p_value),
        significant=pair.paired.significant,
    )
