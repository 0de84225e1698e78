"""Randomness belongs to (seed, purpose, id)."""

import itertools
import random

import numpy as np
import pytest
import torch

from robustdml.seeding import derive_seed, stream, uniform_like

IDS = torch.tensor([12, 3, 500, 7])
IMAGES = torch.zeros(4, 3, 5, 6)


def test_derived_seeds_are_equal_for_equal_parts_only():
    parts = [(0,), (1,), ("0", 0), (0, "0", 0), ("a", "b"), ("ab",), ("b", "a"), (0, 12), (1, 2), (0, 1, 2)]
    assert len({derive_seed(*part) for part in parts}) == len(parts)
    assert derive_seed(3, "start", 9) == derive_seed(3, "start", 9)


def test_derived_seeds_are_the_same_on_every_machine_and_in_every_version():
    # A changed value changes every published number.
    assert derive_seed(0, "targets", 7) == 4379559426538913162


def test_derived_seeds_fit_every_generator():
    seeds = [derive_seed(number) for number in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_a_stream_depends_on_seed_purpose_and_id_alone():
    first = stream(1, "start", 5).random(8)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    stream(1, "start", 6).random(100)
    assert np.array_equal(stream(1, "start", 5).random(8), first)
    for other in [(2, "start", 5), (1, "targets", 5), (1, "start", 6), (5, "start", 1)]:
        assert not np.array_equal(stream(*other).random(8), first)


def test_streams_leave_the_global_states_alone():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    uniform_like(IMAGES, IDS, seed=1, purpose="start")
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_noise_belongs_to_the_id_in_any_batch_and_order():
    whole = uniform_like(IMAGES, IDS, seed=4, purpose="start")
    for order in itertools.permutations(range(4), 3):
        chosen = torch.tensor(order)
        assert torch.equal(uniform_like(IMAGES[chosen], IDS[chosen], seed=4, purpose="start"), whole[chosen])


def test_noise_differs_between_ids_seeds_and_purposes():
    whole = uniform_like(IMAGES, IDS, seed=4, purpose="start")
    others = [uniform_like(IMAGES, IDS, seed=seed, purpose=purpose) for seed, purpose in [(5, "start"), (4, "x")]]
    rows = [row for noise in [whole, *others] for row in noise]
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(rows, 2))


def test_noise_is_uniform_in_its_range():
    noise = uniform_like(torch.zeros(4, 3, 50, 60), IDS, seed=0, purpose="start")
    assert -1 <= noise.min() < -0.999
    assert 0.999 < noise.max() < 1
    assert abs(noise.mean()) < 0.02
    assert noise.var() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_shape_and_type_of_the_images(dtype):
    noise = uniform_like(IMAGES.to(dtype), IDS, seed=0, purpose="start")
    assert noise.shape == IMAGES.shape
    assert noise.dtype == dtype
