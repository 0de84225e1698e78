"""Whether a run folder can be believed: everything is derived again from its records. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdml.errors import RobustDMLError, RunFolderError
from robustdml.evaluation.assemble import assemble
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import CellKey, Store, clean_key
from robustdml.files import content_hash, fingerprint, strict_json
from robustdml.results import RESULTS_FILE, Results
from robustdml.run_folders import PLAN_FILE, SPEC_FILE

#: What the call that assembled results says of itself, and no record knows.
_OF_THE_CALL = {"created", "seconds", "robustdml_version"}
#: Differences of one file that are listed, and pictures that are named after their content.
_LISTED, _NAMED_BY_CONTENT = 20, re.compile(r"attacked-([0-9a-f]{16})\.png")


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what was found.

    Args:
        files: record files whose checksum, identity and content were checked.
        numbers: of results.json that were derived again from the records.
        problems: each one sentence; empty where everything can be believed.
        notes: what could not be looked at, and why.
    """

    files: int
    numbers: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def verify(run: str | Path) -> Verified:
    """Check every file of a run folder, and derive its results again from the records.

    Raises:
        RunFolderError: there is no evaluation in it.
    """
    run = Path(run)
    if not (run / RESULTS_FILE).is_file() and not run.is_dir():
        raise RunFolderError(f"no run in '{run}': give the --out folder of 'robustdml evaluate'")
    try:
        plan = Plan.load(run)
    except RunFolderError as error:
        return Verified(0, 0, (str(error),))
    store, problems = Store(run, plan.fingerprint), list[str]()
    problems += _identity(run, plan)
    files = sum(1 for _ in _files(plan, store, problems))
    problems += [f"'{path}' belongs to no cell of the run: delete it" for path in store.strangers(_keys(plan))]
    numbers = 0
    try:
        results = Results.load(run)
        derived = assemble(run)
    except RobustDMLError as error:
        problems.append(str(error))
    else:
        found, wanted = (_content(part) for part in (results, derived))
        numbers = _count(wanted)
        different = list(_differences(found, wanted, RESULTS_FILE))
        problems += different[:_LISTED]
        if len(different) > _LISTED:
            problems.append(f"{RESULTS_FILE}: {len(different) - _LISTED} more places differ from the records")
        problems += _pictures(run, results)
    return Verified(files, numbers, tuple(dict.fromkeys(problems)))


def _identity(run: Path, plan: Plan) -> Iterator[str]:
    try:
        found = strict_json((run / SPEC_FILE).read_bytes())
        same = fingerprint(found["spec"]) == found["fingerprint"] == plan.fingerprint
        same = same and found["spec"] == {"kind": "evaluate", **plan.spec.model_dump(mode="json")}
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        yield f"{SPEC_FILE} does not say what {PLAN_FILE} says: one of them is damaged or of another run"


def _keys(plan: Plan) -> list[CellKey]:
    return [key for name, _ in plan.spec.models for key in (clean_key(name), *plan.cells(name))]


def _files(plan: Plan, store: Store, problems: list[str]) -> Iterator[Path]:
    """Each record file; what is wrong with one goes to the problems."""
    for key in _keys(plan):
        for shard in store.shards(key):
            yield store.path(key, shard)
            try:
                store.read(key, shard)
            except RunFolderError as error:
                problems.append(str(error))
    for path, fault in store.panel_files():
        yield path
        problems += [fault] if fault else []


def _content(results: Results) -> Any:
    return results.model_dump(mode="json", exclude=_OF_THE_CALL)


def _count(value: Any) -> int:
    if isinstance(value, dict | list):
        return sum(map(_count, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _differences(found: Any, wanted: Any, place: str) -> Iterator[str]:
    """Where results differ from what the records say."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in dict.fromkeys([*wanted, *found]):
            yield from _differences(
                found.get(name), wanted.get(name), f"{place}: {name}" if place == RESULTS_FILE else f"{place}.{name}"
            )
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(one, other, f"{place}[{number}]")
    elif not _same(found, wanted):
        yield f"{place} is {_short(found)}, the records say {_short(wanted)}"


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, float) and isinstance(wanted, float):
        return abs(found - wanted) <= 1e-9 * max(1.0, abs(wanted))
    return bool(found == wanted)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pictures(run: Path, results: Results) -> Iterator[str]:
    named: Sequence[str] = [
        picture for example in results.examples for picture in (example.adversarial_image, example.perturbation_image)
    ]
    for picture in dict.fromkeys(named):
        path = run / picture
        if not path.is_file():
            yield f"the picture '{picture}' is not there"
        elif (known := _NAMED_BY_CONTENT.fullmatch(path.name)) and known[1] != content_hash(path.read_bytes()):
            yield f"the picture '{picture}' was changed since it was written"
