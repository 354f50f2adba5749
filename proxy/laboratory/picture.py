"""Limit, in flight, queue and latency over time, of one or several runs below one another.

Panels share the time axis. A run is one colour in all of them; what lies above a panel's top is cut there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, inf, log10

from proxy.laboratory.lab import Moment
from proxy.planning.charts import Canvas
from proxy.planning.drawing import STYLE, PngCanvas, SvgCanvas

WIDTH, PANEL, LEFT, RIGHT, HEAD, FOOT = 860, 130, 64, 14, 30, 34
GAP = 22
COLOURS = ("#1f5fa8", "#c8501e", "#3a8a3a", "#7a4fa0", "#b08a00", "#5a6a78", "#c03878", "#1f9a9a")
GREY, BLACK = "#b8b8b8", "#202020"
POINTS_MAX = 240
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram. `lines` in the order of the runs; `rule` is a level to compare with; `most` cuts the axis."""

    title: str
    lines: tuple[Points, ...]
    rule: float | None = None
    most: float = inf

    @property
    def top(self) -> float:
        """End of the axis: 1, 2 or 5 times a power of ten above all that is shown."""
        values = [min(value, self.most) for line in self.lines for _, value in line]
        high = max([*values, self.rule or 0.0, 1e-3]) * 1.05
        power = 10.0 ** floor(log10(high))
        return next(step * power for step in (1, 1.5, 2, 3, 5, 7.5, 10) if step * power >= high)


def thinned(points: Sequence[tuple[float, float]]) -> Points:
    """Every k-th point, so that at most `POINTS_MAX` are left."""
    step = max(1, ceil(len(points) / POINTS_MAX))
    return tuple(points[::step])


def panels(runs: Sequence[Sequence[Moment]], itl_target_s: float, best: float | None = None) -> list[Panel]:
    """The four usual ones. `best`: a limit to compare with; what several proxies do is summed."""
    rows = [_summed(moments) for moments in runs]
    ceiling = 2.0 * best if best else inf

    def lines(pick: int) -> tuple[Points, ...]:
        return tuple(thinned([(row[0], row[pick]) for row in moments]) for moments in rows)

    return [
        Panel("limit", lines(1), best, ceiling),
        Panel("in flight", lines(2), best, ceiling),
        Panel("waiting in our queue", lines(3)),
        Panel("waiting in the engine", lines(4)),
        Panel("ms per token", lines(5), 1000 * itl_target_s, 4000 * itl_target_s),
    ]


def _summed(moments: Sequence[Moment]) -> list[tuple[float, ...]]:
    """(time, limit, in flight, queued, waiting, ms per token) over all proxies and upstreams."""
    rows: dict[float, list[float]] = {}
    engines: set[tuple[float, str]] = set()
    queues: set[tuple[float, int]] = set()
    for one in moments:
        row = rows.setdefault(one.at_s, [0.0] * 5)
        row[0] += min(one.limit, 1e4)
        row[1] += one.in_flight
        row[2] += one.queued * ((one.at_s, one.proxy) not in queues)
        row[3] += one.waiting * ((one.at_s, one.upstream) not in engines)
        row[4] = max(row[4], 1000 * one.itl_s)
        queues.add((one.at_s, one.proxy))
        engines.add((one.at_s, one.upstream))
    return [(at_s, *row) for at_s, row in sorted(rows.items())]


def height(count: int) -> int:
    """Pixels that so many panels need."""
    return HEAD + count * (PANEL + GAP) + FOOT


def draw(canvas: Canvas, names: Sequence[str], shown: Sequence[Panel]) -> None:
    """Legend, then the panels; the time axis is that of the longest line."""
    across = LEFT
    for index, name in enumerate(names):
        canvas.line([(across, 14), (across + 18, 14)], COLOURS[index % len(COLOURS)])
        canvas.text(across + 23, 18, name, BLACK)
        across += 44 + 7 * len(name)
    end_s = max((line[-1][0] for panel in shown for line in panel.lines if line), default=1.0)
    for index, panel in enumerate(shown):
        _panel(canvas, panel, HEAD + index * (PANEL + GAP) + GAP - 6, end_s)
    base = HEAD + len(shown) * (PANEL + GAP) + 10
    for at_s in _ticks(end_s):
        canvas.text(_across(at_s, end_s), base, f"{at_s:g}", BLACK, "middle")
    canvas.text(WIDTH / 2, base + 16, "seconds", BLACK, "middle")


def _panel(canvas: Canvas, panel: Panel, above: float, end_s: float) -> None:
    top, right, below = panel.top, WIDTH - RIGHT, above + PANEL

    def down(value: float) -> float:
        return below - min(value, top) / top * PANEL

    for share in (0.0, 0.5, 1.0):
        canvas.line([(LEFT, down(share * top)), (right, down(share * top))], GREY)
        canvas.text(LEFT - 6, down(share * top) + 4, f"{share * top:g}", BLACK, "end")
    canvas.text(LEFT, above - 4, panel.title, BLACK)
    if panel.rule is not None:
        dash, gap = 8, 6
        for left in range(LEFT, right - dash, dash + gap):
            canvas.line([(left, down(panel.rule)), (left + dash, down(panel.rule))], BLACK)
    for index in reversed(range(len(panel.lines))):  # the first is drawn last, on top
        points = [(_across(at_s, end_s), down(value)) for at_s, value in panel.lines[index]]
        if points:
            canvas.line(points, COLOURS[index % len(COLOURS)])


def _across(at_s: float, end_s: float) -> float:
    return LEFT + at_s / end_s * (WIDTH - LEFT - RIGHT)


def _ticks(end_s: float) -> list[float]:
    step = 10.0 ** floor(log10(max(end_s, 1e-6)))
    while end_s / step < 4:
        step /= 2
    return [step * index for index in range(floor(end_s / step) + 1)]


def as_svg(names: Sequence[str], shown: Sequence[Panel]) -> str:
    """A file of its own."""
    canvas = SvgCanvas()
    draw(canvas, names, shown)
    size = f'width="{WIDTH}" height="{height(len(shown))}" viewBox="0 0 {WIDTH} {height(len(shown))}"'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    body = "\n".join(canvas.elements)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n{ground}\n{body}\n</svg>\n'


def as_png(names: Sequence[str], shown: Sequence[Panel]) -> bytes:
    """Pixels, without any library."""
    canvas = PngCanvas(WIDTH, height(len(shown)))
    draw(canvas, names, shown)
    return canvas.encoded()


def as_html(names: Sequence[str], shown: Sequence[Panel], title: str, text: str) -> str:
    """One page without scripts or foreign addresses: the picture, then a text."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>\n{as_svg(names, shown)}"
        f"<pre>{escape(text)}</pre></body></html>\n"
    )
