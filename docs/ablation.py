"""The tables of mdprop.md: every method on every data set over seeds, through every BatchNorm branch.

Run: python docs/ablation.py --grocery ROOT --emoji ROOT [--data digits] [--seeds 3] [--out runs/ablation]

The same command again goes on where it stopped, and writes what is measured so far between the marks of mdprop.md. Data
sets may be measured by several commands at once (--data), each on its own processor.
"""

from __future__ import annotations

import functools
import re
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import click

from robustdml.attacks import build_attack, build_suite
from robustdml.config import DEFAULT_OPTIONS, TrainConfig
from robustdml.data import RetrievalDataset, load_dataset
from robustdml.data.images import ImageSource
from robustdml.errors import TrainingError
from robustdml.evaluation import evaluate, load_subjects
from robustdml.results import Results
from robustdml.threat import format_eps
from robustdml.training import train

PAGE = Path(__file__).parent / "mdprop.md"


@dataclass(frozen=True)
class Setting:
    """How a data set is trained on and attacked."""

    data: str
    image_size: int
    epochs: int
    precision: str
    eps: float
    attack_eps: tuple[float, ...]
    queries: int = 200


SETTINGS = {
    "digits": Setting("digits", 32, 8, "fp32", 16 / 255, (8 / 255, 16 / 255)),
    "grocery": Setting("grocery", 32, 15, "bf16", 2 / 255, (2 / 255, 8 / 255)),
    "emoji": Setting("folder", 32, 8, "bf16", 4 / 255, (8 / 255, 16 / 255)),
}
#: What the table calls it: the method and T.
ROWS = {
    "ST": ("st", 5),
    "AT": ("at", 5),
    "AdvProp-D": ("advprop", 5),
    "MP' (3)": ("mp1", 3),
    "MP'' (1, 2)": ("mdprop", 2),
    "MP'' (1, 3)": ("mdprop", 3),
    "MP'' (1, 5) = MDProp": ("mdprop", 5),
    "MP'''": ("mp3", 5),
    "unadversarial, own BN": ("unadversarial", 1),
    "unadversarial, one BN": ("unadversarial-shared", 1),
    "ST, frozen BN": ("st-frozen", 5),
    "AT, frozen BN": ("at-frozen", 5),
    "robust": ("robust", 5),
}


class Decoded:
    """Images that are decoded once, however many runs read them."""

    def __init__(self, images: ImageSource) -> None:
        self._images = images
        self.load = functools.cache(images.load)
        self.name, self.digest = images.name, images.digest

    def __len__(self) -> int:
        return len(self._images)


def measure(name: str, dataset: RetrievalDataset, label: str, seed: int, out: Path) -> list[Results] | None:
    """Train one model and evaluate it: clean on all queries, attacked through each branch, at the margin as deployed.

    None where its training stopped because the embeddings had collapsed.
    """
    setting, (method, targets) = SETTINGS[name], ROWS[label]
    folder = out / name / f"{method}-{targets}-{seed}"
    config = TrainConfig(
        method=method,
        targets=targets,
        backbone="resnet-tiny",
        image_size=setting.image_size,
        epochs=setting.epochs,
        precision=setting.precision,
        eps=setting.eps,
        validation_classes=0,
        seed=seed,
    )
    try:
        train(dataset, config, folder / "model", build_attack=build_attack)
    except TrainingError as error:
        click.echo(f"{name}, {label}, seed {seed}: {error}")
        return None
    source = [f"model={folder / 'model'}"]
    subjects = load_subjects(source, branches="all")
    attacks = build_suite("stax(steps=20),mtax(targets=5, steps=20)", setting.attack_eps)
    margin = build_suite("margin(steps=50)", setting.attack_eps[:1])
    return [
        evaluate(subjects, dataset, [], out=folder / "clean", options=DEFAULT_OPTIONS),
        evaluate(subjects, dataset, attacks, out=folder / "targeted", max_queries=setting.queries),
        evaluate(load_subjects(source), dataset, margin, out=folder / "margin", max_queries=setting.queries),
    ]


def values_of(found: list[Results]) -> dict[tuple[str, str], float]:
    """(branch, column) -> value; the deployed branch is called ''."""
    clean, *attacked = found
    values: dict[tuple[str, str], float] = {}
    for model in clean.models:
        branch = model.name.removeprefix("model").strip("[]")
        values[branch, "R@1"] = 100 * model.clean.metrics.recall_at_1
        values[branch, "R@4"] = 100 * model.clean.metrics.recall_at_4
        if model.nmi is not None:
            values[branch, "NMI"] = 100 * model.nmi
        if model.pi_ratio is not None:
            values[branch, "pi"] = model.pi_ratio
    for results in attacked:
        names = {entry.spec: entry.goal.upper() for entry in results.attacks}
        for cell in results.cells:
            branch = cell.model.removeprefix("model").strip("[]")
            assert cell.score is not None, cell.reason
            column = f"{names[cell.attack]} {format_eps(cell.eps)}"
            values[branch, column] = 100 * cell.score.metrics.recall_at_1
    return values


def table(name: str, measured: dict[str, list[dict[tuple[str, str], float]]]) -> str:
    """One line per method and branch: mean and standard deviation over the seeds."""
    eps = [format_eps(value) for value in SETTINGS[name].attack_eps]
    columns = ["R@1", "R@4", "NMI", "pi", *(f"{goal} {e}" for e in eps for goal in ("STAX", "MTAX"))]
    columns.append(f"MARGIN {eps[0]}")
    lines = [f"| method | BN | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for label, runs in measured.items():
        if not runs:
            lines.append(f"| {label} | | collapsed {'| ' * len(columns)}|")
            continue
        for branch in dict.fromkeys(branch for branch, _ in runs[0]):
            cells = [
                _mean([run[branch, column] for run in runs if (branch, column) in run], 3 if column == "pi" else 1)
                for column in columns
            ]
            lines.append(f"| {'' if branch else label} | {branch or 'deployed'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[float], digits: int) -> str:
    if not values:
        return "—"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def write(name: str, text: str) -> None:
    """Put ``text`` between the marks of the data set in the page."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{begin}.*?{end}", f"{begin}\n{text}\n{end}", page, flags=re.DOTALL))


@click.command()
@click.option("--grocery", type=click.Path(path_type=Path), help="Folder of the Grocery Store Dataset.")
@click.option("--emoji", type=click.Path(path_type=Path), help="Folder with drawings of emoji in train/ and test/.")
@click.option("--data", multiple=True, type=click.Choice(list(SETTINGS)), help="Only these [default: all].")
@click.option("--seeds", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/ablation"), show_default=True)
def main(grocery: Path | None, emoji: Path | None, data: tuple[str, ...], seeds: int, out: Path) -> None:
    """Measure, and write the tables."""
    roots = {"digits": None, "grocery": grocery, "emoji": emoji}
    for name in data or SETTINGS:
        dataset = load_dataset(SETTINGS[name].data, roots[name])
        dataset = replace(dataset, images=Decoded(dataset.images))
        measured: dict[str, list[dict[tuple[str, str], float]]] = {label: [] for label in ROWS}
        for seed in range(seeds):
            for label in ROWS:
                if found := measure(name, dataset, label, seed, out):
                    measured[label].append(values_of(found))
                write(name, table(name, {key: value for key, value in measured.items() if value}))


if __name__ == "__main__":
    main()
