"""Run malformed command lines and files, drawn by seed: ``make malformed``.

A traceback, a wrong exit code, a message of more than 400 characters, a character that a terminal would obey, a file
outside of --out, or more than ten seconds of computing is a fault, and is printed. Ends with 1 where there is one.
"""

from __future__ import annotations

import argparse
import collections
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from malformed_cases import Case, make
from malformed_world import SECONDS, Outcome, make_world, run_copy, state_of

#: No message of an error is longer.
LONGEST = 400


def faults(case: Case, outcome: Outcome) -> Iterator[str]:
    """What was wrong with how a case ended."""
    if "Traceback (most recent" in outcome.output:
        yield "traceback"
    if outcome.code not in case.codes:
        yield f"exit code {outcome.code}"
    _, error, message = outcome.output.rpartition("Error: ")
    if outcome.code == 2 and not error and case.arguments[0] != "doctor":
        yield "no sentence"
    if len(message.rstrip()) > LONGEST and outcome.code == 2:
        yield f"message of {len(message)} characters"
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", outcome.output):
        yield "control character"
    if outcome.seconds > SECONDS:
        yield f"{outcome.seconds:.1f} s"


def run_case(
    seed: int, number: int, world: Path, before: dict[str, tuple[int, int]]
) -> tuple[Case, Outcome, list[str]]:
    """One case, and its faults; ``before`` is `state_of` the world."""
    folder = world / "cases" / str(number)
    case = make(seed, number, world, folder)
    inputs = state_of(folder, without=case.out)
    outcome = run_copy(case.arguments, folder)
    found = list(faults(case, outcome))
    for place, state in ((folder, inputs), (world, before)):
        now = state_of(place, without=case.out if place == folder else world / "cases")
        changed = sorted(path for path in {*state, *now} if state.get(path) != now.get(path))
        if changed:
            found.append(f"wrote {changed[:3]}")
    shutil.rmtree(folder)
    return case, outcome, found


def run_apart(case: Case, folder: Path) -> Outcome:
    """The same in a program of its own."""
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "robustdml", *case.arguments],
        cwd=folder,
        capture_output=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    output = (ended.stdout + ended.stderr).decode("utf-8", "backslashreplace")
    return Outcome(ended.returncode, output, time.monotonic() - started)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        world = make_world(Path(place))
        before, codes, bad, slowest = state_of(world, without=world / "cases"), collections.Counter[int](), 0, 0.0
        started = time.monotonic()
        for number in range(given.first, given.first + given.count):
            case, outcome, found = run_case(given.seed, number, world, before)
            codes[outcome.code] += 1
            slowest = max(slowest, outcome.seconds)
            if found:
                bad += 1
                words = [word if len(word) < 150 else f"{word[:150]}... ({len(word)})" for word in case.arguments]
                print(f"--- {number}: {', '.join(found)}\n{words}\n{outcome.output[-1500:]!r}", flush=True)
        print(
            f"{given.count} cases of seed {given.seed} in {time.monotonic() - started:.0f} s, the slowest "
            f"{slowest:.1f} s of computing; exit codes {dict(sorted(codes.items()))}; {bad} with a fault."
        )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
