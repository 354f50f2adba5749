"""Pictures of runs: one colour per run, panels that hold what they show, the same bytes each time."""

from __future__ import annotations

import re
import struct
import zlib
from math import inf

import pytest

from proxy.laboratory.lab import Moment
from proxy.laboratory.picture import (
    COLOURS,
    POINTS_MAX,
    WIDTH,
    Panel,
    as_html,
    as_png,
    as_svg,
    height,
    panels,
    thinned,
)


def moments(seconds: int, limit: float, proxies: int = 1) -> list[Moment]:
    return [
        Moment(float(second), proxy, "engine", limit, second, 5, 3, 7, 0.04, 100.0)
        for second in range(1, seconds + 1)
        for proxy in range(proxies)
    ]


def test_proxies_add_up_and_engines_count_once() -> None:
    limit, in_flight, queued, waiting, itl = panels([moments(10, 20.0, proxies=2)], 0.05)
    assert limit.lines[0][4] == (5.0, 40.0) and in_flight.lines[0][4] == (5.0, 10.0)
    assert queued.lines[0][4] == (5.0, 14.0) and waiting.lines[0][4] == (5.0, 3.0)
    assert itl.lines[0][4] == (5.0, 40.0) and itl.rule == 50.0


@pytest.mark.parametrize(
    ("values", "most", "rule", "top"),
    [([3.0, 9.0], inf, None, 10), ([400.0], 100.0, None, 150), ([0.0], inf, 140.0, 150), ([0.0], inf, None, 0.0015)],
)
def test_an_axis_ends_above_what_it_shows(values: list[float], most: float, rule: float | None, top: float) -> None:
    assert Panel("p", (tuple(enumerate(values)),), rule, most).top == pytest.approx(top)


def test_long_lines_are_thinned() -> None:
    assert len(thinned([(float(at), 0.0) for at in range(1000)])) <= POINTS_MAX
    assert len(thinned([(0.0, 0.0)] * 50)) == 50


def test_svg_png_and_html_show_every_run_inside_the_picture() -> None:
    shown = panels([moments(60, 20.0), moments(60, 900.0), []], 0.05, best=30.0)
    names = ["ours", "other <b>", "none"]
    svg = as_svg(names, shown)
    assert svg == as_svg(names, shown)
    assert all(colour in svg for colour in COLOURS[:2]) and "other &lt;b&gt;" in svg
    places = [
        tuple(map(float, point.split(","))) for line in re.findall(r'points="([^"]+)"', svg) for point in line.split()
    ]
    assert all(0 <= x <= WIDTH and 0 <= y <= height(5) for x, y in places)
    page = as_html(names, shown, "a <title>", "text & more")
    assert "a &lt;title&gt;" in page and "text &amp; more" in page and svg in page
    png = as_png(names, shown)
    assert struct.unpack(">II", png[16:24]) == (WIDTH, height(5))
    data = png[png.index(b"IDAT") + 4 : png.index(b"IEND") - 8]
    assert bytes.fromhex(COLOURS[0][1:]) in zlib.decompress(data)
