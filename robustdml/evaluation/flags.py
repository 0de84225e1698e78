"""What a reader must know before believing a robust recall. Each check is named by a slug, with a remedy.

Sources: Carlini et al. 2019 ("On Evaluating Adversarial Robustness"), Athalye et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robustdml.results import AttackEntry, Cell, DatasetEntry, Flag, ModelEntry
from robustdml.threat import ThreatModel

_UNCHANGED_SHARE = 0.05
#: Half a point: less is noise of the sample.
_SLACK = 0.005


def flags(
    dataset: DatasetEntry, models: Sequence[ModelEntry], attacks: Sequence[AttackEntry], cells: Sequence[Cell]
) -> tuple[Flag, ...]:
    """All flags of an evaluation, the gravest first."""
    # What attacks on the gallery reach says nothing of how strong those on the query are.
    queries = [entry for entry in attacks if entry.side == "query"]
    on_queries = [cell for cell in cells if cell.attack in {entry.spec for entry in queries}]
    return (
        *_failed(cells),
        *_failed_stages(cells),
        *_collapsed(models, dataset),
        *_prepared_otherwise(models),
        *_coverage(queries, on_queries),
        *_masking(queries, on_queries),
        *_budget(cells),
        *_unchanged(models, cells, dataset),
        *_sample(dataset),
    )


def _failed(cells: Sequence[Cell]) -> Iterator[Flag]:
    for cell in cells:
        if cell.status == "failed":
            yield Flag(
                slug="attack-failed",
                message=f"{cell.attack} at {cell.threat.text} failed on {cell.model}: {cell.reason}",
                remedy="The worst case leaves this attack out and may be too high. Repeat the command to try it again.",
                model=cell.model,
                attack=cell.attack,
            )


def _failed_stages(cells: Sequence[Cell]) -> Iterator[Flag]:
    for cell in cells:
        for stage in cell.stages:
            if stage.reason is not None:
                yield Flag(
                    slug="stage-failed",
                    message=f"A stage of {cell.attack} at {cell.threat.text} failed on {cell.model}: {stage.attack}: "
                    f"{stage.reason}",
                    remedy="The other stages were run; the recall may be too high without it.",
                    model=cell.model,
                    attack=cell.attack,
                )


def _collapsed(models: Sequence[ModelEntry], dataset: DatasetEntry) -> Iterator[Flag]:
    for model in models:
        value = model.clean.value
        if model.health.collapsed:
            yield Flag(
                slug="collapse",
                message=f"{model.name}'s embeddings have collapsed (mean cosine {model.health.mean_cosine:.3f}, "
                f"effective rank {model.health.effective_rank:.1f}): it resists attacks because it retrieves little.",
                remedy="Do not call it robust. Train it with a lower learning rate or a smaller training eps.",
                model=model.name,
            )
        elif value <= 2 * dataset.chance:
            yield Flag(
                slug="near-chance",
                message=f"{model.name}'s clean {dataset.headline_metric.title} {value:.3f} is near chance "
                f"({dataset.chance:.3f}).",
                remedy="There is nothing to be robust about: check preprocessing (images are in [0, 1]) and training.",
                model=model.name,
            )


def _prepared_otherwise(models: Sequence[ModelEntry]) -> Iterator[Flag]:
    for model in models:
        if model.declared is not None and model.preprocessing is not None and model.declared != model.preprocessing:
            yield Flag(
                slug="other-preprocessing",
                message=f"{model.name}'s images were not prepared as it says that they must be: "
                f"{model.preprocessing.view}, in place of {model.declared.view}.",
                remedy="Its recalls, also the clean one, may be others for that reason alone. Leave --image-size out.",
                model=model.name,
            )


def _coverage(attacks: Sequence[AttackEntry], cells: Sequence[Cell]) -> Iterator[Flag]:
    """What the gradient attacks that were judged leave untested; one that failed everywhere covers nothing."""
    judged = {cell.attack for cell in cells if cell.score}
    goals = {entry.goal for entry in attacks if entry.knowledge == "gradients" and entry.spec in judged}
    if attacks and "margin" not in goals:
        yield Flag(
            slug="no-margin-attack",
            message="No gradient attack on the retrieval margin was run; it breaks far more queries than the others.",
            remedy="Add the attack 'margin', or use --attacks all.",
        )
    if len(goals) == 1:
        yield Flag(
            slug="one-goal",
            message="All gradient attacks pursue one goal: a model may resist it and fall to another.",
            remedy="Run attacks with several goals, or --attacks all.",
        )


def _margin_steps(entry: AttackEntry) -> int:
    """How many gradient steps on the margin an attack of this project makes; 0 for any other attack.

    Names will not do: where two attacks share one, both are called by their spec.
    """
    if entry.library != "robustdml" or entry.goal != "margin":
        return 0
    steps = entry.params.get("steps")
    return steps if entry.kind in {"pgd", "apgd"} and isinstance(steps, int) else 0


def _masking(attacks: Sequence[AttackEntry], cells: Sequence[Cell]) -> Iterator[Flag]:
    """Less knowledge must not win: noise against all gradient attacks, one step against many on the margin.

    Of the goals the margin alone is what recall measures; a target reached more closely may well cost less recall.
    """
    entries = {entry.spec: entry for entry in attacks}
    groups: dict[tuple[str, ThreatModel], dict[str, float]] = {}
    for cell in cells:
        if cell.score and cell.threat.eps is not None:
            group = groups.setdefault((cell.model, cell.threat), {})
            group[cell.attack] = cell.score.metrics.recall_at_1
    for (model, threat), recalls in groups.items():
        for spec, recall in recalls.items():
            weak = entries[spec]
            if weak.knowledge == "gradients" and _margin_steps(weak) != 1:
                continue
            stronger = [
                value
                for other, value in recalls.items()
                if entries[other].knowledge == "gradients"
                and (weak.knowledge != "gradients" or _margin_steps(entries[other]) > 1)
            ]
            if stronger and recall < min(stronger) - _SLACK:
                yield Flag(
                    slug="gradient-masking",
                    message=f"{weak.name} at {threat.text} takes {model} to R@1 {recall:.3f}, below the "
                    f"{min(stronger):.3f} of the stronger gradient attack: the model's gradients mislead.",
                    remedy="Do not trust gradient attacks on this model; look for steps without a useful gradient.",
                    model=model,
                    attack=spec,
                )


def _budget(cells: Sequence[Cell]) -> Iterator[Flag]:
    for cell in cells:
        if cell.queries_projected:
            left = "the range [0, 1]" if cell.threat.eps is None else f"the budget {cell.threat.text}"
            yield Flag(
                slug="budget-exceeded",
                message=f"{cell.attack} left {left} on {cell.model} for "
                f"{cell.queries_projected} queries (largest norm {cell.largest_norm_returned:.4f}); they were "
                "projected back before they were judged.",
                remedy="The recall shown is within the budget. Report the attack's fault to its authors.",
                model=cell.model,
                attack=cell.attack,
            )


def _unchanged(models: Sequence[ModelEntry], cells: Sequence[Cell], dataset: DatasetEntry) -> Iterator[Flag]:
    right = {model.name: round(model.clean.metrics.recall_at_1 * dataset.queries) for model in models}
    for cell in cells:
        if cell.queries_unchanged > _UNCHANGED_SHARE * right[cell.model]:
            yield Flag(
                slug="no-attempt",
                message=f"Of the {right[cell.model]} queries that {cell.model} answers rightly when clean, "
                f"{cell.attack} at {cell.threat.text} returned {cell.queries_unchanged} unchanged: "
                "that is no attempt, not robustness.",
                remedy="Look at the attack's settings; the worst case uses the other attacks for these queries.",
                model=cell.model,
                attack=cell.attack,
            )


def _sample(dataset: DatasetEntry) -> Iterator[Flag]:
    if dataset.queries < dataset.queries_available:
        yield Flag(
            slug="sampled-queries",
            message=f"{dataset.queries} of {dataset.queries_available} queries were used (a class-stratified sample).",
            remedy="The intervals say how far a sample can be off. Leave --max-queries out for all queries.",
        )
