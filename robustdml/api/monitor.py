"""Clean and worst-case recall while a model trains: for plain loops, accelerate and Lightning."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from robustdml.api.evaluation import evaluate
from robustdml.api.given import dataset_of
from robustdml.api.torch_data import is_torch_data
from robustdml.contracts import Attack
from robustdml.errors import SpecError
from robustdml.importing import needed
from robustdml.preprocessing import Sides
from robustdml.results import Results
from robustdml.threat import ThreatModel
from robustdml.values import brief, whole


class Monitor:
    """R@1 clean and in the worst case of some attacks, on the same queries each time it is called.

    ``monitor = robustdml.Monitor("photos/", queries=50)``, then after an epoch ``monitor(model, epoch)``: a dictionary
    ``{"clean_recall_at_1": 0.91, "worst_recall_at_1": 0.34}`` for any logger. The model comes back as it was: mode,
    weights, gradients, buffers and random states. Where the model's gradients mislead, so that a flag withholds the
    worst case, there is none in the dictionary; ``results`` says why.

    Args:
        data: as `robustdml.evaluate` takes it; its whole gallery is embedded each time.
        attacks: as there; None is the standard suite.
        eps: the one budget.
        queries: how many are attacked, a class-stratified sample by ``seed``; None takes all.
        every: measure at steps that are multiples of it, and give an empty dictionary between; at least 1.
        effort: of attacks that are named.
        seed: of the sample and the attacks.
        image_size: as in `robustdml.evaluate`.
        accelerator: an ``accelerate.Accelerator``: the model is unwrapped, the main process measures while the others
            wait, and what it finds is logged with ``accelerator.log``.
        log: called with the dictionary and the step: ``wandb.log``, ``mlflow.log_metrics``, ``print``.

    Attributes:
        results: of the last measurement; None before it.
        history: ``(step, dictionary)`` of each.

    Raises:
        SpecError: an argument that cannot be.
    """

    def __init__(
        self,
        data: Any,
        attacks: str | Attack | Iterable[str | Attack] | None = None,
        *,
        eps: float | str | ThreatModel | None = None,
        queries: int | None = 50,
        every: int = 1,
        effort: str = "quick",
        seed: int = 0,
        image_size: Sides | None = None,
        accelerator: Any = None,
        log: Callable[[dict[str, float], int], object] | None = None,
    ) -> None:
        self._data = data if is_torch_data(data) else dataset_of(data, None, skip_broken=False, allow_outside=False)
        self._attacks, self._options = attacks, {"eps": eps, "effort": effort, "seed": seed, "image_size": image_size}
        self._queries = None if queries is None else whole("queries", queries, least=1)
        self._every, self._accelerator, self._log = whole("every", every, least=1), accelerator, log
        self.results: Results | None = None
        self.history: list[tuple[int, dict[str, float]]] = []

    def __call__(self, model: nn.Module, step: int = 0) -> dict[str, float]:
        """Measure, where it is time to.

        Args:
            model: as `robustdml.evaluate` takes it.
            step: the number of the epoch or the step, at least 0.

        Raises:
            RobustDMLError: as `robustdml.evaluate`.
        """
        step = whole("step", step)
        if step % self._every:
            return {}
        if self._accelerator is not None:
            model = self._accelerator.unwrap_model(model)
        if not isinstance(model, nn.Module):
            raise SpecError(f"model={brief(model)} must be a torch module")
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        found: dict[str, float] = {}
        if self._accelerator is None or self._accelerator.is_main_process:
            found = self._measured(model)
            self.history.append((step, found))
            if self._log is not None:
                self._log(found, step)
        if self._accelerator is not None:
            self._accelerator.log(found, step=step)
            self._accelerator.wait_for_everyone()
        return found

    def _measured(self, model: nn.Module) -> dict[str, float]:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        options: dict[str, Any] = {**self._options, "max_queries": self._queries, "device": str(device)}
        self.results = evaluate({"model": model}, self._data, self._attacks, progress=False, **options)
        entry, found = self.results.models[0], {}
        found["clean_recall_at_1"] = entry.clean.metrics["recall_at_1"]
        worst = [one.score.metrics["recall_at_1"] for one in self.results.worst]
        if worst and self.results.invalid("model") is None:
            found["worst_recall_at_1"] = min(worst)
        return found


def lightning_callback(monitor: Monitor, model: Callable[[Any], nn.Module] = lambda module: module) -> Any:
    """A callback for Lightning's Trainer that logs what a monitor finds after each epoch of training.

    ``Trainer(callbacks=[robustdml.lightning_callback(robustdml.Monitor(test_set))])``. The names can be watched by
    ``ModelCheckpoint(monitor="worst_recall_at_1")``; where a flag withholds the worst case it is not logged.

    Args:
        monitor: what measures; its steps are the epochs.
        model: what of the LightningModule is measured; by default its ``forward``.

    Returns:
        A ``Callback`` of ``lightning.pytorch``, or of ``pytorch_lightning`` where only that is imported.

    Raises:
        MissingPackageError: Lightning is not installed.
    """
    old = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
    base: Any = needed(
        "pytorch_lightning" if old else "lightning.pytorch", "lightning", "lightning_callback()"
    ).Callback

    class RobustRecall(base):  # type: ignore[misc]  # the base is known when Lightning is imported
        """Logs what the monitor finds."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            """Measure in the first process, while the others wait."""
            if trainer.is_global_zero:
                found = monitor(model(pl_module), trainer.current_epoch)
                pl_module.log_dict(found, rank_zero_only=True)
            trainer.strategy.barrier()

    return RobustRecall()
