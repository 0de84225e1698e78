"""Several processes take the step of one."""

from __future__ import annotations

import pytest
import torch
from shared_steps import CASES, Found, start, take_all_steps, take_step

from robustdml.training.processes import ALONE


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> list[dict[str, Found]]:
    """What two processes found, each for itself."""
    folder = tmp_path_factory.mktemp("steps")
    start(take_all_steps, 2, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_find_the_gradients_of_one(steps, name):
    expected = take_step(CASES[name], ALONE)
    first, second = (found[name] for found in steps)
    assert expected.keys() == first.keys() == second.keys()
    for key, value in expected.items():
        torch.testing.assert_close(first[key], value, atol=1e-5, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
        assert torch.equal(first[key], second[key]), key
