"""What holds for every test: the same random numbers, one thread, no stray packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # The models here are too small to share out, and beside another process threads that wait for each other crawl.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _no_stray_packages() -> Iterator[None]:
    """`attacks/` and `reports/` are only ever `robustdml.attacks` and `robustdml.reports`.

    Imported under both names, they would hold two classes of each name, and no `isinstance` could be trusted.
    """
    yield
    stray = {"attacks", "reports"} & sys.modules.keys()
    assert not stray, f"imported as top-level packages: {sorted(stray)}; write 'from robustdml.attacks import ...'"
