"""Results are made of what is in the run folder, by any process and at any time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner
from squares import QUIET, SmallNet

from robustdml.attacks import PGD, build_suite
from robustdml.cli import main
from robustdml.errors import RunFolderError
from robustdml.evaluation import assemble, evaluate
from robustdml.evaluation.plan import Plan
from robustdml.results import Results

SUITE = build_suite("noise,shift,margin,stax", "8/255")


def run(squares, out, attacks=SUITE, names=("net", "other")):
    models = {name: SmallNet(seed) for seed, name in enumerate(names)}
    return evaluate(models, squares, attacks, out=out, options=QUIET, shard_size=8)


class _Stopped(BaseException):
    """Ends the process, as a signal would."""


class Stopping:
    """An attack during whose second shard the process ends."""

    __module__ = PGD.__module__  # an attack of one's own would be another run

    def __init__(self, attack):
        self.attack, self.calls = attack, 0

    def __getattr__(self, name):
        return getattr(self.attack, name)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == 2:
            raise _Stopped
        return self.attack(*args, **kwargs)


@pytest.fixture
def stopped(squares, tmp_path):
    """A run that ended in the second shard of the third attack on the first of two models."""
    with pytest.raises(_Stopped):
        run(squares, tmp_path / "stopped", [*SUITE[:2], Stopping(SUITE[2]), *SUITE[3:]])
    return tmp_path / "stopped"


def test_a_finished_run_is_assembled_to_the_results_that_it_wrote(squares, tmp_path):
    results = run(squares, tmp_path)
    changes = {"created": results.created, "seconds": results.seconds}
    assert assemble(tmp_path).model_copy(update=changes) == results


@pytest.mark.slow
def test_of_a_stopped_run_another_process_assembles_what_is_there(squares, stopped, tmp_path):
    code = (
        "import sys, pathlib\nfrom robustdml.evaluation import assemble\n"
        "assemble(sys.argv[1]).save(pathlib.Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(stopped)], check=True, timeout=120)
    found, whole = Results.load(stopped), run(squares, tmp_path / "whole")
    assert [model.name for model in found.models] == ["net"]
    assert found.cells[:2] == tuple(
        cell.model_copy(update={"seconds": mine.seconds})
        for cell, mine in zip(whole.cells, found.cells[:2], strict=False)
    )
    assert [(cell.status, cell.reason) for cell in found.cells[2:]] == [
        ("skipped", "not run: the evaluation was stopped before it, with 8 of 24 queries done"),
        ("skipped", "not run: the evaluation was stopped before it, with 0 of 24 queries done"),
    ]
    assert found.flags[0].slug == "model-not-run"
    assert found.worst[0].attacks == 2


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_results_after_it_was_assembled(squares, stopped, tmp_path):
    assemble(stopped).save(stopped)
    whole = run(squares, tmp_path / "whole")
    resumed = run(squares, stopped)
    assert [cell.hits for cell in resumed.cells] == [cell.hits for cell in whole.cells]
    assert resumed.worst == whole.worst


def test_the_report_of_a_stopped_run_says_so(stopped):
    done = CliRunner().invoke(main, ["report", str(stopped)])
    assert done.exit_code == 0, done.output
    assert "was stopped before its end: the report shows what is there of it" in " ".join(done.output.split())
    page = (stopped / "report.html").read_text()
    assert "not run: the evaluation was stopped before it" in page


def test_a_run_in_which_no_model_was_begun_is_refused(squares, tmp_path):
    run(squares, tmp_path)
    for path in tmp_path.rglob("model.json"):
        path.unlink()
    with pytest.raises(RunFolderError, match=r"no model of the evaluation in .* was begun: repeat its command"):
        assemble(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"fingerprint": 7}'])
def test_a_damaged_plan_is_named(tmp_path, content):
    with pytest.raises(RunFolderError, match=r"no plan\.json in"):
        Plan.load(tmp_path)
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"plan\.json' is damaged .* repeat the command of that run"):
        Plan.load(tmp_path)
