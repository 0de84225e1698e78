"""An attack by straight-through gradients is, on a model that rounds, the attack on the model that does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustdml.attacks import PGD, Margin, StraightThrough, build_attack
from robustdml.errors import SpecError

EPS = 8 / 255


class Rounding(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model((images * 255).round() / 255)


def test_it_climbs_where_the_attack_alone_stands_still(world):
    rounding, plain = Rounding(world.model), PGD(Margin(), EPS, steps=5, start=0)
    margin = Margin().objective(world.references, seed=3)
    stands = plain(rounding, world.images, world.references, seed=3)
    found = StraightThrough(plain)(rounding, world.images, world.references, seed=3)
    with torch.no_grad():
        clean, still, reached, without = (
            margin(model(images)).mean()
            for model, images in (
                (rounding, world.images),
                (rounding, stands),
                (rounding, found),
                (world.model, plain(world.model, world.images, world.references, seed=3)),
            )
        )
    assert torch.equal(stands, world.images)
    assert still == clean
    assert reached - clean > 0.8 * (without - clean) > 0
    assert plain.threat.allows(found, world.images).all()


def test_the_entry_says_what_was_run():
    attack = build_attack("straight(attack='mi(steps=3)', around=true)", EPS)
    entry = attack.entry()
    assert (entry.name, entry.knowledge, entry.goal) == ("straight-mi-margin", "gradients", "margin")
    assert "athalye2018obfuscated" in entry.citations
    assert attack.around
    assert attack.identity() == ""
    assert build_attack("straight(attack='transfer(surrogate=\\'squares:SmallNet\\')')", EPS).identity()


def test_an_attack_on_the_gallery_is_refused():
    with pytest.raises(SpecError, match="is for attacks on queries"):
        build_attack("straight(attack=ca_plus)", EPS)
