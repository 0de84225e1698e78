"""A retrieval data set: images, labels, and who is trained on, who asks and who is found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from robustdml.data.finding import LONELY, LONELY_ASKERS, LeftOut, said
from robustdml.data.images import ImageSource
from robustdml.data.protocol import Protocol, SameClass, array_hash
from robustdml.errors import DataError, SpecError
from robustdml.files import fingerprint
from robustdml.values import ByValue, check_fields, plain_scalar

Integers = npt.NDArray[np.int64]

_BY_LABEL = SameClass()


@dataclass(frozen=True, eq=False, repr=False)
class RetrievalSplit(ByValue):
    """Queries against a gallery: all that an evaluation needs to know about a data set.

    The id of an image is its row. A query that is in the gallery as well never finds itself (`leave_self_out`).

    Attributes:
        images: N images.
        labels: int64, (N,): the class of each row.
        query: rows that ask, each once.
        gallery: rows that are searched, each once.
        protocol: who is relevant, who is left out, and what is measured; it is given the labels.

    Raises:
        DataError: rows are missing, repeated or out of range, or a query has nothing to find.
    """

    images: ImageSource
    labels: Integers
    query: Integers
    gallery: Integers
    rules: Protocol = _BY_LABEL

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", _labels(self.labels, len(self.images)))
        for part in ("query", "gallery"):
            object.__setattr__(self, part, _rows(part, getattr(self, part), len(self.images)))
        object.__setattr__(self, "rules", self.rules.of(self.labels))
        lonely = self.query[self.counts()[0] == 0]
        if lonely.size:
            raise DataError(
                f"query row {lonely[0]} (label {self.labels[lonely[0]]}) has nothing to find in the gallery: add an "
                "image that is relevant to it, or leave the query out"
            )

    @property
    def leave_self_out(self) -> bool:
        """Whether some image is both in the query and in the gallery."""
        return bool(np.isin(self.query, self.gallery).any())

    def counts(self) -> tuple[Integers, Integers]:
        """For each query, how many gallery rows are relevant to it, and how many it searches (`Protocol.counts`)."""
        return self.rules.counts(self.query, self.gallery)


@dataclass(frozen=True, eq=False, repr=False)
class RetrievalDataset(ByValue):
    """Images with a zero-shot retrieval protocol: the classes of the test are not seen in training.

    The id of an image is its row. A query that is in the gallery as well never finds itself (`leave_self_out`).

    Attributes:
        name: the name under which `load_dataset` finds it.
        images: N images.
        labels: int64, (N,), each an index into ``class_names``.
        class_names: one name per label.
        train: rows to train on, each once; none, where a finished model is evaluated.
        query: rows that ask, each once.
        gallery: rows that are searched, each once.
        protocol: who is trained on and who searches whom, in one plain sentence with a full stop.
        image_size: side in pixels to which images are brought where the user asks for no other.
        augmentation: what training does to images: "none", "shift", "crop" or "crop-flip".
        train_query: training rows that ask in a validation, where the data set has photos that were taken apart from
            those that are searched (near duplicates on both sides make a validation too easy). None lets every
            training row ask, with itself left out.
        rules: how rankings are judged; they are given the labels.
        title: what pages call it; empty stands for the name.
        left_out: files and queries that its reader met and that are no part of it.

    Guarantees:
        - no class is in both the training and the test (query and gallery) rows;
        - every query has at least one image to find: by default, another gallery image of its class.

    Raises:
        DataError: a guarantee cannot be given; the message names the classes.
    """

    name: str
    images: ImageSource
    labels: Integers
    class_names: tuple[str, ...]
    train: Integers
    query: Integers
    gallery: Integers
    protocol: str
    image_size: int
    augmentation: str
    train_query: Integers | None = None
    rules: Protocol = _BY_LABEL
    title: str = ""
    left_out: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        names = tuple(plain_scalar(name) for name in self.class_names)
        object.__setattr__(self, "class_names", names)
        odd = next((name for name in names if not isinstance(name, str)), None)
        if odd is not None:
            raise DataError(f"class_names must be text, one for each label, and {odd!r} is not: write {str(odd)!r}")
        object.__setattr__(self, "labels", _labels(self.labels, len(self.images)))
        for part in ("train", "query", "gallery"):
            rows = _rows(part, getattr(self, part), len(self.images), may_be_empty=part == "train")
            object.__setattr__(self, part, rows)
        object.__setattr__(self, "title", self.title or self.name)
        if self.train_query is not None and not np.isin(self.train_query, self.train).all():
            raise DataError("some train_query rows are not training rows: list only rows of the training part")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise DataError(
                f"labels must lie between 0 and {len(self.class_names) - 1}, as there are {len(self.class_names)} "
                f"class names, and they range from {self.labels.min()} to {self.labels.max()}"
            )
        object.__setattr__(self, "rules", self.rules.of(self.labels))
        self._check_classes()

    def _check_classes(self) -> None:
        tested = self.labels[np.concatenate([self.query, self.gallery])]
        shared = np.intersect1d(self.labels[self.train], tested)
        if shared.size:
            raise DataError(
                f"{self._named(shared, 'is', 'are')} in both the training and the test images: retrieval is measured "
                "on unseen classes, so keep each class on one side, or evaluate with the test images alone"
            )
        lonely = np.unique(self.labels[self.query[self.rules.counts(self.query, self.gallery)[0] == 0]])
        if lonely.size and not isinstance(self.rules, SameClass):
            raise DataError(
                f"class '{self.class_names[lonely[0]]}' has a query to which no gallery image is relevant that may be "
                "found: add one, or leave the query out"
            )
        if lonely.size and self.leave_self_out:
            raise DataError(
                f"class '{self.class_names[lonely[0]]}' has one image in the test, so its query has nothing to find: "
                "add an image, or leave the class out"
            )
        if lonely.size:
            raise DataError(
                f"class '{self.class_names[lonely[0]]}' has query images and no image in the gallery: "
                "add one to the gallery, or leave the class out"
            )

    def check_trainable(self) -> None:
        """Make sure that there are training images, and at least two of each training class.

        Raises:
            DataError: there are not.
        """
        if not self.train.size:
            raise DataError(
                f"the data set '{self.title}' has no training images, so it can be evaluated on and not trained on: "
                "give one with a training part (train/<class>/, or rows of split train)"
            )
        classes, counts = np.unique(self.labels[self.train], return_counts=True)
        single = classes[counts == 1]
        if single.size:
            # Drawn with itself it would fill a batch, but its only positive pair is an image and its own augmentation:
            # that pulls nothing together, pushes all others away, and passes in silence. So it is for the owner of the
            # data to leave it out (`load_inshop` does, and says how many in its protocol).
            raise DataError(
                f"training {self._named(single, 'has one image', 'have one image each')}, and training needs at least "
                "two of each class: add images, or leave out what has one"
            )

    def _named(self, classes: Iterable[int], one: str, many: str) -> str:
        names = [f"'{self.class_names[label]}'" for label in classes]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"class {shown} {one}" if len(names) == 1 else f"classes {shown} {many}"

    @property
    def test(self) -> RetrievalSplit:
        """The queries and the gallery, for the evaluation."""
        return RetrievalSplit(self.images, self.labels, self.query, self.gallery, self.rules)

    @property
    def leave_self_out(self) -> bool:
        """Whether some image is both in the query and in the gallery."""
        return bool(np.isin(self.query, self.gallery).any())

    def without(self, rows: Integers, left_out: LeftOut) -> RetrievalDataset:
        """The data set without these rows, in any of their roles; queries that then find nothing do not ask.

        Args:
            left_out: what they are, for the reader.

        Raises:
            DataError: no query with anything to find remains.
        """
        query, gallery = (part[~np.isin(part, rows)] for part in (self.query, self.gallery))
        if not gallery.size:
            raise DataError(f"nothing remains of the gallery of '{self.title}' without the {left_out.reason}")
        asking, lonely = askers(self.labels, query, gallery, self.rules)
        parts = [left_out]
        for reason, part, unused in (
            (LONELY_ASKERS, lonely[np.isin(lonely, gallery)], False),
            (LONELY, lonely[~np.isin(lonely, gallery)], True),
        ):
            if part.size:
                parts.append(LeftOut(reason, tuple(self.images.name(row) for row in part.tolist()), files=unused))
        sentence = self.protocol.removesuffix(".")
        more = said(parts)
        return replace(
            self,
            train=self.train[~np.isin(self.train, rows)],
            train_query=None if self.train_query is None else self.train_query[~np.isin(self.train_query, rows)],
            query=asking,
            gallery=gallery,
            left_out=(*self.left_out, *parts),
            protocol=f"{sentence}{more.replace('; left out: ', ', ') if '; left out: ' in sentence else more}.",
        )

    def fingerprint(self) -> str:
        """A short SHA-256 hash of the name, class names, labels, split, protocol and images (`ImageSource.digest`)."""
        arrays = {part: array_hash(getattr(self, part)) for part in ("labels", "train", "query", "gallery")}
        return fingerprint(
            {
                "name": self.name,
                "classes": list(self.class_names),
                "images": self.images.digest(),
                "rules": self.rules.identity(),
                **arrays,
            }
        )

    def subset_queries(self, max_queries: int | None, seed: int) -> RetrievalDataset:
        """Fewer queries against the same gallery, drawn in proportion to the sizes of the classes.

        Args:
            max_queries: how many; None, or at least as many as there are, returns this data set.
            seed: which ones; the same seed gives the same rows.

        Returns:
            A data set with exactly ``max_queries`` queries, rows sorted. Every class keeps a query while there are at
            least as many queries as classes.

        Raises:
            SpecError: ``max_queries`` is below 1.
        """
        if max_queries is not None and max_queries < 1:
            raise SpecError(f"the number of queries must be at least 1, and it is {max_queries}")
        if max_queries is None or max_queries >= len(self.query):
            return self
        random = np.random.default_rng(seed)
        classes, sizes = np.unique(self.labels[self.query], return_counts=True)
        # Ties are broken by the order of the classes, which the seed shuffles so that no class is always favoured.
        order = random.permutation(len(classes))
        classes, sizes = classes[order], sizes[order]
        shares = sizes * (max_queries / len(self.query))
        taken = np.full(len(classes), int(max_queries >= len(classes)))
        while taken.sum() < max_queries:
            taken[np.argmax(shares - taken)] += 1
        chosen = [
            random.permutation(self.query[self.labels[self.query] == label])[:count]
            for label, count in zip(classes, taken, strict=True)
        ]
        return replace(self, query=np.sort(np.concatenate(chosen)))

    def split_validation(self, classes: int, seed: int) -> tuple[Integers, RetrievalSplit | None]:
        """Hold out training classes to validate on, without a look at the test.

        The gallery holds the training rows of all classes (but those of ``train_query``): the classes that stay in
        training are distractors, so that even one held-out class gives an honest recall.

        Args:
            classes: how many training classes to hold out; 0 holds out none.
            seed: which ones.

        Returns:
            The training rows that remain, and the validation split (None where no class is held out).

        Raises:
            SpecError: ``classes`` is negative, or fewer than two training classes would remain.
        """
        labels = self.labels[self.train]
        there = np.unique(labels)
        if classes == 0:
            return self.train, None
        if not 0 < classes <= len(there) - 2:
            raise SpecError(
                f"cannot hold out {classes} of {len(there)} training classes: training needs two or more, so hold out "
                + (f"between 0 and {len(there) - 2}" if len(there) > 2 else "none")
            )
        held_out = np.isin(labels, np.random.default_rng(seed).permutation(there)[:classes])
        query, gallery = self.train[held_out], self.train
        if self.train_query is not None:
            asks = np.isin(self.train, self.train_query)
            query, gallery = self.train[held_out & asks], self.train[~asks]
        # Who was seen by one camera alone has nothing to find in re-identification.
        query = query[self.rules.counts(query, gallery)[0] > 0]
        return self.train[~held_out], RetrievalSplit(self.images, self.labels, query, gallery, self.rules)


def _labels(labels: Integers, images: int) -> Integers:
    array = np.asarray(labels)
    if array.shape != (images,) or array.dtype.kind not in "iu":
        raise DataError(
            f"labels must be {images} integers, one per image, and they are {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64)


def askers(labels: Integers, query: Integers, gallery: Integers, rules: Protocol) -> tuple[Integers, Integers]:
    """The queries that have something to find in the gallery, and those that have not.

    Raises:
        DataError: none has.
    """
    finds = rules.of(labels).counts(query, gallery)[0] > 0
    if not finds.any():
        raise DataError(
            f"none of the {len(query)} queries has anything to find: each class needs two images or more, or one in "
            "the gallery besides that of the query"
        )
    return query[finds], query[~finds]


def _rows(part: str, rows: Integers, images: int, may_be_empty: bool = False) -> Integers:
    array = np.asarray(rows)
    if array.size == 0 and may_be_empty:
        return np.empty(0, np.int64)
    if array.size == 0:
        raise DataError(f"the {part} part of the data set is empty: it needs at least one image")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{part} rows must be a list of integers, and they are {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() >= images:
        raise DataError(
            f"{part} rows must lie between 0 and {images - 1}, and they range from {array.min()} to {array.max()}"
        )
    if len(np.unique(array)) < len(array):
        raise DataError(f"some {part} rows are listed twice: list each image once")
    return array.astype(np.int64)
