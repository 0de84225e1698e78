"""PGD of 20 steps against the bare loop, and by hand with other libraries; what a step costs as gallery and steps grow.

Run: python bench/attack_steps.py [--backbone resnet18] [--image-size 64] [--gallery 10000] [--rounds 5]
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable

import click
import torch
from measuring import RATIOS, Row, in_turns, peer, publish
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.attacks import GOALS, PGD
from robustdml.contracts import Gallery, References
from robustdml.models import EmbeddingModel, ModelConfig, lowered
from robustdml.retrieval.embed import Embedder

EPS = 8 / 255
#: Items of a class, as Stanford Online Products has them; classes of the peers' classifier.
_PER_CLASS, _CLASSES = 5, 100

Run = Callable[[], float]


class Classifier(nn.Module):
    """What a user makes by hand of an embedding model for an attack library: cosine to class centres as logits."""

    def __init__(self, model: nn.Module, centres: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("centres", centres)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)``."""
        return 10 * F.normalize(self.model(images), dim=1) @ self.centres.T  # type: ignore[operator]


def timed(attack: Callable[[], object]) -> Run:
    def run() -> float:
        started = time.process_time()
        attack()
        return time.process_time() - started

    return run


def bare(model: nn.Module, images: Tensor, target: Tensor, steps: int) -> Run:
    """Forward and input gradient of frozen weights, and a step: no attack can do with less."""

    def loop() -> None:
        current = images
        for _ in range(steps):
            asked = current.detach().requires_grad_()
            value = (F.normalize(model(asked), dim=1) * target).sum()
            (gradient,) = torch.autograd.grad(value, asked)
            current = (current + EPS / 8 * gradient.sign()).clamp(images - EPS, images + EPS).clamp(0, 1)

    return timed(loop)


def native(model: nn.Module, goal: str, images: Tensor, references: References, steps: int) -> Run:
    embedder, attack = Embedder(model).eval(), PGD(GOALS[goal](), EPS, steps=steps, best=False)
    return timed(lambda: attack(embedder, images, references, seed=0))


def peers(model: nn.Module, images: Tensor, size: int, steps: int) -> dict[str, Run]:
    """The same attack by other libraries, written as their documentation has it."""
    torch.manual_seed(0)
    classifier = Classifier(model, F.normalize(torch.randn(_CLASSES, size), dim=1)).eval()
    labels = torch.arange(len(images)) % _CLASSES
    found: dict[str, Run] = {}
    import torchattacks

    torch_pgd = torchattacks.PGD(classifier, eps=EPS, alpha=EPS / 8, steps=steps)
    found["torchattacks.PGD by hand"] = timed(lambda: torch_pgd(images, labels))
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    estimator = PyTorchClassifier(
        classifier, nn.CrossEntropyLoss(), tuple(images.shape[1:]), _CLASSES, clip_values=(0.0, 1.0), device_type="cpu"
    )
    art_pgd = ProjectedGradientDescent(
        estimator, eps=EPS, eps_step=EPS / 8, max_iter=steps, num_random_init=1, batch_size=len(images), verbose=False
    )
    found["ART PGD by hand"] = timed(lambda: art_pgd.generate(images.numpy(), labels.numpy()))
    if peer("foolbox"):
        import foolbox

        shown = foolbox.PyTorchModel(classifier, bounds=(0, 1), device="cpu")
        fool = foolbox.attacks.LinfPGD(abs_stepsize=EPS / 8, steps=steps)
        found["Foolbox LinfPGD by hand"] = timed(lambda: fool(shown, images, labels, epsilons=[EPS]))
    sys.modules.setdefault("visdom", types.ModuleType("visdom")).__dict__.setdefault("Visdom", object)  # for its plots
    if peer("adv_lib", "adv_lib.attacks"):
        from adv_lib.attacks import pgd_linf

        found["adversarial-library pgd_linf by hand"] = timed(
            lambda: pgd_linf(classifier, images, labels, EPS, steps=steps, absolute_step_size=EPS / 8)
        )
    return found


def world(items: int, size: int, batch: int) -> References:
    torch.manual_seed(0)
    points = F.normalize(torch.randn(items, size), dim=1)
    labels, ids, rows = torch.arange(items) // _PER_CLASS, torch.arange(items), torch.randperm(items)[:batch]
    return References(Gallery(points, labels, ids), points[rows], labels[rows], ids[rows])


@click.command()
@click.option("--backbone", default="resnet18", show_default=True)
@click.option("--image-size", default=64, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--dimensions", default=128, show_default=True, help="of the embedding")
@click.option("--gallery", default=10_000, show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--largest", default=1_000_000, show_default=True, help="gallery that growth is measured to")
def main(
    backbone: str,
    image_size: int,
    batch_size: int,
    dimensions: int,
    gallery: int,
    steps: int,
    rounds: int,
    largest: int,
) -> None:
    """Write the tables."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = EmbeddingModel(ModelConfig(backbone, embedding_dim=dimensions, image_size=image_size)).eval()
    images, references = torch.rand(batch_size, 3, image_size, image_size), world(gallery, dimensions, batch_size)
    hand = peers(model, images, dimensions, steps)  # they get the model as a user has it, its weights not frozen
    frozen = EmbeddingModel(model.config).eval().requires_grad_(False)
    frozen.load_state_dict(model.state_dict())
    low = lowered(frozen, "bf16", images)
    unit = "bare loop, fp32"
    runs = {
        unit: bare(frozen, images, references.embeddings.roll(1, 0), steps),
        "pgd(goal=stax)": native(frozen, "stax", images, references, steps),
        "pgd(goal=margin)": native(frozen, "margin", images, references, steps),
        "pgd(goal=stax), --precision bf16": native(low, "stax", images, references, steps),
        "pgd(goal=margin), --precision bf16": native(low, "margin", images, references, steps),
        **hand,
    }
    rows = in_turns(runs, unit, rounds)
    fastest = next(row for row in rows if row["what"] == "pgd(goal=margin), --precision bf16")
    for row in rows:
        row["margin_in_bf16"] = float(row["seconds"]) / float(fastest["seconds"])
    publish(
        "attacks",
        f"PGD of {steps} steps on {backbone} at {image_size} px, {batch_size} images, {gallery:,} gallery items of "
        f"{dimensions} dimensions; {rounds} rounds.",
        rows,
        {**RATIOS, "margin_in_bf16": "x margin in bf16"},
    )
    growth(frozen, images, dimensions, rounds, largest)


def growth(model: nn.Module, images: Tensor, size: int, rounds: int, largest: int) -> None:
    """A decade more of steps, queries and gallery items."""
    few, rows = world(1000, size, len(images)), []
    half = images[: max(1, len(images) // 10)], few.rows(torch.arange(max(1, len(images) // 10)))
    pairs = {
        "steps: 2, then 20": (native(model, "margin", images, few, 2), native(model, "margin", images, few, 20)),
        f"queries: {len(half[0])}, then {len(images)}": (
            native(model, "margin", *half, 4),
            native(model, "margin", images, few, 4),
        ),
    }
    items = 1000
    while items < largest:
        small, large = (world(count, size, len(images)) for count in (items, 10 * items))
        pairs[f"gallery: {items:,}, then {10 * items:,}"] = (
            native(model, "margin", images, small, 4),
            native(model, "margin", images, large, 4),
        )
        items *= 10
    for what, (one, ten) in pairs.items():
        row = in_turns({"one": one, "ten": ten}, "one", max(2, rounds // 2))[1]
        rows.append(Row({**row, "what": what}))
    publish(
        "growth", "What ten times as much costs: `pgd(goal=margin)` of 4 steps, where not said otherwise.", rows, RATIOS
    )


if __name__ == "__main__":
    main()
