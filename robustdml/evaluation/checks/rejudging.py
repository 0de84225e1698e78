"""The kept images of a run judged again, by a model that is given anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustdml.config import DEFAULT_OPTIONS, RunOptions
from robustdml.data import RetrievalDataset
from robustdml.data.tensors import ImageTensors
from robustdml.devices import choose_device
from robustdml.errors import RobustDMLError
from robustdml.evaluation.checks.looked_at import looked_at
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.kept_images import KeptImages
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.records import Records
from robustdml.evaluation.store import CellKey, Store, clean_key
from robustdml.evaluation.subjects import Subject
from robustdml.evaluation.verify import Verified
from robustdml.models import evaluation_mode, weights_fingerprint
from robustdml.retrieval.embed import Embedder

Integers = npt.NDArray[np.int64]

#: Similarities that other machines may compute; a recall may differ where the margin is nearer to 0.
_MARGIN, _MEAN, _NORM = 1e-3, 0.01, 1e-3


def rejudge(
    run: str | Path, subjects: Sequence[Subject], dataset: RetrievalDataset, *, options: RunOptions = DEFAULT_OPTIONS
) -> Verified:
    """Judge the clean queries and every kept image of a run again, and compare with its records.

    Args:
        run: the folder of an evaluation with ``--save-images``.
        subjects: models of the run, found by their weights, whatever they are called.
        dataset: the one of the run.

    Raises:
        RunFolderError: there is no plan in the folder.
    """
    run, problems, notes, files, numbers = Path(run), list[str](), list[str](), 0, 0
    plan = Plan.load(run)
    dataset = _as_in_the_run(dataset, plan)
    if dataset.fingerprint() != plan.spec.dataset_fingerprint:
        return Verified(0, 0, (f"the data set '{dataset.name}' is not that of the run: its images or labels differ",))
    part = dataset.subset_queries(plan.spec.max_queries, plan.spec.seed)
    device, store = choose_device(options.device), Store(run, plan.fingerprint)
    images, kept = ImageTensors(dataset.images, plan.spec.image_size), KeptImages(run, store)
    on_query = {entry.spec for entry in plan.attacks if entry.side == "query"}
    for subject in subjects:
        weights = weights_fingerprint(subject.module)
        names = [name for name, known in plan.spec.models if known == weights]
        if not names:
            problems.append(f"'{subject.name}' is no model of the run: none there has its weights")
        for name in names:
            tensors = images.prepared(dict(plan.spec.preprocessing)[name])
            model = Embedder(subject.module.to(device))
            with evaluation_mode(model):
                judge = Judge(model, part.test, tensors, device, name=name)
                try:
                    clean = store.read(clean_key(name), 0)
                except RobustDMLError as error:
                    problems.append(str(error))
                    continue
                problems += _differences(f"{name}, clean", judge.clean(), clean)
                for key in plan.cells(name):
                    if key.attack not in on_query:
                        notes.append(f"{key.attack} on {name}: attacks on the gallery are not judged again")
                        continue
                    for shard in store.shards(key):
                        if not kept.path(key, shard).is_file():
                            notes.append(f"{key.attack} at {key.threat.text} on {name}: no images were kept")
                            continue
                        try:
                            records = store.read(key, shard)
                            problems += _shard(judge, key, records, *kept.read(key, shard), tensors)
                        except RobustDMLError as error:
                            problems.append(str(error))
                            continue
                        files, numbers = files + 1, numbers + len(records)
    return Verified(files, numbers, tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes)))


def _shard(
    judge: Judge, key: CellKey, records: Records, ids: Integers, images: Tensor, tensors: ImageTensors
) -> Iterator[str]:
    place = f"{key.model}, {key.attack} at {key.threat.text}"
    clean, images = tensors.batch(ids).to(judge.device), images.to(judge.device)
    if ids.tolist() != records.ids.tolist() or images.shape != clean.shape:
        yield f"{place}: the kept images are not of the queries of the records"
        return
    if not bool(key.threat.allows(images, clean).all()):
        yield f"{place}: a kept image is beyond the budget"
    order = np.argsort(judge.split.query)
    part = order[np.searchsorted(judge.split.query, ids, sorter=order)]
    returned, projected = torch.from_numpy(records.norm_returned), torch.from_numpy(records.projected)
    found = judge.records(part, images, images - clean, returned, projected, None, (), frozenset())
    yield from _differences(place, found, records)


def _as_in_the_run(dataset: RetrievalDataset, plan: Plan) -> RetrievalDataset:
    """The data set without broken images, or without copies too, where the run was made so; else as it is."""
    wanted = plan.spec.dataset_fingerprint
    if dataset.fingerprint() == wanted:
        return dataset
    for copies in (False, True):
        found = looked_at(dataset, skip_broken=True, leave_out_copies=copies).dataset
        if found.fingerprint() == wanted:
            return found
    return dataset


def _differences(place: str, found: Records, recorded: Records) -> Iterator[str]:
    """Where records say something else than was found, beyond what other machines may compute."""
    if found.ids.tolist() != recorded.ids.tolist() or found.values.keys() != recorded.values.keys():
        yield f"{place}: the records are of other queries or metrics"
        return
    clear = np.abs(found.margins) > _MARGIN
    first = found.values["recall_at_1"] != recorded.values["recall_at_1"]
    wrong = (first & clear) | (np.abs(found.margins - recorded.margins) > _MARGIN)
    if wrong.any():
        query = int(found.ids[wrong][0])
        yield f"{place}: {int(wrong.sum())} of {len(wrong)} queries are judged otherwise, the first of them {query}"
    for name, values in found.values.items():
        if abs(values.mean() - recorded.values[name].mean()) > _MEAN:
            yield f"{place}: {name} is {values.mean():.4f}, the records say {recorded.values[name].mean():.4f}"
    for norm, sizes in found.norms.items():
        if not np.allclose(sizes, recorded.norms[norm], rtol=_NORM, atol=_NORM / 255):
            yield f"{place}: the {norm} norms are not those of the kept images"
