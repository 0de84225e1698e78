"""``robustdml evaluate``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from robustdml.cli.options import (
    HomePath,
    command_line,
    data_options,
    read_data,
    run_options,
    skip_broken_option,
    source_options,
)
from robustdml.cli.thresholds import check_metrics, end_below, fail_under_option, read_thresholds
from robustdml.cli.verify import UNSOUND
from robustdml.config import BRANCH_CHOICES, EFFORTS, BranchChoice, Effort
from robustdml.errors import SpecError
from robustdml.threat import NORMS, format_size, parse_budgets

if TYPE_CHECKING:
    from robustdml.results import Curve, DatasetEntry, Flag, Results
    from robustdml.source_options import SourceOptions


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@data_options
@click.option(
    "--attacks", default="standard", show_default=True, help="Suites and specs; see 'robustdml list attacks'."
)
@click.option(
    "--eps",
    default="8/255",
    show_default=True,
    help="Budgets, separated by commas; 0.01/normalised: after ImageNet's normalisation, R:G:B: by channel.",
)
@click.option("--effort", type=click.Choice(EFFORTS), default="standard", show_default=True, help="Of each attack.")
@click.option(
    "--curve",
    metavar="NORM,...",
    help="Also search the smallest eps that breaks each query in linf, l2, l1: R@1 over eps and half-distortion.",
)
@click.option("--attack-time-limit", type=float, metavar="SECONDS", help="Per attack, eps and model; slower ones fail.")
@click.option("--max-queries", type=int, help="Attack a class-stratified sample of this size.")
@click.option("--out", required=True, type=HomePath(), help="Run folder; repeat the command to resume.")
@click.option(
    "--branches",
    type=click.Choice(BRANCH_CHOICES),
    default="deployed",
    show_default=True,
    help="Of a model with several BatchNorm branches: evaluate the deployed one, or through each.",
)
@click.option(
    "--certify",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="Also certify R@1 under L2, of the model smoothed by noise: sigma=0.25,samples=1000 (docs/certified.md). "
    "Repeatable.",
)
@click.option(
    "--natural", is_flag=True, help="Also measure 15 common corruptions and simple geometry (docs/natural.md)."
)
@click.option("--save-images", is_flag=True, help="Keep all attacked images in adversarial/ of the run folder.")
@source_options
@click.option("--seed", default=0, show_default=True, help="Of the sample and the attacks.")
@skip_broken_option
@click.option("--leave-out-copies", is_flag=True, help="Go on without images that the data set holds twice.")
@fail_under_option
@run_options
def evaluate(
    models: tuple[str, ...],
    data: str,
    root: Path | None,
    attacks: str,
    eps: str,
    effort: Effort,
    curve: str | None,
    attack_time_limit: float | None,
    max_queries: int | None,
    out: Path,
    branches: BranchChoice,
    certify: tuple[str, ...],
    natural: bool,
    save_images: bool,
    options: SourceOptions,
    seed: int,
    skip_broken: bool,
    leave_out_copies: bool,
    fail_under: tuple[str, ...],
    device: str,
    quiet: bool,
) -> None:
    """Attack models and compare clean and adversarial recall.

    MODEL is timm:NAME, torchvision:NAME, hf:ORG/NAME, open_clip:ARCH/WEIGHTS (each with ?pretrained=false behind for
    random weights), the --out folder of 'robustdml train', a file (TorchScript, torch.export, ONNX; weights with
    --arch), or file.py:build or package.module:build for a torch module of your own that maps images (N, 3, H, W) in
    [0, 1] to embeddings (N, D); its attribute preprocessing may say how they are to be prepared: {"size": 224,
    "resize": 256, "interpolation": "bicubic"}. NAME=MODEL calls it so (docs/sources.md).
    Writes results.json, per-query records and report.html.
    """
    budgets = parse_budgets(eps)
    from robustdml.attacks import build_suite
    from robustdml.config import RunOptions
    from robustdml.devices import choose_device
    from robustdml.evaluation import build_panel, load_subjects
    from robustdml.evaluation import evaluate as run
    from robustdml.evaluation.attacking.apart import guarded
    from robustdml.reports import write_outputs

    # What is quick to refuse is refused before anything is loaded.
    thresholds = read_thresholds(fail_under)
    suite = guarded(attacks, lambda: build_suite(attacks, budgets, effort), choose_device(device))
    if curve is not None:
        searches = build_suite(",".join(_searches(curve)), budgets, effort)
        suite = list(dict.fromkeys([*suite, *searches]))
    panels = [*(build_panel("certify", text) for text in certify), *([build_panel("natural")] if natural else [])]
    dataset = read_data(data, root, skip_broken)
    check_metrics(thresholds, dataset.rules)
    subjects = load_subjects(models, branches=branches, options=options)
    closed = [subject for subject in subjects if subject.black_box]
    if closed and curve is not None:
        raise SpecError(
            f"--curve searches along gradients, and '{closed[0].name}' gives none ({closed[0].black_box}): leave it out"
        )
    if closed and click.get_current_context().get_parameter_source("attacks") == ParameterSource.DEFAULT:
        click.echo(f"{closed[0].name} gives no gradients ({closed[0].black_box}): attacked by the suite blackbox.")
        suite = build_suite("blackbox", budgets, effort)
    results = run(
        subjects,
        dataset,
        suite,
        out=out,
        panels=panels,
        max_queries=max_queries,
        image_size=options.size,
        seed=seed,
        attack_time_limit=attack_time_limit,
        skip_broken=skip_broken,
        leave_out_copies=leave_out_copies,
        options=RunOptions(device=device, progress=not quiet, command=command_line(), save_images=save_images),
    )
    summarise(results)
    written = write_outputs([out], thresholds=thresholds)
    click.echo(f"Report: {written.page}")
    end_below(written.violations)
    if results.cells and all(cell.score is None for cell in results.cells):
        click.echo("No attack was judged: nothing is known of the models under attack.", err=True)
        click.get_current_context().exit(UNSOUND)
    failed = sum(cell.status == "failed" for cell in results.cells)
    if failed:
        click.echo(f"Not all was done: {failed} attack runs failed. Repeat the command to try them again.", err=True)
        click.get_current_context().exit(UNSOUND)


def _searches(norms: str) -> list[str]:
    """The attacks that a curve in each of some norms is made of.

    Raises:
        SpecError: there is no curve in one of them.
    """
    named = [part.strip() for part in norms.split(",")]
    for norm in named:
        if norm not in {"linf", "l2", "l1"}:
            raise SpecError(f"--curve '{norm}' is no norm of curves: write one or more of linf, l2, l1")
    return [f"bisection(norm={norm})" for norm in named]


def flag_line(flag: Flag) -> str:
    """A flag as one line of the console."""
    return f"{(flag.grade or 'flag').capitalize()} ({flag.slug}): {flag.title}. {flag.message} {flag.remedy}"


def data_lines(dataset: DatasetEntry) -> Iterator[str]:
    """What of the data was left out, changed or there twice, as lines of the console."""
    if dataset.left_out:
        parts = ", ".join(f"{part.what} ({part.count:,})" for part in dataset.left_out)
        yield f"Data: {dataset.images:,} images used; left out: {parts}; listed in left-out.csv."
    for part in dataset.remarks:
        names = ", ".join(part.names) + (", ..." if part.count > len(part.names) else "")
        yield f"Data: of {part.count:,} images: {part.what} ({names})."


def _half_distortion(curve: Curve | None) -> str:
    if curve is None:
        return "-"
    return "not reached" if curve.half_distortion is None else format_size(curve.half_distortion, curve.norm)


def summarise(results: Results) -> None:
    """Print the clean and worst-case headline of each model."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    title = (
        f"{results.dataset.headline_metric.title} on {escape(results.dataset.name)}, {results.dataset.queries} queries"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("model", overflow="fold", min_width=4)
    table.add_column("clean", justify="right", min_width=5)
    budgets = list(dict.fromkeys(worst.threat for worst in results.worst))
    for budget in budgets:
        table.add_column(f"worst at {budget.text}", justify="right", min_width=5)
    curves = {(curve.model, curve.norm): curve for curve in results.curves}
    drawn = list(dict.fromkeys(curve.norm for curve in results.curves))
    for norm in drawn:
        table.add_column(f"half-distortion in {NORMS[norm]}", justify="right")
    for model in results.models:
        own = [item for item in results.worst if item.model == model.name]
        withheld = results.invalid(model.name) is not None
        recalls = {item.threat: "invalid" if withheld else f"{item.score.value:.3f}" for item in own}
        clean = f"{model.clean.value:.3f}"
        own_curves = [curves.get((model.name, norm)) for norm in drawn]
        sizes = ["invalid" if curve and withheld else _half_distortion(curve) for curve in own_curves]
        table.add_row(escape(model.name), clean, *(recalls.get(budget, "-") for budget in budgets), *sizes)
    Console().print(table)
    for line in data_lines(results.dataset):
        click.echo(line)
    for found in results.certified:
        kind = "votes of" if found.certificate == "vote" else "the mean embedding of"
        click.echo(
            f"{found.model} smoothed by noise of sigma {found.sigma:g}, by {kind} {found.samples} copies: R@1 "
            f"{found.recall_at_1:.3f}, certified {found.recall(found.sigma):.3f} within L2 {found.sigma:g}"
        )
    for model in results.models:
        changes = [change for change in results.natural if change.model == model.name and change.family != "geometry"]
        if changes:
            hardest, mean = min(changes, key=lambda change: change.value), sum(change.value for change in changes)
            click.echo(
                f"{model.name} under common corruptions: {mean / len(changes):.3f} on average, {hardest.value:.3f} "
                f"under the worst ({hardest.title}, severity {hardest.severity})"
            )
    # Failures are counted below, and the report has all flags.
    for flag in results.flags:
        if flag.grade in {"invalid", "grave"} and flag.slug != "attack-failed":
            click.echo(flag_line(flag))
    for status in ("failed", "skipped"):
        reasons = [cell.reason for cell in results.cells if cell.status == status]
        if reasons:
            click.echo(
                f"{len(reasons)} of {len(results.cells)} attack runs {status}, the first since {reasons[0]}; "
                "the report gives all reasons."
            )
