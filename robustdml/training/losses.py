"""Metric-learning losses and miners by name, from pytorch-metric-learning."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from pytorch_metric_learning import losses, miners, reducers
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.errors import SpecError
from robustdml.registry import Registry, Spec, parse_spec
from robustdml.training.clamped_softmax import ClampedSoftmax
from robustdml.training.s2sd import PARAMETERS, S2SD
from robustdml.values import ByValue

#: No parameter of a loss is larger; of a batch that it is tried on, so many classes.
_LARGEST, _TRIED = 1_000_000, 8
#: Arguments that the run knows, whatever a loss calls them.
_CLASSES, _DIMENSIONS = ("num_classes",), ("embedding_size", "descriptors_dim", "l")

#: Not losses of a batch of embeddings and labels: bases, wrappers of other losses, and losses of two views.
_NOT_ALONE = frozenset(
    {
        "BaseLossWrapper",
        "BaseMetricLossFunction",
        "CrossBatchMemory",
        "EmbeddingRegularizerMixin",
        "GenericPairLoss",
        "HistogramLoss",  # indexes tensors in a way that torch is about to read otherwise
        "ManifoldLoss",  # takes no labels
        "MultipleLosses",
        "SelfSupervisedLoss",
        "VICRegLoss",
        "WeightRegularizerMixin",
    }
)
#: Arguments that are objects of the library: a spec cannot write them.
_OBJECTS = frozenset({"distance", "embedding_regularizer", "weight_regularizer", "weight_init_func"})
#: What makes one number of a loss's values, those of anchors, pairs or triplets: a spec names one of these.
REDUCERS: Registry[str] = Registry("reducer")
for _name in ("AvgNonZeroReducer", "MeanReducer", "SumReducer", "ThresholdReducer"):
    REDUCERS.add(_name, _name)
_NO_MINERS = frozenset({"BaseMiner", "EmbeddingsAlreadyPackagedAsTriplets"})


class MinedLoss(nn.Module):
    """A loss on the pairs that a miner picks from the batch.

    Args:
        loss: of pytorch-metric-learning.
        miner: of pytorch-metric-learning, or None for all pairs.
    """

    def __init__(self, loss: nn.Module, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.miner = miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The scalar loss of embeddings ``(N, D)`` with labels ``(N,)`` from 0."""
        pairs = self.miner(embeddings, labels) if self.miner else None
        value: Tensor = self.loss(embeddings, labels, pairs)
        return value


@dataclass(frozen=True, eq=False, repr=False)
class Loss(ByValue):
    """An entry of the registry.

    Args:
        summary: one line.
        kind: a class of ``pytorch_metric_learning.losses``, or of this package.
        params: its arguments where they differ from the library's.
        miner: spec of the miner that goes with it, or None.
    """

    summary: str
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    miner: str | None = None

    def parameters(self) -> dict[str, object]:
        """What a spec may set, with the defaults; an argument without one is shown as None."""
        own = PARAMETERS if self.kind == "S2SD" else _arguments(_loss_kind(self.kind))
        return {**own, **self.params}


# MultiSimilarity: the values of the paper's own baseline (Roth et al. 2020), but for the mean over all anchors. (There
# it is over those that a miner left pairs: reducer=AvgNonZeroReducer.) ArcFace: those of the paper (gamma 0.5 rad =
# 28.6 degrees, s 16). The rest are usual ones.
LOSSES: Registry[Loss] = Registry("loss")
LOSSES.add(
    "multisimilarity",
    Loss(
        "MultiSimilarity with its miner (Wang et al. 2019)",
        "MultiSimilarityLoss",
        {"alpha": 2, "beta": 40, "base": 0.5, "reducer": "MeanReducer"},
        "MultiSimilarityMiner(epsilon=0.1)",
    ),
)
LOSSES.add("contrastive", Loss("contrastive, margin 1 (Hadsell et al. 2006)", "ContrastiveLoss"))
LOSSES.add(
    "triplet",
    Loss(
        "triplet, margin 0.2, semi-hard (Schroff et al. 2015)",
        "TripletMarginLoss",
        {"margin": 0.2},
        "TripletMarginMiner(margin=0.2, type_of_triplets=semihard)",
    ),
)
LOSSES.add(
    "arcface",
    Loss("ArcFace, its centres learned (Deng et al. 2019)", "ArcFaceLoss", {"margin": 28.6, "scale": 16}),
)
LOSSES.add(
    "clampedsoftmax",
    Loss("what MDProp's code ran as ArcFace: a softmax of cosines from 0 on, without a margin", "ClampedSoftmax"),
)
LOSSES.add("proxyanchor", Loss("ProxyAnchor, its proxies learned (Kim et al. 2020)", "ProxyAnchorLoss"))
LOSSES.add("s2sd", Loss("another loss with self-distillation from wider embeddings (Roth et al. 2021)", "S2SD"))
for _name in sorted(set(losses.__dict__) - _NOT_ALONE):
    if inspect.isclass(getattr(losses, _name)):
        LOSSES.add(_name, Loss(f"{_name} of pytorch-metric-learning, with its own defaults", _name))

MINERS: Registry[str] = Registry("miner")
for _name in sorted(set(miners.__dict__) - _NO_MINERS):
    if inspect.isclass(getattr(miners, _name)):
        MINERS.add(_name, _name)


def build_loss(
    text: str, miner: str | None, *, classes: int, embedding_dim: int, features: int = 512
) -> MinedLoss | S2SD:
    """Build a loss from a spec such as ``"arcface(scale=32)"``, and try it on a small batch.

    Args:
        text: a name of `LOSSES`, with parameters if wanted.
        miner: a spec such as ``"BatchHardMiner"``; None takes the one that goes with the loss, ``"none"`` all pairs.
        classes: that labels come from.
        embedding_dim: D.
        features: F of the backbone, which ``s2sd`` needs.

    Raises:
        UnknownNameError: no such loss or miner.
        SpecError: no such parameter, one is missing, or the library refuses its value, or gives no number with it.
    """
    built = _built(text, miner, classes, embedding_dim, features)
    _try_out(built, text, miner, classes, embedding_dim, features)
    return built


def _built(text: str, miner: str | None, classes: int, embedding_dim: int, features: int) -> MinedLoss | S2SD:
    spec = parse_spec(text)
    entry = LOSSES[spec.name]
    if entry.kind == "S2SD":
        return _build_s2sd(text, spec, miner, classes, embedding_dim, features)
    loss = _build(text, losses, Spec(entry.kind, {**entry.params, **spec.params}), classes, embedding_dim)
    chosen = entry.miner if miner is None else miner
    if chosen is None or chosen == "none":
        return MinedLoss(loss)
    wanted = parse_spec(chosen)
    kind = MINERS[wanted.name]
    return MinedLoss(loss, _build(chosen, miners, Spec(kind, wanted.params), classes, embedding_dim))


def _try_out(
    loss: MinedLoss | S2SD, text: str, miner: str | None, classes: int, embedding_dim: int, features: int
) -> None:
    """One value and its gradient; the loss and all random states are as before.

    Raises:
        SpecError: the library raises, or the value or the gradient is not finite.
    """
    named = f"'{text}'" if miner is None else f"'{text}' with the miner '{miner}'"
    count = min(classes, _TRIED)
    tried = copy.deepcopy(loss)  # Some count what they have seen.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        drawn = F.normalize(torch.randn(4 * count, embedding_dim)).requires_grad_()
        labels = torch.arange(count).repeat_interleave(4)
        more = (F.normalize(torch.randn(4 * count, features)),) if isinstance(loss, S2SD) else ()
        try:
            value = tried(drawn, labels, *more)
            (gradient,) = torch.autograd.grad(value, drawn, allow_unused=True)
        except Exception as error:  # The library's losses raise whatever they like.
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise SpecError(
                f"{named} fails on a batch ({said}): leave its parameters as they are, or change one"
            ) from None
    if not torch.isfinite(value).all() or not (gradient is None or torch.isfinite(gradient).all()):
        raise SpecError(f"{named} gives {float(value):g} on a batch, or no finite gradient: change its parameters")


def _build_s2sd(text: str, spec: Spec, miner: str | None, classes: int, embedding_dim: int, features: int) -> S2SD:
    params = dict(spec.params)
    if unknown := set(params) - set(PARAMETERS):
        raise SpecError(f"'{text}' has no parameter '{min(unknown)}', it has: {', '.join(PARAMETERS)}")
    base = params.pop("base", PARAMETERS["base"])
    target_base = params.pop("target_base", None) or base
    for name, value in (("base", base), ("target_base", target_base)):
        if not isinstance(value, str) or parse_spec(value).name == "s2sd":
            raise SpecError(
                f"'{text}': {name}={value!r} must be another loss, such as multisimilarity or 'arcface(scale=32)'"
            )

    def make(wanted: object, dim: int) -> nn.Module:
        return _built(str(wanted), miner, classes, dim, features)

    return S2SD(partial(make, base), partial(make, target_base), embedding_dim, features, params)


def _build(text: str, library: ModuleType, spec: Spec, classes: int, embedding_dim: int) -> nn.Module:
    kind = _loss_kind(spec.name) if library is losses else getattr(library, spec.name)
    known = _arguments(kind)
    for key in spec.params:
        if key not in known:
            raise SpecError(f"'{text}' has no parameter '{key}', it has: {', '.join(known) or 'none'}")
    sizes = {**dict.fromkeys(_CLASSES, classes), **dict.fromkeys(_DIMENSIONS, embedding_dim)}
    own = {key: value for key, value in sizes.items() if key in _required(kind)}
    params = dict(spec.params)
    for key, value in params.items():
        if isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
            raise SpecError(f"'{text}': {key}={value!r} must be a number of at most {_LARGEST:,} in size")
    if params.get("reducer") is not None:
        params["reducer"] = _reducer(text, params["reducer"])
    else:
        params.pop("reducer", None)
    try:
        built: nn.Module = kind(**{**own, **params})
    except Exception as error:  # The library's own checks raise whatever they like.
        raise SpecError(f"'{text}' cannot be built: {' '.join(str(error).split())[:160]}") from None
    return built


def _loss_kind(name: str) -> type:
    return ClampedSoftmax if name == "ClampedSoftmax" else getattr(losses, name)


def _reducer(text: str, wanted: object) -> nn.Module:
    if not isinstance(wanted, str):
        raise SpecError(f"'{text}': reducer={wanted!r} must be one of {', '.join(REDUCERS)}")
    spec = parse_spec(wanted)
    return _build(text, reducers, Spec(REDUCERS[spec.name], spec.params), 0, 0)


def _signature(kind: type) -> dict[str, inspect.Parameter]:
    """The named arguments of a class and of those bases that its ``**kwargs`` reach, its own first."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if base is nn.Module:
            break
        for name, parameter in inspect.signature(base).parameters.items():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(name, parameter)
    return found


def _arguments(kind: type) -> dict[str, object]:
    """What a spec may set, with the defaults (None where there is none); not what the run itself knows."""
    found: dict[str, object] = {}
    for name, parameter in _signature(kind).items():
        default = None if parameter.default is parameter.empty else parameter.default
        ours = name in {*_CLASSES, *_DIMENSIONS} and name in _required(kind)
        if not ours and name not in _OBJECTS and (default is None or isinstance(default, int | float | str)):
            found[name] = default
    return found


def _required(kind: type) -> set[str]:
    return {name for name, parameter in _signature(kind).items() if parameter.default is parameter.empty}
