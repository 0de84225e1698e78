"""Embeddings of length 1, and of the length that the module gives them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustdml.errors import CheckpointError
from robustdml.retrieval.embed import Embedder


def test_unscaled_embeddings_are_the_modules_own_and_cost_the_same():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model, images = Embedder(module), torch.rand(5, 3, 2, 2, requires_grad=True)
    for number, asked in enumerate((model, model.unscaled), 1):
        found = asked(images)
        assert torch.allclose(F.normalize(found, dim=1), F.normalize(module(images), dim=1))
        torch.autograd.grad(found.sum(), images)
        assert (model.forward_images, model.gradient_images) == (5 * number, 5 * number)
    assert torch.equal(found, module(images))
    assert torch.allclose(model(images).norm(dim=1), torch.ones(5))


def test_unscaled_embeddings_are_refused_for_the_same_reasons():
    for asked in (Embedder(nn.Identity()), Embedder(nn.Identity()).unscaled):
        with pytest.raises(CheckpointError, match="an embedding model gives"):
            asked(torch.rand(2, 3, 2, 2))
