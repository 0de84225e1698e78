"""Papers as they were run: their tables row by row, their settings beside ours, and one command for each row."""

from robustdml.papers.mdprop import ROWS as ROWS
from robustdml.papers.mdprop import Row as Row
from robustdml.papers.reproduce import Outcome as Outcome
from robustdml.papers.reproduce import read_outcomes as read_outcomes
from robustdml.papers.reproduce import reproduce as reproduce
from robustdml.papers.settings import Difference as Difference
from robustdml.papers.settings import differences as differences
from robustdml.papers.settings import settings_of as settings_of

__all__ = [
    "ROWS",
    "Difference",
    "Outcome",
    "Row",
    "differences",
    "read_outcomes",
    "reproduce",
    "settings_of",
]
