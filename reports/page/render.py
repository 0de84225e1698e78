"""The page as text: templates filled by jinja2, everything escaped, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from robustdml.results import Results

from ..thresholds import Threshold
from .view import build_page

TEMPLATES = Path(__file__).with_name("templates")
#: The charts' script (MIT licence), as npm has it under ``plotly.js-cartesian-dist-min``, packed: what draws maps and
#: volumes is left out, which is two thirds of the whole. A browser that cannot unpack it shows the drawn charts.
_PLOTLY = "plotly-cartesian-4.1.1.min.js.gz"


def render_report(results: Results, folder: str | Path, bars: Sequence[Threshold] = ()) -> str:
    """Render results into one HTML page, with the pictures of ``folder``; the same results give the same text.

    Args:
        results: of one run, or of several merged.
        folder: the run folder.
        bars: whether each model reaches them is said first.

    Raises:
        RunFolderError: a picture of the results is missing from the folder, or is none.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(
        page=build_page(results, Path(folder), bars),
        css=_verbatim("report.css"),
        charts_css=_verbatim("charts.css"),
        js=_verbatim("report.js"),
        charts_js=_verbatim("charts.js"),
        plotly=base64.b64encode((TEMPLATES / _PLOTLY).read_bytes()).decode(),
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # NaN is no JSON: a browser would refuse the whole chart for it.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return environment


def _verbatim(name: str) -> Markup:
    """A style sheet or script of this package, which must not be escaped."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
