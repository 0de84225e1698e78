"""Clean and worst-case recall while a model trains."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import robustdml
from robustdml.errors import MissingPackageError, SpecError

CHEAP = "noise(trials=1),fgsm(goal=margin)"


def data():
    generator = torch.Generator().manual_seed(0)
    tints = torch.rand(4, 3, 1, 1, generator=generator).repeat_interleave(4, 0)
    return TensorDataset(
        (tints + 0.2 * torch.rand(16, 3, 8, 8, generator=generator)).clamp(0, 1), torch.arange(16) // 4
    )


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


def test_a_loop_logs_the_same_subset_and_is_not_disturbed():
    def trained(monitor):
        network, (images, _) = model().train(), data().tensors
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        for epoch in range(3):
            network(images).square().mean().backward()
            if monitor is not None:
                monitor(network, epoch)
            optimizer.step()
            optimizer.zero_grad()
        return network

    seen = []
    monitor = robustdml.Monitor(
        data(), CHEAP, eps="8/255", queries=6, log=lambda found, step: seen.append((step, found))
    )
    watched, alone = trained(monitor), trained(None)
    assert all(map(torch.equal, watched.state_dict().values(), alone.state_dict().values()))
    assert watched.training
    assert monitor.history == seen
    assert [step for step, _ in seen] == [0, 1, 2]
    assert all(found.keys() <= {"clean_recall_at_1", "worst_recall_at_1"} for _, found in seen)
    results = monitor.results
    assert seen[-1][1]["clean_recall_at_1"] == results.models[0].clean.value
    assert results.dataset.queries == 6
    if "worst_recall_at_1" in seen[-1][1]:
        assert seen[-1][1]["worst_recall_at_1"] == results.worst[0].score.value


def test_between_its_steps_nothing_is_measured():
    monitor = robustdml.Monitor(data(), [], every=np.int64(2))
    assert monitor(model(), 1) == {}
    assert monitor.results is None
    assert monitor(nn.DataParallel(model()), 2).keys() == {"clean_recall_at_1"}


class Accelerator:
    """What of accelerate's is used, in the main process or another."""

    def __init__(self, main):
        self.is_main_process, self.logged, self.waited = main, [], 0

    def unwrap_model(self, wrapped):
        return wrapped.inner

    def log(self, values, step):
        self.logged.append((values, step))

    def wait_for_everyone(self):
        self.waited += 1


@pytest.mark.parametrize("main", [True, False])
def test_with_accelerate_the_main_process_measures_and_all_wait(main):
    accelerator = Accelerator(main)
    monitor = robustdml.Monitor(data(), [], accelerator=accelerator)
    found = monitor(SimpleNamespace(inner=model()), 4)
    assert bool(found) == main
    assert accelerator.logged == [(found, 4)]
    assert accelerator.waited == 1


def test_with_the_real_accelerate():
    from accelerate import Accelerator as Real

    real = Real(cpu=True)
    assert robustdml.Monitor(data(), [], accelerator=real)(real.prepare(model())).keys() == {"clean_recall_at_1"}


def test_arguments_that_cannot_be():
    for options, sentence in (
        ({"every": 0}, "every=0"),
        ({"queries": 0}, "queries=0"),
        ({"queries": 2.5}, "queries=2.5"),
    ):
        with pytest.raises(SpecError, match=sentence):
            robustdml.Monitor(data(), **options)
    with pytest.raises(SpecError, match="must be a torch module"):
        robustdml.Monitor(data(), [])(3)
    with pytest.raises(SpecError, match="step=-1"):
        robustdml.Monitor(data(), [])(model(), -1)


@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
def test_lightnings_callback_logs_after_each_epoch(name, monkeypatch):
    for known in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, known, raising=False)
    package = ModuleType(name)
    package.Callback = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, name, package)
    logged, waited = [], []
    callback = robustdml.lightning_callback(robustdml.Monitor(data(), []), model=lambda module: module.encoder)
    assert isinstance(callback, package.Callback)
    module = SimpleNamespace(encoder=model(), log_dict=lambda found, rank_zero_only: logged.append(found))
    strategy = SimpleNamespace(barrier=lambda: waited.append(1))
    for first in (True, False):
        trainer = SimpleNamespace(is_global_zero=first, current_epoch=0, strategy=strategy)
        callback.on_train_epoch_end(trainer, module)
    assert [found.keys() for found in logged] == [{"clean_recall_at_1"}]
    assert len(waited) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_with_the_real_lightning_the_most_robust_epoch_is_kept(tmp_path):
    # Not in the extra dev: it takes five seconds to import, and warns of parts of torch that it still uses.
    lightning = pytest.importorskip("lightning.pytorch", reason="the extra [lightning] is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.encoder = model()

        def forward(self, images):
            return self.encoder(images)

        def training_step(self, batch, _):
            return self(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    monitor = robustdml.Monitor(data(), CHEAP, eps="8/255", queries=6)
    keep = lightning.callbacks.ModelCheckpoint(tmp_path, monitor="worst_recall_at_1", mode="max")
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=2, callbacks=[robustdml.lightning_callback(monitor), keep], **options)
    trainer.fit(Module(), torch.utils.data.DataLoader(data(), batch_size=8))
    assert [step for step, _ in monitor.history] == [0, 1]
    worst = [found["worst_recall_at_1"] for _, found in monitor.history]
    assert float(keep.best_model_score) == pytest.approx(max(worst))
    assert float(trainer.callback_metrics["clean_recall_at_1"]) == monitor.history[-1][1]["clean_recall_at_1"]


def test_without_lightning_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'robustdml\[lightning\]'"):
        robustdml.lightning_callback(robustdml.Monitor(data(), []))
