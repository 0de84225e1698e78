"""Models that are odd in one way are evaluated as they are, left as they were, or refused with a sentence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from odd_backbones import (
    SIDE,
    AlwaysTraining,
    Base,
    Complex,
    Counting,
    Dictionary,
    Ending,
    ExtraState,
    FixedSize,
    InPlace,
    NaNBuffer,
    Recounting,
    Sparse,
    SparseBuffer,
    Squeeze,
    Stash,
    Structured,
    Unfinished,
    exported,
    new_spectral_norm,
    old_weight_norm,
    quantised,
)
from torch import Tensor, nn

from robustdml.attacks import build_suite
from robustdml.config import RunOptions
from robustdml.data import ArrayImages, RetrievalDataset
from robustdml.errors import RobustDMLError
from robustdml.evaluation import evaluate
from robustdml.models import weights_fingerprint

QUIET = RunOptions(device="cpu", progress=False)


@pytest.fixture(scope="module")
def photos() -> RetrievalDataset:
    """Three classes of four noisy images; all are query and gallery item."""
    random = np.random.default_rng(0)
    base = random.integers(0, 255, (4, SIDE, SIDE, 3))
    images = np.stack([np.clip(base[at // 4] + random.normal(0, 40, (SIDE, SIDE, 3)), 0, 255) for at in range(16)])
    labels, test = np.repeat(np.arange(4), 4), np.arange(4, 16)
    return RetrievalDataset(
        name="photos",
        images=ArrayImages(images.astype(np.uint8)),
        labels=labels,
        class_names=("a", "b", "c", "d"),
        train=np.arange(4),
        query=test,
        gallery=test,
        protocol="Small.",
        image_size=SIDE,
        augmentation="none",
    )


def evaluated(model, photos, out, **options):
    attacks = build_suite("noise(trials=2),pgd(goal=margin,steps=2)", "8/255")
    return evaluate({"m": model}, photos, attacks, out=out, options=QUIET, **options)


@pytest.fixture(scope="module")
def plain(photos, tmp_path_factory):
    """What an ordinary model gives."""
    return evaluated(base(), photos, tmp_path_factory.mktemp("plain") / "out")


def base() -> nn.Module:
    torch.manual_seed(0)
    return Base().eval()


def without_gradient(module: nn.Module) -> nn.Module:
    class Extractor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return self.module(images)

    return Extractor()


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(base())


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(base(), torch.rand(2, 3, SIDE, SIDE))


#: Evaluated, every attack too.
FINE = {
    "in-place change of the input": InPlace,
    "squeeze() on a batch of one": Squeeze,
    "activations kept as attributes": Stash,
    "a dictionary in its state": ExtraState,
    "a sparse buffer": SparseBuffer,
    "a buffer of NaN": NaNBuffer,
    "weights of spectral normalisation": new_spectral_norm,
    "weights under DataParallel": lambda: nn.DataParallel(base()),
    "a buffer that counts calls": Counting,
    "a buffer that is replaced": Recounting,
    "old weight normalisation": old_weight_norm,
    "exported": exported,
    "scripted": scripted,
    "traced": traced,
    "compiled": lambda: torch.compile(base(), backend="eager"),
    "half precision": lambda: base().half(),
    "bfloat16": lambda: base().bfloat16(),
    "double precision": lambda: base().double(),
    "channels last": lambda: base().to(memory_format=torch.channels_last),
}


#: torch.compile looks at gradients of tensors that have none.
COMPILING = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@pytest.mark.compatible(
    "Models",
    "activations kept as attributes, changes of the input in place, `squeeze()` on a batch of one",
    "evaluated, and left as the model was",
)
@pytest.mark.compatible(
    "Models",
    "buffers that are NaN, sparse, count calls or are replaced; a dictionary in the state",
    "evaluated, and left as the model was",
)
@pytest.mark.compatible(
    "Models",
    "compiled, scripted, traced or exported (whose `eval()` raises an error)",
    "evaluated, attacks with gradients too",
)
@pytest.mark.compatible("Models", "half, bfloat16 or double precision, channels last", "evaluated, and left in them")
@COMPILING
@pytest.mark.parametrize("name", FINE)
def test_an_odd_model_is_evaluated_and_left_as_it_was(photos, tmp_path, name):
    torch.manual_seed(0)
    model = FINE[name]()
    before, modes = weights_fingerprint(model), [module.training for module in model.modules()]
    results = evaluated(model, photos, tmp_path / "out")
    assert [cell.reason for cell in results.cells] == [None, None]
    assert weights_fingerprint(model) == before
    assert [module.training for module in model.modules()] == modes
    if isinstance(model, Counting):  # The same call again meets the same run.
        assert evaluated(model, photos, tmp_path / "out").cells == results.cells


@pytest.mark.compatible(
    "Models", "BatchNorm that stays in training mode", "a flag says so; no attack is blamed for its statistics"
)
def test_batchnorm_that_no_eval_reaches_is_its_own_doing(photos, tmp_path):
    torch.manual_seed(0)
    model = AlwaysTraining().eval()
    before = weights_fingerprint(model)
    results = evaluated(model, photos, tmp_path / "out")
    assert [cell.reason for cell in results.cells] == [None, None]
    assert "hidden-state" in {flag.slug for flag in results.flags}
    assert weights_fingerprint(model) == before


@COMPILING
@pytest.mark.parametrize("name", ["half precision", "double precision", "compiled", "scripted"])
def test_an_odd_model_answers_as_the_plain_one_does(photos, plain, tmp_path, name):
    odd = evaluated(FINE[name](), photos, tmp_path / "odd")
    for one, other in zip(plain.cells, odd.cells, strict=True):
        assert abs(one.score.metrics.recall_at_1 - other.score.metrics.recall_at_1) <= 1 / 12
    # Every check of a model can be made in its precision.
    assert "not-examined" not in {flag.slug for flag in odd.flags}


@pytest.mark.compatible(
    "Models", "quantised, or under `torch.no_grad()`", "attacks that need no gradient run; the others say why not"
)
@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
@pytest.mark.parametrize(
    ("name", "model"), [("quantised", quantised), ("no_grad", lambda: without_gradient(base()))], ids=lambda part: part
)
def test_a_model_without_gradients_says_so_for_each_gradient_attack(photos, tmp_path, name, model):
    noise, pgd = evaluated(model(), photos, tmp_path / "out").cells
    assert (noise.status, pgd.status) == ("ok", "failed")
    assert "the model gives no gradient" in pgd.reason


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Base()


@pytest.mark.compatible(
    "Models", "lazy layers without shapes, weights on the meta device", "one sentence, before anything runs"
)
@pytest.mark.compatible(
    "Models",
    "a dict, a dataclass, a feature map, complex numbers, a sparse tensor in place of the embedding",
    "one sentence that says what came and what to return",
)
@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(8)), "'1.weight' of model 'm' is a lazy layer's"),
        (on_meta, "of model 'm' is on torch's meta device and has no values"),
        (Dictionary, "gives dict with embedding (12, 16) for images (12, 3, 16, 16)"),
        (Structured, "gives Output with embedding (12, 16) for images"),
        (Complex, "the model gives (12, 16) of torch.complex64 for images (12, 3, 16, 16): an embedding model gives"),
        (Sparse, "the model gives (12, 16) as torch.sparse_coo for images"),
        (Ending, "the model tried to end the program (exit code 3) on images (12, 3, 16, 16)"),
        (Unfinished, "the model raised KeyError on images (12, 3, 16, 16): 'weights'"),
        (FixedSize, "expected images of 24 pixels (one that takes images of one size only says so"),
        (lambda: nn.Conv2d(3, 4, 3), "the model gives (12, 4, 14, 14) for images"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_a_sentence(photos, tmp_path, model, sentence):
    with pytest.raises(RobustDMLError) as caught:
        evaluated(model(), photos, tmp_path / "out")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.compatible("Models", "images of one size only", "evaluated at `--image-size`; at another, one sentence")
def test_a_model_of_one_size_is_evaluated_at_it(photos, tmp_path):
    results = evaluated(FixedSize(), photos, tmp_path / "out", image_size=24)
    assert [cell.status for cell in results.cells] == ["ok", "ok"]


@pytest.mark.compatible(
    "Models", "another default dtype in the program around", "the same numbers, and it is left as it was"
)
@pytest.mark.parametrize("precision", [torch.float64, torch.float16])
def test_the_default_type_of_the_program_around_changes_no_number(photos, plain, tmp_path, precision):
    model = base()
    torch.set_default_dtype(precision)
    try:
        found = evaluated(model, photos, tmp_path / "other")
        assert torch.get_default_dtype() == precision
    finally:
        torch.set_default_dtype(torch.float32)
    assert [cell.score for cell in found.cells] == [cell.score for cell in plain.cells]
