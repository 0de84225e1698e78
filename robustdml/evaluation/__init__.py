"""Evaluation: models under attack, judged by true retrieval."""

from robustdml.evaluation.assemble import assemble as assemble
from robustdml.evaluation.entries import metric_entries as metric_entries
from robustdml.evaluation.evaluate import evaluate as evaluate
from robustdml.evaluation.subjects import Subject as Subject
from robustdml.evaluation.subjects import load_subjects as load_subjects

__all__ = ["Subject", "assemble", "evaluate", "load_subjects", "metric_entries"]
