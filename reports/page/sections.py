"""What a page is made of: a list of sections, each with data of its own and a template that prints them.

A new kind of section is a frozen dataclass of finished text, a function that makes a `Section` of it, a template that
finds the dataclass as ``data``, and a line in ``view.SECTIONS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..index import Index


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        id: of its heading, to which the navigation leads; unique on the page.
        title: what the navigation calls it; one or two words.
        template: the file that prints it.
        data: what the template prints, known to it as ``data``.
    """

    id: str
    title: str
    template: str
    data: object


#: Makes a section of a run and its folder; none where the run has nothing to show there.
Builder = Callable[[Index, Path], Section | None]
