"""The judge: one model's gallery, and what true retrieval says of images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustdml.contracts import Gallery, References
from robustdml.data import RetrievalSplit, SameClass
from robustdml.data.tensors import ImageTensors
from robustdml.errors import AttackError, AttackUnsound, CheckpointError, SpecError
from robustdml.evaluation.measures import AttackedEmbeddings, Points, Values, measured
from robustdml.evaluation.records import TOP, Records, totals
from robustdml.models import KeptWeights, copied, into_evaluation, kept_randomness, untouched
from robustdml.progress import Advance
from robustdml.retrieval.embed import Embedder, embed, embed_rows
from robustdml.retrieval.metrics import METRICS, per_query
from robustdml.retrieval.search import GalleryIndex
from robustdml.threat import NORMS, norm_of

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: Queries that are ranked in one go, and ranks of them all. faiss itself takes no more queries at once.
_QUERIES, _RANKS = 4096, 2**22
#: Ranks of which lists are made: of longer ones only the places of the relevant items are found.
_LISTED = 4096
#: Pairs of queries and gallery items whose similarities are held at once.
_PAIRS = 2**25
#: Gallery items that are compared at once with what an attack was shown of them.
_ROWS = 2**18


class Judge:
    """Embeds the clean gallery and queries of a split once, and scores whatever is sent instead of the queries.

    It shares nothing with attacks: they are handed ``model`` and copies of the gallery, while images are judged by a
    copy of the model that no attack has seen, in the gallery as it was embedded.

    Args:
        model: the victim, in evaluation mode, on ``device``.
        split: queries and gallery.
        tensors: their pixels.
        name: of the model, for messages.

    Raises:
        CheckpointError: embeddings are no finite matrix.
    """

    def __init__(
        self,
        model: Embedder,
        split: RetrievalSplit,
        tensors: ImageTensors,
        device: torch.device,
        *,
        name: str,
        advance: Advance | None = None,
    ) -> None:
        self.model, self.split, self.device, self._tensors = model, split, device, tensors
        #: The last images of which `records` were made, ``(N, 3, H, W)``.
        self.judged: Tensor | None = None
        rows = np.union1d(split.query, split.gallery)
        embeddings = embed_rows(model, tensors, rows, device=device, name=name, advance=advance)
        #: Two images that are no queries, ``(2, 3, H, W)``, of which `asked` asks.
        self._probe = 1 - tensors.batch(rows[:2]).to(device)
        own = _copied(model, self._probe)
        #: Whether the module has no copy, so that attacks are handed the one that judges.
        self.shared = own is None
        #: What attacks are handed copies of, where it is another module (see `robustdml.evaluation.victim`).
        self.victim: Embedder | None = None
        self._own = own if own is not None else _wrapped(model)  # which the guard restores
        # What `restore` puts back where there is one module only.
        self._kept = KeptWeights(self._own) if self.shared else None
        place = np.searchsorted(rows, split.gallery)
        # The matrix is held once where the gallery is all there is.
        whole = len(split.gallery) == len(rows) and np.array_equal(split.gallery, rows)
        self.gallery_embeddings: Floats = embeddings if whole else embeddings[place]
        self.query_embeddings: Floats = embeddings[np.searchsorted(rows, split.query)]
        del embeddings
        self._set_ranking()
        self._set_references()

    def _set_references(self) -> None:
        """What attacks are shown, from the split and the embeddings."""
        split, device, tensors = self.split, self.device, self._tensors
        self._queries = Gallery(
            torch.tensor(self.query_embeddings, device=device),
            torch.tensor(split.labels[split.query], device=device),
            torch.tensor(split.query, device=device),
        )
        self._gallery = Gallery(
            torch.tensor(self.gallery_embeddings, device=device),
            torch.tensor(split.labels[split.gallery], device=device),
            torch.tensor(split.gallery, device=device),
            images=lambda rows: tensors.batch(split.gallery[rows.cpu().numpy()]).to(device),
            rules=None if isinstance(split.rules, SameClass) else split.rules,
        )

    @classmethod
    def of_embeddings(cls, split: RetrievalSplit, queries: Floats, gallery: Floats) -> Judge:
        """A judge without a model, of clean embeddings of length 1 that are there already: it says `clean` alone.

        Args:
            queries: ``(N, D)``, of ``split.query``.
            gallery: ``(M, D)``, of ``split.gallery``.
        """
        found = cls.__new__(cls)
        found.split, found.query_embeddings, found.gallery_embeddings = split, queries, gallery
        found._set_ranking()
        return found

    def _set_ranking(self) -> None:
        """What ranks and scores, from the split and the embeddings."""
        split = self.split
        self._index = GalleryIndex(self.gallery_embeddings, split.gallery, split.rules)
        self._metrics = [METRICS[name] for name in split.rules.metrics]
        self._counts = split.counts()[0]
        self._most = int(self._counts.max())
        self._depth = max(TOP, *(metric.ranks(self._most, len(split.gallery)) for metric in self._metrics))

    def __copy__(self) -> Judge:
        """Within this process, all is shared."""
        other = Judge.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which has all for itself: the embeddings, and the model on the CPU.

        Raises:
            SpecError: there is no copy of the model.
        """
        if self.shared:
            raise SpecError("the model has no copy that could be sent to another process: give --engine inline")
        alone = {"split": self.split, "device": self.device, "_tensors": self._tensors, "shared": False, "_kept": None}
        models = {"_own": copied(self._own).cpu(), "victim": None if self.victim is None else copied(self.victim).cpu()}
        return {
            **{**alone, **models, "gallery_embeddings": self.gallery_embeddings},
            **{"query_embeddings": self.query_embeddings, "judged": None, "_probe": self._probe.cpu()},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.device.type == "cuda":  # Each process has one of its own.
            self.device = torch.device("cuda")
        for model in (self._own, self.victim):
            if model is not None:
                into_evaluation(model.to(self.device).requires_grad_(False))
        self.model, self._probe = _wrapped(self._own), self._probe.to(self.device)
        self._set_ranking()
        self._set_references()

    def fresh(self) -> Judge:
        """This judge with other copies of model and protocol for an attack: what it does to them ends with it."""
        other = copy.copy(self)
        other.model = _wrapped(self._own) if self.shared else copied(self.victim or self._own)
        other._gallery = replace(self._gallery, rules=copy.deepcopy(self._gallery.rules))
        return other

    @property
    def models(self) -> list[Embedder]:
        """What judges: no attack is handed it, and one that looks around may find it."""
        return [self._own]

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The data that judge, as an attack that looks around may find them."""
        split = self.split
        return {
            "the gallery": self.gallery_embeddings,
            "the queries": self.query_embeddings,
            "the ids of the gallery": split.gallery,
            "the ids of the queries": split.query,
            "the labels": split.labels,
            **self._index.arrays,
            "how many items are relevant": self._counts,
        }

    @property
    def objects(self) -> list[object]:
        """What judges beside models and data: attributes of these are to stay what they are."""
        return [self, self._index, self.split]

    def asked(self) -> Floats:
        """What the model that judges answers to two images, ``(2, D)``: the same as long as nothing was changed."""
        with torch.no_grad(), kept_randomness(self._own):
            return _asked(self._own, self._probe).cpu().numpy()

    def restore(self) -> None:
        """Put back the weights of the model that attacks are handed, which one that failed may have changed."""
        if self._kept:
            self._kept.restore()
        else:
            self.model.load_state_dict((self.victim or self._own).state_dict())

    def references(self, part: Integers) -> References:
        """What an attack on the queries at these places, ``(N,)``, may know."""
        rows = self.split.query[part]
        return References(
            self._gallery,
            torch.tensor(self.query_embeddings[part], device=self.device),
            torch.tensor(self.split.labels[rows], device=self.device),
            torch.tensor(rows, device=self.device),
        )

    def check_copies(self) -> None:
        """Put back what an attack has changed of its copies of the gallery and the queries.

        Raises:
            AttackUnsound: it had changed something: what it returned cannot be trusted, and nobody after it may see
                that.
        """
        split, changed = self.split, False
        for copy_, embeddings, rows in (
            (self._gallery, self.gallery_embeddings, split.gallery),
            (self._queries, self.query_embeddings, split.query),
        ):
            for tensor, values in (
                (copy_.embeddings, embeddings),
                (copy_.labels, split.labels[rows]),
                (copy_.ids, rows),
            ):
                if not _holds(tensor, values, self.device):
                    changed = True
                    tensor.set_(torch.tensor(values, device=self.device))  # type: ignore[call-overload]
        if changed:
            raise AttackUnsound(
                "the attack changed the gallery or the queries that it was shown: it must leave them alone"
            )

    def embed(self, images: Tensor) -> Floats:
        """Embeddings ``(N, D)`` of images, by the model that no attack has seen.

        Raises:
            CheckpointError: one of them is not finite.
        """
        return embed(self._own, images)

    @property
    def gallery(self) -> Gallery:
        """The gallery as an attack may know it."""
        return self._gallery

    @property
    def query_ids(self) -> Tensor:
        """``(N,)`` int64, of all queries."""
        return self._queries.ids

    def item_references(self, rows: Tensor) -> References:
        """What an attack on the gallery items ``rows``, ``(K,)``, may know: who they are, and who will search."""
        gallery = self._gallery
        return References(
            gallery, gallery.embeddings[rows], gallery.labels[rows], gallery.ids[rows], asking=self._queries
        )

    def poisoned(self, rows: Tensor, embeddings: Floats, images: Tensor) -> Judge:
        """A judge whose gallery holds other images in some places.

        Args:
            rows: ``(K,)``, the places, all different.
            embeddings: ``(K, D)``, those of the images.
            images: ``(K, 3, H, W)``.
        """
        other = copy.copy(self)
        other.gallery_embeddings = self.gallery_embeddings.copy()
        other.gallery_embeddings[rows.cpu().numpy()] = embeddings
        other._index = GalleryIndex(other.gallery_embeddings, self.split.gallery, self.split.rules)
        clean = self._gallery.images

        def load(wanted: Tensor) -> Tensor:
            if clean is None:
                raise AttackError("the gallery has no images at hand")
            found = clean(wanted)
            at = wanted.to(rows.device)[:, None] == rows[None]
            found[at.any(1)] = images[at.int().argmax(1)[at.any(1)]]
            return found

        points = torch.tensor(other.gallery_embeddings, device=self.device)
        other._gallery = replace(self._gallery, embeddings=points, images=load)
        return other

    def measured_items(self, measures: Sequence[str], rows: Tensor, after: Floats, targets: Tensor | None) -> Values:
        """What is measured on attacked gallery items, each alone in the gallery (see `robustdml.evaluation.measures`).

        Args:
            measures: names of `robustdml.evaluation.measures.MEASURES`.
            rows: ``(K,)`` of the gallery.
            after: ``(K, D)``, their embeddings after the attack.
            targets: ``(K, T)`` rows of the queries, or None.
        """
        places = rows.cpu().numpy()
        aimed = np.empty((len(places), 0), np.int64) if targets is None else targets.cpu().numpy()
        gallery = Points(self.gallery_embeddings, self.split.gallery)
        searchers = Points(self.query_embeddings, self.split.query)
        before, ids = self.gallery_embeddings[places], self.split.gallery[places]
        return measured(
            measures, AttackedEmbeddings(gallery, searchers, before, after, ids, aimed, self.split.rules.ignored)
        )

    def clean(self) -> Records:
        """The records of the clean queries."""
        count = len(self.split.query)
        zeros = np.zeros(count)
        norms = dict.fromkeys(NORMS, zeros)
        targets = np.empty((count, 0), np.int64)
        return self._score(np.arange(count), self.query_embeddings, zeros, norms, zeros > 0, targets)

    def records(
        self,
        part: Integers,
        images: Tensor,
        delta: Tensor,
        norm_returned: Tensor,
        projected: Tensor,
        targets: Tensor | None,
        measures: Sequence[str],
        mapped: frozenset[int],
    ) -> Records:
        """The records of images that were sent instead of the queries at the places ``part``, ``(N,)``.

        Args:
            images: ``(N, 3, H, W)`` within the budget.
            delta: ``(N, 3, H, W)``, what was added to the clean queries.
            norm_returned: ``(N,)`` before the budget was enforced.
            projected: ``(N,)`` bool, whether the attack had left the budget.
            targets: gallery rows ``(N, T)``, or None.
            measures: what is measured beside retrieval: names of `robustdml.evaluation.measures.MEASURES`.
            mapped: ids of the queries whose embeddings are kept.

        Raises:
            AttackError: an image's embedding is not finite.
        """
        self.judged = images
        embeddings = self._embedded(images)
        aimed = np.empty((len(images), 0), np.int64) if targets is None else targets.cpu().numpy()
        norms = {name: norm_of(delta, name).cpu().double().numpy() for name in NORMS}
        before = norm_returned.cpu().double().numpy()
        records = self._score(part, embeddings, before, norms, projected.cpu().numpy(), self.split.gallery[aimed])
        gallery = Points(self.gallery_embeddings, self.split.gallery)
        clean = self.query_embeddings[part]
        values = measured(
            measures,
            AttackedEmbeddings(gallery, None, clean, embeddings, records.ids, aimed, self.split.rules.ignored),
        )
        kept = {item: embeddings[row] for row, item in enumerate(records.ids.tolist()) if item in mapped}
        return replace(records, embeddings=kept, measures=totals(values))

    def _score(
        self,
        part: Integers,
        embeddings: Floats,
        norm_returned: npt.NDArray[np.float64],
        norms: dict[str, npt.NDArray[np.float64]],
        projected: npt.NDArray[np.bool_],
        targets: Integers,
    ) -> Records:
        rows = self.split.query[part]
        listed = self._depth <= _LISTED
        step = max(1, min(_QUERIES, _RANKS // self._depth if listed else _PAIRS // len(self.split.gallery)))
        found = [
            self._ranked(rows[at : at + step], embeddings[at : at + step], self._counts[part[at : at + step]])
            for at in range(0, len(rows), step)
        ]
        values = {name: np.concatenate([each[name] for each, _, _ in found]) for name in found[0][0]}
        top = np.concatenate([first for _, first, _ in found])
        known = [margins for _, _, margins in found if margins is not None]
        margins = np.concatenate(known) if known else self._margins(rows, embeddings)
        return Records(rows, self.split.labels[rows], values, top, norm_returned, norms, projected, margins, targets)

    def verdicts(self, part: Integers, images: Tensor) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """What true retrieval says of images sent instead of the queries at the places ``part``, ``(N,)``.

        Returns:
            Whether the first hit is relevant, ``(N,)``, and the margins of `Records`, ``(N,)``.

        Raises:
            AttackError: an image's embedding is not finite.
        """
        embeddings = self._embedded(images)
        return self.first_hits(part, embeddings), self._margins(self.split.query[part], embeddings)

    def values(self, part: Integers, embeddings: Floats) -> Values:
        """The protocol's metrics, ``(N,)`` each, of embeddings ``(N, D)``, of length 1, of the queries at ``part``."""
        return self._ranked(self.split.query[part], embeddings, self._counts[part])[0]

    def first_hits(self, part: Integers, embeddings: Floats) -> npt.NDArray[np.bool_]:
        """Whether embeddings ``(N, D)``, of length 1, of the queries at ``part``, ``(N,)``, find a relevant item."""
        rows = self.split.query[part]
        first = self._index.rank(embeddings, rows, 1)
        right = self.split.rules.relevant(rows[:, None], first) & (first >= 0)
        return np.asarray(right[:, 0])

    def _margins(self, rows: Integers, embeddings: Floats) -> npt.NDArray[np.float64]:
        protocol, items = self.split.rules, self.split.gallery
        found = np.empty(len(rows))
        step = max(1, _PAIRS // len(items))
        for start in range(0, len(rows), step):
            part = rows[start : start + step, None]
            similarity = embeddings[start : start + step] @ self.gallery_embeddings.T
            similarity[protocol.ignored(part, items[None])] = -np.inf
            relevant = protocol.relevant(part, items[None])
            other = np.where(relevant, -np.inf, similarity).max(1)
            # Without an item that is not relevant nothing can be wrong; two are as far apart as similarities get.
            found[start : start + step] = np.maximum(other, -1.0) - np.where(relevant, similarity, -np.inf).max(1)
        return found

    def _embedded(self, images: Tensor) -> Floats:
        try:
            return self.embed(images)
        except CheckpointError:
            raise AttackError(
                "an attacked image has an embedding that is not finite: no ranking can be judged"
            ) from None

    def _ranked(
        self, rows: Integers, embeddings: Floats, counts: Integers
    ) -> tuple[Values, Integers, npt.NDArray[np.float64] | None]:
        """The metrics of some queries, the first hits of each, and the margins where they cost nothing."""
        if self._depth > _LISTED:
            relevant, top, margins = self._index.relevance(embeddings, rows, self._depth, TOP)
            return per_query(self._metrics, relevant, counts, most=self._most), top, margins
        ranked = self._index.rank(embeddings, rows, self._depth)
        relevant = self.split.rules.relevant(rows[:, None], ranked) & (ranked >= 0)
        return per_query(self._metrics, relevant, counts, most=self._most), ranked[:, :TOP], None


def _holds(tensor: Tensor, values: npt.NDArray[Any], device: torch.device) -> bool:
    """Whether a tensor has these values; a part at a time, for the device may have no room for them all again."""
    if tuple(tensor.shape) != values.shape:
        return False
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS]
        # What is shared between processes is read-only, which torch has no word for.
        genuine = torch.from_numpy(part if part.flags.writeable else part.copy()).to(device)
        if not torch.equal(tensor[start : start + _ROWS], genuine):
            return False
    return True


def _wrapped(model: Embedder) -> Embedder:
    """The same module, counted anew."""
    found = Embedder(model.module)
    into_evaluation(found)
    return found


def _copied(model: Embedder, probe: Tensor) -> Embedder | None:
    """A copy that shares nothing with the model and answers as it does; None where there is no such copy.

    Compiled and exported modules, locks and generators cannot be copied. And a hook that was made of a function within
    ``__init__`` belongs to the original: in a copy it would write where the copy does not read.
    """
    try:
        found = copied(model)
        with torch.no_grad(), untouched(model):
            # The copy first: nothing of this question may have reached it otherwise.
            answers = _asked(found, probe), _asked(model, probe)
    except Exception:
        return None
    same = torch.allclose(answers[0], answers[1], atol=1e-4, equal_nan=True)
    return found if same else None


def _asked(model: Embedder, probe: Tensor) -> Tensor:
    torch.manual_seed(0)
    found: Tensor = model(probe)
    return found
