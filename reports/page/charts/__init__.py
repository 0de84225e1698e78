"""The charts of a page: each is one module that makes a `Chart` of a run, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...index import Index
from ..sections import Builder, Section
from .certified import certified_chart
from .chart import Chart
from .classes import classes_chart
from .clean_and_worst import clean_and_worst_chart
from .cost import cost_chart
from .curves import curves_chart
from .maps import maps_chart
from .natural import natural_chart
from .over_eps import over_eps_chart
from .overlap import overlap_chart
from .profile import profile_chart
from .under_attacks import under_attacks_chart


def _section(title: str, chart_of: Callable[[Index], Chart | None]) -> Builder:
    def build(index: Index, folder: Path) -> Section | None:
        chart = chart_of(index)
        return None if chart is None else Section(chart.id, title, "chart.html.j2", chart)

    return build


#: In the order of the page, with what the navigation calls them.
CHART_SECTIONS: tuple[Builder, ...] = (
    _section("Over eps", over_eps_chart),
    _section("Every eps", curves_chart),
    _section("Certified", certified_chart),
    _section("Attacks", under_attacks_chart),
    _section("Clean and worst", clean_and_worst_chart),
    _section("R@k", profile_chart),
    _section("Natural", natural_chart),
    _section("Classes", classes_chart),
    _section("Overlap", overlap_chart),
    _section("Cost", cost_chart),
    _section("Maps", maps_chart),
)
