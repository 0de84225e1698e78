"""BatchNorm shared among processes (threads here) against torch's own on all rows."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

from robustdml.models import SynchronisedBatchNorm


class Thread:
    """One of several threads that add up tensors as processes do."""

    def __init__(self, rank: int, count: int, table: list[torch.Tensor | None], barrier: threading.Barrier) -> None:
        self.rank, self.count, self._table, self._barrier = rank, count, table, barrier

    def sum(self, values: torch.Tensor) -> None:
        self._table[self.rank] = values.clone()
        self._barrier.wait(10)
        values.copy_(torch.stack(self._table).sum(0))
        self._barrier.wait(10)


def together(work: Callable[[Thread], object], count: int) -> list[object]:
    """What ``work`` gives in each of ``count`` threads, or the error that it raises."""
    table, barrier, found = [None] * count, threading.Barrier(count), [None] * count

    def run(rank: int) -> None:
        try:
            found[rank] = work(Thread(rank, count, table, barrier))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


LAYERS = {
    "usual": lambda: nn.BatchNorm2d(3),
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
    "no weights": lambda: nn.BatchNorm2d(3, affine=False),
    "no running statistics": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "of vectors": lambda: nn.BatchNorm1d(3),
}


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("name", LAYERS)
def test_shares_of_a_batch_give_what_the_whole_gives(name, offset):
    """Unequal shares, one of them empty; twice, so that running statistics have moved."""
    shares = [slice(0, 3), slice(3, 3), slice(3, 7)]
    shape = (7, 3) if name == "of vectors" else (7, 3, 4, 4)
    features, weights = torch.randn(shape) * 2 + offset, torch.randn(shape)
    one = LAYERS[name]()
    whole = features.clone().requires_grad_()
    one(features.flip(0) + 1)
    expected = one(whole)
    (expected * weights).sum().backward()

    def work(thread: Thread) -> dict[str, object]:
        layer, rows = LAYERS[name](), shares[thread.rank]
        part = features[rows].clone().requires_grad_()
        with SynchronisedBatchNorm(thread):
            layer(features.flip(0)[rows] + 1)
            made = layer(part)
        (made * weights[rows]).sum().backward()
        gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
        return {"made": made.detach(), "gradient": part.grad, "state": layer.state_dict(), "parameters": gradients}

    found = together(work, 3)
    # A third of a float32 is lost to an offset of 300, in torch's own arithmetic too.
    near = {"atol": 2e-5 * max(1.0, offset), "rtol": 1e-5}
    torch.testing.assert_close(torch.cat([each["made"] for each in found]), expected.detach(), **near)
    torch.testing.assert_close(torch.cat([each["gradient"] for each in found]), whole.grad, **near)
    for each in found:
        torch.testing.assert_close(each["state"], one.state_dict(), **near)
    for key, parameter in one.named_parameters():
        torch.testing.assert_close(sum(each["parameters"][key] for each in found), parameter.grad, **near)


def test_half_precision_stays_half_and_counts_in_full():
    features = torch.randn(8, 3, 4, 4).bfloat16()
    expected = nn.BatchNorm2d(3)(features)

    def work(thread: Thread) -> torch.Tensor:
        with SynchronisedBatchNorm(thread):
            return nn.BatchNorm2d(3)(features[thread.rank :: 2])

    found = together(work, 2)
    assert found[0].dtype == torch.bfloat16
    torch.testing.assert_close(found[0], expected[0::2], atol=0.02, rtol=0.02)


def test_one_value_per_channel_is_refused_by_all():
    def work(thread: Thread) -> object:
        with SynchronisedBatchNorm(thread):
            return nn.BatchNorm2d(3)(torch.randn(1 - thread.rank, 3, 1, 1))

    found = together(work, 2)
    assert all(isinstance(error, ValueError) and "more than 1 value per channel" in str(error) for error in found)


def test_frozen_layers_send_nothing():
    layer = nn.BatchNorm2d(3).eval()
    features = torch.randn(4, 3, 2, 2)
    with SynchronisedBatchNorm(Thread(0, 2, [], threading.Barrier(2))):  # would wait for another thread
        assert torch.equal(layer(features), nn.BatchNorm2d(3).eval()(features))


def test_a_layer_with_its_own_forward_pass_keeps_it():
    timm = pytest.importorskip("timm.layers")
    layer, features = timm.BatchNormAct2d(3), torch.randn(4, 3, 2, 2)
    expected = timm.BatchNormAct2d(3)(features)
    assert (expected >= 0).all(), "it holds a ReLU"

    def work(thread: Thread) -> torch.Tensor:
        with SynchronisedBatchNorm(thread):
            return layer(features[thread.rank :: 2])

    torch.testing.assert_close(together(work, 2)[1], expected[1::2])
