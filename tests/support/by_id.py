"""A protocol for items and queries whose ids are no rows of a data set."""

from __future__ import annotations

import numpy as np

from robustdml.data.protocol import SameClass


def same_class(*known):
    """Pairs of ids and their labels, arrays or tensors, of items and queries."""
    ids, labels = (np.concatenate([np.asarray(pair[part]) for pair in known]) for part in (0, 1))
    by_id = np.full(ids.max() + 1, -1)
    by_id[ids] = labels
    return SameClass(by_id)
