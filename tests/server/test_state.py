from __future__ import annotations

from typing import Any

import orjson

from proxy.server.state import state_document
from tests.snapshots import TARGETS, snapshot, upstream


def document(*upstreams: Any, released: int = 90) -> dict[str, Any]:
    made = state_document(
        snapshot(*upstreams, released=released), TARGETS, {"version": "1"}, {"success": 5}, {"requests": 6}
    )
    loaded: dict[str, Any] = orjson.loads(orjson.dumps(made))
    return loaded


def test_the_document_has_every_promised_part() -> None:
    state = document(upstream())
    assert state["version"] == 1
    assert state["server"] == {"version": "1"}
    assert state["outcomes"] == {"success": 5}
    assert state["totals"] == {"requests": 6}
    assert state["classes"][0] == {
        "name": "high",
        "queued": 3,
        "capacity": 64,
        "oldest_wait_s": 1.25,
        "backlog_s": 0.5,
    }
    assert state["classes"][1]["backlog_s"] is None
    assert state["tenants"] == [{"name": "acme", "in_flight": 9, "queued": 3}]
    assert state["limit_changes"] == [
        {"ago_s": 5.0, "upstream": "vllm-0", "before": 10.0, "after": 12.6, "direction": "up", "reason": "headroom"}
    ]
    assert state["refusals"] == [
        {"ago_s": 2.0, "outcome": "queue_full", "class": "high", "tenant": "acme", "detail": "class places"}
    ]
    assert state["permits"] == {"granted": 100, "released": 90, "held": 10, "leaked": 0}
    assert document(released=85)["permits"]["leaked"] == 5


def test_an_upstream_is_shown_whole() -> None:
    [one] = document(upstream())["upstreams"]
    fit = one.pop("model_fit")
    assert fit == {"fit_ratio": 0.9, "kappa": 1.0, "a_s": 0.01, "b_s": 0.001, "d_s": 0.0001, "margin": 0.92, "epoch": 3}
    assert one == {
        "name": "vllm-0",
        "models": ["llama"],
        "engine": "vllm",
        "healthy": True,
        "draining": False,
        "breaker": "closed",
        "limit": 12.6,
        "limit_held": False,
        "limit_reason": "headroom",
        "ceiling_seats": 40,
        "ceiling_tokens": 100_000,
        "ceiling_source": "engine",
        "in_flight": 9,
        "aborting": 1,
        "kv_reserved_tokens": 2048,
        "prefill_out_tokens": 10,
        "itl_ms": 40.0,
        "itl_target_ms": 50.0,
        "ttft_ms": 200.0,
        "ttft_target_ms": 500.0,
        "engine_running": 9,
        "engine_waiting": 0,
        "engine_kv_usage": 0.5,
        "engine_preemptions": 2,
        "telemetry_age_s": 1.5,
    }


def test_what_is_not_known_is_null() -> None:
    [one] = document(upstream("silent", telemetry=None))["upstreams"]
    assert one["engine"] == ""
    assert {one[key] for key in ("engine_running", "telemetry_age_s", "itl_target_ms", "ttft_target_ms")} == {None}
