"""The page as text: templates filled by jinja2, everything escaped, nothing fetched."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from robustdml.files import write_text
from robustdml.results import Results

from .view import build_page

TEMPLATES = Path(__file__).with_name("templates")
REPORT_FILE = "report.html"


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Render the results of a run folder into one self-contained HTML file and return its path.

    Args:
        folder: a run folder, or the path of its ``results.json``.
        out: the file to write; ``report.html`` in the run folder by default.

    Raises:
        RunFolderError: the folder has no readable results, or a picture of them is missing.
    """
    folder = Path(folder)
    results = Results.load(folder)
    home = folder.parent if folder.is_file() else folder
    return write_text(Path(out) if out else home / REPORT_FILE, render_report(results, home))


def render_report(results: Results, folder: Path) -> str:
    """Render results into one HTML page, with the pictures of ``folder``; the same results give the same text.

    Raises:
        RunFolderError: a picture of the results is missing from the folder, or is none.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(
        page=build_page(results, folder),
        css=_verbatim("report.css"),
        charts_css=_verbatim("charts.css"),
        js=_verbatim("report.js"),
        charts_js=_verbatim("charts.js"),
        plotly=Markup(get_plotlyjs()),
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
