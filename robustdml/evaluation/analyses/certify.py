"""Certified R@1: for each query the L2 radius within which no image whatsoever makes retrieval err.

A certificate is of a *smoothed* model, not of the model that is smoothed. Let f map images to embeddings of length 1,
let ``d ~ N(0, sigma^2 I)``, and let an image be cut to [0, 1] before f sees it. The gallery is the clean one of f.

**Vote.** The smoothed model asks f about many noisy copies of a query, and answers by majority. Let p be the
probability that the first hit of ``f(x + d)`` is relevant. If p > 1/2, the majority is right for every image nearer to
x than ``sigma Phi^-1(p)`` (Cohen, Rosenfeld & Kolter 2019, theorem 1, with the right answer as the class). What stands
for p is its lower Clopper-Pearson bound.

**Mean embedding.** The smoothed model ranks by ``F(x) = E f(x + d)``. For items p (relevant) and n (foreign), with
embeddings g of length 1, ``u = F(x) . (g_p - g_n) / |g_p - g_n|`` is the mean of a function with values in [-1, 1], and
``Phi^-1((1 + u) / 2)`` of such a mean is Lipschitz in x with the constant ``1 / sigma`` (Salman et al. 2019, lemma 2).
So p comes before n for every image nearer than ``sigma Phi^-1((1 + u) / 2)``, and the first hit is relevant within the
largest, over p, of the smallest, over n, of these radii. This is never less than what the Lipschitz constant
``sqrt(2 / pi) / sigma`` of F itself gives (Pautov et al. 2022), to which it comes as u goes to 0.

F is estimated by a mean of S embeddings, which changes by at most ``2 / S`` in length with one of them and is expected
within ``1 / sqrt(S)`` of F: by McDiarmid's inequality its distance from F is, with probability ``1 - alpha``, at most
``(1 + sqrt(2 ln(1 / alpha))) / sqrt(S)``. That is subtracted from u, for all pairs at once.

Kakizaki, Fukuchi & Sakuma 2025 certify that the ranking of content-based image retrieval stays as it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import betaincinv, ndtri  # scipy.stats has the same and takes a second to import
from torch import Tensor

from robustdml.errors import SpecError
from robustdml.evaluation.analyses.panel import PanelRun
from robustdml.evaluation.judge import Judge
from robustdml.progress import Advance
from robustdml.registry import Spec
from robustdml.results import Certified, pack_hits
from robustdml.seeding import stream

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: Noisy copies that are embedded at once: always copies of one query, so that no other query changes the rounding.
_BATCH = 125
#: Relevant items that are tried as the one that stays first: the nearest ones to the smoothed embedding.
_RELEVANT = 32
#: Radii are rounded down to so many decimals, and stay valid.
_DECIMALS = 4


@dataclass(frozen=True)
class Certify:
    """Both certificates, from the same noisy copies.

    Args:
        sigma: of the noise, in pixels of [0, 1], above 0 and at most 10. The larger, the further certificates can reach
            (2.4 sigma with 1000 samples), and the less a model sees that was not trained on noise.
        samples: noisy copies of each query, at least 10.
        confidence: the probability with which each certificate of each query holds, above 0.5 and below 1.

    Raises:
        SpecError: a value out of its range.
    """

    sigma: float = 0.25
    samples: int = 1000
    confidence: float = 0.999
    field: ClassVar[str] = "certified"

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 10:
            raise SpecError(f"sigma={self.sigma} of a certificate must be above 0 and at most 10, such as 0.25")
        if self.samples < 10:
            raise SpecError(f"samples={self.samples} of a certificate must be at least 10, such as 1000")
        if not 0.5 < self.confidence < 1:
            raise SpecError(f"confidence={self.confidence} of a certificate must lie between 0.5 and 1, such as 0.999")

    @property
    def spec(self) -> str:
        """See `robustdml.evaluation.analyses.panel.Panel`."""
        return str(Spec("certify", vars(self)))

    def shard(self, run: PanelRun, part: Integers, advance: Advance) -> dict[str, Any]:
        """Of each query its votes, the ``u`` of its mean embedding, and whether that finds a relevant item first."""
        started = time.monotonic()
        votes, leads, first = [], [], []
        for place, image in zip(part.tolist(), run.images(part), strict=True):
            embeddings = np.concatenate([run.judge.embed(noisy) for noisy in self._copies(run, place, image)])
            places = np.full(len(embeddings), place)
            votes.append(int(run.judge.first_hits(places, embeddings).sum()))
            mean = embeddings.mean(0, dtype=np.float64)
            leads.append(lead(run.judge, place, mean))
            along = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)[None]
            first.append(bool(run.judge.first_hits(places[:1], along)[0]))
            advance(1)
        seconds = time.monotonic() - started
        return {"votes": votes, "leads": leads, "first": first, "seconds": seconds}

    def _copies(self, run: PanelRun, place: int, image: Tensor) -> Iterator[Tensor]:
        """The noisy copies of a query, cut to [0, 1]: they depend on the seed and the query's id alone."""
        random = stream(run.seed, "certify", int(run.judge.split.query[place]))
        for start in range(0, self.samples, _BATCH):
            size = (min(_BATCH, self.samples - start), *image.shape)
            noise = torch.from_numpy(random.standard_normal(size, dtype=np.float32)).to(image)
            yield (image + self.sigma * noise).clamp(0, 1)

    def entries(self, run: PanelRun, shards: Sequence[Mapping[str, Any]]) -> list[Certified]:
        """The two certificates of a model."""
        votes = np.concatenate([np.asarray(shard["votes"], np.int64) for shard in shards])
        leads = np.concatenate([np.asarray(shard["leads"], np.float64) for shard in shards])
        first = np.concatenate([np.asarray(shard["first"], bool) for shard in shards])
        certificates = {
            "vote": (2 * votes > self.samples, self.vote_radius(votes)),
            "embedding": (first, self.embedding_radius(leads)),
        }
        return [
            Certified.model_validate(
                {
                    "model": run.model,
                    "certificate": name,
                    **vars(self),
                    "recall_at_1": float(right.mean()),
                    "hits": pack_hits(right.tolist()),
                    "radii": _rounded_down(radii),
                    "forward_images": self.samples * len(votes),
                    "seconds": sum(float(shard["seconds"]) for shard in shards),
                    "citations": CITATIONS[name],
                }
            )
            for name, (right, radii) in certificates.items()
        ]

    def vote_radius(self, votes: Integers) -> Floats:
        """The radius from the number of copies, ``(N,)``, whose first hit is relevant; 0 where nothing is certified."""
        least = betaincinv(np.maximum(votes, 1), self.samples - votes + 1, 1 - self.confidence)
        return self._radius(np.where(votes > 0, least, 0.0))

    def embedding_radius(self, leads: Floats) -> Floats:
        """The radius from the ``u``, ``(N,)``, of the mean of the samples; 0 where nothing is certified."""
        return self._radius((1 + leads - self.sampling_error) / 2)

    @property
    def sampling_error(self) -> float:
        """How far the mean of the samples is from the smoothed embedding, at most, with the probability asked for."""
        return (1 + math.sqrt(-2 * math.log(1 - self.confidence))) / math.sqrt(self.samples)

    def _radius(self, shares: Floats) -> Floats:
        radii: Floats = self.sigma * ndtri(np.maximum(shares, 0.5))
        return radii


#: What each certificate rests on.
CITATIONS: Mapping[str, tuple[str, ...]] = {
    "vote": ("cohen2019certified", "clopper1934use", "kakizaki2025deterministic"),
    "embedding": ("salman2019provably", "pautov2022smoothed", "mcdiarmid1989method", "kakizaki2025deterministic"),
}


def lead(judge: Judge, place: int, mean: Floats) -> float:
    """The ``u`` of the relevant item that leads the foreign items by most, in [-1, 1].

    Args:
        judge: of the gallery.
        place: of the query.
        mean: ``(D,)``, its smoothed embedding.
    """
    split, gallery = judge.split, judge.gallery_embeddings
    query = np.full(len(gallery), split.query[place])
    ignored = split.rules.ignored(query, split.gallery)
    relevant = split.rules.relevant(query, split.gallery)
    foreign = gallery[~relevant & ~ignored].astype(np.float64)
    own = gallery[relevant & ~ignored].astype(np.float64)
    if not len(foreign):  # nothing can come before a relevant item
        return 1.0
    scores, others = own @ mean, foreign @ mean
    best = -1.0
    for row in np.argsort(-scores, kind="stable")[:_RELEVANT]:
        apart = np.linalg.norm(own[row] - foreign, axis=1)
        # Equal items tie, and ties count against the model.
        found = np.divide(scores[row] - others, apart, out=np.full(len(others), -1.0), where=apart > 1e-6)
        best = max(best, float(found.min()))
    return min(best, 1.0)


def _rounded_down(radii: Floats) -> list[float]:
    unit = 10**_DECIMALS
    return [math.floor(radius * unit) / unit for radius in radii.tolist()]
