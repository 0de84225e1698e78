"""Goals that search the gallery part by part: the bits of the whole matrix, which is never held."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import APGD, GOALS, MTAX, PGD, ClassMargin, ItemMargin, Margin, NearestNegative
from robustdml.attacks.goals import search
from robustdml.contracts import Gallery, References
from robustdml.data import Reidentification
from robustdml.seeding import stream

QUERIES, ITEMS, SIZE, CLASSES = 24, 1000, 32, 9
LTM, GTM, TMA, Unadversarial = (GOALS[name] for name in ("ltm", "gtm", "tma", "unadversarial"))


def world(rules=None, *, labels=None) -> References:
    random = torch.Generator().manual_seed(0)
    points = F.normalize(torch.randn(ITEMS, SIZE, generator=random), dim=1)
    drawn = torch.randint(CLASSES, (ITEMS,), generator=random)
    labels, ids = drawn if labels is None else labels, torch.arange(ITEMS)
    queries = torch.randperm(ITEMS, generator=random)[:QUERIES]
    return References(Gallery(points, labels, ids, rules=rules), points[queries], labels[queries], ids[queries])


def cameras() -> Reidentification:
    return Reidentification(np.random.default_rng(0).integers(0, 3, ITEMS), world().gallery.labels.numpy())


RULES = pytest.mark.parametrize("rules", [None, cameras()], ids=["classes", "cameras"])


def whole(goal, references):
    """The objectives as they are defined, on the whole matrix of similarities."""
    gallery, relevant = references.gallery, references.relevant
    own, rivals = relevant & ~references.ignored, ~relevant
    clean = (references.embeddings @ gallery.embeddings.T).masked_fill(relevant, -inf)
    if isinstance(goal, ItemMargin):
        rivals = torch.zeros_like(relevant).scatter(1, clean.topk(goal.rivals, dim=1).indices, True)
    if isinstance(goal, ClassMargin):
        by_class = clean.new_full((QUERIES, CLASSES), -inf)
        by_class = by_class.scatter_reduce(1, gallery.labels.expand(QUERIES, -1), clean, "amax")
        chosen = by_class.topk(goal.rivals, dim=1).indices
        rivals = (gallery.labels[None, :, None] == chosen[:, None]).any(2) & ~relevant

    def value(embeddings):
        similarity = embeddings @ gallery.embeddings.T
        if isinstance(goal, LTM):
            distances = (2 - 2 * similarity).clamp_min(1e-12).sqrt()
            furthest = distances.masked_fill(relevant, -inf).amax(1)
            return -(furthest - distances.masked_fill(~own, inf).amin(1)).clamp_min(0)
        nearest = similarity.masked_fill(~rivals, -inf).amax(1)
        if isinstance(goal, NearestNegative):
            return nearest
        return nearest - similarity.masked_fill(~own, -inf).amax(1)

    return value


GOALS_SEARCHED = [Margin(), NearestNegative(), ItemMargin(rivals=3), ClassMargin(rivals=2), LTM()]


@pytest.fixture(params=[4096, 256, 64])
def part(request, monkeypatch):
    monkeypatch.setattr(search, "PART", request.param)
    return request.param


@RULES
@pytest.mark.parametrize("goal", GOALS_SEARCHED, ids=lambda goal: goal.name)
def test_values_and_gradients_are_those_of_the_whole_matrix(goal, part, rules):
    references = world(rules)
    points = F.normalize(torch.randn(QUERIES, SIZE), dim=1)
    found = []
    for objective in (goal.objective(references, seed=0), whole(goal, references)):
        embeddings = points.clone().requires_grad_()
        value = objective(embeddings)
        found.append((value.detach(), *torch.autograd.grad(value.sum(), embeddings)))
    assert torch.equal(found[0][0], found[1][0])
    # The slope of a distance is no whole number: BLAS rounds its products otherwise.
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=1e-6 if goal.name == "ltm" else 0)


class Network(nn.Module):
    """A curved map from images to points of length 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.Tanh(), nn.Linear(64, SIZE))

    def forward(self, images):
        return F.normalize(self.layers(images), dim=1)


class Defined:
    """A goal whose objective is that of the whole matrix."""

    def __init__(self, goal) -> None:
        self._goal = goal

    def __getattr__(self, name):
        return getattr(self._goal, name)

    def objective(self, references, *, seed):
        return whole(self._goal, references)


@pytest.mark.parametrize("goal", GOALS_SEARCHED, ids=lambda goal: goal.name)
@pytest.mark.parametrize(
    "attack",
    [
        lambda goal: PGD(goal, 0.2, steps=5, restarts=2),
        lambda goal: PGD(goal, 1.0, steps=5, norm="l2", samples=2),
        lambda goal: APGD(goal, 0.2, steps=6),
    ],
    ids=["pgd", "pgd-l2", "apgd"],
)
def test_images_have_the_bits_of_those_of_the_whole_matrix(goal, attack, monkeypatch):
    references, model, images = world(), Network().eval(), torch.rand(QUERIES, 3, 4, 4)
    monkeypatch.setattr(search, "PART", 256)
    found = attack(goal)(model, images, references, seed=3)
    expected = attack(Defined(goal))(model, images, references, seed=3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 if goal.name == "ltm" else 0)
    assert not torch.equal(found, images)


def test_where_nothing_is_foreign_the_value_is_infinite_and_its_gradient_zero(part):
    references = world(labels=torch.zeros(ITEMS, dtype=torch.int64))
    embeddings = references.embeddings.clone().requires_grad_()
    value = NearestNegative().objective(references, seed=0)(embeddings)
    assert (value == -inf).all()
    assert (torch.autograd.grad(value.sum(), embeddings)[0] == 0).all()


@RULES
def test_drawn_targets_are_those_that_were_drawn_from_the_whole_mask(part, rules):
    references = world(rules)

    def drawn(masks, purpose, count):
        found = []
        for mask, item in zip(masks.numpy(), references.ids.tolist(), strict=True):
            places = np.flatnonzero(mask)
            draw = stream(5, purpose, item).choice(places, count, replace=len(places) < count)
            found.append(draw.tolist())
        return found

    relevant, ignored = references.relevant, references.ignored
    assert MTAX(targets=4).target_rows(references, seed=5).tolist() == drawn(~relevant, "targets", 4)
    assert Unadversarial().target_rows(references, seed=5).tolist() == drawn(relevant & ~ignored, "targets", 1)
    assert TMA().target_rows(references, seed=5).tolist() == drawn(~ignored, "tma", 1)


def test_of_items_that_are_equally_near_the_first_counts():
    points = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8], [0.8, 0.6], [0.8, -0.6]])
    gallery = Gallery(points, torch.tensor([0, 1, 2, 0, 0]), torch.arange(5))
    references = References(gallery, points[:1], torch.tensor([0]), torch.tensor([0]))
    embeddings = points[:1].clone().requires_grad_()
    value = Margin().objective(references, seed=0)(embeddings)
    (gradient,) = torch.autograd.grad(value.sum(), embeddings)
    torch.testing.assert_close(value, torch.tensor([-0.2]))
    assert torch.equal(gradient, (points[1] - points[3])[None])


def test_nearest_and_farthest_targets_are_those_of_the_whole_matrix(part):
    references = world()
    similarity = references.embeddings @ references.gallery.embeddings.T
    foreign = similarity.masked_fill(references.relevant, -inf)
    assert torch.equal(GTM().target_rows(references, seed=0)[:, 0], foreign.argmax(1))
    for choose, values in (("nearest", foreign), ("hardest", (-similarity).masked_fill(references.relevant, -inf))):
        rows = MTAX(targets=3, choose=choose).target_rows(references, seed=0)
        assert torch.equal(rows, values.topk(3, dim=1).indices)


def test_a_query_that_is_alone_in_its_class_is_its_own_friend(part):
    labels = world().gallery.labels.clone()
    alone = world().ids[0]
    labels[alone] = CLASSES
    references = world(labels=labels)
    assert Unadversarial(targets=2).target_rows(references, seed=0)[0].tolist() == [alone, alone]


def test_no_matrix_of_queries_and_items_is_held():
    """Neither of similarities nor of truth values: of a million items a step holds a part at a time."""
    items, sizes = 2**20, []

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            sizes.extend(
                each.numel() for each in (found if isinstance(found, tuple) else (found,)) if torch.is_tensor(each)
            )
            return found

    points = F.normalize(torch.randn(items, 2), dim=1)
    gallery = Gallery(points, torch.arange(items) // 4, torch.arange(items))
    references = References(gallery, points[:32], gallery.labels[:32], gallery.ids[:32])
    with Watched():
        Margin().objective(references, seed=0)(points[:32])
        rows = MTAX(targets=2).target_rows(references, seed=0)
    assert rows.shape == (32, 2)
    # The gallery itself, and its parts.
    assert 32 * search.PART in sizes
    assert max(sizes) <= 2 * items
