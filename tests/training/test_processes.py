"""Several processes take the step of one."""

from __future__ import annotations

import pickle

import pytest
import torch
from shared_steps import CASES, Found, fail_in_a_step, start, take_all_steps, take_step

from robustdml.attacks import GOALS
from robustdml.errors import EndedElsewhere, SpecError
from robustdml.launcher import is_first, launched
from robustdml.training import METHODS, distributed
from robustdml.training.distributed import Distributed
from robustdml.training.pixel_examples import TrainingExamples
from robustdml.training.processes import ALONE, Alone, join

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> list[dict[str, Found]]:
    """What two processes found, each for itself."""
    folder = tmp_path_factory.mktemp("steps")
    start(take_all_steps, 2, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"half precision", "random triplets"}))
def test_two_processes_find_the_gradients_of_one(steps, name):
    expected = take_step(CASES[name], ALONE)
    first, second = (found[name] for found in steps)
    assert expected.keys() == first.keys() == second.keys()
    for key, value in expected.items():
        torch.testing.assert_close(first[key], value, atol=1e-5, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
        assert torch.equal(first[key], second[key]), key


def test_random_triplets_are_the_same_in_every_process(steps):
    first, second = (found["random triplets"] for found in steps)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_half_precision_keeps_working(steps):
    """Sign steps of the attack differ where rounding to eight bits does: near, not equal."""
    case = CASES["half precision"]
    expected, found = take_step(case, ALONE), steps[1]["half precision"]
    assert found["loss"] == pytest.approx(float(expected["loss"]), rel=0.02)


def test_an_error_between_messages_ends_all_and_one_says_why(tmp_path):
    """The second process fails while the first waits for it inside a step."""
    start(fail_in_a_step, 2, tmp_path)
    first, second = (pickle.loads((tmp_path / f"{rank}").read_bytes()) for rank in range(2))
    assert isinstance(first, EndedElsewhere)
    assert isinstance(second, ZeroDivisionError)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["spec.json"]


@pytest.fixture
def environment(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


ALL = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_a_launcher_is_known_by_its_variables(environment):
    assert not launched()
    assert join("cpu") is ALONE
    environment(MASTER_ADDR="localhost", MASTER_PORT="29500")
    assert not launched(), "an address alone starts nothing"
    environment(**ALL)
    assert launched()
    assert not is_first()
    environment(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    assert not launched(), "one process has nobody to wait for"
    assert is_first()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"RANK": "0"}, "has RANK of a launcher and lacks LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT: start"),
        ({**ALL, "MASTER_PORT": ""}, "lacks MASTER_PORT"),
        ({**ALL, "RANK": "2"}, r"contradict each other \(RANK=2, LOCAL_RANK=1, WORLD_SIZE=2"),
        ({**ALL, "WORLD_SIZE": "two"}, "contradict each other"),
        ({**ALL, "MASTER_PORT": "x"}, "contradict each other"),
        (
            {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
            "asked for several processes and started one: add --multi_gpu",
        ),
    ],
)
def test_half_a_launcher_gets_a_sentence(environment, values, sentence):
    environment(**values)
    with pytest.raises(SpecError, match=sentence):
        launched()
    assert is_first(), "each must say it, for they cannot talk"


def test_no_network_is_given_an_empty_batch():
    """Not every one takes it; a process without a row in a part has something to say all the same."""

    class Second(Alone):
        def places(self, rows: slice) -> slice:
            return slice(1, None, 2)

        def gather(self, values: torch.Tensor, parts: list[slice]) -> torch.Tensor:
            assert values.shape == (0, 5)
            return torch.zeros(1, 5)

    class Embed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert len(images)
            return images.flatten(1)[:, :5]

    maker = TrainingExamples(GOALS["unadversarial"](), 0.1, 1, Second())
    assert maker(Embed(), torch.empty(0, 3, 4, 4), torch.zeros(1), seed=0).shape == (0, 3, 4, 4)


def test_processes_without_an_image_are_refused():
    branches = METHODS["mdprop"].branches
    with pytest.raises(SpecError, match=r"a batch of 8 has no image for process 9 of 9: start fewer processes, or"):
        Distributed(0, 9, torch.device("cpu"), None).check(8, branches, {})


def test_processes_that_were_told_to_make_different_runs_are_refused(monkeypatch):
    processes = Distributed(1, 2, torch.device("cpu"), None)
    monkeypatch.setattr(processes, "by_first", lambda work: {**work(), "seed": 0, "lr": 1})
    branches = METHODS["mdprop"].branches
    with pytest.raises(SpecError, match=r"started for different runs \(they differ in: lr, seed\): give each the same"):
        processes.check(8, branches, {"seed": 1, "method": "mdprop"})


def test_a_gpu_of_ones_own_cannot_be_chosen(monkeypatch):
    monkeypatch.setattr(distributed, "choose_device", torch.device)
    with pytest.raises(SpecError, match="'meta': several processes work on cpu, or on a GPU each"):
        Distributed(0, 2, torch.device("cpu"), None).choose_device("meta")


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("rows", [slice(0, 17), slice(3, 4), slice(8, 17)])
def test_every_row_belongs_to_one_process(rows, count):
    batch = torch.arange(17)
    found = torch.full((rows.stop - rows.start,), -1)
    for rank in range(count):
        processes = Distributed(rank, count, torch.device("cpu"), None)
        own = batch[rank::count][processes.own(rows)]
        found[processes.places(rows)] = own
    assert torch.equal(found, batch[rows])
