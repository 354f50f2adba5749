from __future__ import annotations

import math
import random
import statistics
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.loadtest.records import Ending
from proxy.loadtest.slo import Slo
from proxy.loadtest.stats import Sketch, examples, gaps, metrics, percentile, sketch_summary, summary
from tests.loadtest.support import record, tally_of


@given(st.lists(st.floats(0, 1e3), min_size=2, max_size=60))
@settings(max_examples=60, deadline=None)
def test_percentiles_agree_with_the_library_s_inclusive_method(values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    ordered = sorted(values)
    for percent in (50, 90, 95, 99):
        assert percentile(ordered, percent) == pytest.approx(cuts[percent - 1], rel=1e-9, abs=1e-9)


def test_percentiles_of_one_value_and_the_summary_of_none() -> None:
    assert percentile([3.0], 99) == 3
    assert summary([]) is None
    assert sketch_summary(Sketch()) is None
    assert summary([0.002, 0.001]) == {
        "count": 2, "mean": 1.5, "p50": 1.5, "p90": 1.9, "p95": 1.95, "p99": 1.99, "max": 2.0,
    }  # fmt: skip


def test_the_sketch_is_within_a_quarter_of_a_percent_of_exact_ranks() -> None:
    rng = random.Random(5)
    values = [rng.lognormvariate(-4, 1) for _ in range(20_000)]
    one, other = Sketch(), Sketch()
    for index, value in enumerate(values):
        (one if index % 2 else other).add(value)
    one.merge(other)
    ordered = sorted(values)
    for percent in (1, 50, 90, 95, 99, 99.9):
        exact = ordered[math.floor((len(ordered) - 1) * percent / 100)]
        assert one.percentile(percent) == pytest.approx(exact, rel=0.003)
    shown = sketch_summary(one)
    assert shown is not None
    assert shown["count"] == 20_000
    assert shown["max"] == pytest.approx(ordered[-1] * 1e3, abs=1e-4)
    assert shown["mean"] == pytest.approx(statistics.fmean(values) * 1e3, abs=1e-3)
    assert Sketch().percentile(50) == 0


@pytest.mark.parametrize(
    ("stamps", "per_event", "expected", "longest"),
    [
        ([1.0, 1.1, 1.3], 1.0, {0.1: 1, 0.2: 1}, 0.2),
        ([1.0, 1.3, 1.3, 1.3], 1.0, {0.1: 3}, 0.3),  # three events in one read
        ([1.0, 1.3], 3.0, {0.1: 3}, 0.3),  # three tokens in one event
        ([1.0, 1.0], 1.0, {}, 0.0),  # no time between them
        ([1.0], 1.0, {}, 0.0),
        ([], 1.0, {}, 0.0),
    ],
)
def test_gaps_are_shared_by_the_tokens_that_came_together(
    stamps: list[float], per_event: float, expected: dict[float, int], longest: float
) -> None:
    sketch = Sketch()
    assert gaps(array("d", stamps), per_event, sketch) == pytest.approx(longest)
    assert sketch.total == sum(expected.values())
    assert sketch.sum_s == pytest.approx(sum(value * times for value, times in expected.items()))


def figures(*records: Any, slo: Slo | None = None, **more: Any) -> dict[str, Any]:
    return metrics(tally_of(*records, **more).whole(), slo or Slo(), more.get("from_s", 0.0), 10.0)


def test_the_figures_of_known_requests() -> None:
    records = [
        record(due_s=0.0, ttft_s=0.5, itl_s=0.1, tokens=6, queue_s=0.25),
        record(due_s=1.0, ttft_s=0.1, itl_s=0.05, tokens=21, flow="g"),
        record(due_s=2.0, ending=Ending.STATUS, status=429, queue_s=0.5),
        record(due_s=0.5, ending=Ending.INTERRUPTED),
    ]
    found = figures(*records, slo=Slo(0.2, 0.06))
    assert (found["requests"], found["successes"], found["success_rate"], found["interrupted"]) == (3, 2, 0.666667, 1)
    assert (found["endings"], found["statuses"]) == ({"success": 2, "status": 1}, {"200": 2, "429": 1})
    window_s = 2.0 + 0.1 + 0.02 * 10
    assert found["window_s"] == pytest.approx(window_s)
    assert found["requests_per_s"] == pytest.approx(2 / window_s, abs=1e-4)
    assert found["output_tokens_per_s"] == pytest.approx(27 / window_s, abs=1e-4)
    assert found["total_tokens_per_s"] == pytest.approx(37 / window_s, abs=1e-4)
    assert found["ttft_ms"]["p50"] == pytest.approx(300)
    assert found["tpot_ms"]["max"] == pytest.approx(100)
    assert found["itl_ms"]["count"] == 25
    assert found["e2e_ms"]["max"] == pytest.approx(1100)
    assert found["queue_ms"]["mean"] == pytest.approx(375)
    assert found["tokens_per_event"] == 1
    assert found["goodput"] == {
        "slo": "ttft=200ms,itl=60ms", "ratio": 0.333333, "requests_per_s": pytest.approx(1 / window_s, abs=1e-4),
        "output_tokens_per_s": pytest.approx(21 / window_s, abs=1e-3),
    }  # fmt: skip
    assert figures(*records)["goodput"] is None


def test_full_load_counts_what_came_in_its_time() -> None:
    before = record(due_s=0.0, ttft_s=1.0, itl_s=0.5, tokens=9, output_tokens=18)  # 1.0 to 5.0 s, two tokens an event
    cut = record(due_s=4.0, ttft_s=0.5, itl_s=0.5, tokens=9, ending=Ending.INTERRUPTED)
    cut.first_s, cut.last_s, cut.events, cut.output_tokens = 4.5, 8.5, 9, 9
    unstreamed = record(due_s=4.0, first_s=None, last_s=None, events=0, output_tokens=5)
    unstreamed.ended_s = 5.5
    found = figures(before, cut, unstreamed, from_s=2.0, until_s=6.0)["steady"]
    assert found["output_tokens_per_s"] == pytest.approx((7 * 2 + 3 + 5) / 10)
    assert found["requests_per_s"] == pytest.approx(2 / 10)


def test_work_carried_over_from_the_warm_up_counts_for_rates_alone() -> None:
    early = record(due_s=0.0, ttft_s=1.0, itl_s=0.5, tokens=9, warmup=True)  # 1.0 to 5.0 s
    plain = record(due_s=0.0, first_s=None, last_s=None, events=0, output_tokens=5, warmup=True, ended_s=3.0)
    over = record(due_s=0.0, ttft_s=1.0, itl_s=0.01, tokens=9, warmup=True)  # ended before
    failed = record(due_s=0.0, ending=Ending.RESET, warmup=True, ended_s=9.0)
    counted = record(due_s=3.0, ttft_s=1.0, itl_s=0.5, tokens=9)  # 4.0 to 8.0 s
    found = figures(early, plain, over, failed, counted, from_s=2.0, until_s=6.0)
    assert (found["requests"], found["output_tokens"], found["itl_ms"]["count"]) == (1, 9, 8)
    assert found["window_s"] == 6.0
    assert found["requests_per_s"] == pytest.approx(3 / 6)
    assert found["output_tokens_per_s"] == pytest.approx((9 + 7 + 5) / 6)
    assert found["total_tokens_per_s"] == pytest.approx((9 + 7 + 5 + 15) / 6)


def test_no_requests_are_no_figures() -> None:
    found = figures()
    assert (found["requests"], found["requests_per_s"], found["ttft_ms"], found["success_rate"]) == (0, 0, None, 0)
    assert metrics(tally_of().whole(), Slo(), 0.0, 0.0)["steady"] == {
        "seconds": 0, "requests_per_s": 0, "output_tokens_per_s": 0,
    }  # fmt: skip


def test_one_example_for_each_kind_of_failure() -> None:
    records = [
        record(ending=Ending.STATUS, detail="status 500: first"),
        record(ending=Ending.STATUS, detail="status 500: second"),
        record(ending=Ending.RESET, detail=""),
        record(detail="not a failure"),
    ]
    assert examples(records) == {"status": "status 500: first"}


def test_usage_problems_and_reconnects_are_counted() -> None:
    found = figures(record(usage_problem="missing", tokens_from="events"), record(reconnects=1))
    assert (found["usage_problems"], found["reconnects"]) == ({"missing": 1}, 1)
