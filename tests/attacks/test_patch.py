"""A patch: nothing but a square changes, in a place drawn for the query, and it is the same square for all."""

import pytest
import torch

from robustdml.attacks import Margin, build_attack


def square(adversarial, images):
    """Top, left, height and width of what changed in each image."""
    found = []
    for changed in (adversarial != images).any(1):
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        found.append((int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1))
    return found


@pytest.mark.parametrize(("share", "side"), [(0.25, 2), (0.5, 4), (1.0, 8)])
@pytest.mark.parametrize("place", ["random", "centre"])
def test_only_a_square_changes_and_it_is_the_patch(world, share, side, place):
    attack = build_attack(f"patch(share={share}, place={place}, steps=20)", 0.1)
    fitted = attack.fitted(world.model, world.references.gallery, world.references.ids, seed=3)
    assert fitted.patch.shape == (1, 3, side, side)
    assert 0 <= fitted.patch.min() <= fitted.patch.max() <= 1
    adversarial = fitted(*world.all, seed=3)
    assert (attack.threat.distance(adversarial, world.images) <= side**2).all()
    places = square(adversarial, world.images)
    for image, (top, left, height, width) in zip(adversarial, places, strict=True):
        assert (height, width) == (side, side)
        assert torch.equal(image[:, top : top + side, left : left + side], fitted.patch[0])
        if place == "centre":
            assert (top, left) == ((8 - side) // 2,) * 2
    assert len(set(places)) > 1 or place == "centre" or side == 8


def test_the_place_belongs_to_the_query_and_the_seed(world):
    attack = build_attack("patch(steps=2)", 0.1)
    fitted = attack.fitted(world.model, world.references.gallery, world.references.ids, seed=3)
    whole = fitted(*world.all, seed=3)
    for chosen in ([2], [5, 0, 3]):
        assert torch.equal(fitted(*world.rows(torch.tensor(chosen)), seed=3), whole[chosen])
    assert square(fitted(*world.all, seed=4), world.images) != square(whole, world.images)


def test_a_learnt_patch_is_worse_for_the_model_than_a_random_one(world):
    attack = build_attack("patch(share=0.5, place=centre)", 0.1)
    fitted = attack.fitted(world.model, world.references.gallery, world.references.ids, seed=3)
    objective = Margin().objective(world.references, seed=3)

    def reached(patch):
        object.__setattr__(fitted, "patch", patch)
        with torch.no_grad():
            return float(objective(world.model(fitted(*world.all, seed=3))).mean())

    learnt = reached(fitted.patch)
    generator = torch.Generator().manual_seed(0)
    assert learnt > max(reached(torch.rand(1, 3, 4, 4, generator=generator).round()) for _ in range(20)) + 0.02
