"""HTML reports: one self-contained page that is a pure function of a run folder, and needs no torch."""

from __future__ import annotations

from .html import render_report, write_report

__all__ = ["render_report", "write_report"]
