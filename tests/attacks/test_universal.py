"""A universal perturbation: one for all queries, learnt without them, and better than chance on them."""

import pytest
import torch

from robustdml.attacks import Margin, Shift, build_attack
from robustdml.attacks.native.universal_fit import sample
from robustdml.contracts import Gallery
from robustdml.errors import AttackSkipped, SpecError

EPS = 16 / 255
NOBODY = torch.empty(0, dtype=torch.int64)


def value(goal, world, images):
    with torch.no_grad():
        return goal.objective(world.references, seed=3)(world.model(images)).mean()


@pytest.mark.parametrize("goal", [Margin(), Shift()], ids=repr)
def test_it_is_the_same_for_all_queries_and_raises_the_goal_more_than_noise(world, goal):
    attack = build_attack(f"universal(goal={goal.name})", EPS)
    fitted = attack.fitted(world.model, world.references.gallery, world.references.ids, seed=3)
    assert fitted.delta.shape == (1, 3, 8, 8)
    assert fitted.delta.abs().max() <= EPS
    adversarial = fitted(*world.all, seed=3)
    assert torch.equal(adversarial, attack.threat.project(world.images + fitted.delta, world.images))
    for chosen in ([2], [5, 0]):
        assert torch.equal(fitted(*world.rows(torch.tensor(chosen)), seed=3), adversarial[chosen])
    clean, reached = value(goal, world, world.images), value(goal, world, adversarial)
    noises = [EPS * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)).sign() for i in range(20)]
    by_chance = max(value(goal, world, attack.threat.project(world.images + n, world.images)) for n in noises)
    assert reached - clean > 1.5 * (by_chance - clean) > 0


def test_it_never_sees_the_images_that_it_is_judged_on(make_world):
    world, seen = make_world("leave-self-out"), []
    gallery = world.references.gallery

    def load(rows):
        seen.extend(gallery.ids[rows].tolist())
        return gallery.images(rows)

    watched = Gallery(gallery.embeddings, gallery.labels, gallery.ids, load)
    build_attack("universal(steps=3)", EPS).fitted(world.model, watched, world.references.ids, seed=0)
    assert sorted(seen) == sorted(set(gallery.ids.tolist()) - set(world.references.ids.tolist()))


def test_the_sample_is_drawn_by_the_seed_and_describes_its_images(world):
    gallery = world.references.gallery
    images, references = sample(gallery, NOBODY, 5, seed=1)
    with torch.no_grad():
        assert torch.allclose(world.model(images), references.embeddings, atol=1e-6)
    assert references.ignored.sum(1).tolist() == [1] * 5
    again, other = (sample(gallery, NOBODY, 5, seed=seed)[1].ids.tolist() for seed in (1, 2))
    assert references.ids.tolist() == again != other


def test_without_images_to_learn_from_it_is_skipped(world):
    gallery = world.references.gallery
    blind = Gallery(gallery.embeddings, gallery.labels, gallery.ids)
    with pytest.raises(AttackSkipped, match="the gallery has no images at hand"):
        sample(blind, NOBODY, 5, seed=0)
    with pytest.raises(AttackSkipped, match=r"3 gallery images are no queries too.*attack fewer queries"):
        sample(gallery, gallery.ids[:9], 5, seed=0)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("universal(steps=0)", "steps=0"),
        ("universal(step=0.0)", "step=0.0 above 0"),
        ("universal(delta=1)", "universal has no parameter 'delta'"),
        ("patch(share=1.5)", r"share=1.5 must be in \(0, 1\]"),
        ("patch(place=left)", "place=left is not known: random or centre"),
        ("patch(eps=0.1)", "is bound by no norm and takes no eps"),
    ],
)
def test_what_cannot_be_is_refused(spec, sentence):
    with pytest.raises(SpecError, match=sentence):
        build_attack(spec, EPS)


@pytest.mark.parametrize("spec", ["universal", "patch(share=0.5)", "hub(items=3)", "both_sides(items=2)", "qa_plus"])
def test_the_spec_of_the_entry_builds_it_again(spec):
    attack = build_attack(spec, EPS)
    assert build_attack(attack.entry().spec, EPS) == attack
