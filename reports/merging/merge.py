"""Several runs as one: what `robustdml report` shows when it is given more than one run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from robustdml.errors import RunFolderError
from robustdml.files import write_bytes
from robustdml.results import AttackEntry, Environment, EvalSpec, Example, Hit, ModelEntry, Results

from ..page.pictures import picture_path, read_picture
from .compatible import Run, check_same_data, check_same_numbers
from .merged_flags import merged_flags


@contextmanager
def open_runs(folders: Sequence[str | Path]) -> Iterator[tuple[Results, Path]]:
    """The results of one run folder, or of several as one, with the folder that holds their pictures.

    The folder of several runs is a copy that goes when the context ends.

    Args:
        folders: run folders, or paths of their ``results.json``.

    Raises:
        RunFolderError: a folder has no readable results, they cannot be merged, or a picture is missing.
    """
    loaded = [(path.parent if path.is_file() else path, Results.load(path)) for path in map(Path, folders)]
    if len(loaded) == 1:
        folder, results = loaded[0]
        yield results, folder
        return
    results = merge_runs(loaded)
    with TemporaryDirectory(prefix="robustdml-") as name:
        stage = Path(name)
        for picture in {picture for example in results.examples for picture in _pictures(example)}:
            number, _, own = picture.partition("/")
            data, _ = read_picture(loaded[int(number) - 1][0], own)
            write_bytes(picture_path(stage / number, own), data)
        yield results, stage


def merge_runs(runs: Sequence[tuple[Path, Results]]) -> Results:
    """Merge runs on the same queries into one, in which every number is that of its run.

    A model that two runs measured alike is kept once. Models of one name and other weights get the names of their
    folders as well. The pictures of the first run are found under ``1/``, those of the second under ``2/``, and so on.
    The fingerprint names all runs.

    Args:
        runs: each with its folder.

    Raises:
        RunFolderError: the runs were made on other data, or measured one model in different ways.
    """
    labels = _labels([folder for folder, _ in runs])
    numbered = [
        Run(number, folder, label, results)
        for number, ((folder, results), label) in enumerate(zip(runs, labels, strict=True), start=1)
    ]
    for other in numbered[1:]:
        check_same_data(numbered[0], other)
    attacks = _attacks(numbered)
    kept = _without_repeats(numbered)
    parts = [_part(run, model, name) for (run, model), name in zip(kept, _names(kept), strict=True)]
    every = [run.results for run in numbered]
    models = tuple(model for part in parts for model in part.models)
    cells = tuple(cell for part in parts for cell in part.cells)
    return Results(
        robustdml_version=_joined(results.robustdml_version for results in every),
        created=max(results.created for results in every),
        fingerprint=_joined(results.fingerprint for results in every),
        spec=_spec(every, models),
        dataset=every[0].dataset,
        queries=every[0].queries,
        models=models,
        attacks=attacks,
        cells=cells,
        measures=tuple({entry.name: entry for results in every for entry in results.measures}.values()),
        worst=tuple(worst for part in parts for worst in part.worst),
        flags=merged_flags(every, parts, attacks),
        examples=tuple(example for part in parts for example in part.examples),
        maps=tuple(drawn for part in parts for drawn in part.maps),
        certified=tuple(found for part in parts for found in part.certified),
        natural=tuple(found for part in parts for found in part.natural),
        curves=tuple(curve for part in parts for curve in part.curves),
        command="\n".join(dict.fromkeys(results.command for results in every if results.command)),
        configuration="",
        environment=_environment([results.environment for results in every]),
        citations={key: entry for results in every for key, entry in results.citations.items()},
        seconds=sum(results.seconds for results in every),
    )


def _labels(folders: Sequence[Path]) -> list[str]:
    """The last part of each folder, or as many parts as tell it from the others."""
    parts = [folder.resolve().parts for folder in folders]
    repeated = next((folder for folder, own in zip(folders, parts, strict=True) if parts.count(own) > 1), None)
    if repeated is not None:
        raise RunFolderError(f"the run folder '{repeated}' is given twice: name each once")
    length = next(
        length for length in range(1, max(map(len, parts)) + 1) if len({own[-length:] for own in parts}) == len(parts)
    )
    return ["/".join(own[-length:]) for own in parts]


def _without_repeats(runs: Sequence[Run]) -> list[tuple[Run, ModelEntry]]:
    """Every model of every run, one that several measured only once."""
    kept: dict[tuple[str, str], tuple[Run, ModelEntry]] = {}
    for run in runs:
        for model in run.results.models:
            known = kept.setdefault((model.name, model.fingerprint), (run, model))
            check_same_numbers(model.name, known, (run, model))
    return list(kept.values())


def _names(kept: Sequence[tuple[Run, ModelEntry]]) -> list[str]:
    """What each model is called in the merged results."""
    counts = Counter(model.name for _, model in kept)
    names = [model.name if counts[model.name] == 1 else f"{model.name} ({run.label})" for run, model in kept]
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise RunFolderError(f"two models would be called '{repeated}': rename one of the run folders")
    return names


def _part(run: Run, model: ModelEntry, name: str) -> Results:
    """The results of one model of a run, under its name in the merged results."""
    results, new = run.results, {"model": name}
    return results.model_copy(
        update={
            "models": (model.model_copy(update={"name": name}),),
            "cells": tuple(cell.model_copy(update=new) for cell in results.cells if cell.model == model.name),
            "worst": tuple(worst.model_copy(update=new) for worst in results.worst if worst.model == model.name),
            "flags": tuple(
                flag if flag.model is None else flag.model_copy(update=new)
                for flag in results.flags
                if flag.model in {None, model.name}
            ),
            "examples": tuple(
                _moved(example, run.number).model_copy(update=new)
                for example in results.examples
                if example.model == model.name
            ),
            "maps": tuple(drawn.model_copy(update=new) for drawn in results.maps if drawn.model == model.name),
            "curves": tuple(curve.model_copy(update=new) for curve in results.curves if curve.model == model.name),
            "certified": tuple(own.model_copy(update=new) for own in results.certified if own.model == model.name),
            "natural": tuple(own.model_copy(update=new) for own in results.natural if own.model == model.name),
        }
    )


def _moved(example: Example, number: int) -> Example:
    """An example whose pictures are found under the number of its run."""

    def moved(hits: tuple[Hit, ...]) -> tuple[Hit, ...]:
        return tuple(hit.model_copy(update={"image": f"{number}/{hit.image}"}) for hit in hits)

    return example.model_copy(
        update={
            "image": f"{number}/{example.image}",
            "adversarial_image": f"{number}/{example.adversarial_image}",
            "perturbation_image": f"{number}/{example.perturbation_image}",
            "clean_top": moved(example.clean_top),
            "adversarial_top": moved(example.adversarial_top),
            "targets": moved(example.targets),
        }
    )


def _pictures(example: Example) -> list[str]:
    hits = (*example.clean_top, *example.adversarial_top, *example.targets)
    return [example.image, example.adversarial_image, example.perturbation_image, *(hit.image for hit in hits)]


def _attacks(runs: Sequence[Run]) -> tuple[AttackEntry, ...]:
    """One entry per spec; where two share a short name, in one run or in all, both are called by their spec."""
    found: dict[str, AttackEntry] = {}
    for run in runs:
        for entry in run.results.attacks:
            known = found.setdefault(entry.spec, entry)
            if known.model_copy(update={"name": entry.name}) != entry:
                raise RunFolderError(
                    f"the attack '{entry.spec}' of '{run.folder}' is not the same as in the runs before it: "
                    "another version of robustdml made it, so evaluate again with one version"
                )
            if entry.name == entry.spec:
                found[entry.spec] = entry
    names = Counter(entry.name for entry in found.values())
    return tuple(
        entry if names[entry.name] == 1 else entry.model_copy(update={"name": entry.spec}) for entry in found.values()
    )


def _spec(every: Sequence[Results], models: Sequence[ModelEntry]) -> EvalSpec:
    # Runs with the same queries may have been asked for different numbers of them, all of which exceed what there is.
    return every[0].spec.model_copy(
        update={
            "models": tuple((model.name, model.fingerprint) for model in models),
            "preprocessing": tuple((model.name, model.preprocessing) for model in models if model.preprocessing),
            "attacks": tuple(dict.fromkeys(attack for results in every for attack in results.spec.attacks)),
            "version": _joined(results.spec.version for results in every),
        }
    )


def _environment(every: Sequence[Environment]) -> Environment:
    packages = dict.fromkeys(name for environment in every for name in environment.packages)
    return Environment(
        python=_joined(environment.python for environment in every),
        platform=_joined(environment.platform for environment in every),
        device=_joined(environment.device for environment in every),
        packages={
            name: _joined(environment.packages[name] for environment in every if name in environment.packages)
            for name in packages
        },
    )


def _joined(texts: Iterable[str]) -> str:
    """Different texts, each once, in the order of the runs."""
    return " + ".join(dict.fromkeys(texts))
