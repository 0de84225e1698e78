"""Distinct rows of a gallery: copies are searched once, and where there are none nothing is copied."""

from __future__ import annotations

import numpy as np
import pytest

from robustdml.data import Reidentification, SameClass
from robustdml.retrieval import search
from robustdml.retrieval.search import GalleryIndex, distinct_rows


def test_distinct_rows_are_found_wherever_they_stand():
    random = np.random.default_rng(0)
    kinds = random.normal(size=(40, 5)).astype(np.float32)
    kinds[0] = 0.0
    drawn = random.integers(40, size=10_000)
    points = kinds[drawn]
    points[drawn == 0] *= np.where(random.random(((drawn == 0).sum(), 1)) < 0.5, 1, -1)  # 0 and -0 are equal
    first, group = distinct_rows(points)
    assert first.tolist() == sorted(np.unique(drawn, return_index=True)[1].tolist())
    assert np.array_equal(drawn[first][group], drawn)


def test_a_gallery_without_copies_is_held_as_it_is():
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    labels = np.arange(50) % 5
    assert np.shares_memory(GalleryIndex(points, np.arange(50), SameClass(labels))._points, points)
    points[7] = points[3]
    index = GalleryIndex(points, np.arange(50), SameClass(labels))
    assert len(index._points) == 49
    assert index.rank(points[3:4], np.array([40]), 2)[0].tolist() in ([3, 7], [7, 3])


@pytest.mark.parametrize("kind", ["classes", "cameras"])
@pytest.mark.parametrize("few", [0, 2, 32], ids=["sorted", "both", "counted"])
def test_the_relevance_of_long_lists_is_that_of_the_lists(kind, few, monkeypatch):
    """With copies, ties of items of several classes, and what the protocol leaves out."""
    monkeypatch.setattr(search, "_FEW", few)
    monkeypatch.setattr(search, "_PART", few + 1)
    random = np.random.default_rng(1)
    labels = random.integers(40, size=300)
    points = np.round(random.normal(size=(300, 3)), 1).astype(np.float32)  # many that are equally near
    points[250:] = points[:50]
    rules = SameClass(labels) if kind == "classes" else Reidentification(random.integers(0, 2, 300), labels)
    index, queries = GalleryIndex(points, np.arange(300), rules), np.arange(0, 300, 7)
    for k, first in ((300, 10), (20, 3)):
        ranked = index.rank(points[queries], queries, k)
        relevant, top, margins = index.relevance(points[queries], queries, k, first)
        assert np.array_equal(relevant, rules.relevant(queries[:, None], ranked) & (ranked >= 0))
        assert np.array_equal(top, ranked[:, :first])
        for query, row, margin in zip(queries, index.rank(points[queries], queries, 300), margins, strict=True):
            row = row[row >= 0]
            right = rules.relevant(query, row)
            if right.any():
                nearest, other = (points[query] @ points[row[part][0]] for part in (right, ~right))
                assert margin == pytest.approx(other - nearest, abs=1e-5)
            else:
                assert margin == np.inf
