"""What a reader must know before believing a robust recall. Each check is named by a slug, with a remedy.

Sources: Carlini et al. 2019 ("On Evaluating Adversarial Robustness"), Athalye et al. 2018.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import pairwise

from robustdml.errors import SpecError
from robustdml.flag_kinds import FLAG_KINDS, GRADES
from robustdml.registry import parse_spec
from robustdml.results import AttackEntry, Cell, DatasetEntry, Flag, ModelEntry, StageEntry, WorstCase, unpack_hits
from robustdml.threat import ThreatModel

_UNCHANGED_SHARE = 0.05
#: Half a point: less is noise of the sample.
_SLACK = 0.005
#: Queries that only an attack of less knowledge breaks, and how far recalls may rise with eps or stay above chance.
_ALONE_SHARE, _STEADY_SLACK, _LARGE_SLACK = 0.01, 0.02, 0.02
#: How long an attack tries, and by how much longer ones may lower a recall.
_EFFORT, _CONVERGED_SLACK = {"steps", "restarts"}, 0.01
#: How probable a false alarm may be where a share of few queries is compared with that of all.
_CHANCE = 0.05
#: Of fewer queries each is worth more than ten points.
_FEW_QUERIES = 10
#: A cascade has no number of steps; it makes at least these.
_CASCADE_STEPS = 20


def flags(
    dataset: DatasetEntry,
    models: Sequence[ModelEntry],
    attacks: Sequence[AttackEntry],
    cells: Sequence[Cell],
    worst: Sequence[WorstCase] = (),
    detected: Sequence[Flag] = (),
) -> tuple[Flag, ...]:
    """All flags of an evaluation, the gravest first.

    Args:
        detected: what was found before the attacks (see `robustdml.evaluation.checks.detectors`).
    """
    # What attacks on the gallery reach says nothing of how strong those on the query are.
    queries = [entry for entry in attacks if entry.side == "query"]
    on_queries = [cell for cell in cells if cell.attack in {entry.spec for entry in queries}]
    found = (
        *detected,
        *_failed(cells),
        *_failed_stages(cells),
        *_without_gradients(queries, on_queries),
        *_collapsed(models, dataset),
        *_prepared_otherwise(models),
        *_coverage(queries, on_queries),
        *_masking(dataset, models, queries, on_queries),
        *_masked_stages(dataset, on_queries),
        *_not_monotone(queries, on_queries),
        *_not_converged(dataset, queries, on_queries),
        *_rounded(dataset, on_queries, {flag.model for flag in detected if flag.slug == "stochastic"}),
        *_large_eps(dataset, worst),
        *_budget(cells),
        *_unchanged(models, cells, dataset),
        *_sample(dataset),
    )
    return by_grade(found)


def by_grade(found: Iterable[Flag]) -> tuple[Flag, ...]:
    """The gravest first, in their order within a grade."""
    grades = list(GRADES)
    return tuple(sorted(found, key=lambda flag: grades.index(flag.grade or "grave")))


def _failed(cells: Sequence[Cell]) -> Iterator[Flag]:
    for cell in cells:
        if cell.status == "failed":
            yield FLAG_KINDS["unsound-attack" if cell.unsound else "attack-failed"].flag(
                f"{cell.attack} at {cell.threat.text} failed on {cell.model}: {cell.reason}",
                model=cell.model,
                attack=cell.attack,
            )


def _failed_stages(cells: Sequence[Cell]) -> Iterator[Flag]:
    for cell in cells:
        for stage in cell.stages:
            if stage.reason is not None:
                yield FLAG_KINDS["stage-failed"].flag(
                    f"A stage of {cell.attack} at {cell.threat.text} failed on {cell.model}: {stage.attack}: "
                    f"{stage.reason}",
                    model=cell.model,
                    attack=cell.attack,
                )


def _collapsed(models: Sequence[ModelEntry], dataset: DatasetEntry) -> Iterator[Flag]:
    for model in models:
        value = model.clean.value
        # Never at a chance of one half or more, which twice chance would make of every model.
        little = value <= dataset.chance + min(dataset.chance, (1 - dataset.chance) / 10) and dataset.chance < 0.5
        if model.health.collapsed:
            headline = f"clean {dataset.headline_metric.title} {value:.3f}"
            meaning = (
                f"it retrieves little ({headline}), and what is left under attack means nothing"
                if little
                else f"it retrieves ({headline}) by differences so small that rounding matters"
            )
            yield FLAG_KINDS["collapse"].flag(
                f"{model.name}'s embeddings have collapsed (mean cosine {model.health.mean_cosine:.3f}, "
                f"effective rank {model.health.effective_rank:.1f}): {meaning}.",
                model=model.name,
            )
        elif little:
            yield FLAG_KINDS["near-chance"].flag(
                f"{model.name}'s clean {dataset.headline_metric.title} {value:.3f} is near chance "
                f"({dataset.chance:.3f}).",
                model=model.name,
            )


def _prepared_otherwise(models: Sequence[ModelEntry]) -> Iterator[Flag]:
    for model in models:
        if model.declared is not None and model.preprocessing is not None and model.declared != model.preprocessing:
            used, own = model.preprocessing.view, model.declared.view
            if used == own:  # it is in the normalisation that they differ
                used, own = str(model.preprocessing), str(model.declared)
            yield FLAG_KINDS["other-preprocessing"].flag(
                f"{model.name}'s images were not prepared as it says that they must be: {used}, in place of {own}.",
                model=model.name,
            )


def _coverage(attacks: Sequence[AttackEntry], cells: Sequence[Cell]) -> Iterator[Flag]:
    """What the gradient attacks that were judged leave untested; one that failed everywhere covers nothing."""
    judged = {cell.attack for cell in cells if cell.score}
    goals = {entry.goal for entry in attacks if entry.knowledge == "gradients" and entry.spec in judged}
    if attacks and "margin" not in goals:
        yield FLAG_KINDS["no-margin-attack"].flag(
            "No gradient attack on the retrieval margin was run; it breaks far more queries than the others.",
        )
    if len(goals) == 1 and not any(entry.kind == "cascade" for entry in attacks):
        yield FLAG_KINDS["one-goal"].flag(
            "All gradient attacks pursue one goal: a model may resist it and fall to another.",
        )


def _without_gradients(attacks: Sequence[AttackEntry], cells: Sequence[Cell]) -> Iterator[Flag]:
    """Where every gradient attack on a model failed, none is left to say what an attacker who looks can reach."""
    gradients = {entry.spec for entry in attacks if entry.knowledge == "gradients"}
    for model in dict.fromkeys(cell.model for cell in cells):
        own = [cell for cell in cells if cell.model == model and cell.attack in gradients]
        if own and all(cell.status == "failed" for cell in own):
            yield FLAG_KINDS["no-gradient-attack"].flag(
                f"All gradient attacks on {model} failed ({len(own)}), the first since {own[0].reason}", model=model
            )


def _margin_steps(entry: AttackEntry) -> int:
    """How many gradient steps on the margin an attack of this project makes; 0 for any other attack.

    Names will not do: where two attacks share one, both are called by their spec.
    """
    if entry.library != "robustdml" or entry.goal != "margin":
        return 0
    if entry.kind == "cascade":
        return _CASCADE_STEPS
    steps = entry.params.get("steps")
    return steps if entry.kind in {"pgd", "apgd", "mi"} and isinstance(steps, int) else 0


def _masking(
    dataset: DatasetEntry, models: Sequence[ModelEntry], attacks: Sequence[AttackEntry], cells: Sequence[Cell]
) -> Iterator[Flag]:
    """Less knowledge must not win: noise against all gradient attacks, one step against many on the margin.

    Of the goals the margin alone is what recall measures; a target reached more closely may well cost less recall.
    """
    entries = {entry.spec: entry for entry in attacks}
    clean = {model.name: model.clean_hits for model in models}
    count = dataset.queries
    groups: dict[tuple[str, ThreatModel], dict[str, Cell]] = {}
    for cell in cells:
        if cell.score and cell.threat.eps is not None:
            groups.setdefault((cell.model, cell.threat), {})[cell.attack] = cell
    for (model, threat), own in groups.items():
        for spec, cell in own.items():
            weak = entries[spec]
            if weak.knowledge == "gradients" and _margin_steps(weak) != 1:
                continue
            stronger = [
                other
                for name, other in own.items()
                if entries[name].knowledge == "gradients"
                and (weak.knowledge != "gradients" or _margin_steps(entries[name]) > 1)
            ]
            recalls = [_recall(other) for other in stronger]
            if stronger and _recall(cell) < min(recalls) - _SLACK:
                yield FLAG_KINDS["gradient-masking"].flag(
                    f"{weak.name} at {threat.text} takes {model} to R@1 {_recall(cell):.3f}, below the "
                    f"{min(recalls):.3f} of the stronger gradient attack: the model's gradients mislead.",
                    model=model,
                    attack=spec,
                )
            # What breaks a query by luck has no bearing on gradients unless they were after the margin too.
            elif any(_margin_steps(entries[other.attack]) > 1 for other in stronger):
                alone = _broken_alone(cell, stronger, clean[model], count)
                if alone > max(1, _ALONE_SHARE * count):
                    yield FLAG_KINDS["gradient-masking"].flag(
                        f"{weak.name} at {threat.text} breaks {alone} of {count} queries of {model} that no stronger "
                        "gradient attack breaks: the model's gradients mislead.",
                        model=model,
                        attack=spec,
                    )


def _masked_stages(dataset: DatasetEntry, cells: Sequence[Cell]) -> Iterator[Flag]:
    """The same of the stages of one attack, each of which meets what those before it left."""
    for cell in cells:
        weak = [stage for stage in cell.stages if stage.knowledge != "gradients" and stage.broken]
        broken = sum(stage.broken for stage in weak)
        if broken > max(1, _ALONE_SHARE * dataset.queries):
            yield FLAG_KINDS["gradient-masking"].flag(
                f"Stages of {cell.attack} at {cell.threat.text} that need no gradient of {cell.model} break {broken} "
                f"of {dataset.queries} queries, which its gradient stages left: the model's gradients mislead.",
                model=cell.model,
                attack=cell.attack,
            )


def _recall(cell: Cell) -> float:
    assert cell.score is not None, "of judged cells alone"
    return cell.score.metrics.recall_at_1


def _broken_alone(cell: Cell, others: Sequence[Cell], clean: str, count: int) -> int:
    """How many of the queries that are right when clean a cell breaks, and none of the others."""
    right, held = (unpack_hits(bits, count) for bits in (clean, cell.hits or ""))
    by_others = [unpack_hits(other.hits or "", count) for other in others]
    return sum(right[query] and not held[query] and all(bits[query] for bits in by_others) for query in range(count))


def _not_monotone(attacks: Sequence[AttackEntry], cells: Sequence[Cell]) -> Iterator[Flag]:
    """Of one step it is no surprise: that overshoots."""
    steady = {entry.spec for entry in attacks if _margin_steps(entry) > 1}
    rows: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        if cell.attack in steady and cell.score and cell.threat.eps is not None:
            rows.setdefault((cell.model, cell.attack, cell.threat.norm), []).append(cell)
    for row in rows.values():
        row.sort(key=lambda cell: cell.threat.eps or 0.0)
        for small, large in pairwise(row):
            if _recall(large) > _recall(small) + _STEADY_SLACK:
                yield FLAG_KINDS["not-monotone"].flag(
                    f"{large.attack} leaves {large.model} R@1 {_recall(large):.3f} at {large.threat.text} and "
                    f"{_recall(small):.3f} at {small.threat.text}.",
                    model=large.model,
                    attack=large.attack,
                )


def _not_converged(dataset: DatasetEntry, attacks: Sequence[AttackEntry], cells: Sequence[Cell]) -> Iterator[Flag]:
    """Of two attacks that differ in how long they try alone; and the longest stage of one in stages."""
    entries = {entry.spec: entry for entry in attacks}
    rows: dict[tuple[str, ThreatModel, str], list[Cell]] = {}
    for cell in cells:
        entry = entries[cell.attack]
        if cell.score and entry.knowledge == "gradients" and _EFFORT & entry.params.keys():
            rest = sorted((name, value) for name, value in entry.params.items() if name not in _EFFORT)
            rows.setdefault((cell.model, cell.threat, f"{entry.kind}{rest}"), []).append(cell)
        last = max((s for s in cell.stages if s.knowledge == "gradients"), key=_steps_of, default=None)
        if last is not None and last != cell.stages[0] and _more_than_a_point(last.broken, dataset.queries):
            yield FLAG_KINDS["not-converged"].flag(
                f"The longest stage of {cell.attack} at {cell.threat.text} still breaks {last.broken} of "
                f"{dataset.queries} queries of {cell.model}: longer ones may break more.",
                model=cell.model,
                attack=cell.attack,
            )
    for row in rows.values():
        for short in row:
            longer = [cell for cell in row if _tries(entries[cell.attack], entries[short.attack])]
            best = min(longer, key=_recall, default=short)
            if _recall(best) < _recall(short) - _CONVERGED_SLACK:
                yield FLAG_KINDS["not-converged"].flag(
                    f"{short.attack} leaves {short.model} R@1 {_recall(short):.3f} at {short.threat.text}, and with "
                    f"more steps or restarts {_recall(best):.3f}.",
                    model=short.model,
                    attack=short.attack,
                )


def _more_than_a_point(count: int, queries: int) -> bool:
    """Whether so many of the queries are more than 1 % of all such queries, by a binomial test at 5 %."""
    from scipy.special import bdtrc

    return count > 0 and bool(bdtrc(count - 1, queries, _CONVERGED_SLACK) < _CHANCE)


def _steps_of(stage: StageEntry) -> int:
    """Gradient steps of a run of a stage, as its spec says."""
    try:
        found = parse_spec(stage.attack).params
        inner = found.get("attack")
        steps = (parse_spec(inner).params if isinstance(inner, str) else found).get("steps")
    except SpecError:  # One's own attack may call itself as it likes.
        return 0
    return steps if isinstance(steps, int) else 0


def _tries(more: AttackEntry, less: AttackEntry) -> bool:
    """Whether one attack tries at least twice as long, and no less in any way."""
    pairs = [(more.params.get(name, 1), less.params.get(name, 1)) for name in sorted(_EFFORT)]
    ratios = [one / other for one, other in pairs if isinstance(one, int) and isinstance(other, int) and other]
    return len(ratios) == len(pairs) and min(ratios) >= 1 and max(ratios) >= 2


def _rounded(dataset: DatasetEntry, cells: Sequence[Cell], random: Container[str | None]) -> Iterator[Flag]:
    """Not of models that draw at random, which answer rightly again by chance."""
    for cell in cells:
        if cell.queries_undone > max(1, _ALONE_SHARE * dataset.queries) and cell.model not in random:
            yield FLAG_KINDS["rounding-undoes"].flag(
                f"Rounded to 8 bits, the images of {cell.attack} at {cell.threat.text} break {cell.queries_undone} of "
                f"{dataset.queries} queries of {cell.model} no longer.",
                model=cell.model,
                attack=cell.attack,
            )


def _large_eps(dataset: DatasetEntry, worst: Sequence[WorstCase]) -> Iterator[Flag]:
    for found in worst:
        eps, recall = found.threat.eps or 0.0, found.score.metrics.recall_at_1
        if found.threat.norm == "linf" and eps >= 0.5 and recall > dataset.chance + _LARGE_SLACK:
            yield FLAG_KINDS["large-eps"].flag(
                f"{found.model} keeps R@1 {recall:.3f} at {found.threat.text}, where any image can be made grey "
                f"(chance {dataset.chance:.3f}).",
                model=found.model,
            )


def _budget(cells: Sequence[Cell]) -> Iterator[Flag]:
    for cell in cells:
        if cell.queries_projected:
            left = "the range [0, 1]" if cell.threat.eps is None else f"the budget {cell.threat.text}"
            yield FLAG_KINDS["budget-exceeded"].flag(
                f"{cell.attack} left {left} on {cell.model} for "
                f"{cell.queries_projected} queries (largest norm {cell.largest_norm_returned:.4f}); they were "
                "projected back before they were judged.",
                model=cell.model,
                attack=cell.attack,
            )


def _unchanged(models: Sequence[ModelEntry], cells: Sequence[Cell], dataset: DatasetEntry) -> Iterator[Flag]:
    if dataset.chance >= 1:  # nothing can be tried where every answer is right, which is said (no-wrong-answer)
        return
    right = {model.name: round(model.clean.metrics.recall_at_1 * dataset.queries) for model in models}
    for cell in cells:
        if cell.queries_unchanged > _UNCHANGED_SHARE * right[cell.model]:
            yield FLAG_KINDS["no-attempt"].flag(
                f"Of the {right[cell.model]} queries that {cell.model} answers rightly when clean, "
                f"{cell.attack} at {cell.threat.text} returned {cell.queries_unchanged} unchanged: "
                "that is no attempt, not robustness.",
                model=cell.model,
                attack=cell.attack,
            )


def _sample(dataset: DatasetEntry) -> Iterator[Flag]:
    if dataset.chance >= 1:
        yield FLAG_KINDS["no-wrong-answer"].flag(
            f"Each of the {dataset.gallery} gallery images is a right answer to each of the {dataset.queries} queries."
        )
    if dataset.queries < dataset.queries_available:
        yield FLAG_KINDS["sampled-queries"].flag(
            f"{dataset.queries} of {dataset.queries_available} queries were used (a class-stratified sample).",
        )
    elif dataset.queries < _FEW_QUERIES:
        queries = (
            "The data set has one query" if dataset.queries == 1 else f"The data set has {dataset.queries} queries"
        )
        yield FLAG_KINDS["few-queries"].flag(f"{queries}: each is worth {100 / dataset.queries:.0f} points.")
