"""A sample of malformed command lines and files; ``make malformed`` runs many more."""

from __future__ import annotations

import pytest
from malformed_cases import Case, commands
from malformed_run import faults, run_apart, run_case
from malformed_world import Outcome, make_world, state_of

from robustdml.values import brief


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.slow
def test_what_is_malformed_is_told_in_a_sentence(world):
    before = state_of(world, without=world / "cases")
    for number in range(30):
        case, outcome, found = run_case(0, number, world, before)
        assert not found, f"case {number}: {found}\n{brief(case.arguments)}\n{outcome.output[-1500:]}"


def test_each_command_is_among_them(world):
    """A command that is new gets a command line that is in order, in `malformed_cases.Draw.base`."""
    from malformed_cases import Draw

    draw = Draw("0", world, world / "cases")
    assert all(len(draw.base(name)) > 1 for name in commands())


@pytest.mark.slow
def test_a_program_of_its_own_ends_as_the_copies_do(world, tmp_path):
    case = Case(
        ["report", f"{world / 'absent'}\udcff", "--out", str(tmp_path / "out")], frozenset({2}), tmp_path / "out"
    )
    outcome = run_apart(case, tmp_path)
    assert not list(faults(case, outcome)), outcome.output


@pytest.mark.parametrize(
    ("code", "output", "seconds", "fault"),
    [
        (2, "Error: no\n", 1.0, None),
        (1, "Error: no\n", 1.0, "exit code 1"),
        (-11, "", 1.0, "exit code -11"),
        (2, "Traceback (most recent call last):\nError: no\n", 1.0, "traceback"),
        (2, "no\n", 1.0, "no sentence"),
        (2, f"Error: {'x' * 401}\n", 1.0, "message of 402 characters"),
        (2, "Error: \x1b[2J\n", 1.0, "control character"),
        (2, "Error: no\n", 11.0, "11.0 s"),
    ],
)
def test_every_kind_of_fault_is_seen(tmp_path, code, output, seconds, fault):
    found = list(faults(Case(["report"], frozenset({2}), tmp_path), Outcome(code, output, seconds)))
    assert found == ([fault] if fault else [])
