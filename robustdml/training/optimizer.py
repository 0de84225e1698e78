"""What learns, at which rate, and one step of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustdml.config import TrainConfig
from robustdml.models import copied
from robustdml.training.processes import Processes
from robustdml.training.s2sd import S2SD


class Optimizer:
    """Adam over the model and what the loss learns, and the moving average of the weights where one is wanted.

    Target branches of S2SD learn at the model's rate; the base losses' own centres have their own. Weight decay is that
    of the model for the model alone, as published.

    Args:
        model: what is trained.
        loss: what may learn too.
        config: the rates, the longest gradient, the decay of the average.
        processes: those that share a batch.
    """

    def __init__(self, model: nn.Module, loss: nn.Module, config: TrainConfig, processes: Processes) -> None:
        self._model, self._loss, self._clip, self._processes = model, loss, config.clip_gradient, processes
        heads = list(loss.targets.parameters()) if isinstance(loss, S2SD) else []
        centres = [part for part in loss.parameters() if all(part is not head for head in heads)]
        groups = [
            {"params": part, "peak": peak, "weight_decay": decay}
            for part, peak, decay in (
                (list(model.parameters()), config.learning_rate, config.weight_decay),
                (heads, config.learning_rate, config.loss_weight_decay),
                (centres, config.loss_learning_rate, config.loss_weight_decay),
            )
            if part
        ]
        self.adam = torch.optim.Adam(groups, lr=config.learning_rate)
        self.average = None
        if config.average_weights:
            decay = get_ema_multi_avg_fn(config.average_weights)
            self.average = AveragedModel(copied(model), multi_avg_fn=decay, use_buffers=True)

    @property
    def kept(self) -> nn.Module:
        """What is measured and kept: the moving average of the weights where there is one."""
        return self.average.module if self.average else self._model

    def set_rate(self, share: float) -> None:
        """Learn at that share of the peak rates."""
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * share

    def step(self, value: Tensor) -> None:
        """Move the weights down the gradient of the loss ``value``, a scalar."""
        self.adam.zero_grad(set_to_none=True)
        value.backward()
        self._processes.settle_gradients(self._model, self._loss)
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        self.adam.step()
        if self.average:
            self.average.update_parameters(self._model)
