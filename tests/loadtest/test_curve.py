from __future__ import annotations

from typing import Any

import pytest

from proxy.loadtest.curve import (
    Point,
    best_within,
    findings,
    knee,
    memory_scaling,
    pareto,
    point_of,
    saturation,
    usable,
)
from proxy.loadtest.slo import Slo
from tests.loadtest.support import record
from tests.loadtest.test_results import made


def point(setting: float, tokens_per_s: float, e2e_ms: float | None, **more: Any) -> Point:
    return Point(setting, tokens_per_s, tokens_per_s / 100, 1.0, e2e_p50_ms=e2e_ms, **more)


CURVE = [
    point(1, 100, 1000, good_ratio=1.0), point(2, 200, 1010, good_ratio=1.0), point(4, 380, 1080, good_ratio=0.97),
    point(8, 600, 1300, good_ratio=0.9), point(16, 605, 2600, good_ratio=0.2), point(32, 590, 5200, good_ratio=0.0),
]  # fmt: skip


def test_the_point_of_a_run() -> None:
    document = made("closed", Slo(5.0), record(), record(due_s=1.0))
    found = point_of(4, document)
    total = document["total"]
    assert (found.setting, found.success_rate, found.good_ratio) == (4, 1.0, 1.0)
    assert found.tokens_per_s == total["steady"]["output_tokens_per_s"] > 0
    assert (found.ttft_p50_ms, found.tpot_p99_ms) == (total["ttft_ms"]["p50"], total["tpot_ms"]["p99"])
    assert (found.running, found.kv_mean, found.preemptions) == (3, None, None)
    document["engine"], total["tpot_ms"] = None, None
    total["steady"]["output_tokens_per_s"] = 0.0
    bare = point_of(4, document)
    assert (bare.running, bare.tpot_p50_ms) == (None, None)
    assert bare.tokens_per_s == total["output_tokens_per_s"]


def test_points_without_latency_or_tokens_are_left_out_and_the_rest_is_in_order() -> None:
    assert usable([point(4, 5, 1), point(1, 0, 1), point(2, 5, None), point(3, 5, 1)]) == [
        point(3, 5, 1),
        point(4, 5, 1),
    ]


def test_the_pareto_set_has_nothing_that_another_beats_in_both() -> None:
    assert [one.setting for one in pareto(CURVE)] == [1, 2, 4, 8, 16]
    twins = [point(1, 100, 5), point(2, 100, 5)]
    assert pareto(twins) == twins


def test_the_knee_is_where_the_curve_bends() -> None:
    bend = knee(CURVE)
    assert bend is not None
    assert bend.setting == 8


@pytest.mark.parametrize(
    "points",
    [
        CURVE[:2],
        [point(1, 100, 10), point(2, 200, 20), point(3, 300, 30)],
        [point(1, 100, 10), point(2, 100, 20), point(3, 100, 30)],
        [point(1, 100, 10), point(2, 110, 20), point(3, 300, 21)],
    ],
)
def test_there_is_no_knee_without_a_bend(points: list[Point]) -> None:
    bend = knee(points)
    assert bend is None or bend.setting == 3


def test_best_settings() -> None:
    within = best_within(CURVE, 0.95)
    assert within is not None
    assert within.setting == 4
    assert best_within(CURVE[4:], 0.95) is None
    assert best_within([point(1, 1, 1)], 0.95) is None
    assert saturation(CURVE).setting == 8


def test_memory_grows_by_a_share_for_each_sequence() -> None:
    points = [point(n, n, 1, running=n, kv_mean=0.1 + 0.02 * n, kv_tokens=10_000) for n in (1.0, 5.0, 10.0)]
    found = memory_scaling(points)
    assert found is not None
    assert found.share_per_sequence == pytest.approx(0.02)
    assert found.base_share == pytest.approx(0.1)
    assert found.sequences_when_full == pytest.approx(45)
    assert found.tokens_per_sequence == pytest.approx(200)


@pytest.mark.parametrize(
    "pairs", [[], [(1.0, 0.1)], [(2.0, 0.1), (2.0, 0.2)], [(1.0, 0.3), (2.0, 0.2)], [(1.0, None), (2.0, 0.2)]]
)
def test_memory_needs_two_different_points_that_grow(pairs: list[tuple[float, float | None]]) -> None:
    assert memory_scaling([point(1, 1, 1, running=n, kv_mean=u) for n, u in pairs]) is None


def test_findings_in_one() -> None:
    found = findings(CURVE, 0.95)
    assert found["max_throughput"] == {"setting": 16, "output_tokens_per_s": 605}
    assert (found["saturated_from"], found["min_latency"], found["knee"], found["best_within_slo"]) == (8, 1, 8, 4)
    assert (found["pareto"], found["memory"]) == ([1, 2, 4, 8, 16], None)
    assert findings([point(1, 0, None)], 0.95) == {}
