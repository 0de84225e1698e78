"""What an evaluation would do and take: all of it on two queries, in a folder that is thrown away."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import psutil
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from robustdml.config import DEFAULT_OPTIONS, RunOptions
from robustdml.contracts import Attack
from robustdml.data import RetrievalDataset
from robustdml.data.tensors import ImageTensors
from robustdml.devices import choose_device
from robustdml.evaluation.analyses.panel import Panel, PanelRun
from robustdml.evaluation.entries import checked_attacks
from robustdml.evaluation.run import evaluate
from robustdml.evaluation.store import Store
from robustdml.evaluation.subjects import Subject, preparations, subjects_from_modules
from robustdml.models import evaluation_mode, single_precision
from robustdml.preprocessing import Preprocessing, Sides
from robustdml.progress import Advance
from robustdml.results import Flag
from robustdml.retrieval.embed import Embedder

Integers = npt.NDArray[np.int64]

#: Queries that are tried, and images that they are tried against.
_QUERIES, _GALLERY = 2, 128
#: Images that are decoded and prepared to see how long it takes.
_TRIED = 16
#: A pass through the model is measured so many times at most.
_REPEATS = 10
#: What `ImageTensors` keeps of decoded images at most.
_CACHE = 2 * 1024**3


@dataclass(frozen=True)
class CellEstimate:
    """One model under one attack at one budget.

    Args:
        model: its name.
        attack: the spec of the attack.
        name: what reports call it.
        budget: in words.
        status: ``"ok"`` where it ran on the two queries, else ``"failed"`` or ``"skipped"``, as it then would be.
        reason: why it did not run; empty where it did.
        seconds: that it would take on all queries.
    """

    model: str
    attack: str
    name: str
    budget: str
    status: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What an evaluation would do and take.

    Args:
        queries: that would be attacked.
        gallery: images that they would be searched in.
        models: by name, how images are prepared for each.
        cells: what would be run, model by model.
        panels: by the spec of each panel, its seconds for all models.
        beside: seconds to decode all images, to embed the clean ones and to look at the models, beside all attacks.
        memory: bytes of this process at its largest.
        device_memory: bytes on the GPU at its largest; None on a CPU.
        flags: of the models, as they are raised before the first attack.
        device: where it would run.
    """

    queries: int
    gallery: int
    models: tuple[tuple[str, Preprocessing], ...]
    cells: tuple[CellEstimate, ...]
    panels: tuple[tuple[str, float], ...]
    beside: float
    memory: int
    device_memory: int | None
    flags: tuple[Flag, ...]
    device: str

    @property
    def seconds(self) -> float:
        """Of all together."""
        return self.beside + sum(cell.seconds for cell in self.cells) + sum(seconds for _, seconds in self.panels)


def rehearse(
    models: Mapping[str, nn.Module] | Sequence[Subject],
    dataset: RetrievalDataset,
    attacks: Sequence[Attack],
    *,
    panels: Sequence[Panel] = (),
    max_queries: int | None = None,
    image_size: Sides | None = None,
    seed: int = 0,
    shard_size: int = 64,
    skip_broken: bool = False,
    options: RunOptions = DEFAULT_OPTIONS,
) -> Estimate:
    """Do what `robustdml.evaluation.evaluate` would do on two queries and a part of the gallery; keep nothing of it.

    Times are those of the two queries, times their number, less what a full batch saves: the forward and backward pass
    of one is measured beside that of two images. They are rough, because how long an attack in stages takes depends on
    how soon it breaks each query, and against a part of the gallery it takes longer. Memory is this process at its
    largest after that full batch, and the images and embeddings that a whole run keeps.

    Args:
        models, dataset, attacks, panels, max_queries, image_size, seed, shard_size, skip_broken, options: as for
            `robustdml.evaluation.evaluate`.

    Raises:
        RobustDMLError: whatever `robustdml.evaluation.evaluate` would refuse before its first attack; images that
            cannot be read are only met among those that are tried.
    """
    subjects, attacks = subjects_from_modules(models), checked_attacks(attacks)
    whole = dataset.subset_queries(max_queries, seed)
    small = _small(whole, seed)
    prepared = preparations(subjects, attacks, image_size=image_size, usual=dataset.image_size)
    device = choose_device(options.device)
    timed = [_Timed(panel) for panel in panels]
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        results = evaluate(
            subjects,
            small,
            attacks,
            out=folder,
            panels=cast(Sequence[Panel], timed),
            image_size=image_size,
            seed=seed,
            skip_broken=skip_broken,
            options=replace(options, save_images=False),
        )
        store = Store(Path(folder), results.fingerprint)
        flags = tuple(flag for subject in subjects for flag in store.read_flags(subject.name))
    # What does not grow with the queries: detectors, examples, maps.
    attacking = sum(cell.seconds for cell in results.cells) + sum(panel.seconds for panel in timed)
    fixed = max(0.0, time.monotonic() - started - attacking)
    batch = min(shard_size, len(whole.query))
    images = len(np.union1d(whole.query, whole.gallery))
    everything = len(np.union1d(dataset.train, np.union1d(dataset.query, dataset.gallery)))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    pixels = _Pixels(small)
    costs = {subject.name: _cost(subject, pixels, prepared[subject.name], batch, device) for subject in subjects}
    share = len(whole.query) / len(small.query)
    names = {entry.spec: entry.name for entry in results.attacks}
    cells = tuple(
        CellEstimate(
            cell.model,
            cell.attack,
            names[cell.attack],
            cell.threat.text,
            cell.status,
            cell.reason or "",
            cell.seconds * share * costs[cell.model].saved,
        )
        for cell in results.cells
    )
    embeddings = 4 * images * max(model.embedding_dim for model in results.models)
    on_gpu = device.type == "cuda"
    return Estimate(
        queries=len(whole.query),
        gallery=len(whole.gallery),
        models=tuple(prepared.items()),
        cells=cells,
        panels=tuple((panel.spec, panel.seconds * share) for panel in timed),
        beside=fixed + everything * pixels.seconds + images * sum(cost.embed for cost in costs.values()),
        memory=_peak() + round(min(_CACHE, everything * pixels.size)) + embeddings,
        device_memory=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        flags=flags,
        device=torch.cuda.get_device_name(device) if on_gpu else device.type,
    )


def _small(dataset: RetrievalDataset, seed: int) -> RetrievalDataset:
    """Two queries of the data set, and a part of its gallery in which both have something to find."""
    asking = dataset.subset_queries(_QUERIES, seed)
    queries, gallery = asking.query[:, None], dataset.gallery[None]
    found = dataset.rules.relevant(queries, gallery) & ~dataset.rules.ignored(queries, gallery)
    needed = [dataset.gallery[row][: _GALLERY // 4] for row in found]
    others = np.random.default_rng(seed).permutation(dataset.gallery)
    rows = np.fromiter(dict.fromkeys([*np.concatenate(needed).tolist(), *others.tolist()]), np.int64)[:_GALLERY]
    return replace(asking, gallery=np.sort(rows), train=np.empty(0, np.int64), train_query=None)


class _Timed:
    """A panel, and how long it has taken."""

    def __init__(self, panel: Panel) -> None:
        self._panel, self.field, self.spec, self.seconds = panel, panel.field, panel.spec, 0.0

    def shard(self, run: PanelRun, part: Integers, advance: Advance) -> dict[str, Any]:
        started = time.monotonic()
        found = self._panel.shard(run, part, advance)
        self.seconds += time.monotonic() - started
        return found

    def entries(self, run: PanelRun, shards: Sequence[Mapping[str, Any]]) -> Sequence[BaseModel]:
        return self._panel.entries(run, shards)


class _Pixels:
    """The images of a small data set, decoded: ``seconds`` and ``size`` in bytes of one, on average."""

    def __init__(self, dataset: RetrievalDataset) -> None:
        self.tensors = ImageTensors(dataset.images, dataset.image_size)
        self.rows = np.union1d(dataset.query, dataset.gallery)[:_TRIED]
        started = time.monotonic()
        self.size = sum(self.tensors.original(int(row)).nbytes for row in self.rows) / len(self.rows)
        self.seconds = (time.monotonic() - started) / len(self.rows)


@dataclass(frozen=True)
class _Cost:
    """Of a model: seconds to prepare and embed an image in a batch, and what share of two queries' time one in a full
    batch takes."""

    embed: float
    saved: float


def _cost(subject: Subject, pixels: _Pixels, prepared: Preprocessing, batch: int, device: torch.device) -> _Cost:
    tensors = pixels.tensors.prepared(prepared)
    started = time.monotonic()
    images = tensors.batch(pixels.rows)
    preparing = (time.monotonic() - started) / len(pixels.rows)
    home = next((parameter.device for parameter in subject.module.parameters()), device)
    model = Embedder(subject.module).to(device)
    full = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].to(device)
    # As `evaluate` does: a caller may be inside of torch.no_grad() or torch.inference_mode().
    with torch.inference_mode(False), torch.enable_grad(), single_precision(), evaluation_mode(model):
        few, many = (_seconds(model, part, differentiable=not subject.black_box) for part in (full[:_QUERIES], full))
        forward = _seconds(model, full, differentiable=False)
    subject.module.to(home)
    return _Cost(embed=preparing + forward / batch, saved=min(1.0, (many / batch) / (few / min(batch, _QUERIES))))


def _seconds(model: nn.Module, images: Tensor, *, differentiable: bool) -> float:
    """Of a forward pass, and a backward pass to the images: the shortest of several, which nothing disturbed."""
    spent: list[float] = []
    while len(spent) < 2 or (len(spent) < _REPEATS and sum(spent) < 1.0):
        started = time.monotonic()
        with torch.set_grad_enabled(differentiable):
            given = images.clone().requires_grad_(differentiable)
            output = model(given)
            if differentiable and output.requires_grad:
                torch.autograd.grad(output.sum(), given)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        spent.append(time.monotonic() - started)
    return min(spent)


def _peak() -> int:
    """The memory of this process at its largest so far, in bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
