"""What was done to the pixels that the layers of a network get, where that is a mean taken and a division."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

# Of the numbers of a normalisation: half precision rounds them.
_SLACK = 0.02


@dataclass(frozen=True)
class Normalisation:
    """Pixels less ``mean``, divided by ``std``, three numbers each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def near(self, mean: Sequence[float], std: Sequence[float]) -> bool:
        """Whether it is that one but for rounding."""
        means, stds = (zip(own, other, strict=True) for own, other in ((self.mean, mean), (self.std, std)))
        return all(abs(one - two) < _SLACK for one, two in means) and all(
            abs(one - two) < _SLACK * two for one, two in stds
        )

    def __str__(self) -> str:
        mean, std = (" / ".join(f"{value:.3g}" for value in part) for part in (self.mean, self.std))
        return f"mean {mean}, std {std}"


def normalisations(module: nn.Module, images: Tensor, ask: Callable[[Tensor], object]) -> list[Normalisation]:
    """Those that the layers of a module meet, in their order, when it is asked about images ``(N, 3, H, W)``.

    An input that is made of the pixels in any other way is none.
    """
    found: list[Normalisation] = []

    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        first = inputs[0] if inputs else None
        if isinstance(first, Tensor) and first.shape == images.shape and first.is_floating_point():
            found.extend(_normalisation(images, first.detach()))

    layers = [part for part in module.modules() if part is not module and not any(part.children())]
    handles = [part.register_forward_pre_hook(hook) for part in layers]
    try:
        ask(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _normalisation(images: Tensor, made: Tensor) -> list[Normalisation]:
    before, after = (part.double().cpu().transpose(0, 1).flatten(1) for part in (images, made))
    centred = before - before.mean(1, keepdim=True)
    spread = centred.square().sum(1)
    if not bool((spread > 0).all()):
        return []
    slope = (centred * after).sum(1) / spread
    offset = after.mean(1) - slope * before.mean(1)
    left = (after - slope[:, None] * before - offset[:, None]).abs().amax()
    if not bool((slope != 0).all()) or bool(left > _SLACK * slope.abs().min()):
        return []
    return [Normalisation(tuple((-offset / slope).tolist()), tuple((1 / slope).tolist()))]
