"""The data set that all evaluation tests share."""

from __future__ import annotations

import pytest
from squares import make_dataset

from robustdml.data import RetrievalDataset


@pytest.fixture
def squares() -> RetrievalDataset:
    return make_dataset()
