"""``robustdml list``."""

from __future__ import annotations

from collections.abc import Callable

import click

from robustdml.cli.output import Output, output_options

Rows = list[dict[str, object]]


def _attacks() -> Rows:
    from robustdml.attacks import ATTACKS, NOT_OFFERED, SUITES

    rows: Rows = [
        {
            "name": name,
            "summary": factory.summary + (f" (in no suite: {factory.by_name_only})" if factory.by_name_only else ""),
            "library": factory.library,
            "knowledge": factory.knowledge,
            "norms": list(factory.norms),
            "budget": factory.budget,
            "cost": factory.cost,
            "goals": list(factory.goals),
            "parameters": [f"{key}={value}" for key, value in factory.parameters(None).items()],
        }
        for name, factory in ATTACKS.items()
    ]
    missing: Rows = [{"name": name, "summary": f"not offered: {reason}"} for name, reason in NOT_OFFERED.items()]
    suites: Rows = [{"name": name, "summary": f"suite: {', '.join(specs)}"} for name, specs in SUITES.items()]
    return [*rows, *missing, *suites]


def _goals() -> Rows:
    from robustdml.attacks import GOALS, goal_parameters

    return [
        {
            "name": name,
            "summary": goal.meaning,
            "parameters": [f"{key}={value}" for key, value in goal_parameters(name).items()],
            "measured beside retrieval": list(goal.measures),
            "citation": goal.citation or "none",
        }
        for name, goal in ((name, goal()) for name, goal in GOALS.items())
    ]


def _datasets() -> Rows:
    from robustdml.data import DATASETS

    return [{"name": name, "summary": item.summary, "needs_root": item.needs_root} for name, item in DATASETS.items()]


def _backbones() -> Rows:
    from robustdml.models import BACKBONES

    rows: Rows = [
        {"name": name, "summary": item.summary, "pretrained": item.pretrained} for name, item in BACKBONES.items()
    ]
    others: Rows = [
        {"name": "timm:NAME", "summary": "any model of timm; pip install 'robustdml[timm]'"},
        {"name": "hf:NAME", "summary": "any image encoder of Hugging Face; pip install 'robustdml[hf]'"},
        {"name": "package.module:factory", "summary": "a network of your own with an attribute num_features"},
    ]
    return [*rows, *others]


def _losses() -> Rows:
    from robustdml.training import LOSSES

    return [
        {
            "name": name,
            "summary": item.summary,
            "parameters": [f"{key}={value}" for key, value in item.parameters().items()],
        }
        for name, item in LOSSES.items()
    ]


def _methods() -> Rows:
    from robustdml.training import METHODS

    return [{"name": name, "summary": item.summary} for name, item in METHODS.items()]


def _metrics() -> Rows:
    from robustdml.retrieval import METRICS

    return [
        {
            "name": name,
            "summary": f"{metric.title}: {metric.description}",
            "depth": metric.depth,
            "citation": metric.citation,
        }
        for name, metric in METRICS.items()
    ]


_LISTS: dict[str, Callable[[], Rows]] = {
    "attacks": _attacks,
    "goals": _goals,
    "datasets": _datasets,
    "backbones": _backbones,
    "losses": _losses,
    "methods": _methods,
    "metrics": _metrics,
}


@click.command("list")
@click.argument("what", type=click.Choice(list(_LISTS)))
@output_options
def list_(what: str, output: Output) -> None:
    """List what can be named: attacks, goals, datasets, backbones, losses, methods or metrics."""
    rows = _LISTS[what]()
    output.document(rows)
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        output.line(f"{row['name']!s:<{width}}  {row['summary']}")
        details = [f"{key}: {_plain(row[key])}" for key in row if key not in {"name", "summary"}]
        if details:
            output.line(f"{'':<{width}}  {'; '.join(details)}")


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
