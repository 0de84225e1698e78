"""The published arithmetic against a derivation from its formulas, for a linear embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdml.seeding import stream
from robustdml.training.published_examples import START, PublishedExamples

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
EPS = 0.01


class Linear(torch.nn.Module):
    """Embeddings ``W x_n + b`` of the normalised pixels, without a norm: their gradient is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(4)
        self.weight = torch.nn.Parameter(torch.randn(5, 3 * 4 * 4, generator=random, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.randn(5, generator=random, dtype=torch.float64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(value, dtype=images.dtype).view(3, 1, 1) for value in (MEAN, STD))
        return ((images - mean) / std).flatten(1) @ self.weight.T + self.bias


def derivation(weight, bias, images, targets, seed):
    """x' = clip(x + n - eps sign(dL/dx)), L = (1/NT sum_i sum_t ||W x_i + b - e_p(i,t)||)^2, e from the clean part."""
    mean, std = (np.array(value).reshape(3, 1, 1) for value in (MEAN, STD))
    clean = (images - mean) / std
    count = len(clean)
    embeddings = clean.reshape(count, -1) @ weight.T + bias
    permutations = [stream(seed, "permutation", number).permutation(count) for number in range(targets)]
    noise = np.stack([stream(seed, "start0", item).random(clean.shape[1:], dtype=np.float32) for item in range(count)])
    start = clean + START * (noise.astype(np.float64) * 2 - 1)
    moved = start.reshape(count, -1) @ weight.T + bias
    distances = np.stack([np.linalg.norm(moved - embeddings[order], axis=1) for order in permutations])
    gradient = np.zeros_like(moved)
    for order, length in zip(permutations, distances, strict=True):
        gradient += (moved - embeddings[order]) / length[:, None]
    gradient *= 2 * distances.mean() / (count * targets)
    pixels = (gradient @ weight).reshape(clean.shape)
    stepped = np.clip(start - EPS * np.sign(pixels), clean - EPS, clean + EPS)
    return np.clip(stepped, clean.min(), clean.max()) * std + mean


@pytest.mark.parametrize("targets", [1, 3])
def test_one_step_equals_the_derivation(targets):
    model = Linear()
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    made = PublishedExamples(targets, EPS, 1, MEAN, STD)(model, images, torch.arange(6) // 2, seed=9)
    expected = derivation(model.weight.detach().numpy(), model.bias.detach().numpy(), images.numpy(), targets, 9)
    assert np.abs(made.numpy() - expected).max() < 1e-5
    assert np.abs(made.numpy() - images.numpy()).max() > 0.001
    assert (model.weight.grad, model.bias.grad) == (None, None)


def test_targets_are_permutations_that_may_meet_the_image_itself():
    rows = PublishedExamples(3, EPS, 1, MEAN, STD).target_rows(40, seed=1)
    assert all(sorted(column) == list(range(40)) for column in rows.T.tolist())
    own = sum(
        bool((PublishedExamples(1, EPS, 1, MEAN, STD).target_rows(40, seed=seed)[:, 0] == torch.arange(40)).any())
        for seed in range(30)
    )
    assert 5 < own < 30  # a fixed point in 63 % of permutations


def test_images_stay_in_the_ball_and_in_the_range_of_their_part():
    model = Linear()
    images = 0.3 + 0.4 * torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    made = PublishedExamples(2, 0.5, 4, MEAN, STD)(model, images, torch.arange(6) // 2, seed=9)
    std = torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)
    mean = torch.tensor(MEAN, dtype=torch.float64).view(3, 1, 1)
    before, after = (images - mean) / std, (made - mean) / std
    assert (after - before).abs().max() <= 0.5 + 1e-9
    assert before.min() - 1e-9 <= after.min() <= after.max() <= before.max() + 1e-9
