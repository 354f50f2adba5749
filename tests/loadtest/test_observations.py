from __future__ import annotations

from typing import Any

from proxy.loadtest.observations import KEPT, Observation, condensed


def test_gauges_are_condensed_to_full_load_and_counters_to_the_run() -> None:
    seen = [
        Observation(0.0, "vllm", running=1, kv_usage=0.0, preemptions=10),
        Observation(2.0, "vllm", running=4, kv_usage=0.4, kv_tokens=1000, gpu_utilization=0.5),
        Observation(4.0, "", running=8, kv_usage=0.8, preemptions=13),
        Observation(9.0, "vllm", running=0, kv_usage=0.0, preemptions=15),
    ]
    found: Any = condensed(seen, 1.0, 5.0)
    assert (found["engine"], found["preemptions"], found["kv_tokens"]) == ("vllm", 5, 1000)
    assert found["running"] == {"mean": 6, "peak": 8}
    assert found["kv_usage"] == {"mean": 0.6, "peak": 0.8}
    assert found["gpu_utilization"] == {"mean": 0.5, "peak": 0.5}
    assert "waiting" not in found
    assert found["series"][0] == {"at_s": 0.0, "engine": "vllm", "running": 1, "kv_usage": 0.0, "preemptions": 10}


def test_a_short_run_takes_what_there_is_and_silence_is_nothing() -> None:
    found: Any = condensed([Observation(0.0, running=3)], 5.0, 6.0)
    assert found["running"]["mean"] == 3
    assert condensed([Observation(0.0), Observation(1.0)], 0.0, 2.0) is None
    assert condensed([], 0.0, 2.0) is None


def test_a_restart_is_no_negative_count_and_the_series_is_bounded() -> None:
    found: Any = condensed([Observation(float(at), preemptions=5000 - at) for at in range(5000)], 0.0, 5000.0)
    assert found["preemptions"] == 0
    assert len(found["series"]) <= KEPT
