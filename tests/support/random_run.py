"""Results of a made-up run in which every query has a fate of its own and every score follows from these."""

from __future__ import annotations

import random

from described import METRICS

from robustdml.results import (
    AttackEntry,
    Cell,
    DatasetEntry,
    EmbeddingMap,
    Environment,
    EvalSpec,
    Health,
    MapPath,
    Metrics,
    ModelEntry,
    Norm,
    Queries,
    Results,
    Score,
    WorstCase,
    pack_hits,
)
from robustdml.threat import ThreatModel


def score_of(hits: list[bool]) -> Score:
    """A score whose R@1 is the mean of the hits."""
    recall = sum(hits) / len(hits)
    rest = [recall + (1 - recall) * part for part in (0.2, 0.5, 0.7)]
    metrics = Metrics(
        {
            "recall_at_1": recall,
            "recall_at_2": rest[0],
            "recall_at_4": rest[1],
            "recall_at_8": rest[2],
            "map_at_r": recall / 2,
            "r_precision": recall / 1.5,
        }
    )
    return Score(metrics=metrics, headline="recall_at_1", low=0.9 * recall, high=recall + 0.05 * (1 - recall))


def random_run(
    *,
    models: tuple[str, ...] = ("first", "second"),
    attacks: tuple[str, ...] = ("noise", "pgd", "square"),
    budgets: tuple[float | None, ...] = (4 / 255, 8 / 255),
    norm: Norm = "linf",
    queries: int = 60,
    classes: tuple[str, ...] = ("wren", "lark", "crow"),
    maps: int = 1,
    fails: bool = False,
    seed: int = 0,
) -> Results:
    """A run over all models, attacks and budgets; the second attack uses no gradients, the third not even the model.

    Args:
        budgets: None is an attack without one.
        maps: maps for each model.
        fails: whether every attack fails.
    """
    draw = random.Random(seed)

    def fates(share: float) -> list[bool]:
        return [draw.random() < share for _ in range(queries)]

    entries, cells, worst, drawn_maps = [], [], [], []
    plans = tuple(
        AttackEntry(
            spec=f"{name}(steps=20)",
            name=name,
            library="robustdml",
            goal="margin",
            knowledge=("gradients", "scores", "none")[place % 3],
            norm=norm,
            budget="minimum" if None in budgets else "fixed",
            citations=(),
        )
        for place, name in enumerate(attacks)
    )
    query_classes = tuple(draw.randrange(len(classes)) for _ in range(queries))
    for number, name in enumerate(models):
        clean = fates(0.9 - 0.02 * number)
        entries.append(
            ModelEntry(
                name=name,
                source=f"checkpoints/{number}",
                fingerprint=f"weights-{number}",
                architecture="resnet50",
                method=None,
                embedding_dim=64,
                parameters=1_000_000,
                clean=score_of(clean),
                clean_hits=pack_hits(clean),
                health=Health(effective_rank=20.0, mean_cosine=0.1, collapsed=False),
            )
        )
        for step, eps in enumerate(budgets):
            every = [clean]
            for place, plan in enumerate(plans):
                hits = [was and kept for was, kept in zip(clean, fates(0.8 - 0.2 * step), strict=True)]
                every += [] if fails else [hits]
                outcome = (
                    {"status": "failed", "reason": "it raised"}
                    if fails
                    else {
                        "status": "ok",
                        "score": score_of(hits),
                        "hits": pack_hits(hits),
                        "relative_recall": sum(hits) / sum(clean) if any(clean) else None,
                    }
                )
                cells.append(
                    Cell(
                        model=name,
                        attack=plan.spec,
                        threat=ThreatModel(eps, norm),
                        forward_images=(0 if place % 3 == 2 else 150) * queries * (place + 1),
                        gradient_images=100 * queries * (place + 1) if place % 3 == 0 else 0,
                        seconds=1.5 * (place + 1) + number,
                        **outcome,
                    )
                )
            lowest = [all(fate) for fate in zip(*every, strict=True)]
            if eps is not None and plans:
                worst.append(
                    WorstCase(
                        model=name,
                        threat=ThreatModel(eps, norm),
                        score=score_of(lowest),
                        hits=pack_hits(lowest),
                        relative_recall=sum(lowest) / sum(clean) if any(clean) else None,
                        attacks=0 if fails else len(plans),
                        attacks_failed=len(plans) if fails else 0,
                    )
                )
        for count in range(maps if plans and budgets else 0):
            drawn_maps.append(
                EmbeddingMap(
                    model=name,
                    attack=plans[count % len(plans)].spec,
                    threat=ThreatModel(budgets[-1], norm),
                    explained=(0.2123, 0.1 + 0.01 * number),
                    gallery=tuple(
                        (draw.gauss(0, 1), draw.gauss(0, 1), draw.randrange(len(classes))) for _ in range(400)
                    ),
                    paths=tuple(
                        MapPath(
                            query_id=item,
                            class_index=query_classes[item],
                            clean=(draw.gauss(0, 1), draw.gauss(0, 1)),
                            adversarial=(draw.gauss(0, 1), draw.gauss(0, 1)),
                            clean_hit=draw.random() < 0.8,
                            adversarial_hit=draw.random() < 0.5,
                        )
                        for item in range(min(60, queries))
                    ),
                )
            )
    return Results(
        robustdml_version="0.1.0",
        created="2026-03-04T05:06:07+00:00",
        fingerprint="0123456789abcdef",
        spec=EvalSpec(
            dataset="birds",
            dataset_fingerprint="fedcba9876543210",
            image_size=64,
            models=tuple((entry.name, entry.fingerprint) for entry in entries),
            attacks=tuple((plan.spec, eps) for plan in plans for eps in budgets),
            max_queries=queries,
            seed=seed,
            shard_size=64,
            version="1",
        ),
        dataset=DatasetEntry(
            name="birds",
            protocol="zero-shot",
            image_size=64,
            classes=len(classes),
            queries=queries,
            queries_available=queries,
            gallery=queries,
            leave_self_out=True,
            metrics=METRICS,
            headline="recall_at_1",
            chance=0.3,
            fingerprint="fedcba9876543210",
        ),
        queries=Queries(ids=tuple(range(queries)), classes=query_classes, class_names=classes),
        models=tuple(entries),
        attacks=plans,
        cells=tuple(cells),
        worst=tuple(worst),
        flags=(),
        examples=(),
        maps=tuple(drawn_maps),
        environment=Environment(python="3.11.7", platform="Linux", device="cpu", packages={}),
        citations={},
        seconds=100.0,
    )
