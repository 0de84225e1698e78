"""Planted decoys: they can be found, the clean query does not find them, and the cascade does on every honest model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known_models import Around, NoiseGradient, Plain, honest_models, small_digits, trained
from squares import SmallNet, make_dataset

from robustdml.attacks import build_attack
from robustdml.data.tensors import ImageTensors
from robustdml.evaluation.checks.planted import count_planted, planted
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.subjects import preparations, subjects_from_modules
from robustdml.retrieval.embed import Embedder
from robustdml.threat import ThreatModel

EPS = 8 / 255
DIGITS = small_digits()
FEW = DIGITS.subset_queries(8, 0)
HONEST = honest_models(DIGITS)


def counted(module, attack, dataset=FEW):
    (subject,) = subjects_from_modules({"net": module})
    prepared = preparations([subject], [], image_size=None, usual=dataset.image_size)["net"]
    return count_planted(build_attack(attack, EPS), subject, dataset, prepared, torch.device("cpu"))


@pytest.mark.parametrize("name", HONEST)
def test_the_cascade_finds_every_decoy_on_honest_models(name):
    found = counted(HONEST[name], "cascade")
    assert found.planted >= 6
    assert found.found == found.planted
    assert found.by_chance <= found.planted / 4


@pytest.mark.parametrize(
    "change", [lambda images: (images * 255).round() / 255, NoiseGradient.apply], ids=["rounded", "noise"]
)
def test_on_masked_models_gradients_find_few_that_scores_find(change):
    masked = Around(trained(Plain, DIGITS), change)
    by_gradients, by_scores = (counted(masked, spec) for spec in ("mi", "square(queries=400)"))
    assert by_gradients.planted == by_scores.planted >= 6
    assert by_gradients.found <= by_gradients.planted / 3
    assert by_scores.found > by_gradients.found


@pytest.mark.parametrize("dataset", [FEW, make_dataset(size=16)], ids=["query in the gallery or not", "squares"])
def test_a_decoy_is_found_by_its_image_and_by_no_clean_query(dataset):
    module = trained(Plain, DIGITS) if dataset is FEW else SmallNet()
    tensors = ImageTensors(dataset.images, dataset.image_size)
    judge = Judge(Embedder(module).eval(), dataset.test, tensors, torch.device("cpu"), name="net")
    part = np.arange(len(dataset.query))
    threat = ThreatModel(EPS)
    decoys = planted(judge, tensors.batch(dataset.query), part, threat)
    assert len(decoys.part) > 1
    clean = tensors.batch(dataset.query[decoys.part])
    assert threat.allows(decoys.images, clean).all()
    assert decoys.wins(torch.tensor(judge.embed(decoys.images))).all()
    assert not decoys.wins(torch.tensor(judge.embed(clean))).any()
    # Each searches its relevant items and one foreign one, itself left out.
    known, real = decoys.references, len(dataset.gallery)
    assert (~known.relevant[:, :real] | known.ignored[:, :real] | judge.references(decoys.part).relevant).all()
    assert torch.equal(
        (~known.relevant).nonzero(), torch.stack([torch.arange(len(known)), real + torch.arange(len(known))], 1)
    )
    np.testing.assert_array_equal(
        (known.relevant & ~known.ignored)[:, :real].sum(1), judge.split.counts()[0][decoys.part]
    )
    torch.testing.assert_close(known.gallery.embeddings.norm(dim=1), torch.ones(real + len(known)))


def test_where_no_change_reaches_past_the_relevant_items_none_is_planted():
    class Constant(Plain):
        def forward(self, images):
            return torch.ones(len(images), 4) + 0 * super().forward(images)[:, :4]

    found = counted(Constant().eval(), "mi")
    assert (found.planted, found.found, found.by_chance) == (0, 0, 0)
