"""Images to embeddings, as a deployed model would make them."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.data.tensors import ImageTensors
from robustdml.errors import AttackTimeout, CheckpointError
from robustdml.models.outputs import as_matrix, described, remedy
from robustdml.progress import Advance

#: What networks raise that meet images of another size, and what is raised for other reasons.
_OF_SIZES, _OF_OTHERS = (RuntimeError, ValueError, AssertionError), (NotImplementedError, torch.OutOfMemoryError)


class Embedder(nn.Module):
    """Any module ``(N, 3, H, W) -> (N, D)``, with its output put on the unit sphere: retrieval here is by cosine.

    Args:
        module: takes images in [0, 1]; its own normalisation must be inside.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.forward_images = 0
        self.gradient_images = 0
        self._deadline: float | None = None
        self._precision: torch.dtype | None = None

    def limit_seconds(self, seconds: float | None) -> None:
        """From now on, allow calls for so many seconds; None takes the limit away."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    @property
    def seconds_left(self) -> float | None:
        """Of the time of `limit_seconds`; None where there is no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` float32 of length 1.

        Raises:
            CheckpointError: the module raises, or gives anything but a matrix with one row per image.
            AttackTimeout: the time of `limit_seconds` is over.
        """
        return self._counted(F.normalize(self._matrix(images), dim=1))

    def unscaled(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` float32 of the length that the module gives them; raises as ``forward`` does."""
        return self._counted(self._matrix(images))

    def _matrix(self, images: Tensor) -> Tensor:
        # The one place that every attack comes by again and again, whoever wrote it.
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise AttackTimeout("the time limit is over")
        try:
            output = self.output(images)
        except SystemExit as error:
            raise CheckpointError(
                f"the model tried to end the program (exit code {error.code}) on images {tuple(images.shape)}"
            ) from error
        except Exception as error:
            text = " ".join(str(error).split()) or "it does not say why"
            of_sizes = isinstance(error, _OF_SIZES) and not isinstance(error, _OF_OTHERS)
            hint = "one that takes images of one size only says so: preprocessing = {'size': 224}, or give image_size"
            raise CheckpointError(
                f"the model raised {type(error).__name__} on images {tuple(images.shape)}: {text}"
                f"{f' ({hint})' if of_sizes else ''}"
            ) from error
        found = as_matrix(output, len(images))
        if found is None:
            raise CheckpointError(
                f"the model gives {described(output)} for images {tuple(images.shape)}: an embedding model gives "
                f"(N, D); {remedy(output)}"
            )
        # Counted here, so that whatever runs an attack, its cost is known.
        self.forward_images += len(images)
        return found.float()

    def _counted(self, embeddings: Tensor) -> Tensor:
        if embeddings.requires_grad:
            embeddings.register_hook(self._count_gradient)
        return embeddings

    def output(self, images: Tensor) -> object:
        """What the module gives for ``(N, 3, H, W)`` in [0, 1], in the precision that it takes."""
        # A copy: some modules normalise in place, and what is judged must be what was handed in.
        if self._precision is not None:
            return self.module(images.to(self._precision, copy=True))
        try:
            return self.module(images.clone())
        except Exception:
            # Modules in half or double precision want their images so; those that see to it themselves are asked first.
            floating = (weight.dtype for weight in self.module.parameters() if weight.is_floating_point())
            own = next(floating, images.dtype)
            if own == images.dtype:
                raise
            output = self.module(images.to(own, copy=True))
            self._precision = own
            return output

    def _count_gradient(self, gradient: Tensor) -> None:
        self.gradient_images += len(gradient)


@torch.no_grad()
def embed(
    model: nn.Module, images: Tensor, *, batch_size: int = 128, name: str = "the model"
) -> npt.NDArray[np.float32]:
    """Embeddings ``(N, D)`` float32 of ``images``, ``(N, 3, H, W)`` in [0, 1].

    Raises:
        CheckpointError: an embedding is not finite.
    """
    parts = [model(part) for part in images.split(batch_size)]
    embeddings = torch.cat(parts)
    if not torch.isfinite(embeddings).all():
        raise CheckpointError(
            f"{name} gives embeddings that are not finite: its weights are damaged or training diverged"
        )
    return embeddings.cpu().numpy()


def embed_rows(
    model: nn.Module,
    tensors: ImageTensors,
    rows: npt.NDArray[np.int64],
    *,
    device: torch.device,
    batch_size: int = 128,
    name: str = "the model",
    advance: Advance | None = None,
) -> npt.NDArray[np.float32]:
    """`embed` for rows of a data set, loaded batch by batch."""
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = tensors.batch(rows[start : start + batch_size]).to(device)
        parts.append(embed(model, batch, batch_size=batch_size, name=name))
        if advance:
            advance(len(batch))
    return np.concatenate(parts)
