"""Configuration, parted into what changes the numbers and what changes only how fast they come."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from robustdml.errors import SpecError
from robustdml.preprocessing import Sides, whole_sides
from robustdml.threat import ThreatModel
from robustdml.values import LARGEST_DIM, MOST, ByValue, check_fields, check_range

if TYPE_CHECKING:
    from robustdml.branches import Method

#: How hard attacks try: each says in its registry entry which of its parameters change.
Effort = Literal["quick", "standard", "thorough"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)

#: In which precision attacks run a model; ``"auto"`` takes the fastest here that is as strong. The judge is in fp32.
LowPrecision = Literal["bf16", "fp16"]
Precision = Literal["fp32", "bf16", "fp16"]
PrecisionChoice = Literal["fp32", "auto", "bf16", "fp16"]
PRECISION_CHOICES: tuple[PrecisionChoice, ...] = get_args(PrecisionChoice)

#: Where attacks run: in this process, or in those of a Ray cluster.
EngineName = Literal["inline", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

#: Which BatchNorm branches of a model are evaluated, where it has several: the deployed one, or each by itself.
BranchChoice = Literal["deployed", "all"]
BRANCH_CHOICES: tuple[BranchChoice, ...] = get_args(BranchChoice)


#: The smallest and the largest value of whole numbers of a training. What is larger is a slip, or meant to do harm.
_RANGES = {
    "epochs": (1, 100_000),
    "attack_steps": (1, 10_000),
    "targets": (1, 10_000),
    "batch_size": (4, 1_000_000),
    "embedding_dim": (1, LARGEST_DIM),
    "seed": (0, MOST),
    "validation_classes": (0, 1_000_000_000),
    "patience": (1, 100_000),
}
#: The largest rate, decay and gradient.
_LARGEST = 1e30


@dataclass(frozen=True, eq=False, repr=False)
class TrainConfig(ByValue):
    """Everything that changes the weights of a training run, beside the data.

    Args:
        method: a name of `robustdml.training.METHODS`; with ``recipe``, what that list of branches is called.
        recipe: a list of branches of one's own, in place of the method's.
        backbone: a name of `robustdml.models.BACKBONES`.
        embedding_dim: D.
        image_size: of the training images, in pixels: the side of a square, or height and width; None takes the data
            set's.
        resize: to what the shorter side is brought before the square of ``image_size`` is cut out of the centre; None
            takes ``image_size``, or with ``pretrained`` what the published weights were made for. With a height it is
            of the width; None then brings both sides to ``image_size``.
        squash: bring both sides to ``resize`` instead, whatever that does to the proportions.
        crop_scale: the smallest share of an image's area that a random crop of training takes, in (0, 1]; None takes
            the data set's augmentation as it is (0.4 where it crops; the paper's is 0.08).
        pretrained: start from published weights.
        weights: which, by the name that torchvision gives them, such as ``"IMAGENET1K_V1"``; None takes the newest.
            With a name, ``pretrained`` need not be said.
        loss: a spec of `robustdml.training.LOSSES`, such as ``"arcface(scale=32)"``.
        miner: a spec such as ``"BatchHardMiner"``; None takes the one that goes with the loss, ``"none"`` takes all
            pairs.
        loss_learning_rate: peak rate of what the loss itself learns (ArcFace's centres: the paper's 5e-4), above 0.
        loss_weight_decay: of what the loss learns, S2SD's target networks included, at least 0 (as published).
        epochs: passes over the training images, at least 1.
        batch_size: clean images of a step, at least 4; a multiple of ``m_per_class``.
        m_per_class: images of each class in a batch, at least 2; None takes 4, or as many as a batch needs where the
            data have few classes.
        learning_rate: peak of Adam's rate, above 0.
        weight_decay: of the model's weights by Adam, at least 0.
        eps: training budget, in pixels of [0, 1].
        attack_steps: gradient steps that make a training example, at least 1.
        targets: T of MTAX, at least 1.
        arithmetic: of the training examples: ``"pixels"``, or ``"published"`` as in the paper's code (then ``eps`` is
            after normalisation; see `robustdml.training.published_examples`).
        schedule: of the learning rate: ``"cosine"`` (linear warm-up, then half a cosine to 0), or ``"constant"`` (as
            published).
        validation_classes: training classes held out to choose the epoch that is kept; None takes a tenth of them,
            rounded down; 0 trains on all and keeps the last epoch.
        patience: stop after so many epochs without a better validation R@1; None never does. Needs held-out classes.
        clip_gradient: largest norm of the model's gradient in a step; 0 leaves it as it is.
        average_weights: decay of a moving average of the weights, in [0, 1), which is then what is measured and kept;
            0 keeps the weights themselves.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        seed: of weights, batches, augmentation and attacks.

    Raises:
        SpecError: a value out of its range.
        BudgetError: eps outside [0, 1].
    """

    method: str = "mdprop"
    recipe: Method | None = None
    backbone: str = "resnet18"
    embedding_dim: int = 128
    image_size: Sides | None = None
    resize: int | None = None
    squash: bool = False
    crop_scale: float | None = None
    pretrained: bool = False
    weights: str | None = None
    loss: str = "multisimilarity"
    miner: str | None = None
    loss_learning_rate: float = 5e-4
    loss_weight_decay: float = 0.0
    epochs: int = 20
    batch_size: int = 64
    m_per_class: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 4e-4
    eps: float = 2 / 255
    attack_steps: int = 1
    targets: int = 5
    arithmetic: Literal["pixels", "published"] = "pixels"
    schedule: Literal["cosine", "constant"] = "cosine"
    validation_classes: int | None = None
    patience: int | None = None
    clip_gradient: float = 0.0
    average_weights: float = 0.0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        ThreatModel(self.eps)
        if self.image_size is not None:
            object.__setattr__(self, "image_size", whole_sides(self.image_size))
        if self.weights is not None:
            object.__setattr__(self, "pretrained", True)
        if self.crop_scale is not None and not 0 < self.crop_scale <= 1:
            raise SpecError(f"crop_scale={self.crop_scale} must be a share of an image's area, in (0, 1]")
        for name, (least, most) in _RANGES.items():
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), least, most)
        per_class = self.m_per_class
        if per_class is not None and (per_class < 2 or self.batch_size < 2 * per_class or self.batch_size % per_class):
            raise SpecError(
                f"batch_size={self.batch_size} must be a multiple of m_per_class={per_class} (at least 2) "
                "and hold at least two classes"
            )
        for name in ("learning_rate", "loss_learning_rate"):
            if not 0 < getattr(self, name) <= _LARGEST:
                raise SpecError(f"{name}={getattr(self, name)} must be a number above 0, of at most {_LARGEST:g}")
        for name in ("weight_decay", "loss_weight_decay"):
            if not 0 <= getattr(self, name) <= _LARGEST:
                raise SpecError(f"{name}={getattr(self, name)} must be a number from 0 to {_LARGEST:g}")
        if not 0 <= self.clip_gradient <= _LARGEST or not 0 <= self.average_weights < 1:
            raise SpecError(
                f"clip_gradient={self.clip_gradient} must be a number from 0 to {_LARGEST:g}, and "
                f"average_weights={self.average_weights} in [0, 1)"
            )
        words = {
            "precision": ("fp32", "bf16"),
            "arithmetic": ("pixels", "published"),
            "schedule": ("cosine", "constant"),
        }
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise SpecError(f"{name} '{getattr(self, name)}' is not known: {' or '.join(known)}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class RunOptions:
    """What changes speed and display, never the numbers beyond rounding.

    Args:
        device: a torch device such as ``"cpu"`` or ``"cuda"``; ``"auto"`` takes a GPU where there is one.
        progress: show a progress bar with the time left.
        command: of an evaluation: the command line that asked for it, which the report repeats; empty where none did.
        configuration: the same as a TOML file.
        tensorboard: of training: write its course into ``tensorboard/`` in the run folder too; needs the package
            tensorboard.
        save_images: of an evaluation: keep the attacked images of all queries too (see
            `robustdml.evaluation.kept_images`); their size is that of the data set for each attack and eps.
        engine: of an evaluation: ``"inline"`` attacks in this process, ``"ray"`` in those of a Ray cluster, that of
            the environment variable RAY_ADDRESS or one of this machine (docs/scale.md).
        workers: processes of Ray; None takes as many as the cluster has processors, or GPUs for a model on one.
        nmi: of an evaluation: cluster the gallery of each model once, which takes about as long as to rank it.
        save_minutes: of training: how often its state is saved within an epoch, in minutes, at least 0 (every step);
            that much is lost at most when it is killed.

    Raises:
        SpecError: a value of another type.
    """

    device: str = "auto"
    progress: bool = True
    tensorboard: bool = False
    command: str = ""
    configuration: str = ""
    save_images: bool = False
    engine: EngineName = "inline"
    workers: int | None = None
    nmi: bool = True
    save_minutes: float = 10.0

    def __post_init__(self) -> None:
        check_fields(self)


DEFAULT_OPTIONS = RunOptions()
