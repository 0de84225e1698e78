"""The progress bar on standard error."""

from __future__ import annotations

from robustdml.progress import progress


def test_a_name_in_brackets_is_shown_as_it_is(capsys):
    with progress("evaluate", 2, enabled=True) as advance:
        advance(2, "mdprop[stax]: pgd[/x]")
    assert "mdprop[stax]: pgd[/x]" in capsys.readouterr().err
