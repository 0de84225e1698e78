"""Attacks that see scores or the id of the first hit only."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustdml.attacks import NES, Margin, Noise, RayS, Square, build_attack
from robustdml.attacks.native.black_box import first_hit_is_wrong, margins, search
from robustdml.attacks.native.geometry import project, random_perturbation
from robustdml.attacks.native.rays import _blocks
from robustdml.contracts import Gallery, References
from robustdml.errors import SpecError
from robustdml.seeding import stream
from robustdml.threat import ThreatModel

EPS = 16 / 255
ATTACKS = [Square(EPS, queries=150), NES(EPS, queries=150), RayS(EPS, queries=150)]
EVERY_ATTACK = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.entry().name)
#: Budgets at which gradients break some of the world's queries, and not all.
OTHER_NORMS = pytest.mark.parametrize(("norm", "eps"), [("l2", 1.2), ("l1", 24.0)])


class Service(nn.Module):
    """Counts the images that it sees of each query (marked by their first pixel), and refuses gradients."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not images.requires_grad
        assert not torch.is_grad_enabled()
        self.seen += len(images)
        return self.model(images)


def margin(world, images):
    with torch.no_grad():
        return Margin().objective(world.references, seed=0)(world.model(images))


@EVERY_ATTACK
def test_it_breaks_more_than_noise_within_budget_and_queries_and_without_a_gradient(world, attack):
    service = Service(world.model)
    images = attack(service, world.images, world.references, seed=3)
    assert attack.threat.allows(images, world.images).all()
    assert service.seen <= 150 * len(images)
    assert service.seen > len(images)
    noise = Noise(EPS, trials=150)(*world.all, seed=3)
    assert (margin(world, images) > 0).sum() >= (margin(world, noise) > 0).sum()
    assert (margin(world, images) > margin(world, world.images)).all()


@EVERY_ATTACK
def test_more_queries_break_more(world, attack):
    broken = []
    for queries in (25, 150, 1500):
        found = type(attack)(EPS, queries=queries)(*world.all, seed=3)
        broken.append(int((margin(world, found) > 0).sum()))
    assert broken[0] <= broken[1] <= broken[2]
    assert broken[2] > broken[0]


@EVERY_ATTACK
def test_a_query_that_is_broken_asks_no_more(world, attack):
    # Every first hit is wrong: the gallery has no item of the queries' classes that is near.
    gallery = world.references.gallery
    labels = world.references.labels
    turned = Gallery(gallery.embeddings, (gallery.labels + 1) % 4, gallery.ids)
    references = References(turned, world.references.embeddings, labels, world.references.ids)
    assert (Margin().objective(references, seed=0)(references.embeddings) > 0.2).all()
    service = Service(world.model)
    attack(service, world.images, references, seed=3)
    assert service.seen <= (attack.population + 1 if isinstance(attack, NES) else 1) * len(world.images)


@OTHER_NORMS
def test_squares_of_other_norms_use_their_budget_and_break_more_than_draws_from_the_ball(world, norm, eps):
    found = [Square(eps, queries=count, norm=norm)(*world.all, seed=3) for count in (1, 20, 300)]
    reached = [margin(world, images) for images in found]
    threat = Square(eps, norm=norm).threat
    assert threat == ThreatModel(eps, norm)
    assert all(threat.allows(images, world.images).all() for images in found)
    assert (reached[0] <= reached[1]).all()
    assert (reached[0] > 0).sum() < (reached[2] > 0).sum()
    drawn = margin(world, world.images)
    for turn in range(300):
        noise = random_perturbation(world.images, world.references.ids, eps, norm, seed=3, purpose=f"draw {turn}")
        drawn = drawn.maximum(margin(world, project(world.images + noise, world.images, eps, norm)))
    assert (drawn > 0).sum() < (reached[2] > 0).sum()
    held = reached[2] <= 0
    assert not held.any() or (threat.distance(found[2], world.images)[held] > eps / 2).all()


@OTHER_NORMS
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 3, 9), (3, 2, 2), (3, 1, 4)])
def test_squares_fit_into_images_of_any_shape(norm, eps, shape):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    embeddings = nn.functional.normalize(images.flatten(1), dim=1)
    references = References(
        Gallery(embeddings, torch.arange(3), torch.arange(3, 6)), embeddings, *(torch.arange(3),) * 2
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), images[0].numel()))
    found = Square(eps, queries=20, norm=norm)(model, images, references, seed=1)
    assert torch.isfinite(found).all()
    assert ThreatModel(eps, norm).allows(found, images).all()


def test_a_spec_from_before_other_norms_draws_as_it_did():
    assert Square(EPS).entry().spec == "square(queries=1000, share=0.8)"
    assert Square(EPS, norm="l2").entry().spec == "square(queries=1000, share=0.8, norm=l2)"
    assert build_attack(Square(0.5, norm="l2").entry().spec, 0.5) == Square(0.5, norm="l2")


def test_a_decision_is_that_of_the_margin(world):
    generator = torch.Generator().manual_seed(1)
    answers = []
    for _ in range(20):
        noise = torch.randn(world.images.shape, generator=generator)
        with torch.no_grad():
            embeddings = world.model((world.images + 0.2 * noise).clamp(0, 1))
        wrong = first_hit_is_wrong(world.references)(embeddings)
        assert torch.equal(wrong > 0, margins(world.references)(embeddings) > 0)
        answers += wrong.tolist()
    assert 0 < sum(answers) < len(answers)


def test_the_query_itself_is_no_hit(make_world):
    world = make_world("leave-self-out")
    embeddings = world.references.embeddings
    assert torch.equal(first_hit_is_wrong(world.references)(embeddings) > 0, margin(world, world.images) > 0)
    alone = Gallery(
        world.references.gallery.embeddings,
        world.references.gallery.ids,  # each item a class of its own: with the query left out, every hit is wrong
        world.references.gallery.ids,
    )
    references = References(alone, embeddings, world.references.ids, world.references.ids)
    assert (first_hit_is_wrong(references)(embeddings) == 1).all()


def test_rays_finds_a_smaller_radius_where_it_stops_at_the_boundary(world):
    # Where it succeeds, a little less of the same change does not break the query: the radius was bisected.
    images = RayS(EPS, queries=1500)(*world.all, seed=3)
    broken = margin(world, images) > 0
    assert broken.any()
    assert (RayS(EPS).threat.distance(images, world.images)[broken] <= EPS + 1e-6).all()


def test_blocks_part_the_image_ever_finer():
    found = _blocks(12, stream(0, "test", 0))
    for count in (1, 2, 4, 8, 12, 12):
        level = [next(found) for _ in range(count)]
        covered = sorted(index for block in level for index in range(12)[block])
        assert covered == list(range(12))


def test_searches_are_asked_together_and_end_on_their_own(world):
    asked = []

    def start(image, streams):
        def course():
            last = None
            for _ in range(streams("test").integers(1, 5)):
                last = yield torch.stack([image, 1 - image])
            return image * 0 + last.sum()

        return course()

    def answer(references):
        def value(embeddings):
            asked.append(len(embeddings))
            return references.ids.to(embeddings)

        return value

    found = search(world.model, world.images, world.references, start, answer, seed=1)
    rounds = [int(stream(1, "test", item).integers(1, 5)) for item in world.references.ids.tolist()]
    assert asked == [2 * sum(count > turn for count in rounds) for turn in range(max(rounds))]
    for image, item in zip(found, world.references.ids.tolist(), strict=True):
        assert (image == 2 * item).all()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Square(EPS, queries=0), "queries=0 must be at least 1"),
        (lambda: Square(EPS, share=1.5), r"share=1.5 must be in \(0, 1\]"),
        (lambda: Square(EPS, norm="l0"), "norm=l0 is not known: linf, l2, l1"),
        (lambda: NES(EPS, population=3), "population=3 must be an even number"),
        (lambda: NES(EPS, queries=20), "population=20 must be an even number of at least 2 and queries=20 more"),
        (lambda: NES(EPS, sigma=0), "sigma=0 and step=None must be above 0"),
        (lambda: RayS(EPS, queries=0), "queries=0 must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(make, sentence):
    with pytest.raises(SpecError, match=sentence):
        make()
