"""One attack on one batch, for programs that have a loop of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustdml.attacks import SUITES, build_attack
from robustdml.config import Effort
from robustdml.contracts import Attack, FittedAttack, Gallery, GalleryAttack, References, TwoSidedAttack
from robustdml.errors import AttackError, CheckpointError, RobustDMLError, SpecError
from robustdml.evaluation.attacking.queries import reason_of, run_attack
from robustdml.evaluation.attacking.watch import is_trusted
from robustdml.evaluation.entries import checked_attacks
from robustdml.models import KeptWeights, check_present, copied, single_precision, untouched
from robustdml.preprocessing import PerChannel
from robustdml.retrieval.embed import Embedder
from robustdml.source_options import SourceOptions
from robustdml.threat import ThreatModel
from robustdml.values import brief, whole

#: Pixels that a normalisation put aside by rounding are still pixels.
_SLACK = 1e-4


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Any,
    attack: str | Attack = "margin",
    eps: float | str | ThreatModel | None = None,
    *,
    references: References | tuple[Tensor, Any] | None = None,
    seed: int = 0,
    effort: Effort = "standard",
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> Tensor:
    """Attack a batch: ``robustdml.attack(model, images, labels, "mtax", eps="8/255")``.

    Made for a training loop or a test of one's own: nothing is judged, and nothing but the images comes back.

    Args:
        model: maps images ``(N, 3, H, W)`` to embeddings ``(N, D)``, which are compared by cosine. It may be in
            training mode and within `torch.nn.parallel.DistributedDataParallel`: it is asked in evaluation mode.
        images: ``(N, 3, H, W)``, pixels in [0, 1] on the model's device; with ``mean`` and ``std``, after that
            normalisation.
        labels: ``(N,)``, whole numbers: which images are of one class. A tensor, an array or a list.
        attack: a spec such as ``"mtax"``, ``"pgd(goal=margin, steps=40)"`` or ``"torchattacks.PGD(goal=stax)"`` (see
            ``robustdml list attacks``), or an attack that was built.
        eps: the budget of an attack that is named, in pixels of [0, 1]: ``8/255``, ``"8/255"``, or a threat model;
            None takes 8/255. An attack that was built has its own.
        references: what the attacker knows beside the model. None: the batch itself, each image a query and an item of
            the gallery. A pair ``(gallery, labels)``: a gallery that the batch is no part of, as images
            ``(M, 3, H, W)`` like the batch or as embeddings ``(M, D)``. Or `robustdml.contracts.References`.
        seed: of random starts and targets, at least 0. With one seed each place of a batch gets the same random start:
            in a loop give the number of the step.
        effort: of an attack that is named.
        mean, std: the normalisation that the images have been through and that the model expects, for each channel:
            ``(0.485, 0.456, 0.406)``. The budget is in pixels before it all the same.

    Returns:
        The attacked images, of the shape of ``images``, detached, in float32 (or the float64 of the images), normalised
        where these are. Within the budget and within [0, 1] in pixels, whatever the attack returned.

    Guarantees:
        The model's mode, parameters, gradients and buffers (BatchNorm's statistics) are as before, and so is every
        global random state; the same arguments give the same images. It works within `torch.no_grad` and
        `torch.inference_mode` too.

    Raises:
        UnknownNameError: there is no such attack or goal.
        SpecError: an argument that cannot be; pixels outside [0, 1] among them.
        BudgetError: eps outside [0, 1].
        CheckpointError: the model gives no matrix with one row for each image, or no finite one.
        AttackError: the attack cannot be made on this batch, or broke its contract; the message says why.
    """
    chosen = _chosen(attack, eps, effort)
    if references is None and isinstance(chosen, FittedAttack):
        raise SpecError(
            f"'{chosen.entry().spec}' learns one change for all images on others than these: give "
            "references=(images, labels) of a gallery"
        )
    seed = whole("seed", seed)
    if not isinstance(model, nn.Module):
        raise SpecError(f"model={brief(model)} must be a torch module (load one with robustdml.load_model)")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module  # asked by one process alone, the wrapper would wait for the others
    check_present(model, "the model")
    with torch.inference_mode(False), torch.enable_grad(), single_precision():
        scale = _Scale(mean, std)
        pixels = scale.pixels(_batch("images", images, model))
        if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
            model = copied(model)  # made within inference mode: nothing can be differentiated through it
        victim = Embedder(nn.Sequential(scale, model) if scale.given else model)
        known = _references(victim, pixels, _labels(labels, len(pixels), "labels"), references, scale)
        with _unharmed(model, chosen):
            found = run_attack(victim, chosen, pixels, known, seed=seed)
        result: Tensor = scale(found.images)
        return result.to(images.dtype) if images.dtype == torch.float64 else result


class _Scale(nn.Module):
    """From pixels to what a model that expects a normalisation gets; without one, nothing."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: PerChannel | None, std: PerChannel | None) -> None:
        super().__init__()
        checked = SourceOptions(mean=mean, std=std)
        self.given = checked.mean is not None
        self.register_buffer("mean", torch.tensor(checked.mean or (0.0, 0.0, 0.0)).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(checked.std or (1.0, 1.0, 1.0)).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        if not self.given:
            return pixels
        return (pixels - self.mean.to(pixels)) / self.std.to(pixels)

    def pixels(self, images: Tensor) -> Tensor:
        """The way back, in float32, in [0, 1].

        Raises:
            SpecError: that is not where they are.
        """
        pixels = images.detach().float()
        if self.given:
            pixels = pixels * self.std.to(pixels) + self.mean.to(pixels)
        low, high = pixels.min().item(), pixels.max().item()
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            raise SpecError(
                f"pixels must be in [0, 1] and range from {low:.4g} to {high:.4g}: "
                + (
                    "the images were not normalised by these mean and std"
                    if self.given
                    else "divide by 255, or, where the images are normalised already, give mean=... and std=... of it"
                )
            )
        return pixels.clamp(0, 1)


def _chosen(attack: str | Attack, eps: float | str | ThreatModel | None, effort: Effort) -> Attack:
    """The attack with its budget; one that changes images of a batch."""
    if isinstance(attack, str):
        if attack in SUITES:
            raise SpecError(f"'{attack}' is a suite of attacks, and a batch gets one: {', '.join(SUITES[attack][:6])}")
        found = build_attack(attack, 8 / 255 if eps is None else eps, effort)
    else:
        found = checked_attacks([attack])[0]
        if eps is not None:
            raise SpecError(f"'{found.entry().spec}' has its budget ({found.threat.text}): leave eps out")
    if isinstance(found, GalleryAttack | TwoSidedAttack):
        raise SpecError(
            f"'{found.entry().spec}' changes items of a gallery, and what comes of it is seen in a whole evaluation "
            "only: robustdml.evaluate"
        )
    return found


def _batch(name: str, images: Any, model: nn.Module) -> Tensor:
    """Images ``(N, 3, H, W)``, as they were given."""
    if not isinstance(images, Tensor):
        raise SpecError(f"{name}={brief(images)} must be a tensor (N, 3, H, W): torch.from_numpy makes one of an array")
    if images.ndim != 4 or images.shape[1] != 3 or not images.numel():
        raise SpecError(f"{name} have the shape {tuple(images.shape)}, and it must be (N, 3, H, W)")
    if not images.is_floating_point():
        raise SpecError(f"{name} are {images.dtype}, and pixels are in [0, 1] here: {name}.float() / 255")
    home = next((weight.device for weight in model.parameters()), images.device)
    if images.device != home:
        raise SpecError(f"{name} are on {images.device} and the model is on {home}: {name}.to('{home}')")
    return images


def _labels(labels: Any, count: int, name: str) -> Tensor:
    """Classes ``(count,)`` int64."""
    try:
        found = labels if isinstance(labels, Tensor) else torch.tensor(np.array(labels))
    except (TypeError, ValueError, RuntimeError):
        raise SpecError(f"{name}={brief(labels)} must be {count} whole numbers, one for each image") from None
    if found.shape != (count,) or found.is_floating_point() or found.is_complex():
        raise SpecError(
            f"{name} are {found.dtype} of shape {tuple(found.shape)}, and they must be {count} whole numbers, one for "
            "each image"
        )
    return found.long()


def _references(
    victim: Embedder,
    pixels: Tensor,
    labels: Tensor,
    given: References | tuple[Tensor, Any] | None,
    scale: _Scale,
) -> References:
    """What the attacker knows of the batch."""
    count = len(pixels)
    if isinstance(given, References):
        if len(given) != count:
            raise SpecError(f"the references are of {len(given)} queries, and there are {count} images")
        return given
    ids, labels = torch.arange(count, device=pixels.device), labels.to(pixels.device)
    embeddings = _embedded(victim, pixels)
    if given is None:
        return References(Gallery(embeddings, labels, ids, lambda rows: pixels[rows]), embeddings, labels, ids)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise SpecError(
            f"references={brief(given)} must be a pair (gallery, labels), or robustdml.contracts.References"
        )
    items, load = given[0], None
    if isinstance(items, Tensor) and items.ndim == 2 and items.shape[1] == embeddings.shape[1]:
        found = nn.functional.normalize(items.detach().to(embeddings), dim=1)
    else:
        shown = scale.pixels(_batch("images of the gallery", items, victim))
        found, load = _embedded(victim, shown), lambda rows: shown[rows]
    # The batch is no part of it: no id of the one is an id of the other.
    rows = torch.arange(count, count + len(found), device=pixels.device)
    classes = _labels(given[1], len(found), "labels of the gallery").to(pixels.device)
    return References(Gallery(found, classes, rows, load), embeddings, labels, ids)


def _embedded(victim: Embedder, pixels: Tensor) -> Tensor:
    """Clean embeddings ``(N, D)``, by batches of the size that attacks ask for."""
    with torch.no_grad(), untouched(victim):
        found = torch.cat([victim(part) for part in pixels.split(128)])
    if not torch.isfinite(found).all():
        raise CheckpointError("the model gives embeddings that are not finite: its weights are damaged or diverged")
    return found


@contextmanager
def _unharmed(model: nn.Module, attack: Attack) -> Iterator[None]:
    """Within the block an attack runs: whatever its code is, the weights are as before, and an error is a sentence."""
    weights = None if is_trusted(attack) else KeptWeights(model)
    try:
        yield
    except (RobustDMLError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Attacks of libraries may raise anything.
        raise AttackError(f"{attack.entry().name} failed: {reason_of(error)}") from error
    finally:
        if weights is not None:
            weights.restore()
