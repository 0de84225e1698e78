"""Looking at a model before it is attacked: a few images, a second or so, and a flag for each thing that is not right.

Each detector takes a `Probe` and gives a flag or None. Thresholds lie between what honest and what known-bad models
were measured to give (docs/flags.md, made by experiments/flags.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustdml.errors import CheckpointError
from robustdml.evaluation.checks.normalisation import normalisations
from robustdml.evaluation.judge import Judge
from robustdml.flag_kinds import FLAG_KINDS
from robustdml.models import evaluation_mode, kept_randomness, seed_globally
from robustdml.models.outputs import as_matrix
from robustdml.preprocessing import declared
from robustdml.results import Flag
from robustdml.retrieval.embed import Embedder
from robustdml.seeding import stream

#: Images that are looked at, and how far a step goes, in pixel values: an eighth of the usual budget, or less, where a
#: model bends so much that no gradient holds as far. The best of them counts.
IMAGES, STEPS = 16, (1 / 255, 1 / 1020, 1 / 4080)

#: Distances of embeddings of length 1: what rounding in another order makes of them in half precision stays below.
_SAME, _SAME_IN_BATCH = 1e-3, 1e-2
_RANDOM_STEPS, _BEATEN, _GAIN = 4, 0.7, (0.2, 1.6)
_SHORTEST, _LONGEST = 1e-10, 1e17
_CALLS = 40
_LEVELS, _FEW, _NOTHING = (7, 15, 31, 32, 63, 64, 127, 128, 255, 256), 4, 1e-7
_WIDE_STEPS, _WIDE_EPS = 20, 0.5
_IMAGENET = 1000

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """A model and what it is asked.

    Args:
        name: of the model.
        model: an `Embedder` that nobody else uses, or one around such, in evaluation mode.
        images: ``(N, 3, H, W)`` in [0, 1].
        gallery: ``(M, D)`` clean embeddings of length 1.
        relevant, foreign: ``(N, M)`` bool: right and wrong answers to each image.
        classes: numbers of classes that a classifier of this data set may have.
        chance: the R@1 of a random ranking.
    """

    name: str
    model: nn.Module
    images: Tensor
    gallery: Tensor
    relevant: Tensor
    foreign: Tensor
    classes: frozenset[int]
    chance: float

    def flag(self, slug: str, message: str) -> Flag:
        """A flag about the model."""
        return FLAG_KINDS[slug].flag(f"{self.name}{message}", model=self.name)

    def embed(self, images: Tensor) -> Tensor:
        """``(N, D)``, without a gradient."""
        with torch.no_grad():
            found: Tensor = self.model(images)
        return found

    @cached_property
    def raw(self) -> Tensor:
        """``(N, D)`` as the module gives them."""
        with torch.no_grad():
            found = as_matrix(cast(Embedder, self.model).output(self.images), len(self.images))
        assert found is not None, "it has been embedded before"
        return found.float()

    def margins(self, embeddings: Tensor) -> Tensor:
        """``(N,)`` float64: the nearest wrong answer's similarity minus that of the nearest right one."""
        similarity = embeddings.double() @ self.gallery.double().T
        wrong = similarity.masked_fill(~self.foreign, -1.0).amax(1)
        return wrong - similarity.masked_fill(~self.relevant, -1.0).amax(1)

    def slope(self, images: Tensor) -> Tensor | None:
        """``(N, 3, H, W)``, the gradient of the margins; None where there is none."""
        with torch.enable_grad():
            asked = images.clone().requires_grad_()
            try:
                (gradient,) = torch.autograd.grad(self.margins(self.model(asked)).sum(), asked)
            except (RuntimeError, CheckpointError):
                return None
        return gradient

    @cached_property
    def start(self) -> Tensor:
        """The images, each a little off the grid of 8 bits, where many a model has a kink."""
        noise = _uniform(self.images, "start")
        return (self.images + STEPS[0] / 2 * noise).clamp(0, 1)

    @cached_property
    def gradient(self) -> Tensor | None:
        """At the start."""
        return self.slope(self.start)

    @cached_property
    def usable(self) -> Tensor:
        """``(N,)`` bool: where the gradient is finite and not zero."""
        if self.gradient is None:
            return torch.zeros(len(self.images), dtype=torch.bool)
        flat = self.gradient.flatten(1)
        return flat.isfinite().all(1) & (flat != 0).any(1)


def probe(judge: Judge, images: Tensor, part: Integers, *, name: str, classes: frozenset[int], chance: float) -> Probe:
    """What is asked of a judge's model, with the queries at the places ``part``, ``(N,)``, and their ``images``."""
    own = judge.fresh()
    known = own.references(part)
    return Probe(
        name=name,
        model=own.model,
        images=images,
        gallery=known.gallery.embeddings,
        relevant=known.relevant & ~known.ignored,
        foreign=~known.relevant,
        classes=classes,
        chance=chance,
    )


def examine(asked: Probe) -> list[Flag]:
    """The flags of a model; global random states are as before."""
    with kept_randomness(asked.model), evaluation_mode(asked.model):
        changes = _found([changing], asked)
        # What compares two calls would only say so again.
        return [*changes, *_found(OF_ONE_CALL if changes else (*OF_ONE_CALL, *OF_SEVERAL_CALLS), asked)]


def _found(detectors: Iterable[Detector], asked: Probe) -> list[Flag]:
    found = []
    for detector in detectors:
        try:
            with warnings.catch_warnings():
                # Of a model without gradients: that is what is being found out.
                warnings.filterwarnings("ignore", ".*an autograd kernel was not registered", UserWarning)
                found.append(detector(asked))
        except (RuntimeError, CheckpointError) as error:
            reason = " ".join(str(error).split())
            name = detector.__name__.replace("_", "-")
            found.append(asked.flag("not-examined", f" could not be examined for '{name}': {reason}"))
    return [flag for flag in found if flag is not None]


def passed(detectors: Iterable[Detector], asked: Probe) -> bool:
    """Whether none of some detectors finds anything, and torch warns of nothing (of gradients that it has not)."""
    with kept_randomness(asked.model), evaluation_mode(asked.model), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return not _found(detectors, asked)
        except Warning:
            return False


def changing(asked: Probe) -> Flag | None:
    """Random draws, and a state that calls change (a counter, running statistics)."""
    before = [buffer.clone() for buffer in asked.model.buffers()]
    first = asked.embed(asked.images)
    apart = _apart(first, asked.embed(asked.images))
    for _ in range(_CALLS):
        asked.embed(asked.images[:1])
    late = _apart(first, asked.embed(asked.images))
    seed_globally(0)
    seeded = asked.embed(asked.images)
    seed_globally(0)
    repeated = _apart(seeded, asked.embed(asked.images))
    kept = all(torch.equal(one, other) for one, other in zip(before, asked.model.buffers(), strict=True))
    if apart > _SAME and repeated <= _SAME and kept:
        return asked.flag("stochastic", f" gives the same images embeddings that are {apart:.3f} apart in two calls.")
    if max(apart, late, repeated) > _SAME or not kept:
        what = f"embeddings of the same images come to lie {max(apart, late, repeated):.3f} apart"
        return asked.flag("hidden-state", f" changes as it is called: {what if kept else 'its buffers change'}.")
    return None


def batch_dependent(asked: Probe) -> Flag | None:
    """An image in a batch, and alone."""
    alone = torch.cat([asked.embed(image[None]) for image in asked.images])
    apart = _apart(asked.embed(asked.images), alone)
    if apart <= _SAME_IN_BATCH:
        return None
    return asked.flag("batch-dependent", f" embeds an image {apart:.3f} apart alone and in a batch.")


def gradient_branch(asked: Probe) -> Flag | None:
    """With and without gradients."""
    with torch.enable_grad():
        climbed = asked.model(asked.images.clone().requires_grad_()).detach()
    apart = _apart(asked.embed(asked.images), climbed)
    if apart <= _SAME_IN_BATCH:
        return None
    return asked.flag("gradient-branch", f" embeds the same images {apart:.3f} apart with and without gradients.")


def no_gradient(asked: Probe) -> Flag | None:
    """torch.no_grad, detach, another library inside."""
    if asked.gradient is not None:
        return None
    return asked.flag("no-gradient", " gives embeddings from which no gradient leads back to the image.")


def zero_gradients(asked: Probe) -> Flag | None:
    """No slope at all."""
    if asked.gradient is None:
        return None
    zero = float((asked.gradient.flatten(1) == 0).all(1).double().mean())
    return asked.flag("zero-gradients", f" has a gradient of zero for {zero:.0%} of images.") if zero >= 0.5 else None


def nan_gradients(asked: Probe) -> Flag | None:
    """Also at the images themselves, where black and white pixels are."""
    found = [gradient for gradient in (asked.gradient, asked.slope(asked.images)) if gradient is not None]
    bad = max((float((~gradient.flatten(1).isfinite()).any(1).double().mean()) for gradient in found), default=0.0)
    return asked.flag("nan-gradients", f" has NaN in the gradients of {bad:.0%} of images.") if bad > 0 else None


def misleading_gradients(asked: Probe) -> Flag | None:
    """A signed gradient step against random ones."""
    rows = asked.usable
    if asked.gradient is None or not rows.any():
        return None
    others = [_uniform(asked.images, "step", number) for number in range(_RANDOM_STEPS)]
    beaten = 0.0
    for size in STEPS:
        climbed = _gains(asked, asked.gradient, size)[rows]
        shares = [(climbed > _gains(asked, other, size)[rows]).double().mean() for other in others]
        beaten = max(beaten, float(torch.stack(shares).mean()))
    if beaten >= _BEATEN:
        return None
    return asked.flag(
        "misleading-gradients", f": gradient steps raise the margin more than {beaten:.0%} of random ones."
    )


def gradient_mismatch(asked: Probe) -> Flag | None:
    """Gain against what the gradient foretells."""
    rows = asked.usable
    if asked.gradient is None or not rows.any():
        return None
    shares = []
    for size in STEPS:
        moved = _moved(asked.start, asked.gradient, size) - asked.start
        foretold = float((asked.gradient * moved).double().flatten(1).sum(1)[rows].sum())
        shares.append(float(_gains(asked, asked.gradient, size)[rows].sum()) / foretold if foretold else 0.0)
    share = min(shares, key=lambda found: abs(found - 1))
    if _GAIN[0] <= share <= _GAIN[1]:
        return None
    return asked.flag("gradient-mismatch", f" gains {share:.2f} times what its gradient foretells in a small step.")


def saturated_outputs(asked: Probe) -> Flag | None:
    """Many values at one extreme; zeros below which nothing lies are those of a ReLU."""
    raw = asked.raw
    low, high = float(raw.min()), float(raw.max())
    near = 1e-5 * (high - low)
    if raw.shape[1] < 2 or high - low < 1e-12:
        return None
    share = float((raw >= high - near).double().mean())
    if low < 0:
        share = max(share, float((raw <= low + near).double().mean()))
    return asked.flag("saturated-outputs", f" has {share:.0%} of its outputs at one value.") if share > 0.25 else None


def input_quantised(asked: Probe) -> Flag | None:
    """Changes of less than half a level move nothing, around the levels of rounding or those of cutting off."""
    images = asked.images[:_FEW]
    for levels in _LEVELS:
        signs = _uniform(images, "level", levels).sign()
        for offset in (0.0, 0.5):
            grid = ((images * (levels - 1)).floor() + offset) / levels
            here, near, far = (asked.embed((grid + part / levels * signs).clamp(0, 1)) for part in (0.0, 0.3, 1.0))
            if _apart(here, near) < _NOTHING < _apart(here, far):
                return asked.flag("input-quantised", f" rounds its input to {levels + 1} levels or fewer.")
    return None


def embedding_length(asked: Probe) -> Flag | None:
    """Too short or too long to be brought to length 1."""
    lengths = asked.raw.double().norm(dim=1)
    unit = asked.embed(asked.images).double().norm(dim=1)
    shortest, longest = float(lengths.min()), float(lengths.max())
    if shortest >= _SHORTEST and longest <= _LONGEST and bool(((unit - 1).abs() < 1e-3).all()):
        return None
    return asked.flag("embedding-length", f" gives embeddings of length {shortest:.1g} to {longest:.1g}.")


def class_probabilities(asked: Probe) -> Flag | None:
    """Rows of a softmax."""
    raw = asked.raw
    if raw.shape[1] < 2 or bool((raw < 0).any()) or bool(((raw.sum(1) - 1).abs() > 1e-3).any()):
        return None
    return asked.flag("class-probabilities", " gives non-negative outputs that sum to 1.")


def classifier_head(asked: Probe) -> Flag | None:
    """The last linear layer has as many outputs as there are classes."""
    last = next((part for part in reversed(list(asked.model.modules())) if isinstance(part, nn.Linear)), None)
    size = asked.raw.shape[1]
    if last is None or last.out_features != size or size not in asked.classes | {_IMAGENET}:
        return None
    return asked.flag("classifier-head", f" ends in a linear layer of {size} values, as many as there are classes.")


def preprocessing_contradicted(asked: Probe) -> Flag | None:
    """What the layers get of the pixels, against the mean and standard deviation that are declared."""
    module = asked.model.get_submodule("module")
    said = declared(module)
    if said is None or said.mean is None or said.std is None:
        return None
    found = normalisations(module, asked.images, asked.embed)
    if not found or any(each.near(said.mean, said.std) for each in found):
        return None
    return asked.flag(
        "preprocessing-contradicted", f" declares {said}, and its first layers get pixels of {found[-1]}."
    )


def survives_anything(asked: Probe) -> Flag | None:
    """Ascent within half of all pixel values, from the images and kept where the margin is best."""
    images, best = asked.images, asked.margins(asked.embed(asked.images))
    right, momentum = best < 0, torch.zeros_like(images)
    if asked.gradient is None or not asked.usable.any():
        return None
    sent = (images + 0.1 * _uniform(images, "wide")).clamp(0, 1)
    for number in range(_WIDE_STEPS):
        gradient = asked.slope(sent)
        if gradient is None:
            return None
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        scale = gradient.abs().flatten(1).sum(1).clamp_min(1e-30)[:, None, None, None]
        momentum = 0.75 * momentum + gradient / scale
        sent = sent + _WIDE_EPS * (1 - number / _WIDE_STEPS) * momentum.sign()
        sent = torch.minimum(torch.maximum(sent, images - _WIDE_EPS), images + _WIDE_EPS).clamp(0, 1)
        best = torch.maximum(best, asked.margins(asked.embed(sent)))
    left = float((right & (best < 0)).double().mean())
    if left <= max(asked.chance + 0.02, 2 / len(images)):
        return None
    return asked.flag("survives-anything", f" answers {left:.0%} of queries rightly after gradient steps at eps 0.5.")


Detector = Callable[[Probe], Flag | None]
OF_ONE_CALL: tuple[Detector, ...] = (
    no_gradient,
    zero_gradients,
    nan_gradients,
    saturated_outputs,
    embedding_length,
    class_probabilities,
    classifier_head,
    preprocessing_contradicted,
)
#: Not for models whose answers change by themselves.
OF_SEVERAL_CALLS: tuple[Detector, ...] = (
    batch_dependent,
    gradient_branch,
    misleading_gradients,
    gradient_mismatch,
    input_quantised,
    survives_anything,
)


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest distance of embeddings of the same image; infinite where one of them is no number."""
    found = float((one.double() - other.double()).norm(dim=1).max())
    return found if np.isfinite(found) else float("inf")


def _uniform(like: Tensor, purpose: str, number: int = 0) -> Tensor:
    """Of the shape of a tensor, in [-1, 1], equal on every machine."""
    drawn = stream(0, f"detectors {purpose}", number).uniform(-1, 1, tuple(like.shape))
    return torch.from_numpy(drawn).to(like)


def _moved(images: Tensor, direction: Tensor, size: float) -> Tensor:
    return (images + size * direction.nan_to_num(0.0, 0.0, 0.0).sign()).clamp(0, 1)


def _gains(asked: Probe, direction: Tensor, size: float) -> Tensor:
    """``(N,)``, how much a signed step along a direction raises the margins."""
    return asked.margins(asked.embed(_moved(asked.start, direction, size))) - asked.margins(asked.embed(asked.start))
