"""The settings of the paper's trainings beside those of a configuration: what differs, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robustdml.config import TrainConfig
from robustdml.papers.mdprop import LOSSES, Row
from robustdml.preprocessing import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Difference:
    """A setting in which we differ from the paper, or its code.

    Args:
        setting: what is set.
        paper: there.
        ours: here.
        reason: why; empty where nobody has given one.
    """

    setting: str
    paper: str
    ours: str
    reason: str


@dataclass(frozen=True)
class Setting:
    """A setting of the paper, how it is read off a configuration, and why it may differ."""

    name: str
    paper: Callable[[Row], str]
    ours: Callable[[TrainConfig], str]
    reason: str = ""


_LOSS_IN_WORDS = {
    "ms": "multi-similarity (alpha 2, beta 40, base 0.5, miner 0.1), mean over anchors that have pairs",
    "arc": "called ArcFace (gamma 0.5, s 16); as it runs, a softmax of clamped cosines without a margin",
    "s2sd": "S2SD (dims 512 to 2048, weights 50, average plus maximum pooling) on multi-similarity",
}
_IN_WORDS = {LOSSES[key]: words for key, words in _LOSS_IN_WORDS.items()}


def _said(value: str) -> Callable[[object], str]:
    return lambda _: value


def _form(text: str) -> Callable[[TrainConfig], str]:
    return lambda config: text.format(config)


def _training_view(config: TrainConfig) -> str:
    share = 100 * (config.crop_scale or 0.4)
    return f"random crop of {config.image_size} from {share:g} to 100 % of the area, flip"


def _evaluation_view(config: TrainConfig) -> str:
    side = "both sides" if config.squash else "shorter side"
    return f"{side} to {config.resize}, centre crop {config.image_size}"


def _eps(config: TrainConfig) -> str:
    return f"{config.eps:g} {'after normalisation' if config.arithmetic == 'published' else 'in pixels'}"


_UNADVERSARIAL = "the arithmetic of unadversarial images, on which the paper's text says little, is our own"
_STATISTICS = f"{IMAGENET_MEAN}, {IMAGENET_STD}"

#: What is no option here: setting, there, here, and why.
_NO_OPTIONS = (
    (
        "epoch that is kept", "the best on the test set", "the last",
        "choosing by the test set flatters",
    ),
    (
        "classes of a batch", "drawn with replacement (on CUB some 43 different of 56)", "all different",
        "a class that is drawn twice makes a batch of fewer classes, which nobody wanted",
    ),
    (
        "first statistics of the other BatchNorm branches", "mean 0, variance 1", "the pretrained ones",
        "with the published ones the first attacks go through a network that is not calibrated",
    ),
    (
        "branch that is attacked", "not said", "the deployed one",
        "images made through another branch would be a transfer attack; evaluate --branches all attacks each",
    ),
    (
        "gallery under attack", "not said", "clean",
        "no code was released; the threat of a query sent by an attacker leaves the gallery alone",
    ),
    (
        "targets of the evaluation", "not said", "items of other classes",
        "an item of the query's own class is no harm",
    ),
)  # fmt: skip

#: Every setting that the paper, its supplement or its code fixes.
SETTINGS: tuple[Setting, ...] = (
    Setting("backbone", lambda row: row.backbone, _form("{0.backbone}")),
    Setting("pretrained weights", _said("IMAGENET1K_V1"), _form("{0.weights}")),
    Setting("embedding", _said("128 dimensions, length 1"), _form("{0.embedding_dim} dimensions, length 1")),
    Setting("loss", lambda row: _LOSS_IN_WORDS[row.loss], lambda config: _IN_WORDS.get(config.loss, config.loss)),
    Setting("miner", _said("the loss's own"), lambda config: config.miner or "the loss's own"),
    Setting("rate of centres", _said("0.0005"), _form("{0.loss_learning_rate:g}")),
    Setting("weight decay of centres and targets", _said("0"), _form("{0.loss_weight_decay:g}")),
    Setting("optimiser", _said("Adam"), _said("Adam")),
    Setting("learning rate", _said("1e-05"), _form("{0.learning_rate:g}")),
    Setting("weight decay", _said("0.0004"), _form("{0.weight_decay:g}")),
    Setting("schedule", _said("constant"), _form("{0.schedule}")),
    Setting("longest gradient (0: no limit)", _said("0"), _form("{0.clip_gradient:g}")),
    Setting("decay of averaged weights (0: none)", _said("0"), _form("{0.average_weights:g}")),
    Setting("epochs", lambda row: "100" if row.data == "sop" else "150", _form("{0.epochs}")),
    Setting("precision", _said("fp32"), _form("{0.precision}")),
    Setting("batch", _said("112 images, 2 of a class"), _form("{0.batch_size} images, {0.m_per_class} of a class")),
    Setting(
        "training view", _said("random crop of 224 from 8 to 100 % of the area, flip"), _training_view
    ),
    Setting("evaluation view", _said("shorter side to 256, centre crop 224"), _evaluation_view),
    Setting("normalisation", _said(_STATISTICS), _said(_STATISTICS)),
    Setting("held-out classes", _said("0"), _form("{0.validation_classes}")),
    Setting("patience", _said("None"), _form("{0.patience}")),
    Setting("method", lambda row: row.method, _form("{0.method}")),
    Setting("targets T", lambda row: str(row.targets or 5), _form("{0.targets}")),
    Setting("training eps", _said("0.01 after normalisation"), _eps, _UNADVERSARIAL),
    Setting("steps of training examples", _said("1"), _form("{0.attack_steps}")),
    Setting("their arithmetic", _said("published"), _form("{0.arithmetic}"), _UNADVERSARIAL),
    *(Setting(name, _said(paper), _said(ours), reason) for name, paper, ours, reason in _NO_OPTIONS),
)  # fmt: skip


def settings_of(row: Row, config: TrainConfig | None = None) -> list[Difference]:
    """Every setting of a row, there and here, whether they differ or not.

    Args:
        config: None for the row's own.
    """
    used = config or row.config
    return [Difference(each.name, each.paper(row), each.ours(used), each.reason) for each in SETTINGS]


def differences(row: Row, config: TrainConfig | None = None) -> list[Difference]:
    """The settings in which a training differs from the paper's."""
    return [found for found in settings_of(row, config) if found.paper != found.ours]
