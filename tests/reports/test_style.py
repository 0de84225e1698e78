"""How numbers are written, and whether the colours can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import robustdml.reports
from robustdml.reports import text

CSS = Path(robustdml.reports.__file__).parent / "page" / "templates" / "report.css"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.fraction(0.12345), "0.123"),
        (text.fraction(0.0), "0.000"),
        (text.fraction(None), "—"),
        (text.norm(8 / 255, "linf"), "8.00/255"),
        (text.norm(0.51234, "l2"), "L2 0.5123"),
        (text.norm(None, "linf"), "—"),
        (text.count(1234567), "1,234,567"),
        (text.counted(1, "class", "classes"), "1 class"),
        (text.counted(2, "class", "classes"), "2 classes"),
        (text.duration(59.94), "59.9 s"),
        (text.duration(59.97), "1 min 0 s"),
        (text.duration(200), "3 min 20 s"),
        (text.duration(3599.7), "1 h 0 min"),
        (text.moment("2026-01-02T03:04:05Z"), "2026-01-02 03:04 UTC"),
        (text.moment("2026-01-02T05:04:05+02:00"), "2026-01-02 03:04 UTC"),
        (text.moment("2026-01-02T03:04:05"), "2026-01-02 03:04 UTC"),
        (text.moment("yesterday"), "yesterday"),
        (text.shortened("abcdef", 6), "abcdef"),
        (text.shortened("abcdefg", 6), "abcde…"),
    ],
)
def test_numbers_and_names_are_written_one_way(shown, expected):
    assert shown == expected


def palettes():
    light, dark = re.findall(r":root \{([^}]*)\}", CSS.read_text(encoding="utf-8"))[:2]
    return {
        name: dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for name, block in (("light", light), ("dark", dark))
    }


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(scheme):
    palette = palettes()[scheme]
    grounds = {
        "ink": ("page", "surface", "flag", "lowest"),
        "muted": ("page", "surface", "lowest", "flag"),
        "accent": ("page", "surface", "flag"),
        "wrong": ("surface", "lowest"),
        "right": ("surface",),
    }
    low = [
        (name, ground)
        for name, found in grounds.items()
        for ground in found
        if contrast(palette[name], palette[ground]) < 4.5
    ]
    assert low == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_series_stand_out_from_the_ground(scheme):
    palette = palettes()[scheme]
    series = [name for name in palette if name.startswith("series-")]
    assert len(series) == 6
    assert [name for name in series if contrast(palette[name], palette["surface"]) < 3] == []
