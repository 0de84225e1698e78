"""The life of a run, in any order of events: killed, gone on with, damaged, verified, asked for something else."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from squares import QUIET, SmallNet, make_dataset

from robustdml.attacks import build_suite
from robustdml.errors import RunFolderError
from robustdml.evaluation import evaluate
from robustdml.evaluation.store import Store
from robustdml.evaluation.verify import verify
from robustdml.results import Results

DATA = make_dataset()
#: Of the call, not of what was measured.
PASSING = {"created", "seconds", "command", "environment"}


class Killed(BaseException):
    """As if the process were gone: nothing of ours catches it."""


def run(out: Path, models: int = 1, attacks: str = "noise(trials=1)", eps: str = "8/255,16/255") -> Results:
    nets = {f"net{number}": SmallNet() for number in range(models)}
    return evaluate(nets, DATA, build_suite(attacks, eps), out=out, shard_size=9, options=QUIET)


def measured(results: Results) -> dict[str, object]:
    found = results.model_dump(mode="json", exclude=PASSING)
    for cell in found["cells"]:
        del cell["seconds"]
    return found


@cache
def undisturbed() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        return measured(run(Path(folder) / "run"))


class Life(RuleBasedStateMachine):
    """One run folder; what is known of it is whether it is finished and which file was damaged."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.out, self.finished, self.damaged = self.home / "run", False, None

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    @rule(writes=st.integers(0, 6))
    def is_killed(self, writes: int) -> None:
        """In the middle of a call, after so many of its files."""
        left, write = [writes], Store.write

        def dies(*arguments: object) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            write(*arguments)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Store, "write", dies)
            try:
                run(self.out)
            except Killed:
                return
            except RunFolderError:
                if self.damaged is None:
                    raise
                return
        self.finished = self.damaged is None

    @rule()
    def goes_on(self) -> None:
        """The same call again ends with the same results, or names what is damaged; without that it ends well."""
        try:
            results = run(self.out)
        except RunFolderError as error:
            if self.damaged is None or self.damaged.name not in str(error):
                raise
            self.damaged.unlink()
            self.damaged, self.finished = None, False
            return
        assert self.damaged is None
        assert measured(results) == undisturbed()
        self.finished = True

    @precondition(lambda self: self.damaged is None and any(self.home.rglob("*.parquet")))
    @rule(place=st.integers(0, 10**6), bit=st.integers(0, 7), which=st.integers(0, 99))
    def is_damaged(self, place: int, bit: int, which: int) -> None:
        """A bit of a record flips."""
        files = sorted(self.home.rglob("*.parquet"))
        path = files[which % len(files)]
        data = bytearray(path.read_bytes())
        # What follows the last page is the footer, which says twice what it says once; the pages are what counts.
        data[4 + place % (len(data) // 3)] ^= 1 << bit
        path.write_bytes(data)
        self.damaged = path

    @precondition(lambda self: self.damaged is None and self.finished)
    @rule(change=st.sampled_from([{"models": 2}, {"attacks": "noise(trials=2)"}, {"eps": "4/255"}]))
    def is_asked_for_something_else(self, change: dict[str, object]) -> None:
        """Another run has no place in this folder, and changes nothing in it."""
        before = {path: path.read_bytes() for path in self.out.rglob("*") if path.is_file()}
        with pytest.raises(RunFolderError, match="holds another run"):
            run(self.out, **change)
        assert {path: path.read_bytes() for path in self.out.rglob("*") if path.is_file()} == before

    @precondition(lambda self: self.finished)
    @rule()
    def is_verified(self) -> None:
        """Nothing is wrong with it but what was damaged."""
        problems = verify(self.out).problems
        assert bool(problems) == (self.damaged is not None), problems

    @invariant()
    def leaves_no_half_file(self) -> None:
        assert not list(self.home.rglob("*.tmp"))


TestLife = Life.TestCase
TestLife.settings = settings(derandomize=True, deadline=None, database=None, max_examples=3, stateful_step_count=7)
TestLife = pytest.mark.slow(TestLife)
