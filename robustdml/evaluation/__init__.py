"""Evaluation: embed, search, attack, judge, results."""

from robustdml.evaluation.evaluate import evaluate as evaluate
from robustdml.evaluation.metrics import per_query as per_query
from robustdml.evaluation.subjects import Subject as Subject
from robustdml.evaluation.subjects import load_subjects as load_subjects

__all__ = ["Subject", "evaluate", "load_subjects", "per_query"]
