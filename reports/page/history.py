"""The headline numbers of models over several evaluations, as one page of the same kind."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from robustdml._version import __version__
from robustdml.errors import RunFolderError
from robustdml.results import RESULTS_FILE, Results, Score
from robustdml.threat import ThreatModel

from .. import text
from .charts.chart import Chart, Entry, Table, at, model_legend, panel, reading, scored, spread
from .charts.plot import Axis, Curve, Plot, Point, Tick, model_style, share_axis
from .sections import Section
from .view import Download, Page

#: The page quotes the largest budget up to this one, as the report of a run does.
_QUOTED = 8 / 255
Run = tuple[str, Results]


def read_history(folders: Sequence[Path]) -> list[Run]:
    """The evaluations in folders, or in the folders right below them, by name, the oldest first.

    Raises:
        RunFolderError: a folder has none, there are fewer than two, or their headlines are different metrics.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        inner = [folder] if (folder / RESULTS_FILE).is_file() else sorted(folder.glob(f"*/{RESULTS_FILE}"))
        places = [place.parent if place.name == RESULTS_FILE else place for place in inner]
        if not places:
            raise RunFolderError(f"no {RESULTS_FILE} in '{folder}' or right below it: give folders of evaluations")
        found |= {place.resolve(): (place.name or str(place.resolve()), Results.load(place)) for place in places}
    runs = sorted(found.values(), key=lambda run: run[1].created)
    if len(runs) < 2:
        raise RunFolderError("a history needs two evaluations or more: give more folders, or the one that holds them")
    other = next((name for name, results in runs if results.dataset.headline != runs[0][1].dataset.headline), None)
    if other is not None:
        raise RunFolderError(f"'{runs[0][0]}' and '{other}' have different headlines: one page draws one metric")
    return runs


def history_page(runs: Sequence[Run]) -> Page:
    """The page of evaluations, the oldest first: each model's headline, clean and in the worst case of one budget."""
    first = runs[0][1]
    metric, budget = first.dataset.headline_metric, _budget(runs)
    models = tuple(dict.fromkeys(model.name for _, results in runs for model in results.models))
    conditions = [("clean", None), *([(f"worst case {at(budget)}", budget)] if budget else [])]
    panels = []
    for condition, threat in conditions:
        scores = {model: [_score(results, model, threat) for _, results in runs] for model in models}
        ticks = tuple(Tick(float(place), str(place + 1)) for place in range(len(runs)))
        plot = Plot(
            x=Axis("evaluation, the oldest first", -0.2, len(runs) - 0.8, ticks, False),
            y=share_axis(metric.title),
            layers=tuple(_curve(number, scores[model], runs) for number, model in enumerate(models)),
            legend=model_legend(models),
        )
        table = Table(
            f"{metric.title}, {condition}, with its 95 % interval",
            ("Evaluation", "No.", "Date", "Queries", *models),
            tuple(
                (
                    name,
                    (
                        Entry(str(place + 1)),
                        Entry(text.moment(results.created)),
                        Entry(str(results.dataset.queries)),
                        *(scored(scores[model][place]) for model in models),
                    ),
                )
                for place, (name, results) in enumerate(runs)
            ),
        )
        said = "; ".join(
            f"{model}: " + ", ".join("none" if score is None else f"{score.value:.3f}" for score in scores[model])
            for model in models
        )
        panels.append(panel(plot, table, f"{metric.title}, {condition}. {said}.", name=condition))
    sentences = [f"{metric.title} of each model, evaluation by evaluation. Bands are 95 % intervals."]
    if budget is None:
        sentences.append("The evaluations share no budget, so no worst case is drawn.")
    if len({(results.dataset.fingerprint, results.queries) for _, results in runs}) > 1:
        sentences.append("Not all were on the same data and queries: a step may come from that alone.")
    chart = Chart("history", "History", tuple(sentences), tuple(panels))
    data = json.dumps(
        [{"run": name, "created": results.created, "fingerprint": results.fingerprint} for name, results in runs]
    )
    return Page(
        subject=models[0] if len(models) == 1 else text.counted(len(models), "model"),
        dataset=first.dataset.name,
        metric=metric,
        facts=(
            text.Fact("Evaluations", str(len(runs))),
            text.Fact("From", text.moment(runs[0][1].created)),
            text.Fact("To", text.moment(runs[-1][1].created)),
        ),
        sections=(Section("history", "History", "chart.html.j2", chart),),
        version=__version__,
        download=Download("history.json", f"data:application/json;base64,{base64.b64encode(data.encode()).decode()}"),
    )


def _budget(runs: Sequence[Run]) -> ThreatModel | None:
    """The largest L-infinity budget up to 8/255 that all have worst cases of, or else the smallest beyond."""
    shared = set.intersection(*({worst.threat for worst in results.worst} for _, results in runs))
    own = sorted((threat for threat in shared if threat.norm == "linf"), key=lambda threat: threat.eps or 0.0)
    usual = [threat for threat in own if (threat.eps or 0.0) <= _QUOTED + 1e-9]
    return usual[-1] if usual else next(iter(own), None)


def _score(results: Results, name: str, budget: ThreatModel | None) -> Score | None:
    model = next((model for model in results.models if model.name == name), None)
    if model is None or (budget is not None and results.invalid(name) is not None):
        return None
    if budget is None:
        return model.clean
    return next((worst.score for worst in results.worst if (worst.model, worst.threat) == (name, budget)), None)


def _curve(number: int, scores: Sequence[Score | None], runs: Sequence[Run]) -> Curve:
    points = tuple(
        Point(float(place), score.value, f"{runs[place][0]}\n{reading(score)}", y_interval=spread(score))
        for place, score in enumerate(scores)
        if score is not None
    )
    return Curve(str(number), model_style(number), points, band=True)
