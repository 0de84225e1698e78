"""Planted decoys: galleries in which some image within the budget is known to give a wrong first hit, on any model.

For each query an image within the budget is drawn, and one foreign item is put where that image finds it first, by a
little: beyond the image's embedding, seen from the clean one, so that the clean query does not. That item, the decoy,
is the only foreign one. An attack that does not find an image that breaks the query has missed one that exists: a
retrieval version of the planted examples of Zimmermann et al. 2022.

Shapes: N queries, M gallery items, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from robustdml.contracts import Attack, Gallery, ListRules, References
from robustdml.data import RetrievalDataset
from robustdml.data.tensors import ImageTensors
from robustdml.evaluation.attacking.queries import run_attack
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.subjects import Subject
from robustdml.models import evaluation_mode, kept_randomness
from robustdml.preprocessing import Preprocessing
from robustdml.retrieval.embed import Embedder
from robustdml.seeding import stream, uniform_like
from robustdml.threat import ThreatModel

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

# By how much the planted image prefers the decoy: as a similarity, and at most as a share of the distance that its
# nearest relevant item leaves, for embeddings that are all near to each other.
_AHEAD, _AHEAD_SHARE = 0.01, 0.1

# Pixels along a side of the blocks of equal sign that the planted change is drawn in: single pixels move an embedding
# too little for a decoy that the clean query does not find.
_BLOCK = 8


@dataclass(frozen=True, eq=False)
class Planted:
    """Decoys for queries of a judge.

    Args:
        part: ``(N,)``, places of the queries, of those that were asked for: a query that errs with its own items and
            the decoy alone when clean, or for whom none can be placed, has none.
        images: ``(N, 3, H, W)``, images within the budget that find their decoys.
        references: the queries, in the gallery with the decoys behind its own items; each query searches its relevant
            items and its own decoy.
        threat: the budget.
    """

    part: Integers
    images: Tensor
    references: References
    threat: ThreatModel

    def found_by(self, attack: Attack, judge: Judge, clean: Tensor, *, seed: int = 0) -> Booleans:
        """Whether the attack, of the same budget, makes each query find its decoy first, ``(N,)``.

        Args:
            clean: ``(N, 3, H, W)``, the clean queries.

        Raises:
            AttackError: it returned no images.
        """
        sent = run_attack(judge.model, attack, clean, self.references, seed=seed).images
        return self.wins(torch.tensor(judge.embed(sent), device=sent.device))

    def wins(self, embeddings: Tensor) -> Booleans:
        """Whether the decoy comes before every relevant item, ``(N,)``, of embeddings ``(N, D)``."""
        similarity = embeddings @ self.references.gallery.embeddings.T
        relevant, ignored = self.references.relevant, self.references.ignored
        own = similarity.masked_fill(~relevant | ignored, -torch.inf).amax(1)
        found: Booleans = (similarity.masked_fill(relevant, -torch.inf).amax(1) > own).cpu().numpy()
        return found


def planted(judge: Judge, images: Tensor, part: Integers, threat: ThreatModel, *, seed: int = 0) -> Planted:
    """Plant a decoy for each of the queries at ``part``, ``(N,)``, whose clean images are ``images``, ``(N, 3, H, W)``.

    Args:
        threat: L-infinity, with a fixed budget.
        seed: of the planted images, drawn for each query by itself.
    """
    known = judge.references(part)
    signs = torch.stack([_signs(image, seed, item) for image, item in zip(images, known.ids.tolist(), strict=True)])
    sent = threat.project(images + (threat.eps or 0.0) * signs, images)
    reached = torch.tensor(judge.embed(sent), device=images.device)
    own = known.relevant & ~known.ignored
    nearest = (reached @ known.gallery.embeddings.T).masked_fill(~own, -torch.inf).amax(1)
    clean_nearest = (known.embeddings @ known.gallery.embeddings.T).masked_fill(~own, -torch.inf).amax(1)
    wanted = nearest + (_AHEAD_SHARE * (1 - nearest)).clamp_max(_AHEAD)
    # In the plane of the clean and the reached embedding, past the latter by the angle at which it wins by so much.
    cosine = (reached * known.embeddings).sum(1).clamp(-1, 1)
    aside = F.normalize(reached - cosine[:, None] * known.embeddings, dim=1)
    angle = cosine.acos() + wanted.clamp(-1, 1).acos()
    decoys = angle.cos()[:, None] * known.embeddings + angle.sin()[:, None] * aside
    sound = ((decoys * known.embeddings).sum(1) < clean_nearest) & ((decoys * reached).sum(1) > nearest)
    rows = torch.nonzero(sound).flatten()
    return Planted(part[rows.cpu().numpy()], sent[rows], _with_decoys(judge, known.rows(rows), decoys[rows]), threat)


def _with_decoys(judge: Judge, known: References, decoys: Tensor) -> References:
    gallery, rules = known.gallery, judge.split.rules
    first = int(torch.cat([gallery.ids, known.ids]).max()) + 1
    ids = torch.arange(first, first + len(decoys), device=gallery.ids.device)
    # No label is asked for where there are rules.
    labels = torch.full_like(ids, -1)
    return replace(
        known,
        gallery=Gallery(
            torch.cat([gallery.embeddings, decoys.to(gallery.embeddings)]),
            torch.cat([gallery.labels, labels]),
            torch.cat([gallery.ids, ids]),
            rules=_OwnDecoy(rules, known.ids.cpu().numpy(), first),
        ),
    )


@dataclass(frozen=True, eq=False)
class _OwnDecoy:
    """A query searches what is relevant to it, and the decoy with the number of its place.

    Args:
        rules: of the gallery without decoys.
        queries: ``(N,)`` ids of queries.
        first: id of the first decoy; other items have lower ones.
    """

    rules: ListRules
    queries: Integers
    first: int

    def relevant(self, queries: Integers, items: Integers) -> Booleans:
        """See `robustdml.contracts.ListRules`."""
        return (items < self.first) & self._asked("relevant", queries, items)

    def ignored(self, queries: Integers, items: Integers) -> Booleans:
        """See `robustdml.contracts.ListRules`."""
        place = {int(item): place for place, item in enumerate(self.queries)}
        decoy = self.first + np.vectorize(place.__getitem__, otypes=[np.int64])(queries)
        real = items < self.first
        foreign = ~self._asked("relevant", queries, items)
        return np.where(real, foreign | self._asked("ignored", queries, items), items != decoy)

    def _asked(self, name: str, queries: Integers, items: Integers) -> Booleans:
        found: Booleans = getattr(self.rules, name)(queries, np.where(items < self.first, items, queries))
        return found


def _signs(image: Tensor, seed: int, item: int) -> Tensor:
    """``(C, H, W)`` of -1 and 1, equal within blocks."""
    channels, height, width = image.shape
    random = stream(seed, "planted", item)
    blocks = random.random((channels, -(-height // _BLOCK), -(-width // _BLOCK))) < 0.5
    signs = np.where(blocks, 1.0, -1.0).repeat(_BLOCK, 1).repeat(_BLOCK, 2)[:, :height, :width]
    return torch.from_numpy(signs).to(image)


@dataclass(frozen=True)
class PlantedCount:
    """What an attack found of the decoys planted for one model.

    Args:
        model: its name.
        threat: the budget.
        planted: queries that a decoy was planted for.
        found: those of them that the attack broke.
        by_chance: those that a single random image of the ball broke.
    """

    model: str
    threat: ThreatModel
    planted: int
    found: int
    by_chance: int


def count_planted(
    attack: Attack, subject: Subject, dataset: RetrievalDataset, preprocessing: Preprocessing, device: torch.device
) -> PlantedCount:
    """Plant decoys for the queries of a data set, and count those that an attack in L-infinity finds."""
    tensors = ImageTensors(dataset.images, dataset.image_size).prepared(preprocessing)
    model = Embedder(subject.module.to(device))
    with kept_randomness(model), evaluation_mode(model):
        judge = Judge(model, dataset.test, tensors, device, name=subject.name)
        part = np.arange(len(dataset.query))
        images = tensors.batch(dataset.query).to(device)
        decoys = planted(judge, images, part, attack.threat)
        if not len(decoys.part):
            return PlantedCount(subject.name, attack.threat, 0, 0, 0)
        clean = images[torch.from_numpy(decoys.part).to(device)]
        noise = uniform_like(clean, decoys.references.ids, seed=0, purpose="by chance") * (attack.threat.eps or 0.0)
        drawn = torch.tensor(judge.embed((clean + noise).clamp(0, 1)), device=device)
        by_chance = decoys.wins(drawn)
        found = decoys.found_by(attack, judge, clean)
    return PlantedCount(subject.name, attack.threat, len(decoys.part), int(found.sum()), int(by_chance.sum()))
