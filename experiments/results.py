"""The tables of docs/results.md: every method on a data set under the present standard evaluation.

    python experiments/results.py [--data digits] [--root ROOT] [--queries 64] [--methods st,at,…] [--out runs/results]

One model is trained for each method (seed 0) and evaluated: clean, the cascade at two budgets, and the curves in
L-infinity and L2. The same command again goes on where it stopped, and several commands may measure a method each. What
was measured is written between the marks of that data set in docs/results.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from ablation import SETTINGS, Decoded, Setting
from page import write

from robustdml.attacks import GOALS, build_suite
from robustdml.config import TrainConfig
from robustdml.data import load_dataset
from robustdml.errors import TrainingError
from robustdml.evaluation import evaluate, load_subjects
from robustdml.reports import merge_runs
from robustdml.results import Curve, Results
from robustdml.threat import format_eps, format_size
from robustdml.training import train

METHODS = ("st", "at", "advprop", "mdprop", "robust")


def config_of(setting: Setting, method: str) -> TrainConfig:
    """How a model is trained."""
    return TrainConfig(
        method=method,
        backbone="resnet-tiny",
        image_size=setting.image_size,
        epochs=setting.epochs,
        precision=setting.precision,
        eps=setting.training_eps(method),
        validation_classes=0,
    )


def commands(name: str, setting: Setting, methods: list[str], queries: int) -> str:
    """The same by hand."""
    data = f"--data {setting.data}" + ("" if name == "digits" else " --root ROOT")
    lines = ["```sh"]
    for method in methods:
        eps, precision = format_eps(setting.training_eps(method)), setting.precision
        lines.append(
            f"robustdml train {data} --method {method} --backbone resnet-tiny --image-size {setting.image_size} \\\n"
            f"  --epochs {setting.epochs} --eps {eps} --precision {precision} --validation-classes 0 "
            f"--out runs/{method}"
        )
    models, budgets = " ".join(f"runs/{method}" for method in methods), ",".join(map(format_eps, setting.attack_eps))
    lines.append(
        f"robustdml evaluate {models} {data} \\\n"
        f"  --attacks standard --eps {budgets} --curve linf,l2 --max-queries {queries} --out runs/results"
    )
    return "\n".join([*lines, "```"])


def table(results: Results, missing: dict[str, str]) -> str:
    """One line per model."""
    worst = {(item.model, item.threat): item for item in results.worst}
    budgets = [threat for threat in dict.fromkeys(item.threat for item in results.worst) if threat.norm == "linf"]
    curves = {(curve.model, curve.norm): curve for curve in results.curves}
    titles = [f"{title} {norm}" for norm in ("L\N{INFINITY}", "L2") for title in ("median eps", "half-distortion")]
    heads = ["method", "clean R@1", *(f"R@1 at {threat.text}" for threat in budgets), *titles, "gradients a query"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for model in results.models:
        scores = [model.clean, *(worst[model.name, threat].score for threat in budgets)]
        cells = [f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})" for found in scores]
        for norm in ("linf", "l2"):
            curve = curves[model.name, norm]
            span = f" ({written(curve.half_low, norm)} to {written(curve.half_high, norm)})"
            cells += [written(curve.median, norm), written(curve.half_distortion, norm) + span]
        spent = [cell.gradient_images / results.dataset.queries for cell in results.cells if cell.model == model.name]
        lines.append(f"| {model.name} | {' | '.join(cells)} | {' + '.join(f'{each:.0f}' for each in spent)} |")
    lines += [f"| {name} | {reason} {'| ' * (len(heads) - 1)}|" for name, reason in missing.items()]
    return "\n".join(lines)


def written(size: float | None, norm: str) -> str:
    return "not reached" if size is None else format_size(size, norm).removeprefix("L2 ").removesuffix("/255")


def curve_table(curves: list[Curve]) -> str:
    """R@1 at each budget of the curves of one norm."""
    heads = [format_eps(point.eps) if curves[0].norm == "linf" else f"L2 {point.eps:g}" for point in curves[0].points]
    lines = [f"| method | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    lines += [f"| {curve.model} | {' | '.join(f'{point.recall:.3f}' for point in curve.points)} |" for curve in curves]
    return "\n".join(lines)


def flag_list(results: Results) -> str:
    """The flags of the run, as the report words them."""
    return "\n".join(f"- {flag.grade} `{flag.slug}`: {flag.message}" for flag in results.flags) or "No flag was raised."


@click.command()
@click.option("--data", type=click.Choice(list(SETTINGS)), default="digits", show_default=True)
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the data set, where it needs one.")
@click.option("--queries", default=64, show_default=True, help="A class-stratified sample of so many is attacked.")
@click.option("--methods", default=",".join(METHODS), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/results"), show_default=True)
def main(data: str, root: Path | None, queries: int, methods: str, out: Path) -> None:
    """Measure, and write the tables."""
    setting, folder, missing = SETTINGS[data], out / data, dict[str, str]()
    dataset = load_dataset(setting.data, root)
    dataset = replace(dataset, images=Decoded(dataset.images))
    wanted = methods.split(",")
    for method in wanted:
        try:
            train(dataset, config_of(setting, method), folder / method, goals=GOALS)
        except TrainingError as error:
            missing[method] = f"no model: {error}"
    attacks = build_suite("standard,bisection,bisection(norm=l2)", setting.attack_eps)
    runs = []
    for method in wanted:
        if method not in missing:
            run = folder / f"{method}-evaluation"
            subjects = load_subjects([f"{method}={folder / method}"])
            runs.append((run, evaluate(subjects, dataset, attacks, out=run, max_queries=queries)))
    results = merge_runs(runs) if len(runs) > 1 else runs[0][1]
    norms = [[curve for curve in results.curves if curve.norm == norm] for norm in ("linf", "l2")]
    entry = results.dataset
    text = [
        commands(data, setting, wanted, queries),
        f"{entry.queries} of {entry.queries_available} queries, {entry.gallery} gallery images, {entry.classes} unseen "
        f"classes, seed 0; eps in grey levels of 255 where it is L\N{INFINITY}; 95 % intervals from a bootstrap over "
        "classes; gradients of each attack: the cascade at each budget, then the two searches.",
        table(results, missing),
        "R@1 over eps, L\N{INFINITY}:",
        curve_table(norms[0]),
        "R@1 over eps, L2:",
        curve_table(norms[1]),
        f"Flags:\n\n{flag_list(results)}",
    ]
    write("results.md", data, "\n\n".join(text))


if __name__ == "__main__":
    main()
