"""The models that ART is shown: a classifier made of retrieval, and the embedding model itself.

ART's own estimators copy, wrap and batch every call; these do what the attacks need and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
from art.estimators.estimator import BaseEstimator, LossGradientsMixin, NeuralNetworkMixin
from art.estimators.pytorch import PyTorchEstimator
from numpy.typing import NDArray
from torch import Tensor, nn

from robustdml.errors import AttackError

from ..classifier import RetrievalClassifier

Array = NDArray[np.float32]
Question = Literal["predict", "loss", "margin", "class"]

#: Images that pass through the model at once; attacks that try many variants of each image ask for thousands.
_AT_ONCE = 256


class _InPlace(nn.Module):
    """A model that stays where it is: ART would move it to the first GPU, or to the one that is current."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """What the model answers."""
        answer: Tensor = self.model(images)
        return answer

    def _apply(self, *_: Any, **__: Any) -> Any:
        return self


def at_home(attack: Any, device: torch.device) -> Any:
    """An attack of ART, whose estimator is told where the model is.

    AutoPGD and its kin make an estimator of their own of the one that they are handed, on the GPU that is current.
    """
    attack.estimator._device = device
    return attack


class ClassifierEstimator(PyTorchClassifier):  # type: ignore[misc]
    """A `RetrievalClassifier` as ART's classifier.

    Args:
        classifier: maps images to logits ``(N, C)``.
        images: the queries; they say shape and device.
        probabilities: answer with the softmax of the logits, for attacks that insist on it.
    """

    def __init__(self, classifier: RetrievalClassifier, images: Tensor, *, probabilities: bool = False) -> None:
        # A softmax after the logits is only for attacks that see scores: the loss is that of logits.
        model = nn.Sequential(classifier, nn.Softmax(1)).eval() if probabilities else classifier
        super().__init__(
            model=_InPlace(model),
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=classifier.n_classes,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        self._device = images.device
        self._network = model
        self._like = images

    @property
    def clip_values(self) -> tuple[float, float]:
        """Black and white; as plain numbers, because AdversarialPatchNumpy takes NumPy's for a whole patch."""
        return (0.0, 1.0)

    def predict(self, x: Array, batch_size: int = 128, training_mode: bool = False, **kwargs: Any) -> Array:
        """Logits (or probabilities) ``(N, C)`` of ``(N, 3, H, W)``; the batch size is ours."""
        with torch.no_grad():
            parts = [
                self._network(torch.as_tensor(np.asarray(x[start : start + _AT_ONCE])).to(self._like))
                for start in range(0, len(x), _AT_ONCE)
            ]
        answer: Array = torch.cat(parts).cpu().numpy()
        return answer

    def class_gradient(self, x: Array, label: Any = None, training_mode: bool = False, **kwargs: Any) -> Array:
        """See ART; with a label per image one backward pass serves all classes, for images do not mix."""
        gradients: Array
        if not isinstance(label, np.ndarray):
            gradients = super().class_gradient(x, label, training_mode, **kwargs)
            return gradients
        gradients = self._gradient("class", x, label)[:, None]
        return gradients

    def answer(self, kind: Question, x: Array, y: Any) -> Array:
        """What `AskingEstimator` asks: see there."""
        if kind == "predict":
            return self.predict(x)
        parts = [
            self._gradient(kind, x[at : at + _AT_ONCE], y[at : at + _AT_ONCE]) for at in range(0, len(x), _AT_ONCE)
        ]
        return np.concatenate(parts)

    def _gradient(self, kind: Question, x: Array, y: NDArray[np.int64]) -> Array:
        images = torch.as_tensor(np.asarray(x)).to(self._like).requires_grad_()
        logits = self._network(images)
        labels = torch.as_tensor(y).to(logits.device)
        if kind == "loss":
            value = nn.functional.cross_entropy(logits, labels, reduction="sum")
        elif kind == "class":
            value = logits.gather(1, labels[:, None].long()).sum()
        else:
            others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
            value = (logits.gather(1, labels[:, None])[:, 0] - others).sum()
        (gradient,) = torch.autograd.grad(value, images)
        answer: Array = gradient.cpu().numpy()
        return answer


class AskingEstimator(ClassGradientsMixin, ClassifierMixin, NeuralNetworkMixin, LossGradientsMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that asks somebody else: one of many attacks that take turns (see `batched_threads`).

    Args:
        ask: answers, for images ``(K, 3, H, W)`` and labels ``(K,)``, "predict" with logits or probabilities, "loss"
            with the gradient of each image's cross entropy, and "margin" with that of its logit of the label less the
            largest other one, and "class" with that of its logit of the label.
        like: the classifier that it stands for.
        gradient: which of the two gradients the attack is given.
    """

    estimator_params: ClassVar[list[str]] = [*BaseEstimator.estimator_params, "nb_classes"]

    def __init__(
        self,
        ask: Callable[[Question, Array, Any], Array],
        like: ClassifierEstimator,
        gradient: Literal["loss", "margin"] = "margin",
    ) -> None:
        super().__init__(model=None, clip_values=(0.0, 1.0), channels_first=True)
        self._ask = ask
        self._gradient: Literal["loss", "margin"] = gradient
        self._nb_classes = like.nb_classes
        self._input_shape = like.input_shape

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(3, H, W)``."""
        shape: tuple[int, ...] = self._input_shape
        return shape

    def predict(self, x: Array, batch_size: int = 128, **kwargs: Any) -> Array:
        """What the classifier answers to ``(N, 3, H, W)``."""
        return self._ask("predict", np.asarray(x, np.float32), None)

    def loss_gradient(self, x: Array, y: Any, **kwargs: Any) -> Array:
        """The gradient at ``(N, 3, H, W)`` for one-hot labels ``(N, C)``."""
        return self._ask(self._gradient, np.asarray(x, np.float32), np.asarray(y).argmax(1))

    def class_gradient(self, x: Array, label: Any = None, **kwargs: Any) -> Array:
        """The gradient of the logit of one label per image, ``(N, 1, 3, H, W)``."""
        gradient = self._ask("class", np.asarray(x, np.float32), np.asarray(label).reshape(-1))
        return gradient[:, None]

    def fit(self, x: Array, y: Any, **kwargs: Any) -> None:
        """Attacks train nothing."""
        raise AttackError("an attack of ART tried to train the model")

    def get_activations(self, x: Array, layer: int | str, batch_size: int, framework: bool = False) -> Array:
        """No attack that takes turns looks inside the model."""
        raise AttackError("an attack of ART that only sees the output asked for a layer")


class EmbeddingEstimator(PyTorchEstimator):  # type: ignore[misc]
    """The embedding model itself, for the attacks of ART that need no classes.

    Args:
        model: maps images to embeddings ``(N, D)``.
        images: the queries; they say shape and device.
        guides: ``(N, D)``, the embedding that stands for each query's guide image, or None. A guide image of row i is
            an image filled with 2 + i, which no real image is: so a mean of targets can be a guide.
    """

    def __init__(self, model: nn.Module, images: Tensor, guides: Tensor | None = None) -> None:
        super().__init__(
            model=model,
            clip_values=(0.0, 1.0),
            channels_first=True,
            device_type="cpu",
        )
        self._like = images
        self._guides = guides

    @staticmethod
    def guide_images(images: Array) -> Array:
        """The guide image of each row, of the shape of ``images``."""
        rows = np.arange(len(images), dtype=np.float32).reshape(-1, 1, 1, 1)
        guides: Array = np.broadcast_to(2 + rows, images.shape).copy()
        return guides

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(3, H, W)``."""
        return tuple(self._like.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self._like.device

    def predict(self, x: Array, batch_size: int = 128, **kwargs: Any) -> Array:
        """Embeddings ``(N, D)``."""
        with torch.no_grad():
            answer: Array = self.model(torch.as_tensor(x).to(self._like)).cpu().numpy()
        return answer

    def get_activations(self, x: Any, layer: int | str, batch_size: int, framework: bool = False) -> Any:
        """Embeddings as tensors, ``(N, D)``, those of guide images being the guides; there is one layer."""
        if self._guides is not None and bool((x[:, 0, 0, 0] >= 2).all()):
            return self._guides[(x[:, 0, 0, 0] - 2).round().long()]
        return self.model(x)

    def loss_gradient(self, x: Any, y: Any, **kwargs: Any) -> Any:
        """No attack that is shown the embedding model asks for the gradient of a classifier's loss."""
        raise AttackError("an attack of ART asked the embedding model for the gradient of a classifier's loss")
