"""What holds for every test: the same random numbers, one thread, no stray packages."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator

import pytest

# Here, and in every process that a test starts: the models are too small to share out, and beside another process
# threads that wait for each other crawl. Read by torch when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

# A shell that starts the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="of what tests draw at random; default: another each time, which is said")
    parser.addoption("--many", action="store_true", help="of what is tried at random, hundreds instead of a few")


@pytest.fixture
def drawn_seed(request: pytest.FixtureRequest) -> int:
    """A seed of today's own; where the test fails, its output says how to have it again."""
    given = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(2**32) if given is None else given
    print(f"repeat this with --seed {seed}")
    return seed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: workers take whole files, and a long one at the end would leave others idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What tests write need not survive a power cut; when a file is synced is tested by replacing this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_stray_packages() -> Iterator[None]:
    """`attacks/` and `reports/` are only ever `robustdml.attacks` and `robustdml.reports`.

    Imported under both names, they would hold two classes of each name, and no `isinstance` could be trusted.
    """
    yield
    stray = {"attacks", "reports"} & sys.modules.keys()
    assert not stray, f"imported as top-level packages: {sorted(stray)}; write 'from robustdml.attacks import ...'"
