"""Tables of docs/mdprop.md: every method under STAX, MTAX and margin PGD, through every BatchNorm branch, over seeds.

Run: python experiments/ablation.py --grocery ROOT --emoji ROOT [--data digits] [--seeds 3] [--out runs/ablation]

The same command again goes on where it stopped, and writes what is measured so far between the marks of mdprop.md. Data
sets may be measured by several commands at once (--data), each on its own processor.
"""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import click
from page import write

from robustdml.attacks import GOALS, build_suite
from robustdml.config import TrainConfig
from robustdml.data import RetrievalDataset, load_dataset
from robustdml.data.images import ImageSource
from robustdml.errors import TrainingError
from robustdml.evaluation import evaluate, load_subjects
from robustdml.results import Results
from robustdml.threat import format_eps
from robustdml.training import train


@dataclass(frozen=True)
class Setting:
    """How a data set is trained on and attacked.

    The first of ``attack_eps`` is the budget to withstand, which `robust` is told. Of experiments/results.py are
    ``beyond``, further training eps of MDProp, and ``budgets``, those of the standard evaluation.
    """

    data: str
    image_size: int
    epochs: int
    precision: str
    eps: float
    attack_eps: tuple[float, ...]
    beyond: tuple[float, ...]
    budgets: tuple[float, float]
    queries: int = 200

    def training_eps(self, method: str) -> float:
        """What --eps is for a method in the large table."""
        return self.attack_eps[0] if method.startswith("robust") else self.eps


SETTINGS = {
    "digits": Setting("digits", 32, 8, "fp32", 16 / 255, (8 / 255, 16 / 255), (8 / 255, 24 / 255), (8 / 255, 16 / 255)),
    "grocery": Setting("grocery", 32, 15, "bf16", 2 / 255, (2 / 255, 8 / 255), (4 / 255,), (1 / 255, 2 / 255)),
    "emoji": Setting("folder", 32, 8, "bf16", 8 / 255, (8 / 255, 16 / 255), (16 / 255,), (4 / 255, 8 / 255)),
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
#: Of each model: (branch, column) -> value; the deployed branch is called ''.
Values = dict[tuple[str, str], float]


class Decoded:
    """Images that are decoded once, however many runs read them."""

    def __init__(self, images: ImageSource) -> None:
        self._images = images
        self.load = functools.cache(images.load)
        self.name, self.digest = images.name, images.digest

    def __len__(self) -> int:
        return len(self._images)


@dataclass(frozen=True)
class Bench:
    """One data set, its settings, and the folder that its runs go into."""

    dataset: RetrievalDataset
    setting: Setting
    out: Path

    def model(self, method: str, targets: int, eps: float, seed: int) -> Path | None:
        """Train one model; None where its training stopped because the embeddings had collapsed."""
        setting = self.setting
        beside = "" if eps == setting.eps else f"-{round(255 * eps)}"
        folder = self.out / f"{method}-{targets}{beside}-{seed}"
        config = TrainConfig(
            method=method,
            targets=targets,
            backbone="resnet-tiny",
            image_size=setting.image_size,
            epochs=setting.epochs,
            precision=setting.precision,
            eps=eps,
            validation_classes=0,
            seed=seed,
        )
        try:
            train(self.dataset, config, folder / "model", goals=GOALS)
        except TrainingError as error:
            click.echo(f"{folder}: {error}")
            return None
        return folder

    def targeted(self, folder: Path) -> Values:
        """Attacked by STAX and MTAX, through each BatchNorm branch."""
        subjects = load_subjects([f"model={folder / 'model'}"], branches="all")
        attacks = build_suite("stax(steps=20),mtax(targets=5, steps=20)", self.setting.attack_eps)
        return values_of(
            evaluate(subjects, self.dataset, attacks, out=folder / "targeted", max_queries=self.setting.queries)
        )

    def clean_and_margin(self, folder: Path) -> Values:
        """Clean on all queries, through each branch; attacked at the margin, as deployed."""
        source = [f"model={folder / 'model'}"]
        attacks = build_suite("margin(steps=50)", self.setting.attack_eps[:1])
        return values_of(
            evaluate(load_subjects(source, branches="all"), self.dataset, [], out=folder / "clean"),
            evaluate(
                load_subjects(source), self.dataset, attacks, out=folder / "margin", max_queries=self.setting.queries
            ),
        )


def values_of(*found: Results) -> Values:
    """What a table needs of results; clean figures are those of results without attacks, which have all queries."""
    values: Values = {}
    for results in found:
        for model in results.models if not results.attacks else ():
            branch = model.name.removeprefix("model").strip("[]")
            values[branch, "R@1"] = 100 * model.clean.metrics.recall_at_1
            values[branch, "R@4"] = 100 * model.clean.metrics["recall_at_4"]
            if model.nmi is not None:
                values[branch, "NMI"] = 100 * model.nmi
            if model.pi_ratio is not None:
                values[branch, "pi"] = model.pi_ratio
        goals = {entry.spec: entry.goal.upper() for entry in results.attacks}
        for cell in results.cells:
            assert cell.score is not None, cell.reason
            column = f"{goals[cell.attack]} {cell.threat.text}"
            values[cell.model.removeprefix("model").strip("[]"), column] = 100 * cell.score.metrics.recall_at_1
    return values


def branch_table(setting: Setting, measured: dict[str, list[Values]]) -> str:
    """One line per method and branch: mean and standard deviation over the seeds."""
    eps = [format_eps(value) for value in setting.attack_eps]
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
        setting = SETTINGS[name]
        dataset = load_dataset(setting.data, roots[name])
        bench = Bench(replace(dataset, images=Decoded(dataset.images)), setting, out / name)
        by_branch: dict[str, list[Values]] = {}
        for seed in range(seeds):
            for label, (method, targets) in ROWS.items():
                runs = by_branch.setdefault(label, [])
                if folder := bench.model(method, targets, setting.training_eps(method), seed):
                    runs.append(bench.clean_and_margin(folder) | bench.targeted(folder))
                write("mdprop.md", name, branch_table(setting, by_branch))


if __name__ == "__main__":
    main()
