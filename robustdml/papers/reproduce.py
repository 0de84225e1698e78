"""One row of a paper's tables, from the files of its data set to a table of published values beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from robustdml.attacks import GOALS, build_attack
from robustdml.config import DEFAULT_OPTIONS, RunOptions, TrainConfig
from robustdml.data import RetrievalDataset
from robustdml.data.cars import CARS, load_cars
from robustdml.data.cub import CUB, load_cub
from robustdml.data.inshop import INSHOP, load_inshop
from robustdml.data.sop import SOP, load_sop
from robustdml.errors import DataError, RunFolderError
from robustdml.evaluation import evaluate, load_subjects
from robustdml.files import check_writable, strict_json, write_text
from robustdml.models import find_backbone
from robustdml.papers.mdprop import PROTOCOLS, Row
from robustdml.papers.settings import differences
from robustdml.reports import write_report
from robustdml.results import RESULTS_FILE, Results, Score
from robustdml.training import train

#: What a row's folder holds beside a folder for each seed.
OUTCOMES_FILE, TABLE_FILE = "reproduction.json", "reproduction.md"

_READERS: dict[str, tuple[Callable[..., RetrievalDataset], str]] = {
    "cub": (load_cub, CUB.fetch),
    "cars": (load_cars, CARS.fetch),
    "sop": (load_sop, SOP.fetch),
    "inshop": (load_inshop, INSHOP.fetch),
}
_TITLES = {"clean": "clean"} | {name: title for name, (title, _) in PROTOCOLS.items()}
_METRICS = {"recall_at_1": "R@1", "recall_at_4": "R@4", "nmi": "NMI", "pi_ratio": "pi"}
#: A miniature attacks so many queries.
_FEW = 8


@dataclass(frozen=True)
class Outcome:
    """A figure of a row: what was published and what we measured.

    Args:
        protocol: ``clean``, or a name of `robustdml.papers.mdprop.PROTOCOLS`.
        metric: its name in the results.
        published: as the paper prints it (percent, but for the pi-ratio); None where it has none.
        spread: the published standard deviation, where there is one.
        ours: the mean over seeds in the same unit; None where it is not measured under attack.
        low: of one seed the 95 % interval, of several the mean less the standard deviation.
        high: the same, above.
        seeds: how many.
        queries: of each seed.
    """

    protocol: str
    metric: str
    published: float | None
    spread: float | None
    ours: float | None
    low: float | None
    high: float | None
    seeds: int
    queries: int


def miniature(config: TrainConfig) -> TrainConfig:
    """The same training in seconds, to see whether everything is in its place: its figures mean nothing."""
    return replace(
        config, backbone="resnet-tiny", weights=None, pretrained=False, image_size=16, resize=18, batch_size=24,
        epochs=1, learning_rate=1e-3,
    )  # fmt: skip


def reproduce(
    row: Row,
    root: str | Path | None,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    max_queries: int | None = None,
    small: bool = False,
    options: RunOptions = DEFAULT_OPTIONS,
) -> list[Outcome]:
    """Train a row's model, attack it by the paper's protocol and by ours, and write the table.

    The same call again goes on where it was stopped.

    Args:
        row: of the paper.
        root: the folder of its data set.
        out: the folder of the paper; the row has its own in it, and so has its miniature.
        seeds: a training each.
        max_queries: attack a class-stratified sample; None takes all, as the paper does.
        small: see `miniature`; the counts of the data set are not checked, and few queries are attacked.
        options: the device, and whether progress is shown.

    Raises:
        DataError: the data set is missing; the message says where it comes from and how it must lie.
        SpecError: the pretrained weights are missing; the message says which file goes where.
        RunFolderError: ``out`` holds another run of that row.
    """
    load, fetch = _READERS[row.data]
    if root is None:
        raise DataError(f"'{row.name}' needs a data set that is not built in (root): {fetch}")
    if not Path(root).is_dir():
        raise DataError(f"the folder '{root}' does not exist, or is a file: {fetch}")
    folder, found = folder_of(row, out, small=small), list[Results]()
    check_writable(
        *(folder / name for name in (OUTCOMES_FILE, TABLE_FILE)),
        *(folder / f"seed-{seed}" / part / RESULTS_FILE for seed in seeds for part in ("model", "report")),
    )
    dataset = load(Path(root), verify=not small)
    for seed in seeds:
        config = replace(miniature(row.config) if small else row.config, seed=seed)
        find_backbone(config.backbone).named_weights(config.weights or False)
        place = folder / f"seed-{seed}"
        model = train(dataset, config, place / "model", goals=GOALS, options=options).folder
        attacks = [build_attack(spec, 0.0, "quick" if small else "standard") for _, spec in PROTOCOLS.values()]
        found.append(
            evaluate(
                load_subjects([f"{row.method}={model}"]),
                dataset,
                attacks,
                out=place / "report",
                max_queries=_FEW if small else max_queries,
                seed=seed,
                options=options,
            )
        )
        write_report(place / "report")
    outcomes = _outcomes(row, found)
    write_text(folder / OUTCOMES_FILE, json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    write_text(folder / TABLE_FILE, table(row, outcomes, small=small))
    return outcomes


def folder_of(row: Row, out: str | Path, *, small: bool = False) -> Path:
    """The folder of a row, or of its miniature, whose figures must not be taken for it."""
    return Path(out) / f"{row.name}{'-miniature' if small else ''}"


def read_outcomes(out: str | Path, row: Row, *, small: bool = False) -> list[Outcome]:
    """What `reproduce` wrote of a row, or of its miniature; nothing where it was not run.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = folder_of(row, out, small=small) / OUTCOMES_FILE
    if not path.is_file():
        return []
    try:
        return [Outcome(**entry) for entry in strict_json(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise RunFolderError(f"'{path}' is damaged ({error}): delete it and repeat 'robustdml reproduce'") from None


def _outcomes(row: Row, runs: Sequence[Results]) -> list[Outcome]:
    outcomes = []
    for protocol in ("clean", *PROTOCOLS):
        published = row.published.get(protocol, {})
        for metric in _METRICS if protocol == "clean" else dict.fromkeys(("recall_at_1", *published)):
            values = [_value(results, protocol, metric) for results in runs]
            known = [value for value in values if value is not None]
            mean = fmean(known) if len(known) == len(values) else None
            low, high = _interval(runs, protocol, metric, known) if mean is not None else (None, None)
            outcomes.append(
                Outcome(
                    protocol,
                    metric,
                    published.get(metric),
                    row.spread.get(protocol) if metric == "recall_at_1" else None,
                    mean,
                    low,
                    high,
                    len(runs),
                    runs[0].dataset.queries,
                )
            )
    return outcomes


def _value(results: Results, protocol: str, metric: str) -> float | None:
    """In the paper's unit; None where an evaluation has no such figure."""
    factor = 1.0 if metric == "pi_ratio" else 100.0
    model = results.models[0]
    if metric in {"nmi", "pi_ratio"}:
        value = getattr(model, metric) if protocol == "clean" else None
    else:
        score = _score(results, protocol)
        value = score.metrics.root.get(metric) if score else None
    return None if value is None else factor * value


def _score(results: Results, protocol: str) -> Score | None:
    """Clean, or under the attack of a protocol; None where that failed."""
    if protocol == "clean":
        return results.models[0].clean
    # One model: its cells stand in the order of the attacks.
    return results.cells[list(PROTOCOLS).index(protocol)].score


def _interval(
    runs: Sequence[Results], protocol: str, metric: str, values: Sequence[float]
) -> tuple[float | None, float | None]:
    if len(values) > 1:
        mean, deviation = fmean(values), stdev(values)
        return mean - deviation, mean + deviation
    score = _score(runs[0], protocol)
    return (100 * score.low, 100 * score.high) if score and metric == score.headline else (None, None)


def table(row: Row, outcomes: Sequence[Outcome], *, small: bool = False) -> str:
    """The row as Markdown: published values, ours, and the reasons for what differs."""
    lines = [f"# {row.name}", "", f"    {row.command}", ""]
    if small:
        lines += ["A miniature: it shows that everything is in its place, and its figures mean nothing.", ""]
    if row.note:
        lines += [f"The paper's figures: {row.note}.", ""]
    lines += ["| attack | figure | published | ours |", "|---|---|---|---|"]
    for found in outcomes:
        lines.append(
            f"| {_TITLES[found.protocol]} | {_METRICS[found.metric]} | {written(found.published, found, found.spread)} "
            f"| {ours_written(found)} |"
        )
    count = outcomes[0].seeds if outcomes else 0
    said = "95 % interval over classes" if count == 1 else f"standard deviation over {count} seeds"
    lines += ["", f"In percent, but for pi; in brackets or after ±, the {said}.", "", "## What differs, and why", ""]
    config = miniature(row.config) if small else row.config
    for each in differences(row, config):
        reason = each.reason or ("it is a miniature" if small else "no reason is known")
        lines.append(f"- **{each.setting}**: {each.paper} in the paper or its code, {each.ours} here: {reason}.")
    lines.append("- **NMI and pi under attack** are not measured: attacked queries search the clean gallery.")
    return "\n".join(lines) + "\n"


def written(value: float | None, of: Outcome, spread: float | None = None) -> str:
    """A figure in the paper's form, or a dash."""
    if value is None:
        return "—"
    digits = 3 if of.metric == "pi_ratio" else 2
    return f"{value:.{digits}f}" if spread is None else f"{value:.{digits}f} ± {spread:.{digits}f}"


def ours_written(found: Outcome) -> str:
    """Our figure with its interval, or a dash."""
    if found.ours is None:
        return "—"
    if found.seeds > 1 and found.high is not None:
        return written(found.ours, found, found.high - found.ours)
    interval = "" if found.low is None else f" ({found.low:.1f} to {found.high:.1f})"
    return written(found.ours, found) + interval
