"""``robustdml evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from robustdml.cli.config_file import config_option
from robustdml.cli.dry_run import say_estimate
from robustdml.cli.options import (
    HomePath,
    command_line,
    configuration,
    data_options,
    read_data,
    run_options,
    skip_broken_option,
    source_options,
)
from robustdml.cli.output import Output
from robustdml.cli.summary import data_of, files_data, summarise
from robustdml.cli.thresholds import BELOW, check_metrics, fail_under_option, read_thresholds, say_below
from robustdml.cli.tracking import log_to_option, tell, trackers_of
from robustdml.cli.verify import UNSOUND
from robustdml.config import (
    BRANCH_CHOICES,
    EFFORTS,
    ENGINES,
    PRECISION_CHOICES,
    BranchChoice,
    Effort,
    EngineName,
    PrecisionChoice,
)
from robustdml.errors import SpecError
from robustdml.files import check_writable
from robustdml.threat import parse_budgets

if TYPE_CHECKING:
    from robustdml.reports import Threshold
    from robustdml.results import Results
    from robustdml.source_options import SourceOptions
    from robustdml.trackers import Tracker


@click.command()
@config_option
@click.argument("models", nargs=-1, metavar="MODEL...")
@partial(data_options, required=False)
@click.option(
    "--embeddings",
    type=HomePath(),
    metavar="FILE",
    help="In place of a MODEL: score embeddings computed elsewhere (.npz, .npy, .pt, .parquet) clean (docs/python.md).",
)
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
@click.option("--out", type=HomePath(), help="Run folder; repeat the command to resume. Not needed for --dry-run.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and its time and memory as two queries show it.")
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
@click.option(
    "--precision",
    type=click.Choice(PRECISION_CHOICES),
    default="fp32",
    show_default=True,
    help="Of the models as attacks run them; auto: what is faster and as strong. They are judged in fp32.",
)
@click.option("--no-nmi", is_flag=True, help="Leave out NMI, which clusters the gallery of each model.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="inline",
    show_default=True,
    help="ray: attack in processes of a Ray cluster, that of RAY_ADDRESS or one of this machine (docs/scale.md).",
)
@click.option("--workers", type=int, metavar="N", help="Processes of --engine ray.  [default: all of the cluster]")
@source_options
@click.option("--seed", default=0, show_default=True, help="Of the sample and the attacks.")
@skip_broken_option
@click.option("--leave-out-copies", is_flag=True, help="Go on without images that the data set holds twice.")
@fail_under_option
@log_to_option
@run_options
def evaluate(
    models: tuple[str, ...],
    data: str | None,
    root: Path | None,
    allow_outside: bool,
    embeddings: Path | None,
    attacks: str,
    eps: str,
    effort: Effort,
    curve: str | None,
    attack_time_limit: float | None,
    max_queries: int | None,
    out: Path | None,
    dry_run: bool,
    branches: BranchChoice,
    certify: tuple[str, ...],
    natural: bool,
    save_images: bool,
    precision: PrecisionChoice,
    no_nmi: bool,
    engine: EngineName,
    workers: int | None,
    options: SourceOptions,
    seed: int,
    skip_broken: bool,
    leave_out_copies: bool,
    fail_under: tuple[str, ...],
    log_to: tuple[str, ...],
    device: str,
    output: Output,
) -> None:
    """Attack models and compare clean and adversarial recall.

    MODEL is timm:NAME, torchvision:NAME, hf:ORG/NAME, open_clip:ARCH/WEIGHTS (each with ?pretrained=false behind for
    random weights), the --out folder of 'robustdml train', a file (TorchScript, torch.export, ONNX; weights with
    --arch), or file.py:build or package.module:build for a torch module of your own that maps images (N, 3, H, W) in
    [0, 1] to embeddings (N, D); its attribute preprocessing may say how they are to be prepared: {"size": 224,
    "resize": 256, "interpolation": "bicubic"}. NAME=MODEL calls it so (docs/sources.md).
    Writes results.json, per-query records and report.html.
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    if out is not None and not dry_run:
        check_writable(out / "report.html")
    if embeddings is not None:
        _check_alone(embeddings, models)
        from robustdml.evaluation import evaluate_embeddings

        assert out is not None  # without it this is a dry run, which was refused
        thresholds, trackers = read_thresholds(fail_under), trackers_of(log_to)
        labels = None if data is None else read_data(data, root, output, allow_outside=allow_outside)
        results = evaluate_embeddings(
            embeddings, labels, out=out, max_queries=max_queries, seed=seed, command=command_line()
        )
        _finish(results, out, thresholds, trackers, output)
        return
    if not models:
        raise click.UsageError("Missing argument 'MODEL...'.")
    if data is None:
        raise click.UsageError("Missing option '--data'.")
    budgets = parse_budgets(eps)
    from robustdml.attacks import build_suite
    from robustdml.config import RunOptions
    from robustdml.devices import choose_device
    from robustdml.evaluation import build_panel, load_subjects, rehearse
    from robustdml.evaluation import evaluate as run
    from robustdml.evaluation.attacking.apart import guarded
    from robustdml.evaluation.run import checked_numbers

    # What is quick to refuse is refused before anything is loaded.
    thresholds, trackers = read_thresholds(fail_under), trackers_of(log_to)
    suite = guarded(attacks, partial(build_suite, attacks, budgets, effort), choose_device(device))
    if curve is not None:
        searches = build_suite(",".join(_searches(curve)), budgets, effort)
        suite = list(dict.fromkeys([*suite, *searches]))
    checked_numbers(seed, max_queries, attack_time_limit)
    choose_device(device)
    panels = [*(build_panel("certify", text) for text in certify), *([build_panel("natural")] if natural else [])]
    dataset = read_data(data, root, output, skip_broken, allow_outside)
    check_metrics(thresholds, dataset.rules)
    subjects = load_subjects(models, branches=branches, options=options)
    closed = [subject for subject in subjects if subject.black_box]
    if closed and curve is not None:
        raise SpecError(
            f"--curve searches along gradients, and '{closed[0].name}' gives none ({closed[0].black_box}): leave it out"
        )
    if closed and click.get_current_context().get_parameter_source("attacks") == ParameterSource.DEFAULT:
        output.warn(f"{closed[0].name} gives no gradients ({closed[0].black_box}): attacked by the suite blackbox.")
        suite = build_suite("blackbox", budgets, effort)
    chosen = RunOptions(
        device=device,
        progress=not output.quiet,
        command=command_line(),
        configuration=configuration(),
        save_images=save_images,
        nmi=not no_nmi,
        engine=engine,
        workers=workers,
    )
    if out is None or dry_run:
        estimate = rehearse(
            subjects,
            dataset,
            suite,
            panels=panels,
            max_queries=max_queries,
            image_size=options.size,
            seed=seed,
            skip_broken=skip_broken,
            options=chosen,
        )
        say_estimate(estimate, configuration(), output)
        return
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
        precision=precision,
        skip_broken=skip_broken,
        leave_out_copies=leave_out_copies,
        options=chosen,
    )
    _finish(results, out, thresholds, trackers, output)


def _finish(
    results: Results, out: Path, thresholds: Sequence[Threshold], trackers: dict[str, Tracker], output: Output
) -> None:
    """Say what was found, write the page, and end with the code that says how it went."""
    from robustdml.reports import write_outputs

    summarise(results, output)
    written = write_outputs([out], thresholds=thresholds)
    output.line(f"Report: {written.page}")
    tell(trackers, out, output)
    failed = sum(cell.status == "failed" for cell in results.cells)
    judged = not results.cells or any(cell.score for cell in results.cells)
    code = BELOW if written.violations else UNSOUND if failed or not judged else 0
    output.document({"exit_code": code, "run": str(out), **files_data(written), **data_of(results)})
    say_below(written.violations, output)
    if not judged:
        output.warn("No attack was judged: nothing is known of the models under attack.")
    elif failed:
        output.warn(f"Not all was done: {failed} attack runs failed. Repeat the command to try them again.")
    click.get_current_context().exit(code)


#: Options of `evaluate` that mean nothing without a model.
_OF_MODELS = (
    *("attacks", "eps", "effort", "curve", "attack_time_limit", "dry_run", "branches", "certify", "natural"),
    *("save_images", "precision", "skip_broken", "leave_out_copies", "device"),
    *("arch", "mean", "std", "image_size", "crop", "interpolation", "keep_head", "trust_pickle", "trust_code"),
)


def _check_alone(embeddings: Path, models: tuple[str, ...]) -> None:
    """Refuse what needs a model.

    Raises:
        SpecError: a model, or what is done to one, was given beside the embeddings.
    """
    if models:
        raise SpecError(f"--embeddings stands in place of models: leave '{models[0]}' out, or evaluate it by itself")
    for name in _OF_MODELS:
        if click.get_current_context().get_parameter_source(name) != ParameterSource.DEFAULT:
            raise SpecError(
                f"--{name.replace('_', '-')} needs the model: an attack changes an image and asks what becomes of its "
                f"embedding, and '{embeddings.name}' holds embeddings alone: give the model, or leave the option out"
            )


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
