"""The headline metric of queries that were changed by no attacker (see `robustdml.evaluation.analyses.changes`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from robustdml.evaluation.analyses.changes import every_change
from robustdml.evaluation.analyses.panel import PanelRun
from robustdml.progress import Advance
from robustdml.results import NaturalChange, pack_hits
from robustdml.retrieval.metrics import score
from robustdml.seeding import stream

Integers = npt.NDArray[np.int64]

_CITATIONS = {"geometry": ("engstrom2019exploring",)}


@dataclass(frozen=True)
class Natural:
    """Every change at every severity, on every query; the gallery stays as it is."""

    field: ClassVar[str] = "natural"

    @property
    def spec(self) -> str:
        """See `robustdml.evaluation.analyses.panel.Panel`."""
        return "natural"

    def shard(self, run: PanelRun, part: Integers, advance: Advance) -> dict[str, Any]:
        """The headline, 0 or 1, of each query under each change, in the order of `every_change`."""
        started, headline, values = time.monotonic(), run.judge.split.rules.headline, []
        for place, image in zip(part.tolist(), run.images(part), strict=True):
            plain = image.permute(1, 2, 0).cpu().double().numpy()
            item = int(run.judge.split.query[place])
            changed = [
                change(plain, severity, stream(run.seed, f"natural {name} {severity}", item))
                for name, change, severity in every_change()
            ]
            # The changed copies of one query together: no other query changes the rounding.
            embeddings = run.judge.embed(torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(image))
            found = run.judge.values(np.full(len(changed), place), embeddings)[headline]
            values.append((found > 0.5).astype(int).tolist())
            advance(1)
        return {"values": values, "seconds": time.monotonic() - started}

    def entries(self, run: PanelRun, shards: Sequence[Mapping[str, Any]]) -> list[NaturalChange]:
        """One entry per change and severity."""
        values = np.concatenate([np.asarray(shard["values"], np.float64) for shard in shards])
        headline = run.judge.split.rules.headline
        found = []
        for (name, change, severity), own in zip(every_change(), values.T, strict=True):
            measured = score({headline: own}, run.clean.labels, headline=headline, seed=run.seed)
            found.append(
                NaturalChange(
                    model=run.model,
                    name=name,
                    title=change.title,
                    family=change.family,
                    severity=severity,
                    value=measured.value,
                    low=measured.low,
                    high=measured.high,
                    hits=pack_hits((own > 0.5).tolist()),
                    citations=_CITATIONS.get(change.family, ("hendrycks2019benchmarking",)),
                )
            )
        return found
