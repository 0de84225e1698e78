"""Ascent with momentum: what it costs, where it stops, how strong it is, and the goals that it takes in turns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import PGD, ClassMargin, ItemMargin, Margin, Momentum, build_attack
from robustdml.attacks.goals import search
from robustdml.attacks.native.prediction import promising_items
from robustdml.contracts import Gallery, References
from robustdml.data import load_dataset
from robustdml.errors import SpecError
from robustdml.evaluation.checks.calibration import linear_settings, reached_by
from robustdml.retrieval.embed import Embedder
from robustdml.seeding import uniform_like
from robustdml.threat import ThreatModel

EPS = 12 / 255
PARTS = ("embeddings", "labels", "ids")
TURNS = [ItemMargin(rivals=3), ClassMargin(rivals=3)]
#: Budgets in each norm at which some queries of `trained` break and some do not.
BUDGETS = {"linf": (0.015, 0.02, 0.025), "l2": (0.2, 0.3, 0.4), "l1": (0.7, 1.2, 1.7)}


def margin_of(model, images, references):
    with torch.no_grad():
        return Margin().objective(references, seed=0)(model(images))


@pytest.fixture(scope="module")
def trained():
    """A small network trained to retrieve twelve noisy patterns, a little robustly, and queries that it gets right."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        body = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(72, 12)),
        )
    patterns = F.interpolate(torch.rand(12, 3, 4, 4, generator=generator), 12)
    proxies = nn.Parameter(torch.randn(12, 12, generator=generator))
    optimizer = torch.optim.Adam([*body.parameters(), proxies], 3e-3)

    def draw(count):
        labels = torch.arange(count) % 12
        noise = torch.randn(count, 3, 12, 12, generator=generator)
        return (0.5 + 0.4 * (patterns[labels] - 0.5) + 0.1 * noise).clamp(0, 1), labels

    def loss(images, labels):
        return F.cross_entropy(12 * F.normalize(body(images), dim=1) @ F.normalize(proxies, dim=1).T, labels)

    for _ in range(100):
        clean, labels = draw(60)
        images = clean + 0.06 * (2 * torch.rand(clean.shape, generator=generator) - 1)
        for _ in range(2):
            images = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(images, labels), images)
            images = (images + 0.03 * gradient.sign()).clamp(clean - 0.06, clean + 0.06)
        optimizer.zero_grad()
        loss(images.detach(), labels).backward()
        optimizer.step()
    model = Embedder(body).eval().requires_grad_(False)
    items, item_labels = draw(120)
    images, labels = draw(120)
    with torch.no_grad():
        gallery = Gallery(model(items), item_labels, torch.arange(120))
        references = References(gallery, model(images), labels, torch.arange(120) + 500)
    right = torch.nonzero(margin_of(model, images, references) < 0).flatten()
    assert len(right) > 110
    return model, images[right], references.rows(right)


@pytest.mark.parametrize("norm", BUDGETS)
def test_at_equal_gradients_it_breaks_more_than_pgd(trained, norm):
    model, images, references = trained
    broken = {}
    for kind in (Momentum, PGD):
        attacks = [kind(Margin(), eps, steps=10, norm=norm) for eps in BUDGETS[norm]]
        found = [attack(model, images, references, seed=3) for attack in attacks]
        broken[kind] = [int((margin_of(model, each, references) > 0).sum()) for each in found]
        assert all(a.threat.allows(each, images).all() for a, each in zip(attacks, found, strict=True))
    assert 0 < broken[PGD][0] < broken[PGD][-1] < len(images)
    assert sum(broken[Momentum]) > sum(broken[PGD])


@pytest.mark.parametrize("goal", TURNS, ids=repr)
def test_one_rival_at_a_time_breaks_what_the_nearest_of_all_does_not(trained, goal):
    model, images, references = trained
    plain = Momentum(Margin(), 0.015, steps=10)
    left = margin_of(model, plain(model, images, references, seed=3), references) <= 0
    images, references = images[left], references.rows(left)
    found = Momentum(goal, 0.015, steps=10)(model, images, references, seed=3)
    assert (margin_of(model, found, references) > 0).any()


class RowByRow(nn.Module):
    """A model that is called with one image at a time: libraries sum in another order for another batch size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.model(image[None]) for image in images])


def gradients(model, attack, images, references):
    model.gradient_images = model.forward_images = 0
    found = attack(model, images, references, seed=3)
    return found, model.gradient_images, model.forward_images


def test_a_query_costs_gradients_until_it_is_broken_and_none_from_there_on(trained):
    model, images, references = trained
    model = Embedder(RowByRow(model.module)).eval()
    attack, spent, held = Momentum(Margin(), 0.02, steps=6), 0, 0
    _, gradient_images, forward_images = gradients(model, attack, images, references)
    for row in range(len(images)):
        one, cost, passes = gradients(model, attack, images[row : row + 1], references.rows(torch.tensor([row])))
        margin = margin_of(model, one, references.rows(torch.tensor([row])))
        spent, held = spent + cost, held + int(margin <= 1e-6)
        # The last image is judged, and no gradient is asked of it.
        assert (cost, passes) == (6, 7) or (margin > 1e-6 and 1 <= cost == passes <= 6)
    assert 0 < held < len(images)
    # Rounding depends on the batch and may move the step that breaks a query by one.
    assert abs(spent - gradient_images) < 0.01 * spent
    assert gradient_images < min(forward_images, 6 * len(images))
    # Where nothing can break, the budget is spent to the last.
    _, most, passes = gradients(model, replace(attack, eps=1e-4, restarts=2), images, references)
    assert (most, passes) == (12 * len(images), 14 * len(images))
    _, most, _ = gradients(model, Momentum(ItemMargin(rivals=4), 1e-4, steps=3), images, references)
    assert most == 12 * len(images)


def test_a_query_that_is_wrong_already_stays_as_it_is_and_costs_nothing(trained):
    model, images, references = trained
    wrong = replace(references, labels=(references.labels + 1) % 12)
    found, cost, passes = gradients(model, Momentum(Margin(), EPS), images, wrong)
    assert torch.equal(found, images)
    assert cost == passes == 0


def test_without_stop_the_margin_is_raised_as_far_as_it_goes(trained):
    model, images, references = trained
    attack = Momentum(Margin(), 0.03, steps=8)
    first, cost, _ = gradients(model, attack, images, references)
    further, more, _ = gradients(model, replace(attack, stop=False), images, references)
    broken = margin_of(model, first, references) > 1e-6
    assert broken.any()
    assert margin_of(model, further, references)[broken].mean() > 2 * margin_of(model, first, references)[broken].mean()
    assert cost < more == 8 * len(images)


def test_the_steps_are_those_of_the_docstring():
    """Replayed by hand on a linear map, with a gallery so far away that nothing breaks and one pair decides."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 12, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    model[1].weight = nn.Parameter(weight)
    images = 0.3 + 0.4 * torch.rand(1, 3, 2, 2, generator=generator)
    gallery = Gallery(torch.tensor([[100.0, 0.0], [0.0, 1e-3]]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    # Not of length 1, so that the margin is linear and its gradient one and the same everywhere.
    references = References(gallery, torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([7]))
    sign = (gallery.embeddings[1] - gallery.embeddings[0]) @ weight
    attack = Momentum(Margin(), 0.05, steps=3)
    start = Momentum(Margin(), 0.05, steps=1)
    with torch.no_grad():
        clean = images.flatten()
        noise = 0.05 * uniform_like(images, references.ids, seed=1, purpose="start0").flatten()
        current = (clean + noise).clamp(clean - 0.05, clean + 0.05)
        for step in range(3):
            size = 0.5 * 0.05 * (1 + math.cos(math.pi * step / 3)) / 2
            current = (current + size * sign.sign()).clamp(clean - 0.05, clean + 0.05).clamp(0, 1)
    assert torch.allclose(attack(model, images, references, seed=1).flatten(), current, atol=1e-6)
    assert not torch.allclose(start(model, images, references, seed=1).flatten(), current, atol=1e-4)


# --- The goals -------------------------------------------------------------------------------------------------------


def by_hand(references, row, embedding, rivals):
    """Similarity to the nearest of the gallery rows ``rivals`` minus that to the nearest own item."""
    similarity = references.gallery.embeddings @ embedding
    own = (references.gallery.labels == references.labels[row]) & (references.gallery.ids != references.ids[row])
    return similarity[rivals].max() - similarity[own].max()


@pytest.mark.parametrize("own", [True, False], ids=["leave-self-out", "apart"])
def test_each_turn_is_the_margin_against_the_next_nearest_item(make_references, own):
    references = make_references(own=own)
    goal, moved = ItemMargin(rivals=4, skip=1), F.normalize(references.embeddings + 0.3, dim=1)
    gallery = references.gallery
    values = torch.stack([turn.objective(references, seed=0)(moved) for turn in goal.turns])
    rows = goal.target_rows(references, seed=0)
    for row in range(len(references)):
        foreign = torch.nonzero(gallery.labels != references.labels[row]).flatten()
        order = foreign[(gallery.embeddings[foreign] @ references.embeddings[row]).argsort(descending=True)][1:5]
        assert rows[row].tolist() == order.tolist()
        expected = torch.stack([by_hand(references, row, moved[row], [item]) for item in order.tolist()])
        assert torch.allclose(values[:, row], expected)
    assert torch.allclose(goal.objective(references, seed=0)(moved), values.amax(0))


@pytest.mark.parametrize("own", [True, False], ids=["leave-self-out", "apart"])
def test_each_turn_is_the_margin_against_the_next_nearest_class(make_references, own):
    references = make_references(own=own, classes=5)
    goal, moved = ClassMargin(rivals=3), F.normalize(references.embeddings + 0.3, dim=1)
    labels, embeddings = references.gallery.labels, references.gallery.embeddings
    values = torch.stack([turn.objective(references, seed=0)(moved) for turn in goal.turns])
    for row in range(len(references)):
        nearest = {
            label: float((embeddings[labels == label] @ references.embeddings[row]).max())
            for label in range(5)
            if label != references.labels[row]
        }
        for turn, label in enumerate(sorted(nearest, key=nearest.get, reverse=True)[:3]):
            expected = by_hand(references, row, moved[row], torch.nonzero(labels == label).flatten())
            assert torch.allclose(values[turn, row], expected)
    assert torch.allclose(goal.objective(references, seed=0)(moved), values.amax(0))
    assert goal.target_rows(references, seed=0) is None


def test_all_rivals_together_are_the_margin_itself_and_fewer_come_round_again(make_references):
    references = make_references(own=False)
    moved = F.normalize(references.embeddings + 0.3, dim=1)
    margin = Margin().objective(references, seed=0)(moved)
    for goal in (ItemMargin(rivals=12), ItemMargin(rivals=40), ClassMargin(rivals=3), ClassMargin(rivals=7)):
        assert torch.allclose(goal.objective(references, seed=0)(moved), margin)
    rows = ItemMargin(rivals=40).target_rows(references, seed=0)
    assert torch.equal(rows[:, 12:24], rows[:, :12])


def test_given_items_and_classes_take_the_place_of_the_nearest(make_references):
    references = make_references(own=False)
    gallery, moved = references.gallery, F.normalize(references.embeddings + 0.3, dim=1)
    ids = tuple(gallery.ids[[3, 5]].tolist())
    goal = ItemMargin(items=ids)
    assert goal.target_rows(references, seed=0).tolist() == [[3, 5]] * 6
    assert [turn.items for turn in goal.turns] == [(ids[0],), (ids[1],)]
    classes = ClassMargin(classes=(2, 0))
    assert [turn.classes for turn in classes.turns] == [(2,), (0,)]
    for row in range(6):
        foreign = [place for place in (3, 5) if gallery.labels[place] != references.labels[row]]
        expected = by_hand(references, row, moved[row], foreign)
        assert torch.allclose(goal.objective(references, seed=0)(moved)[row], expected)
        wanted = torch.isin(gallery.labels, torch.tensor([2, 0])) & (gallery.labels != references.labels[row])
        expected = by_hand(references, row, moved[row], torch.nonzero(wanted).flatten())
        assert torch.allclose(classes.objective(references, seed=0)(moved)[row], expected)


@pytest.mark.parametrize("goal", TURNS, ids=repr)
def test_a_query_has_the_same_rivals_in_every_batch(make_references, goal):
    references = make_references(own=True)
    whole = goal.objective(references, seed=0)(references.embeddings)
    for row in range(6):
        part = references.rows(torch.tensor([row]))
        assert torch.allclose(goal.objective(part, seed=0)(part.embeddings), whole[row])


@pytest.mark.parametrize("norm", BUDGETS)
def test_promising_items_are_those_that_the_linear_model_brings_furthest_ahead(make_world, norm):
    """No change brings an item further than its bound, and the change that comes with it brings it nearly so far."""
    world = make_world("leave-self-out")
    gallery, verdicts, gaps = world.references.gallery, [], []
    eps = {"linf": 0.02, "l2": 0.2, "l1": 1.0}[norm]
    arguments = (world.model, world.images, world.references, eps, norm)
    options = {"gradients": 6, "slack": 0.5}
    few = list(promising_items(*arguments, count=4, **options))
    for row, (all_of_them, first) in enumerate(zip(promising_items(*arguments, count=99, **options), few, strict=True)):
        own = (gallery.labels == world.references.labels[row]) & (gallery.ids != world.references.ids[row])
        foreign = (gallery.labels != world.references.labels[row]).nonzero().flatten().tolist()
        assert set(all_of_them.items.tolist()) == set(foreign)
        assert torch.equal(first.items, all_of_them.items[:4])
        assert torch.equal(first.bounds.sort(descending=True).values, first.bounds)
        image = world.images[row : row + 1].clone().requires_grad_()
        up, down = (1 - image).clamp(max=eps), image.clamp(max=eps)
        for item, bound, worth, change in zip(first.items, first.bounds, first.worth, first.changes, strict=True):
            leads, gains, most = [], [], []
            for relative in own.nonzero().flatten():
                lead = (world.model(image) @ (gallery.embeddings[item] - gallery.embeddings[relative]))[0]
                (slope,) = torch.autograd.grad(lead, image)
                leads.append(lead.detach())
                gains.append(change @ slope.flatten())
                most.append(
                    {
                        "linf": torch.maximum(slope * up, -slope * down).sum(),
                        "l2": eps * slope.norm(),
                        "l1": eps * slope.abs()[torch.where(slope > 0, image < 1, image > 0)].max(),
                    }[norm].detach()
                )
            lead, gain, farthest = torch.stack(leads), torch.stack(gains), torch.stack(most)
            assert bound <= (lead + farthest).min() + 1e-6
            assert (lead + gain).min() <= bound + 1e-6
            gaps.append(float(bound - (lead + gain).min()) / float(farthest.min()))
            # Who is out of the game plays no further: its best change is not looked for.
            if worth:
                assert (lead + 1.5 * farthest).min() >= -1e-6
            else:
                assert (lead + 1.5 * gain).min() < 1e-6
            verdicts.append(bool(worth))
    assert {True, False} == set(verdicts)
    gaps = torch.tensor(gaps)[torch.tensor(verdicts)]
    assert gaps.median() < 0.03


def test_where_the_embedding_is_linear_its_jacobian_breaks_all_that_can_break():
    """Every query against the verdict of linear programs; one step of a climb is no climb."""
    (setting,) = linear_settings(load_dataset("digits"), dimensions=(16,), threats=[ThreatModel(5 / 255)], queries=24)
    truth, judge = setting.truth(), setting.judge()
    attack = Momentum(ItemMargin(10), 5 / 255, steps=1, predict=8, whole=64, slack=0.0)
    reached = reached_by([attack], judge, setting.images())
    assert 5 < (reached.broken == 1).sum() < 20
    assert ((reached.broken >= 0) == truth.broken).all()
    assert (reached.gradients[reached.broken != 0] < 17).all()


def test_what_wins_is_found_in_a_large_gallery_however_many_items_are_nearer(monkeypatch):
    """Of 5,000 items one alone can come ahead, and it is the farthest: the estimate looks at all, part by part."""
    monkeypatch.setattr(search, "PART", 512)
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(4, 12)
    weight[3] = 40.0  # the image moves along one axis alone
    weight[:3] = 0.01 * torch.randn(3, 12, generator=generator)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    module[1].weight = nn.Parameter(weight)
    module[1].bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]) - 0.5 * weight.sum(1))
    points = torch.cat([torch.ones(5000, 1), 0.3 + torch.rand(5000, 3, generator=generator)], 1)
    points[:, 3] = -0.4
    points[4321] = torch.tensor([0.2, 0.0, 0.0, 1.0])
    points[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    labels = torch.ones(5000, dtype=torch.int64)
    labels[0] = 0
    gallery = Gallery(F.normalize(points, dim=1), labels, torch.arange(5000))
    images, model = torch.full((1, 3, 2, 2), 0.5), Embedder(module).eval()
    with torch.no_grad():
        references = References(gallery, model(images), torch.tensor([0]), torch.tensor([9999]))
        assert (gallery.embeddings @ references.embeddings[0]).argmin() == 4321
    (found,) = promising_items(model, images, references, 0.01, "linf", count=1, gradients=4, slack=0.0)
    assert found.items.tolist() == [4321]
    assert found.worth.all()
    changed = images + found.changes.view_as(images)
    assert margin_of(model, changed, references) > 0


def test_predicted_items_cost_their_gradients_and_are_no_more_than_there_are(trained):
    model, images, references = trained
    images, references = images[:9], references.rows(torch.arange(9))
    attack = Momentum(ItemMargin(rivals=3), 1e-4, steps=2, predict=5)
    _, cost, _ = gradients(model, attack, images, references)
    assert cost == (5 + 3 * 2) * len(images)
    _, cost, _ = gradients(model, replace(attack, restarts=2), images, references)
    assert cost == (5 + 2 * 3 * 2) * len(images)
    # With more gradients asked for than there are dimensions, those of the dimensions are taken, and with ``whole``
    # those of all dimensions where they are no more.
    _, cost, _ = gradients(model, replace(attack, whole=12), images, references)
    assert cost == (12 + 3 * 2) * len(images)
    _, cost, _ = gradients(model, replace(attack, whole=11), images, references)
    assert cost == (5 + 3 * 2) * len(images)
    _, cost, _ = gradients(model, replace(attack, predict=99), images, references)
    assert cost == (12 + 3 * 2) * len(images)
    few = replace(references.gallery, **{key: getattr(references.gallery, key)[:13] for key in PARTS})
    found = promising_items(model, images, replace(references, gallery=few), 0.01, "linf", count=30, gradients=5)
    for label, each in zip(references.labels, found, strict=True):
        foreign = (few.labels != label).nonzero().flatten()
        assert sorted(set(each.items.tolist())) == foreign.tolist()
        assert torch.equal(each.items[len(foreign) :], each.items[: 30 - len(foreign)])


def test_what_the_linear_model_gives_up_with_room_to_spare_is_left_out(trained):
    model, images, references = trained
    images, references = images[:40], references.rows(torch.arange(40))
    attack, broken, spent = Momentum(ItemMargin(rivals=5), 0.015, steps=10, predict=12), [], []
    for slack in (None, 10.0, 0.5, 0.0):
        found, cost, _ = gradients(model, replace(attack, slack=slack), images, references)
        broken.append(margin_of(model, found, references) > 0)
        spent.append(cost)
    # Whatever the slack, an item is left out whose best change comes less than half of the way.
    assert spent[0] > spent[1] >= spent[2] >= spent[3] > 0
    assert spent[0] > 1.2 * spent[3]
    assert broken[0].any()
    assert min(broken[1].sum(), broken[2].sum()) >= 0.95 * broken[0].sum()


def test_in_fewer_turns_predicted_items_break_more_than_the_nearest(trained):
    model, images, references = trained
    images, references = images[:60], references.rows(torch.arange(60))
    broken = []
    for predict in (0, 12):
        attacks = [Momentum(ItemMargin(rivals=1), eps, steps=10, predict=predict) for eps in BUDGETS["linf"]]
        found = [attack(model, images, references, seed=3) for attack in attacks]
        broken.append(sum(int((margin_of(model, each, references) > 0).sum()) for each in found))
    assert broken[1] > broken[0]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("mi(steps=0)", "steps=0, restarts=1 and samples=1 must all be at least 1"),
        ("mi(momentum=-1)", "momentum=-1, predict=0 and whole=0 must all be at least 0"),
        ("mi(slack=1)", "slack=1 must be at least 0, and goes with predict above 0"),
        ("mi(predict=4)", "predict=4 chooses items: it goes with goal=item_margin, and without items"),
        ("mi(goal=item_margin, rivals=0)", "rivals=0 must be at least 1 and skip=0 at least 0"),
        ("mi(goal=class_margin, skip=-1)", "rivals=4 must be at least 1 and skip=-1 at least 0"),
    ],
)
def test_values_out_of_range_are_refused(spec, sentence):
    with pytest.raises(SpecError) as caught:
        build_attack(spec, EPS)
    assert str(caught.value).startswith(sentence)


def test_what_the_gallery_does_not_have_is_refused(make_references):
    references = make_references(own=False)
    for goal, sentence in [
        (ItemMargin(items=(99999,)), "the gallery has no item 99999: choose one that is in it"),
        (ClassMargin(classes=(17,)), "the gallery has no class 17: choose one that is in it"),
    ]:
        with pytest.raises(SpecError, match=sentence):
            goal.objective(references, seed=0)
    alone = replace(references, labels=torch.zeros_like(references.labels))
    alone = replace(alone, gallery=replace(references.gallery, labels=torch.zeros_like(references.gallery.labels)))
    for goal in TURNS:
        with pytest.raises(SpecError, match="no item of another class than the query's"):
            goal.objective(alone, seed=0)


def test_its_row_in_the_results_builds_it_again():
    for spec in ("mi", "mi(goal=item_margin, rivals=3, skip=2)", "mi(goal=class_margin, norm=l2)"):
        attack = build_attack(spec, EPS)
        entry = attack.entry()
        assert build_attack(entry.spec, EPS) == attack
        assert "dong2018boosting" in entry.citations
    assert build_attack("mi", EPS, "thorough").steps == 100
