"""ART's attacks on an embedding whose nearest boundary is known: a hyperplane in the space of pixels.

The embedding is (z, 1) / |(z, 1)| for an affine z of the pixels, and the two gallery items are (1, 1) and (-1, 1) over
the root of two: the nearer one is of the query's class exactly where z > 0. The distance to z = 0 is z over the dual
norm of the gradient of z, while no pixel reaches black or white.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustdml.attacks import build_attack
from robustdml.contracts import Gallery, References

SHAPE = (3, 8, 8)
#: How far the queries are from the boundary, small enough for every pixel to stay inside of [0, 1].
DISTANCE = {"linf": 0.03, "l2": 0.5, "l1": 0.25}
#: The value of z at the first query: embeddings turn by so little on the way that they move along a line.
TURN = 0.25
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


class Affine(nn.Module):
    def __init__(self, norm: str) -> None:
        super().__init__()
        weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))
        weight = weight / torch.linalg.vector_norm(weight, DUAL[norm])
        # The first query is at z = TURN.
        self.weight = nn.Parameter(TURN * weight / DISTANCE[norm])
        self.register_buffer("middle", torch.full(SHAPE, 0.5))

    def forward(self, images):
        z = ((images - self.middle) * self.weight).flatten(1).sum(1)
        return F.normalize(torch.stack([z, torch.ones_like(z)], 1), dim=1)


def make(norm: str):
    """Two queries, at once and at 0.8 times the distance, with an image on the other side in the gallery."""
    model = Affine(norm).eval()
    noise = 0.1 * (torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(2)) - 0.5)
    images = 0.5 + noise
    direction = model.weight.detach() / model.weight.detach().square().sum()
    for row, wanted in enumerate((1.0, 0.8)):
        z = ((images[row] - 0.5) * model.weight.detach()).sum()
        images[row] += (TURN * wanted - z) * direction
    items = torch.stack([0.5 + TURN * direction, 0.5 - TURN * direction])
    gallery = Gallery(
        F.normalize(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), dim=1),
        torch.tensor([0, 1]),
        torch.tensor([10, 11]),
        lambda rows: items[rows],
    )
    with torch.no_grad():
        references = References(gallery, model(images), torch.tensor([0, 0]), torch.tensor([1, 2]))
    optimum = torch.tensor([1.0, 0.8]) * DISTANCE[norm]
    return model, images, references, optimum


def lost(model, images, references):
    with torch.no_grad():
        similarity = model(images) @ references.gallery.embeddings.T
    return similarity[:, 1] > similarity[:, 0]


def test_the_optimum_is_the_optimum():
    for norm, dual in DUAL.items():
        model, images, references, optimum = make(norm)
        weight = model.weight.detach()
        if norm == "l2":
            best = weight / torch.linalg.vector_norm(weight, dual)
        elif norm == "linf":
            best = weight.sign()
        else:
            best = torch.zeros(SHAPE).flatten()
            best[weight.abs().argmax()] = weight.flatten()[weight.abs().argmax()].sign()
            best = best.view(SHAPE)
        for factor, expected in ((0.99, False), (1.01, True)):
            moved = images - factor * optimum[:, None, None, None] * best
            assert 0 <= moved.min() <= moved.max() <= 1
            assert lost(model, moved, references).tolist() == [expected] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "norm"),
    [
        ("art.CarliniL2Method(binary_search_steps=6, max_iter=30)", "l2"),
        ("art.CarliniLInfMethod", "linf"),
        ("art.ElasticNet(beta=0.1)", "l1"),
        ("art.DeepFool", "l2"),
        ("art.NewtonFool", "l2"),
        ("art.HopSkipJump(max_iter=10)", "l2"),
        ("art.HopSkipJump(norm=linf, max_iter=20)", "linf"),
        ("art.BoundaryAttack(sample_size=10)", "l2"),
        ("art.SignOPTAttack(max_iter=15, k=100)", "l2"),
    ],
)
def test_the_smallest_perturbation_is_found(spec, norm):
    model, images, references, optimum = make(norm)
    attack = build_attack(spec, 8 / 255)
    adversarial = attack(model, images, references, seed=3)
    assert lost(model, adversarial, references).all()
    found = attack.threat.distance(adversarial, images)
    assert attack.threat.norm == norm
    assert (found <= 1.25 * optimum).all(), (found / optimum).tolist()
    assert (found >= 0.99 * optimum).all()  # else the optimum is none


@pytest.mark.parametrize(
    ("spec", "norm"),
    [
        ("art.ProjectedGradientDescent", "linf"),
        ("art.ProjectedGradientDescent", "l2"),
        ("art.ProjectedGradientDescentNumpy", "linf"),
        ("art.ProjectedGradientDescentNumpy", "l2"),
        ("art.BasicIterativeMethod", "linf"),
        ("art.MomentumIterativeMethod", "linf"),
        ("art.MomentumIterativeMethod", "l2"),
        ("art.FastGradientMethod", "linf"),
        ("art.FastGradientMethod", "l2"),
        ("art.AutoProjectedGradientDescent", "linf"),
        ("art.AutoProjectedGradientDescent", "l2"),
        ("art.AutoConjugateGradient", "linf"),
        ("art.AutoConjugateGradient", "l2"),
        ("art.RescalingAutoConjugateGradient", "linf"),
        ("art.RescalingAutoConjugateGradient", "l2"),
        ("art.AutoAttack(queries=5)", "linf"),
        ("art.AutoAttack(queries=5)", "l2"),
        ("art.FeatureAdversariesPyTorch", "linf"),
    ],
)
def test_a_ball_a_quarter_larger_than_needed_is_enough(spec, norm):
    model, images, references, _ = make(norm)
    name, _, rest = spec.partition("(")
    inner = ", ".join(part for part in (rest.rstrip(")"), "" if norm == "linf" else f"norm={norm}") if part)
    eps = 1.25 * DISTANCE[norm]
    attack = build_attack(f"{name}({inner}, eps={eps})" if inner else f"{name}(eps={eps})", 8 / 255)
    adversarial = attack(model, images, references, seed=3)
    assert attack.threat.allows(adversarial, images).all()
    assert lost(model, adversarial, references).all()
