"""The results of an evaluation: the product that every report renders.

``results.json`` in a run folder is `Results`, written by the evaluator and read by anyone; this module needs no torch.
All recalls and shares are fractions in [0, 1]; budgets and norms are in pixels of [0, 1]; times are in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from robustdml.errors import RunFolderError
from robustdml.files import write_text

#: Raised by one when a field changes its meaning or goes; new optional fields do not raise it.
SCHEMA_VERSION = 1

RESULTS_FILE = "results.json"


class _Record(BaseModel):
    # NaN and infinity are refused: a number that cannot be shown as one must be absent, with a reason beside it.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metrics(_Record):
    """Means over the queries. R@k: one of the first k is relevant; MAP@R and R-precision: Musgrave et al. 2020."""

    recall_at_1: float
    recall_at_2: float
    recall_at_4: float
    recall_at_8: float
    map_at_r: float
    r_precision: float


class Score(_Record):
    """Metrics with the 95 % interval of R@1 from a bootstrap over classes (queries of a class are not independent)."""

    metrics: Metrics
    recall_at_1_low: float
    recall_at_1_high: float


class DatasetEntry(_Record):
    """What was retrieved from what."""

    name: str
    protocol: str
    image_size: int
    classes: int
    queries: int
    queries_available: int
    gallery: int
    leave_self_out: bool
    #: Expected R@1 of a random ranking: the mean share of the gallery that is relevant.
    chance_recall_at_1: float
    fingerprint: str


class Health(_Record):
    """Whether the embedding space is alive: a collapsed one is hard to attack and useless."""

    effective_rank: float
    mean_cosine: float
    collapsed: bool


class ModelEntry(_Record):
    """One model that was evaluated."""

    name: str
    source: str
    #: SHA-256 over names, shapes and values of the weights and buffers.
    fingerprint: str
    architecture: str
    method: str | None
    embedding_dim: int
    parameters: int
    clean: Score
    health: Health


class AttackEntry(_Record):
    """One attack that was run: its configuration in full, without the budget."""

    #: The spec that builds it again, and the key of its cells: ``pgd(goal=margin, steps=20, …)``.
    spec: str
    #: A short name for tables, unique within the run.
    name: str
    library: str
    goal: str
    knowledge: Literal["gradients", "scores", "decisions", "none"]
    norm: str
    citations: tuple[str, ...]


class Cell(_Record):
    """One model under one attack at one budget."""

    model: str
    #: The spec of the attack.
    attack: str
    eps: float
    status: Literal["ok", "failed"]
    #: Why it failed; None exactly when it did not.
    reason: str | None = None
    #: None exactly when it failed.
    score: Score | None = None
    #: Adversarial over clean R@1; None when the clean R@1 is 0.
    relative_recall: float | None = None
    #: The largest norm of a perturbation as the attack returned it, and after the evaluator enforced the budget.
    largest_norm_returned: float | None = None
    largest_norm: float | None = None
    #: Queries that came back outside of the budget (and were projected), and that came back unchanged.
    queries_projected: int = 0
    queries_unchanged: int = 0
    #: Images that passed through the model while the attack ran: its cost.
    forward_images: int = 0
    seconds: float = 0.0

    @model_validator(mode="after")
    def _score_or_reason(self) -> Cell:
        if (self.status == "ok") != (self.score is not None) or (self.status == "failed") != (self.reason is not None):
            raise ValueError("a cell has a score when it is ok, and a reason when it failed")
        return self


class WorstCase(_Record):
    """One model at one budget, each query under the attack that hurts it most (of all run at this or a smaller eps)."""

    model: str
    eps: float
    score: Score
    relative_recall: float | None
    #: Attacks at this eps that were judged, and that failed (and so are not part of the worst case).
    attacks: int
    attacks_failed: int


class Caution(_Record):
    """Something that a reader must know before believing the numbers."""

    slug: str
    message: str
    remedy: str
    model: str | None = None
    #: The spec of the attack.
    attack: str | None = None


class Hit(_Record):
    """A gallery item in a ranked list or a target, with its picture relative to the run folder."""

    id: int
    class_name: str
    relevant: bool
    image: str


class Example(_Record):
    """One attacked query with its pictures and its ranked lists, for the gallery."""

    model: str
    #: The spec of the attack.
    attack: str
    eps: float
    query_id: int
    class_name: str
    image: str
    adversarial_image: str
    #: The signed perturbation around mid-grey, multiplied so that eps becomes full contrast.
    perturbation_image: str
    amplification: float
    clean_top: tuple[Hit, ...]
    adversarial_top: tuple[Hit, ...]
    targets: tuple[Hit, ...] = ()


class Environment(_Record):
    """Where it ran."""

    python: str
    platform: str
    device: str
    packages: dict[str, str]


class EvalSpec(_Record):
    """All that changes the numbers of an evaluation; its hash is the run's fingerprint."""

    dataset: str
    dataset_fingerprint: str
    image_size: int
    #: Name and weight fingerprint of each model.
    models: tuple[tuple[str, str], ...]
    #: Spec and eps of each attack.
    attacks: tuple[tuple[str, float], ...]
    max_queries: int | None
    seed: int
    shard_size: int
    version: str


class Results(_Record):
    """A whole evaluation."""

    schema_version: int = SCHEMA_VERSION
    robustdml_version: str
    #: When the run was assembled, ISO 8601 in UTC.
    created: str
    fingerprint: str
    spec: EvalSpec
    dataset: DatasetEntry
    models: tuple[ModelEntry, ...]
    attacks: tuple[AttackEntry, ...]
    cells: tuple[Cell, ...]
    worst: tuple[WorstCase, ...]
    warnings: tuple[Caution, ...]
    examples: tuple[Example, ...]
    environment: Environment
    #: BibTeX by citation key, of everything that was used.
    citations: dict[str, str]
    #: Of the call that finished the run; each cell has its own.
    seconds: float

    def save(self, folder: Path) -> Path:
        """Write ``results.json`` into ``folder`` in one step (a reader never sees half a file) and return its path."""
        return write_text(folder / RESULTS_FILE, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read the results of a run folder (or a path to its ``results.json``).

        Raises:
            RunFolderError: there are none, they are damaged, or a newer robustdml wrote them.
        """
        path = folder if folder.is_file() else folder / RESULTS_FILE
        if not path.is_file():
            raise RunFolderError(
                f"no {RESULTS_FILE} in '{folder}': give the --out folder of a finished 'robustdml evaluate'"
            )
        try:
            results = cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RunFolderError(
                f"'{path}' is not a results file of schema {SCHEMA_VERSION} ({where}: {first['msg']}): "
                "evaluate again, or use the robustdml version that wrote it"
            ) from None
        if results.schema_version != SCHEMA_VERSION:
            raise RunFolderError(
                f"'{path}' has schema version {results.schema_version}, this robustdml reads {SCHEMA_VERSION}: "
                "use the robustdml version that wrote it, or evaluate again"
            )
        return results
