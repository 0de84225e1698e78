"""What a clean retrieval is: embeddings, exact search, metrics, and the space that the embeddings lie in."""

from typing import TYPE_CHECKING

from robustdml.importing import lazily
from robustdml.retrieval.metrics import METRICS as METRICS
from robustdml.retrieval.metrics import Metric as Metric
from robustdml.retrieval.metrics import per_query as per_query

if TYPE_CHECKING:
    from robustdml.retrieval.clean import clean_health as clean_health
    from robustdml.retrieval.clean import clean_recall as clean_recall

__all__ = ["METRICS", "Metric", "clean_health", "clean_recall", "per_query"]

__getattr__, __dir__ = lazily(__name__, {"clean_health": "clean", "clean_recall": "clean"})
