"""Attacks on a model whose nearest boundary is known in closed form.

The embedding is ``normalize([1, z])`` with ``z = <w, image> + b``. The one relative and the one stranger in the gallery
lie at ``z = -1`` and ``z = 1``, so that the first hit is wrong exactly where z is above 0: a plane in pixel space, at a
distance given by the dual norm. A step that crosses it needs ``-z`` in all; what one value can give is its weight times
its room within [0, 1], and L1 and L0 take the best values first.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.attacks import build_attack
from robustdml.contracts import Gallery, References
from robustdml.threat import norm_of

SIDE, ROWS, NEEDED = 8, 4, 0.4


class Plane(nn.Module):
    """An affine map of the pixels, put on the circle."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        # Halves of equal sign, so that smoothed gradients and random squares can find it, and weights of many sizes.
        sign = torch.ones(3, SIDE, SIDE)
        sign[:, :, : SIDE // 2] = -1
        weight = sign * (0.02 + 0.3 * torch.rand(3, SIDE, SIDE, generator=generator) ** 4)
        # The squares of torchattacks' Square never reach the last row and column.
        weight[:, -1], weight[:, :, -1] = 0.1 * weight[:, -1], 0.1 * weight[:, :, -1]
        self.weight = nn.Parameter(weight)
        self.offset = nn.Parameter(-0.5 * weight.sum() - NEEDED)

    def height(self, images: Tensor) -> Tensor:
        """z, ``(N,)``."""
        return (images * self.weight).flatten(1).sum(1) + self.offset

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, 2)``."""
        height = self.height(images)
        return F.normalize(torch.stack([torch.ones_like(height), height], 1), dim=1)


def world():
    """A plane, queries at ``z = -NEEDED``, and their references."""
    model = Plane().eval()
    weight = model.weight.detach()
    noise = 0.2 * (torch.rand(ROWS, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) - 0.5)
    # Noise along the plane only.
    noise = noise - (noise * weight).flatten(1).sum(1)[:, None, None, None] * weight / weight.square().sum()
    images = 0.5 + noise
    with torch.no_grad():
        assert torch.allclose(model.height(images), torch.full((ROWS,), -NEEDED), atol=1e-4)
        embeddings = model(images)
    ends = F.normalize(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), dim=1)
    gallery = Gallery(ends, torch.tensor([0, 1]), torch.tensor([10, 11]), images=lambda rows: 0.5 + 0.1 * rows)
    labels = torch.zeros(ROWS, dtype=torch.int64)
    return model, images, References(gallery, embeddings, labels, torch.arange(ROWS))


def optimum(model, images, norm):
    """The norm of the smallest change that reaches the plane, ``(ROWS,)``."""
    weight = model.weight.detach()
    if norm in ("linf", "l2"):
        radius = NEEDED / float(weight.abs().sum() if norm == "linf" else weight.norm())
        # The box must not matter for these: the closed form knows nothing of it.
        step = radius * weight.sign() if norm == "linf" else radius * weight / weight.norm()
        assert ((images + 1.3 * step).clamp(0, 1) == images + 1.3 * step).all()
        return torch.full((len(images),), radius)
    room = torch.where(weight > 0, 1 - images, images)
    found = []
    for row in room:
        gain = (row * weight.abs()).sum(0).flatten() if norm == "l0" else (row * weight.abs()).flatten()
        rank = gain if norm == "l0" else weight.abs().flatten()
        order = rank.argsort(descending=True)
        reached = gain[order].cumsum(0)
        full = int((reached < NEEDED).sum())
        if norm == "l0":
            found.append(float(full + 1))
        else:
            rest = NEEDED - (float(reached[full - 1]) if full else 0.0)
            found.append(float(row.flatten()[order[:full]].sum() + rest / weight.abs().flatten()[order[full]]))
    return torch.tensor(found)


def attacked(spec, eps=0.1):
    attack = build_attack(spec, eps)
    model, images, references = world()
    adversarial = attack.threat.project(attack(model, images, references, seed=0), images)
    with torch.no_grad():
        return attack, model, images, adversarial, model.height(adversarial)


#: Attacks that look for the smallest change, with enough steps to find it; L0 counts whole pixels.
MINIMUM = [
    *("bisection", "bisection(norm=l2)", "bisection(norm=l1)", "bisection(steps=10, rounds=8, items=0)"),
    "torchattacks.CW(steps=500)",
    "torchattacks.DeepFool",
    "torchattacks.FAB",
    "torchattacks.FAB(norm=l2)",
    "torchattacks.EADL1(beta=0.01)",
]


@pytest.mark.parametrize("spec", MINIMUM)
def test_minimum_norm_attacks_come_within_a_quarter_of_the_optimum(spec):
    attack, model, images, adversarial, height = attacked(spec)
    assert attack.threat.eps is None
    assert (height > 0).all()
    best = optimum(model, images, attack.threat.norm)
    found = norm_of(adversarial - images, attack.threat.norm)
    assert (found >= best * (1 - 1e-4)).all()  # nothing can be nearer: the closed form is right
    assert (found <= 1.25 * best).all()


def test_sparsefool_changes_few_values():
    # It counts values, not pixels, and one more than is needed is more than a quarter.
    _, model, images, adversarial, height = attacked("torchattacks.SparseFool(lam=1.0)")
    assert (height > 0).all()
    weight = model.weight.detach()
    gain = (torch.where(weight > 0, 1 - images, images) * weight.abs()).flatten(1)
    fewest = (gain.sort(dim=1, descending=True).values.cumsum(1) < NEEDED).sum(1) + 1
    changed = (adversarial != images).flatten(1).sum(1)
    assert (fewest <= changed).all()
    assert (changed <= fewest + 1).all()


#: Attacks within a budget, in the norm of their spec. TPGD is none of them: its divergence from the clean prediction
#: grows on both sides of the clean image, and the random start chooses.
FIXED = [
    *(
        f"torchattacks.{name}"
        for name in (
            "FGSM",
            "BIM",
            "RFGSM",
            "PGD",
            "EOTPGD",
            "FFGSM",
            "MIFGSM",
            "UPGD",
            "APGD",
            "APGD(loss=dlr)",
            "APGDT",
            "DIFGSM",
            "TIFGSM(len_kernel=3)",
            "Jitter",
            "NIFGSM",
            "PGDRS",
            "SINIFGSM",
            "VMIFGSM",
            "VNIFGSM",
            "SPSA(nb_iter=40)",
            "PIFGSM",
            "PIFGSMPP",
            "AutoAttack",
            "Square(n_queries=1000)",
            "APGD(norm=l2)",
            "APGDT(norm=l2)",
            "AutoAttack(norm=l2)",
            "PGDL2",
            "PGDRSL2",
            "OnePixel(steps=60, popsize=100)",
        )
    ),
]


def within(spec, share):
    """The spec with a budget that is a share of the optimal radius."""
    norm = build_attack(spec, 0.1).threat.norm
    model, images, _ = world()
    radius = share * float(optimum(model, images, norm).max())
    if norm == "l0":
        radius = float(int(radius) + (share > 1))
    name, _, params = spec.rstrip(")").partition("(")
    return f"{name}({', '.join(part for part in (params, f'eps={radius!r}') if part)})"


@pytest.mark.parametrize("spec", FIXED)
def test_fixed_budget_attacks_succeed_at_a_quarter_more_than_the_optimal_radius(spec):
    assert (attacked(within(spec, 1.25))[-1] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("spec", FIXED)
def test_no_attack_succeeds_below_the_optimal_radius(spec):
    assert (attacked(within(spec, 0.8))[-1] < 0).all()
