"""Line charts without a plotting library: one layout, drawn on anything that has lines, dots and text.

A `Chart` maps data to a box of WIDTH x HEIGHT pixels, linear or logarithmic in each axis; `svg` and `raster` are the
two canvases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Protocol

from proxy.planning.capacity import CapacityPlan
from proxy.planning.report import BATCHES, decode_points, memory_of_batch

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 40, 50
COLOURS = ("#1f5fa8", "#c8501e", "#3a8a3a", "#7a4fa0")
PALE, GREY, BLACK = "#ececec", "#b0b0b0", "#202020"
LEAST = 1e-9
Data = Sequence[tuple[float, float]]


class Canvas(Protocol):
    """What a chart draws on; pixels from the top left corner."""

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> None: ...

    def dot(self, x: float, y: float, colour: str) -> None: ...

    def text(self, x: float, y: float, words: str, colour: str, anchor: str = "start") -> None: ...


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    data: Data
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    label: str
    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where `value` lies between the ends, 0..1 for values inside."""
        if not self.logarithmic:
            return (value - self.low) / (self.high - self.low)
        return (log10(max(value, LEAST)) - log10(self.low)) / (log10(self.high) - log10(self.low))

    def ticks(self) -> list[float]:
        if self.logarithmic:
            return [10.0**power for power in range(ceil(log10(self.low)), floor(log10(self.high)) + 1)]
        step = 10.0 ** floor(log10((self.high - self.low) / 2))
        while (self.high - self.low) / step > 6:
            step *= 2
        return [self.low + step * index for index in range(int((self.high - self.low) / step) + 1)]


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a data point."""
        across, up = self.x.share(x), self.y.share(y)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def draw(self, canvas: Canvas, down: float = 0) -> None:
        """Draws the chart `down` pixels below the canvas's top."""
        self._frame(canvas, down)
        for index, series in enumerate(self.series):
            colour = COLOURS[index % len(COLOURS)]
            points = [(x, y + down) for x, y in (self.place(*point) for point in series.data)]
            if series.dots:
                for x, y in points:
                    canvas.dot(x, y, colour)
            else:
                canvas.line(points, colour)
            canvas.text(LEFT + 12, TOP + 16 + 14 * index + down, series.name, colour)

    def _frame(self, canvas: Canvas, down: float) -> None:
        left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP + down, HEIGHT - BOTTOM + down
        canvas.line([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], GREY)
        canvas.text(left, top - 14, self.title, BLACK)
        for tick in self.x.ticks():
            x = self.place(tick, self.y.low)[0]
            canvas.line([(x, top), (x, bottom)], PALE)
            canvas.line([(x, bottom), (x, bottom + 4)], BLACK)
            canvas.text(x, bottom + 16, f"{tick:g}", BLACK, "middle")
        for tick in self.y.ticks():
            y = self.place(self.x.low, tick)[1] + down
            canvas.line([(left, y), (right, y)], PALE)
            canvas.line([(left - 4, y), (left, y)], BLACK)
            canvas.text(left - 8, y + 4, f"{tick:g}", BLACK, "end")
        canvas.text((left + right) / 2, bottom + 36, self.x.label, BLACK, "middle")
        canvas.text(4, top - 14, self.y.label, BLACK)


def plan_charts(plan: CapacityPlan, limit_gib: float | None = None) -> list[Chart]:
    """Memory against batch size, and where each batch stands on the roofline."""
    charts = [memory_chart(plan, limit_gib)]
    return [*charts, roofline_chart(plan)] if plan.shape.parameters else charts


def memory_chart(plan: CapacityPlan, limit_gib: float | None) -> Chart:
    most = max(2, plan.seats.typical)
    batches = sorted({batch for batch in BATCHES if batch < most} | {most})
    used = [(float(batch), memory_of_batch(plan, batch) / 2**30) for batch in batches]
    total = plan.budget.bytes_of("gpu memory") / 2**30 or used[-1][1]
    series = [Series("weights, overhead and cache", used), Series("memory of the GPU", [(1, total), (most, total)])]
    if limit_gib is not None:
        series.append(Series("limit", [(1, limit_gib), (most, limit_gib)]))
    top = max(total, limit_gib or 0, used[-1][1]) * 1.15
    axis = Axis("requests at the typical length", 1, most)
    return Chart(f"{plan.shape.name} on {plan.card.name}", axis, Axis("GiB", 0, top), tuple(series))


def roofline_chart(plan: CapacityPlan) -> Chart:
    roofline = plan.roofline
    peak, bandwidth = roofline.flops / 1e12, plan.card.bandwidth_gb_s * 1e9
    points = decode_points(plan)
    dots = [(point.intensity, point.flop / point.step_s / 1e12) for point in points]
    low = 10.0 ** floor(log10(min(1.0, *(intensity for intensity, _ in dots))))
    high = 10.0 ** ceil(log10(roofline.ridge * 4))
    roof = [(low, low * bandwidth / 1e12), (roofline.ridge, peak), (high, peak)]
    prefill = roofline.prefill(min(2048, plan.context_tokens))
    series = (
        Series(f"roof, ridge {roofline.ridge:.0f}", roof),
        Series(f"decode, batch {points[0].batch} to {points[-1].batch}", dots, dots=True),
        Series("prefill", [(min(prefill.intensity, high), prefill.flop / prefill.step_s / 1e12)], dots=True),
    )
    lowest = 10.0 ** floor(log10(min(low * bandwidth / 1e12, dots[0][1])))
    y = Axis("TFLOP/s", lowest, 10.0 ** ceil(log10(peak * 1.1)), logarithmic=True)
    return Chart("Roofline", Axis("FLOP per byte", low, high, logarithmic=True), y, series)
