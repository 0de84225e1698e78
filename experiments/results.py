"""The tables of docs/results.md and docs/mdprop.md under the standard evaluation.

    python experiments/results.py --grocery ROOT --emoji ROOT [--data digits] [--seeds 3] [--queries 100]

For every data set, seed and row a model is trained and evaluated: clean on all queries, by the cascade at two budgets,
and by the search for the smallest eps that breaks each query. The same command again goes on where it stopped, and
writes what is measured so far between the marks of both pages: seed 0 into docs/results.md, means over seeds into
docs/mdprop.md. Parts of it may be run by several commands at once (--data, --rows); one without them writes all.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import norms
import torch
from ablation import SETTINGS, Decoded, Setting
from page import write

from robustdml.attacks import GOALS, build_suite
from robustdml.branches import Method
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import RetrievalDataset, load_dataset
from robustdml.data.tensors import ImageTensors
from robustdml.errors import TrainingError
from robustdml.evaluation import evaluate, load_subjects
from robustdml.models import load_checkpoint
from robustdml.reports import merge_runs
from robustdml.results import Curve, Norm, Results
from robustdml.retrieval import clean_recall
from robustdml.source_options import SourceOptions
from robustdml.threat import NORMS, ThreatModel, format_eps, format_size
from robustdml.training import METHODS, train

COMPARED = ("st", "at", "advprop", "mdprop", "robust", "robust-frozen")
#: Where the images of `robust` meet other layers than its BatchNorm branches.
LAYERS = {
    "one BatchNorm for all images": "resnet-tiny",
    "frozen BatchNorm of st": "norms:trained",
    "affine part of BatchNorm alone": "norms:affine",
    "GroupNorm": "norms:group",
    "weight standardisation": "norms:standardised",
}
_ONE = Method("the images of robust through one BatchNorm", METHODS["robust-frozen"].branches)
#: Fewer on photos and drawings than experiments/ablation.py takes: so that three seeds fit into hours of one core.
EPOCHS = {"digits": 8, "grocery": 10, "emoji": 5}
#: The search for the smallest eps without its costly part, single items: a seventh of the gradients.
QUICK = "bisection(steps=10, items=0)"
_OPTIONS = RunOptions(device="cpu", progress=False)


@dataclass(frozen=True)
class Found:
    """One model: clean on all queries, and attacked on a sample of them."""

    folder: Path
    clean: float  #: R@1 of all queries
    attacked: Results  #: a sample, by the cascade
    searched: Results | None  #: the same sample, by the searches for the smallest eps, where they are made


@dataclass(frozen=True)
class Bench:
    """One data set, its settings, and where its runs go."""

    name: str
    setting: Setting
    dataset: RetrievalDataset
    epochs: int
    queries: int
    search: str
    searched_seeds: int
    out: Path

    def rows(self) -> dict[str, TrainConfig]:
        """What is trained, by what the tables call it."""
        setting = self.setting
        plain = TrainConfig(
            backbone="resnet-tiny",
            image_size=setting.image_size,
            epochs=self.epochs,
            precision=setting.precision,
            validation_classes=0,
        )
        rows = {method: replace(plain, method=method, eps=setting.training_eps(method)) for method in COMPARED}
        others = {f"mdprop-{255 * eps:.0f}": eps for eps in setting.beyond if eps != setting.eps}
        return rows | {name: replace(rows["mdprop"], eps=eps) for name, eps in others.items()}

    def layer_rows(self) -> dict[str, TrainConfig]:
        """The images of `robust` on networks with other layers."""
        frozen = self.rows()["robust-frozen"]
        rows = {name: replace(frozen, backbone=backbone) for name, backbone in LAYERS.items()}
        first = next(iter(rows))
        return rows | {first: replace(frozen, method="one-batchnorm", recipe=_ONE)}

    def trained(self, name: str, config: TrainConfig, seed: int) -> Path:
        """The folder of one model, with its run folder ``model``.

        Raises:
            TrainingError: its training failed.
        """
        folder = self.out / self.name / f"{name.replace(' ', '-')}-{seed}"
        norms.START = self.out / self.name / f"st-{seed}" / "model"
        train(self.dataset, replace(config, seed=seed), folder / "model", goals=GOALS, options=_OPTIONS)
        return folder

    def evaluated(self, name: str, folder: Path, attacks: str) -> Results:
        """The results of some attacks, which have a run folder for themselves beside the model."""
        return evaluate(
            load_subjects([f"{name}={folder / 'model'}"], options=SourceOptions(trust_code=True)),
            self.dataset,
            build_suite(attacks, self.setting.budgets),
            out=folder / attacks,
            max_queries=self.queries,
            options=_OPTIONS,
        )

    def found(self, name: str, config: TrainConfig, seed: int) -> Found | str:
        """Train and measure one model, or go on; or why there is none."""
        try:
            folder = self.trained(name, config, seed)
        except TrainingError as error:
            return f"no model: {error}"
        attacked = self.evaluated(name, folder, "standard")
        searched = self.evaluated(name, folder, self.search) if seed < self.searched_seeds else None
        return Found(folder, self.clean(folder), attacked, searched)

    def clean(self, folder: Path) -> float:
        """R@1 of all queries, kept beside the model."""
        kept = folder / "clean.json"
        if not kept.exists():
            model = load_checkpoint(folder / "model", trust_code=True).deployed()
            views = ImageTensors(self.dataset.images, model.preprocessing)
            kept.write_text(json.dumps(clean_recall(model, self.dataset.test, views, torch.device("cpu"))))
        return float(json.loads(kept.read_text()))


def commands(bench: Bench, *, searched: bool) -> str:
    """The same by hand."""
    setting, rows = bench.setting, bench.rows()
    data = f"--data {setting.data}" + ("" if bench.name == "digits" else " --root ROOT")
    lines = [
        "```sh",
        f'common="{data} --backbone resnet-tiny --image-size {setting.image_size} --epochs {bench.epochs} '
        f'--precision {setting.precision} --validation-classes 0"',
    ]
    for name, config in rows.items():
        eps = "" if config.method == "st" else f" --eps {format_eps(config.eps)}"
        lines.append(f"robustdml train $common --method {config.method}{eps} --out runs/{name}")
    budgets = ",".join(map(format_eps, setting.budgets))
    attacks = f"standard,{bench.search}" if searched else "standard"
    lines += [
        f"robustdml evaluate {' '.join(f'runs/{name}' for name in rows)} {data} \\",
        f'  --attacks "{attacks}" --eps {budgets} --max-queries {bench.queries} --out runs/results',
    ]
    return "\n".join([*lines, "```"])


def interval_table(results: Results, curves: dict[tuple[str, Norm], Curve], missing: dict[str, str]) -> str:
    """One line per model, with intervals over classes."""
    worst = {(item.model, item.threat): item for item in results.worst}
    budgets = _budgets(results)
    norms_of_curves = dict.fromkeys(norm for _, norm in curves)
    titles = [f"{title} {NORMS[norm]}" for norm in norms_of_curves for title in ("median eps", "half-distortion")]
    heads = ["method", "clean R@1", *(f"R@1 at {threat.text}" for threat in budgets), *titles, "gradients a query"]
    lines = _heads(heads)
    for model in results.models:
        scores = [model.clean, *(worst[model.name, threat].score for threat in budgets)]
        cells = [f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})" for found in scores]
        for norm in norms_of_curves:
            curve = curves.get((model.name, norm))
            span = f" ({written(curve.half_low, norm)} to {written(curve.half_high, norm)})" if curve else ""
            cells += [written(curve.median, norm), written(curve.half_distortion, norm) + span] if curve else ["", ""]
        spent = [cell.gradient_images / results.dataset.queries for cell in results.cells if cell.model == model.name]
        lines.append(f"| {model.name} | {' | '.join(cells)} | {' + '.join(f'{each:.0f}' for each in spent)} |")
    lines += [f"| {name} | {reason} {'| ' * (len(heads) - 1)}|" for name, reason in missing.items()]
    return "\n".join(lines)


def seed_table(rows: dict[str, TrainConfig], found: dict[str, list[Found]]) -> str:
    """One line per row: mean and standard deviation over seeds, in percent."""
    budgets = _budgets(next(iter(found.values()))[0].attacked)
    heads = ["method", "--eps", "seeds", "clean R@1", *(f"standard.v1 {threat.text}" for threat in budgets)]
    any_searched = any(model.searched for models in found.values() for model in models)
    sizes = ["median eps", "half-distortion"] if any_searched else []
    lines = _heads([*heads, *sizes, "gradients a query"])
    for name, models in found.items():
        config, attacked = rows[name], [model.attacked for model in models]
        cells = [
            name if config.backbone in LAYERS.values() or config.recipe else config.method,
            "" if config.method == "st" else format_eps(config.eps),
            str(len(models)),
            _mean([100 * model.clean for model in models], 1),
        ]
        spent = []
        for number in range(len(budgets)):
            scores = [results.cells[number].score for results in attacked]
            cells.append(_mean([100 * score.value for score in scores if score is not None], 1))
            gradients = [results.cells[number].gradient_images / results.dataset.queries for results in attacked]
            spent.append(_mean(gradients, 0))
        searched = [model.searched for model in models if model.searched]
        curves = [curve for results in searched for curve in results.curves if curve.norm == "linf"]
        if any_searched:
            cells += [_grey([curve.median for curve in curves]), _grey([curve.half_distortion for curve in curves])]
        lines.append(f"| {' | '.join([*cells, ' + '.join(spent)])} |")
    return "\n".join(lines)


def _heads(heads: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]


def _budgets(results: Results) -> list[ThreatModel]:
    """Those of the cascade."""
    return [cell.threat for cell in results.cells if cell.model == results.models[0].name and cell.threat.eps]


def _mean(values: Sequence[float], digits: int) -> str:
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _grey(sizes: Sequence[float | None]) -> str:
    """Sizes in grey levels of 255; where one was not reached there is no mean."""
    reached = [255 * size for size in sizes if size is not None]
    return "not reached" if len(reached) < len(sizes) else _mean(reached, 2) if sizes else ""


def written(size: float | None, norm: str) -> str:
    """The size without its unit."""
    return "not reached" if size is None else format_size(size, norm).removeprefix("L2 ").removesuffix("/255")


def curve_table(curves: Sequence[Curve]) -> str:
    """R@1 at each budget of the curves of one norm."""
    heads = [format_eps(point.eps) if curves[0].norm == "linf" else f"L2 {point.eps:g}" for point in curves[0].points]
    lines = _heads(["method", *heads])
    lines += [f"| {curve.model} | {' | '.join(f'{point.recall:.3f}' for point in curve.points)} |" for curve in curves]
    return "\n".join(lines)


def flag_list(runs: Sequence[Results]) -> str:
    """The flags of all runs, as the report words them."""
    lines = [f"- {flag.grade} `{flag.slug}`: {flag.message}" for results in runs for flag in results.flags]
    return "\n".join(dict.fromkeys(lines)) or "No flag was raised."


def first_seed(bench: Bench, found: dict[str, Found | str]) -> str:
    """What docs/results.md says of a data set."""
    models = [each for each in found.values() if isinstance(each, Found)]
    results = merge_runs([(each.folder / "standard", each.attacked) for each in models])
    searched = [each.searched for each in models if each.searched]
    curves = {(curve.model, curve.norm): curve for each in searched for curve in each.curves}
    entry = results.dataset
    parts = [
        commands(bench, searched=bool(searched)),
        f"{entry.queries} of {entry.queries_available} queries, {entry.gallery} gallery images, {entry.classes} unseen "
        f"classes, seed 0; eps in grey levels of 255 where it is L\N{INFINITY}; 95 % intervals from a bootstrap over "
        "classes; gradients of the cascade at each budget.",
        interval_table(results, curves, {name: each for name, each in found.items() if isinstance(each, str)}),
    ]
    for norm in dict.fromkeys(norm for _, norm in curves):
        drawn = [curve for (_, of), curve in curves.items() if of == norm]
        parts += [f"R@1 over eps by the search alone, {NORMS[norm]}:", curve_table(drawn)]
    return "\n\n".join(["", *parts, f"Flags:\n\n{flag_list([results, *searched])}"])


@click.command()
@click.option("--grocery", type=click.Path(path_type=Path), help="Folder of the Grocery Store Dataset.")
@click.option("--emoji", type=click.Path(path_type=Path), help="Folder with drawings of emoji in train/ and test/.")
@click.option("--data", multiple=True, type=click.Choice(list(SETTINGS)), help="Only these [default: all].")
@click.option("--rows", help="Only these, separated by commas; nothing is written [default: all].")
@click.option("--seeds", default=3, show_default=True)
@click.option("--epochs", type=int, help=f"Of every training [default: {EPOCHS}].")
@click.option("--queries", default=100, show_default=True, help="A class-stratified sample of so many is attacked.")
@click.option("--search", default=QUICK, show_default=True, help="The attack that searches for the smallest eps.")
@click.option("--searched-seeds", default=1, show_default=True, help="How many seeds are searched so.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/results"), show_default=True)
def main(
    grocery: Path | None,
    emoji: Path | None,
    data: tuple[str, ...],
    rows: str | None,
    seeds: int,
    epochs: int | None,
    queries: int,
    search: str,
    searched_seeds: int,
    out: Path,
) -> None:
    """Measure, and write the tables."""
    benches = []
    for name, root in {"digits": None, "grocery": grocery, "emoji": emoji}.items():
        if name in (data or SETTINGS):
            dataset = load_dataset(SETTINGS[name].data, root)
            dataset = replace(dataset, images=Decoded(dataset.images))
            found = Bench(name, SETTINGS[name], dataset, epochs or EPOCHS[name], queries, search, searched_seeds, out)
            benches.append(found)
    of_seeds: dict[str, dict[str, list[Found]]] = {}
    for seed in range(seeds):
        for bench in benches:
            measure(bench, bench.name, bench.rows(), seed, rows, of_seeds.setdefault(bench.name, {}))
        for bench in benches:
            if bench.name == "digits":
                measure(bench, "layers", bench.layer_rows(), seed, rows, of_seeds.setdefault("layers", {}))


def measure(
    bench: Bench,
    part: str,
    configs: dict[str, TrainConfig],
    seed: int,
    only: str | None,
    of_seeds: dict[str, list[Found]],
) -> None:
    """One table's models of one seed, into the tables."""
    found: dict[str, Found | str] = {}
    for name, config in configs.items():
        if only is None or name in only.split(","):
            found[name] = model = bench.found(name, config, seed)
            click.echo(f"{bench.name}, seed {seed}: {name}")
            if isinstance(model, Found):
                of_seeds.setdefault(name, []).append(model)
    if only is None and of_seeds:
        write("mdprop.md", f"{part}, standard.v1", seed_table(configs, of_seeds))
        if seed == 0 and part == bench.name:
            write("results.md", part, first_seed(bench, found))


if __name__ == "__main__":
    main()
