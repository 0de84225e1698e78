"""The page as text: templates filled by jinja2, everything escaped, nothing fetched."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from robustdml.files import write_text
from robustdml.results import Results

from ..thresholds import Threshold
from .finishing import finished
from .history import history_page, read_history
from .view import Page, build_page

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
    return _rendered(build_page(results, Path(folder), bars))


def write_history(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Draw the headline numbers of models over evaluations into one HTML file and return its path.

    Args:
        folders: run folders, or folders that hold some right below them.
        out: the file.

    Raises:
        RunFolderError: there are fewer than two evaluations, or their headlines are different metrics.
    """
    return write_text(Path(out), _rendered(history_page(read_history([Path(folder) for folder in folders]))))


def _rendered(view: Page) -> str:
    template = _environment().get_template("report.html.j2")
    page, cards = finished(template.render(page=view, **_code()))
    # The policy and the end of the head come before every name on the page: the first of each is ours.
    page = page.replace("style-src ", f"style-src {_allowed(cards.encode())} ", 1)
    return page.replace("</head>", f"<style>{cards}</style>\n</head>", 1)


@cache
def _code() -> dict[str, str]:
    """Styles and scripts, and the hashes by which the page's policy knows them: nothing else is applied or run."""
    style, script = _verbatim("report.css", "charts.css"), _verbatim("report.js", "charts.js")
    packed = (TEMPLATES / _PLOTLY).read_bytes()
    return {
        "style": style,
        "script": script,
        "plotly": base64.b64encode(packed).decode(),
        # Plotly makes an empty style element, and fills it rule by rule.
        "style_hashes": Markup(" ").join(_allowed(part) for part in (style.encode(), b"")),
        "script_hashes": Markup(" ").join(_allowed(part) for part in (script.encode(), gzip.decompress(packed))),
    }


def _allowed(code: bytes) -> Markup:
    """The source expression of a content security policy for one style or script."""
    return Markup(f"'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'")


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


def _verbatim(*names: str) -> Markup:
    """Style sheets or scripts of this package as one, which must not be escaped."""
    return Markup("\n").join(Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in names)
