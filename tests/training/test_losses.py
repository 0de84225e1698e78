"""Every loss and miner of the library by name, with its parameters."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses
from torch.nn import functional as F

from robustdml.errors import SpecError, UnknownNameError
from robustdml.training import LOSSES, build_loss
from robustdml.training.losses import MINERS

#: Losses that have an argument without a default.
GIVEN = {"RankedListLoss": "RankedListLoss(margin=0.4, Tn=1)"}


def batch():
    random = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(24, 8, generator=random), dim=1).requires_grad_()
    return embeddings, torch.arange(24) // 4


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # the library's, in two softmax losses
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "s2sd"])
def test_every_loss_has_a_value_and_a_gradient(name):
    torch.manual_seed(0)
    loss = build_loss(GIVEN.get(name, name), None, classes=6, embedding_dim=8)
    embeddings, labels = batch()
    value = loss(embeddings, labels)
    assert value.ndim == 0
    assert torch.isfinite(value)
    value.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() > 0


@pytest.mark.parametrize("name", MINERS)
def test_every_miner_works_with_a_loss_of_its_kind(name):
    torch.manual_seed(0)
    wanted = "TripletMarginLoss" if "Pair" not in name and "MultiSimilarity" not in name else "ContrastiveLoss"
    embeddings, labels = batch()
    value = build_loss(wanted, name, classes=6, embedding_dim=8)(embeddings, labels)
    assert torch.isfinite(value)


def test_parameters_reach_the_library_and_ours_go_before_its_own():
    built = build_loss("multisimilarity(beta=50)", "none", classes=6, embedding_dim=8)
    assert (built.loss.alpha, built.loss.beta, built.loss.base, built.miner) == (2, 50, 0.5, None)
    with_miner = build_loss("multisimilarity", None, classes=6, embedding_dim=8)
    assert with_miner.loss.beta == 40
    assert with_miner.miner.epsilon == 0.1
    other = build_loss("contrastive", "BatchHardMiner", classes=6, embedding_dim=8)
    assert type(other.miner).__name__ == "BatchHardMiner"
    centres = build_loss("SubCenterArcFaceLoss(sub_centers=2)", None, classes=6, embedding_dim=8).loss
    assert centres.W.shape == (8, 12)


def test_the_paper_s_arcface_is_half_a_radian_and_16():
    built = build_loss("arcface", None, classes=6, embedding_dim=8).loss
    assert built.margin == pytest.approx(0.5, abs=1e-3)
    assert built.scale == 16


@pytest.mark.parametrize(
    ("text", "miner", "error", "sentence"),
    [
        ("multisimilarty", None, UnknownNameError, "did you mean 'multisimilarity'"),
        ("CircleLos", None, UnknownNameError, "did you mean 'CircleLoss'"),
        ("triplet", "BatchHard", UnknownNameError, "unknown miner 'BatchHard': did you mean 'BatchHardMiner'"),
        ("arcface(scal=3)", None, SpecError, "has no parameter 'scal', it has: .*scale"),
        ("triplet", "BatchHardMiner(x=1)", SpecError, "'BatchHardMiner\\(x=1\\)' has no parameter 'x'"),
        ("RankedListLoss", None, SpecError, "'RankedListLoss' cannot be built: .*margin"),
        ("RankedListLoss(margin=0.4, Tn=900)", None, SpecError, "cannot be built: Values of Tp or Tn are too high"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(text, miner, error, sentence):
    with pytest.raises(error, match=sentence):
        build_loss(text, miner, classes=6, embedding_dim=8)


def test_no_loss_of_the_library_is_forgotten():
    from robustdml.training.losses import _NOT_ALONE

    there = {name for name, kind in vars(losses).items() if isinstance(kind, type)}
    assert there == {name for name in LOSSES if name in there} | (_NOT_ALONE & there)
