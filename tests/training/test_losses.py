"""Every loss and miner of the library by name, with its parameters."""

from __future__ import annotations

import math

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
        ("triplet(reducer=Mean)", None, UnknownNameError, "unknown reducer 'Mean': did you mean 'MeanReducer'"),
        ("triplet(reducer=3)", None, SpecError, "reducer=3 must be one of AvgNonZeroReducer, MeanReducer"),
        ("triplet(reducer=ThresholdReducer)", None, SpecError, "cannot be built: At least one of low or high"),
        ("clampedsoftmax(scale=0)", None, SpecError, "cannot be built: scale=0 must be a number above 0"),
        ("clampedsoftmax(margin=1)", None, SpecError, "has no parameter 'margin', it has: scale"),
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


def test_a_mean_over_anchors_that_have_pairs_is_the_mean_over_all_by_their_share():
    """Multi-similarity as published is .751 where the mean over all anchors is .592: the size differs, not the way."""
    torch.manual_seed(0)
    hard, labels = batch()
    easy = torch.eye(16)[8:].repeat_interleave(4, 0)[:8]
    hard = F.pad(hard.detach(), (0, 8))
    both = torch.cat([hard, easy]).requires_grad_()
    places = torch.cat([labels, torch.arange(8) // 4 + 6])
    values, gradients = {}, {}
    for reducer in ("MeanReducer", "AvgNonZeroReducer"):
        loss = build_loss(f"multisimilarity(reducer={reducer})", None, classes=8, embedding_dim=16)
        value = loss(both, places)
        (gradients[reducer],) = torch.autograd.grad(value, both)
        values[reducer] = value.item()
    # Of 32 anchors, the eight easy ones have lost their pairs to the miner.
    assert values["MeanReducer"] == pytest.approx(24 / 32 * values["AvgNonZeroReducer"])
    assert values["MeanReducer"] > 0.1
    torch.testing.assert_close(gradients["MeanReducer"], 24 / 32 * gradients["AvgNonZeroReducer"])
    default = build_loss("multisimilarity", None, classes=8, embedding_dim=16)
    assert default(both, places).item() == values["MeanReducer"]
    assert LOSSES["multisimilarity"].parameters()["reducer"] == "MeanReducer"


def published_arcface(embeddings, labels, centres, margin, scale=16):
    """As the code behind the paper's Arc rows computes, by loops: the margin's change goes to every logit of a row."""
    total = 0.0
    for row, own in zip(embeddings.tolist(), labels.tolist(), strict=True):
        cosines = [max(sum(a * b for a, b in zip(row, centre, strict=True)), 0.0) for centre in centres.tolist()]
        change = math.cos(math.acos(min(cosines[own], 1.0)) + margin) - cosines[own]
        logits = [scale * (cosine + change) for cosine in cosines]
        total += math.log(sum(math.exp(logit - max(logits)) for logit in logits)) + max(logits) - logits[own]
    return total / len(embeddings)


def test_the_published_arcface_has_no_margin_and_is_offered_as_what_it_is():
    torch.manual_seed(1)
    embeddings, labels = batch()
    ours = build_loss("clampedsoftmax", None, classes=6, embedding_dim=8)
    centres = F.normalize(ours.loss.W, dim=1)
    three = [published_arcface(embeddings, labels, centres, margin) for margin in (0, 0.5, 1.2)]
    assert three == pytest.approx([ours(embeddings, labels).item()] * 3, rel=1e-6)
    true = [build_loss(f"arcface(margin={m})", None, classes=6, embedding_dim=8) for m in (0, 28.6, 68.8)]
    for loss in true:
        loss.loss.W.data = centres.detach().T.clone()
    values = [loss(embeddings, labels).item() for loss in true]
    assert values[1] > values[0] + 1
    assert values[2] > values[1] + 1
    # It turns no embedding away from a centre that is already at a right angle or beyond.
    away = F.normalize(-centres[:1].detach(), dim=1).requires_grad_()
    cosines = away @ centres.detach().T
    (gradient,) = torch.autograd.grad(ours(away, torch.tensor([0])), away)
    kept = centres.detach()[cosines[0] > 0]
    assert torch.linalg.matrix_rank(torch.cat([kept, gradient])) == torch.linalg.matrix_rank(kept)


def test_centres_of_the_published_loss_begin_as_small_as_published():
    loss = build_loss("clampedsoftmax(scale=32)", None, classes=500, embedding_dim=128).loss
    assert (loss.W.shape, loss.scale) == ((500, 128), 32)
    assert loss.W.std().item() == pytest.approx(0.051, abs=5e-4)


def test_any_reducer_that_gives_one_number_can_be_named_with_its_parameters():
    embeddings, labels = batch()
    loss = build_loss("contrastive(reducer='ThresholdReducer(low=0.3)')", None, classes=6, embedding_dim=8)
    assert torch.isfinite(loss(embeddings, labels))
    assert loss.loss.reducer.reducers["pos_loss"].low == 0.3
