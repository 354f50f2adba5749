"""Where data lands on a chart, and what a plan's charts show."""

from __future__ import annotations

import pytest

from proxy.planning.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Chart,
    Series,
    memory_chart,
    plan_charts,
)
from proxy.planning.shapes import read_shape
from tests.planning.support import config, planned


def test_axes() -> None:
    assert Axis("", 0, 10).share(5) == 0.5
    assert Axis("", 1, 100, logarithmic=True).share(10) == 0.5
    assert Axis("", 1, 100, logarithmic=True).ticks() == [1, 10, 100]
    assert Axis("", 0, 80).ticks() == [0, 20, 40, 60, 80]
    assert 3 <= len(Axis("", 1, 205).ticks()) <= 7


def test_corners() -> None:
    chart = Chart("", Axis("", 0, 1), Axis("", 0, 1), ())
    assert chart.place(0, 0) == (LEFT, HEIGHT - BOTTOM)
    assert chart.place(1, 1) == (WIDTH - RIGHT, TOP)


class Recorder:
    def __init__(self) -> None:
        self.lines: list[list[tuple[float, float]]] = []
        self.dots: list[tuple[float, float]] = []
        self.words: list[str] = []

    def line(self, points: object, colour: str) -> None:
        self.lines.append(list(points))  # type: ignore[call-overload]

    def dot(self, x: float, y: float, colour: str) -> None:
        self.dots.append((x, y))

    def text(self, x: float, y: float, words: str, colour: str, anchor: str = "start") -> None:
        self.words.append(words)


def test_drawing_moves_down_as_a_whole() -> None:
    series = (Series("line", [(0, 0), (1, 1)]), Series("dots", [(0.5, 0.5)], dots=True))
    chart = Chart("title", Axis("x", 0, 1), Axis("y", 0, 1), series)
    first, second = Recorder(), Recorder()
    chart.draw(first)
    chart.draw(second, down=100)
    assert second.dots == [(x, y + 100) for x, y in first.dots]
    assert second.lines[-1] == [(x, y + 100) for x, y in first.lines[-1]]
    assert {"title", "x", "y", "line", "dots"} <= set(first.words)


def test_charts_of_a_plan_stay_inside_their_frames() -> None:
    for model, card in (("llama-3.1-8b", "h100"), ("llama-2-7b-awq", "t4"), ("llama-3.1-405b", "h100")):
        for chart in plan_charts(planned(model, card, max_model_len=2048), limit_gib=40.0):
            for series in chart.series:
                for x, y in series.data:
                    assert -0.01 <= chart.x.share(x) <= 1.01
                    assert -0.01 <= chart.y.share(y) <= 1.01


def test_what_the_charts_hold() -> None:
    plan = planned("llama-3.1-8b", max_model_len=8192)
    assert [len(chart.series) for chart in plan_charts(plan)] == [2, 3]
    assert [series.name for series in memory_chart(plan, 40.0).series][-1] == "limit"
    bare = planned(read_shape(config(head_dim=64, hidden_size=None)), weights_gib=1.0)
    assert len(plan_charts(bare)) == 1


@pytest.mark.parametrize("free", [10.0, 60.0])
def test_a_plan_from_free_memory_has_a_chart_too(free: float) -> None:
    assert memory_chart(planned(engine="tensorrt-llm", free_memory_gib=free), None).y.high > 0
