"""The progress bar on standard error."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from robustdml.progress import progress


def test_a_name_in_brackets_is_shown_as_it_is(capsys):
    with progress("evaluate", 2, enabled=True) as advance:
        advance(2, "mdprop[stax]: pgd[/x]")
    assert "mdprop[stax]: pgd[/x]" in capsys.readouterr().err


class Cell:
    """What a notebook shows below a cell: the last picture of its display."""

    def __init__(self):
        self.pictures = []

    def display(self, picture, *, display_id):
        self.pictures.append(picture)
        return self

    def update(self, picture):
        self.pictures.append(picture)


def test_in_a_notebook_the_bar_is_html_that_replaces_itself(capsys, monkeypatch):
    cell = Cell()
    shell = SimpleNamespace(kernel=object())
    display = SimpleNamespace(display=cell.display, HTML=str)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    with progress("evaluate", 1000, enabled=True) as advance:
        for _ in range(1000):
            advance(1, "mdprop[stax]: <i>")
    assert 'value="1000" max="1000"' in cell.pictures[-1]
    assert "mdprop[stax]: &lt;i&gt; 1,000/1,000" in cell.pictures[-1]
    assert len(cell.pictures) < 100
    assert capsys.readouterr() == ("", "")
    shell.kernel = None  # IPython in a terminal
    with progress("evaluate", 2, enabled=True) as advance:
        advance(2)
    assert "evaluate" in capsys.readouterr().err
