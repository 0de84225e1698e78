"""What is measured on request beside the attacks: a panel looks at queries shard by shard, so that runs resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from torch import Tensor

from robustdml.data.tensors import ImageTensors
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.records import Records
from robustdml.progress import Advance

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PanelRun:
    """A model whose clean queries were judged.

    Args:
        model: its name.
        judge: of the clean gallery.
        tensors: its images as the model gets them.
        clean: the records of the clean queries.
        seed: of the run.
    """

    model: str
    judge: Judge
    tensors: ImageTensors
    clean: Records
    seed: int

    def images(self, part: Integers) -> Tensor:
        """The clean queries at the places ``part``, ``(N,)``: ``(N, 3, H, W)`` in [0, 1], on the judge's device."""
        return self.tensors.batch(self.judge.split.query[part]).to(self.judge.device)


class Panel(Protocol):
    """A frozen dataclass of parameters; two with equal ``spec`` measure the same."""

    #: The field of `robustdml.results.Results` that it fills.
    field: ClassVar[str]

    @property
    def spec(self) -> str:
        """The text that builds it again, which is also the key of what is kept of it."""
        ...

    def shard(self, run: PanelRun, part: Integers, advance: Advance) -> dict[str, Any]:
        """What is found of the queries at the places ``part``, ``(N,)``, as JSON values.

        It depends on each query's id and not on which others are looked at with it. ``advance`` is told of each query.
        """
        ...

    def entries(self, run: PanelRun, shards: Sequence[Mapping[str, Any]]) -> Sequence[BaseModel]:
        """What the results say, from all shards in the order of the queries."""
        ...
