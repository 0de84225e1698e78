"""Evaluation: models under attack, judged by true retrieval.

A run's plan is read and its results are assembled without torch: what needs it is imported when it is asked for.
"""

from typing import TYPE_CHECKING

from robustdml.evaluation.assemble import assemble as assemble
from robustdml.importing import lazily

if TYPE_CHECKING:
    from robustdml.evaluation.analyses.shown import build_panel as build_panel
    from robustdml.evaluation.checks.checking import check as check
    from robustdml.evaluation.entries import metric_entries as metric_entries
    from robustdml.evaluation.precomputed import evaluate_embeddings as evaluate_embeddings
    from robustdml.evaluation.rehearsal import rehearse as rehearse
    from robustdml.evaluation.run import evaluate as evaluate
    from robustdml.evaluation.subjects import Subject as Subject
    from robustdml.evaluation.subjects import load_subjects as load_subjects

_HOMES = {
    "build_panel": "analyses.shown",
    "check": "checks.checking",
    "Subject": "subjects",
    "evaluate": "run",
    "evaluate_embeddings": "precomputed",
    "rehearse": "rehearsal",
    "load_subjects": "subjects",
    "metric_entries": "entries",
}

__all__ = [
    "Subject",
    "assemble",
    "build_panel",
    "check",
    "evaluate",
    "evaluate_embeddings",
    "load_subjects",
    "metric_entries",
    "rehearse",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
