"""ART's attacks: which there are, how single images share batches, and what the adapter adds."""

from __future__ import annotations

import inspect
import threading
from dataclasses import replace
from types import SimpleNamespace

import art.attacks.evasion
import numpy as np
import pytest
import torch
from art.attacks.attack import EvasionAttack

from robustdml.attacks import ATTACKS, NOT_OFFERED, build_attack
from robustdml.attacks.libraries.art.batched_threads import run_in_turns
from robustdml.attacks.libraries.art.rows import ROWS
from robustdml.errors import AttackSkipped, SpecError

EPS = 12 / 255


def test_every_evasion_attack_of_art_is_offered_or_explained():
    there = {
        f"art.{name}"
        for name, kind in vars(art.attacks.evasion).items()
        if inspect.isclass(kind) and issubclass(kind, EvasionAttack)
    }
    offered = {name for name in ATTACKS if name.startswith("art.")}
    explained = {name for name in NOT_OFFERED if name.startswith("art.")}
    assert there <= offered | explained, sorted(there - offered - explained)
    assert not offered & explained
    # Those that are absent from `there` are absent from this installation, and say which package they need.
    assert {name.removeprefix("art.") for name in (offered | explained) - there} <= {
        name for name, row in ROWS.items() if row.needs
    }
    assert len(offered) >= 30
    assert all(NOT_OFFERED[name] for name in explained)


@pytest.mark.parametrize("kind", [kind for kind in ROWS if f"art.{kind}" in ATTACKS])
@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_the_class_is_called_with_what_it_has(kind, effort):
    """An argument that ART does not have would only be noticed when the attack runs."""
    attack = build_attack(f"art.{kind}", 0.1, effort)
    assert attack.given == {**ROWS[kind].defaults, **ROWS[kind].effort.get(effort, {})}
    known = inspect.signature(getattr(art.attacks.evasion, kind)).parameters
    assert set(attack.arguments(task_of(4))) <= set(known)
    assert not {name for name in known if name in ROWS[kind].own} - {"max_iter", "nb_random_init"}


def task_of(count, targets=None):
    return SimpleNamespace(images=torch.zeros(count, 3, 8, 8), targets=targets)


def test_budget_and_step_are_handed_over_in_the_units_of_art():
    given = build_attack("art.ProjectedGradientDescent(max_iter=5)", 0.2).arguments(task_of(3, targets=[[0]] * 3))
    assert given["eps"] == 0.2
    assert given["eps_step"] == pytest.approx(0.1)
    assert given["norm"] == np.inf
    assert given["targeted"] is True
    halves = build_attack("art.ProjectedGradientDescent(step=0.5, norm=l2, eps=0.2)", 0.1).arguments(task_of(3))
    assert (halves["eps_step"], halves["norm"]) == (0.1, 2)
    pixels = build_attack("art.PixelAttack", 0.1).arguments(task_of(3))
    assert pixels["th"] == 10
    assert isinstance(pixels["th"], int)


def test_another_norm_than_the_first_is_part_of_the_name():
    assert build_attack("art.ProjectedGradientDescent", EPS).entry().name == "art.ProjectedGradientDescent-untargeted"
    other = build_attack("art.ProjectedGradientDescent(norm=l2)", EPS)
    assert other.entry().name == "art.ProjectedGradientDescent-L2-untargeted"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("art.SquareAttack(max_iter=0)", "art.SquareAttack: max_iter=0 must be above 0"),
        ("art.DeepFool(epsilon=-1.0)", "art.DeepFool: epsilon=-1.0 must be above 0"),
        ("art.DeepFool(eps=0.1)", "'art.DeepFool(eps=0.1)': this attack looks for the smallest perturbation"),
        ("art.DeepFool(batch_size=3)", "'art.DeepFool(batch_size=3)': art.DeepFool has no parameter 'batch_size'"),
    ],
)
def test_what_art_would_refuse_late_is_refused_at_once(spec, sentence):
    with pytest.raises(SpecError) as caught:
        build_attack(spec, EPS)
    assert str(caught.value).startswith(sentence)


def test_an_attack_whose_cost_grows_with_every_pixel_is_skipped_on_large_images(world):
    attack = build_attack("art.VirtualAdversarialMethod", EPS)
    large = torch.rand(6, 3, 17, 17)
    with pytest.raises(AttackSkipped, match="images of 17 pixels are too large"):
        attack(world.model, large, world.references, seed=3)


def double(kind, images, labels):
    return 2 * images if kind == "predict" else images + labels[:, None]


def test_questions_of_one_kind_are_answered_together_and_each_gets_its_own_answer():
    asked = []

    def answer(kind, images, labels):
        asked.append((kind, len(images)))
        return double(kind, images, labels)

    def task(number):
        def run(ask):
            first = ask("predict", np.full((number, 1), float(number)), None)
            return first if number < 3 else ask("margin", first[:1], np.array([10]))

        return run

    results = run_in_turns([task(number) for number in (1, 2, 3)], answer, [1, 2, 3])
    assert [result.tolist() for result in results] == [[[2.0]], [[4.0], [4.0]], [[16.0]]]
    assert asked == [("predict", 6), ("margin", 1)]


def test_each_task_draws_its_own_random_numbers_whoever_runs_beside_it():
    def task(ask):
        drawn = [np.random.rand()]
        ask("predict", np.zeros((1, 1)), None)
        return np.array([*drawn, np.random.rand()])

    alone = run_in_turns([task], double, [7])[0]
    beside = run_in_turns([task, task, task], double, [5, 7, 6])
    assert beside[1].tolist() == alone.tolist()
    assert beside[0].tolist() != alone.tolist()


@pytest.mark.parametrize("where", ["task", "answer"])
def test_an_error_ends_every_task_and_is_raised(where):
    ended = []

    def patient(ask):
        try:
            while True:
                ask("predict", np.zeros((1, 1)), None)
        finally:
            ended.append(True)

    def failing(ask):
        ask("predict", np.zeros((1, 1)), None)
        raise ValueError("task")

    def answer(kind, images, labels):
        if where == "answer":
            raise ValueError("answer")
        return images

    before = threading.active_count()
    with pytest.raises(ValueError, match=where):
        run_in_turns([patient, failing], answer, [1, 2])
    assert ended == [True]
    assert threading.active_count() == before


def test_a_single_image_is_attacked_alike_in_every_batch(make_world):
    """Apart from the gallery the classes of a query's problem differ by batch, but not for two queries of one class."""
    world = make_world("gallery")
    attack = build_attack("art.SimBA(max_iter=10)", EPS)
    together = attack(*world.all, seed=3)
    order = torch.tensor([5, 4, 3, 2, 1, 0])
    reversed_ = attack(*world.rows(order), seed=3)
    assert torch.equal(reversed_[order], together)
    assert not torch.equal(together, world.images)


def test_decision_attacks_start_at_images_of_the_gallery(make_world):
    """A query alone knows no other image: without the gallery's there is no start, and it stays as it is."""
    world = make_world("one row")
    attack = build_attack("art.BoundaryAttack", EPS, "quick")
    alone = replace(world.references, gallery=replace(world.references.gallery, images=None))
    assert torch.equal(attack(world.model, world.images, alone, seed=3), world.images)

    loaded = []

    def images(rows):
        loaded.extend(rows.tolist())
        return make_world("gallery").images[[0]].expand(len(rows), -1, -1, -1)

    known = replace(world.references, gallery=replace(world.references.gallery, images=images))
    found = attack(world.model, world.images, known, seed=3)
    assert not torch.equal(found, world.images)
    assert (world.references.gallery.labels[loaded] != world.references.labels).all()
    start = make_world("gallery").images[[0]]
    assert (found - world.images).norm() < (start - world.images).norm()


def test_square_is_judged_by_the_goal_itself(world):
    """It keeps a square only where the goal's own value rises, so that the value never falls for any query."""
    for goal in ("margin", "mtax"):
        attack = build_attack(f"art.SquareAttack(goal={goal}, max_iter=15)", EPS)
        objective = attack.goal.objective(world.references, seed=3)
        adversarial = attack(*world.all, seed=3)
        with torch.no_grad():
            before, after = objective(world.model(world.images)), objective(world.model(adversarial))
        assert (after >= before - 1e-6).all()
        assert (after > before + 1e-3).any()


def test_features_go_to_the_mean_of_the_targets(world):
    attack = build_attack("art.FeatureAdversariesPyTorch(goal=mtax, targets=2)", 0.3)
    rows = attack.target_rows(world.references, seed=3)
    mean = world.references.gallery.embeddings[rows].mean(1)
    with torch.no_grad():
        before = (world.model(world.images) - mean).norm(dim=1)
        after = (world.model(attack(*world.all, seed=3)) - mean).norm(dim=1)
    assert (after < 0.7 * before).all()
