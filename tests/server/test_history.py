from __future__ import annotations

import tracemalloc
from typing import Any

from proxy.server.history import ROWS_MAX, History, UpstreamRow
from tests.snapshots import NOW_S, TARGETS, snapshot, upstream


def test_rows_become_columns_of_equal_length_whoever_was_there() -> None:
    history = History()
    history.note(snapshot(upstream(), queued=3), TARGETS, {"requests": 5})
    history.note(
        snapshot(upstream(), upstream("late", telemetry=None, breaker="open"), queued=0),
        TARGETS,
        {"requests": 7, "good": 1},
    )
    document: dict[str, Any] = history.document(NOW_S + 2)
    assert document["version"] == 1
    assert document["ago_s"] == [2.0, 2.0]
    assert document["queued"] == [3, 0]
    assert document["totals"] == {"requests": [5, 7], "good": [0, 1]}
    assert document["upstreams"].keys() == {"vllm-0", "late"}
    told = document["upstreams"]["vllm-0"]
    assert told.keys() == set(UpstreamRow._fields)
    assert {key: values[1] for key, values in told.items()} == {
        "usable": True,
        "limit": 12.6,
        "in_flight": 9,
        "ceiling_seats": 40,
        "engine_running": 9,
        "itl_ms": 40.0,
        "itl_target_ms": 50.0,
        "ttft_ms": 200.0,
        "ttft_target_ms": 500.0,
    }
    assert document["upstreams"]["late"]["limit"] == [None, 12.6]
    assert document["upstreams"]["late"]["usable"] == [None, False]
    assert document["upstreams"]["late"]["engine_running"] == [None, None]
    assert document["upstreams"]["late"]["itl_target_ms"] == [None, None]


def test_the_past_is_bounded_and_forgets_an_upstream_that_is_gone() -> None:
    history = History()
    history.note(snapshot(upstream("gone"), queued=9), TARGETS, {})
    for number in range(2 * ROWS_MAX):
        history.note(snapshot(upstream(), queued=number), TARGETS, {"requests": number})
        if number == ROWS_MAX - 2:
            assert history.document(NOW_S)["upstreams"]["gone"]["in_flight"] == [9, *[None] * (ROWS_MAX - 1)]
    document: dict[str, Any] = history.document(NOW_S)
    assert document["queued"] == document["totals"]["requests"] == list(range(ROWS_MAX, 2 * ROWS_MAX))
    assert document["upstreams"].keys() == {"vllm-0"}
    assert len(document["ago_s"]) == len(document["upstreams"]["vllm-0"]["limit"]) == ROWS_MAX


def test_memory_does_not_grow_while_the_rows_fill() -> None:
    history = History()
    history.note(snapshot(upstream()), TARGETS, {"requests": 1})
    tracemalloc.start()
    for _ in range(ROWS_MAX):
        history.note(snapshot(upstream()), TARGETS, {"requests": 1})
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 5_000
