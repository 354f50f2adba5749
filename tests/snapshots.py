"""A dispatcher's snapshot for tests of what is shown."""

from __future__ import annotations

from typing import Any

from proxy.admission.batch_sizer import SizerState
from proxy.admission.limits import Target
from proxy.dispatcher.snapshot import ClassSnapshot, RefusalRecord, Snapshot, TenantSnapshot, UpstreamSnapshot
from proxy.types import Direction, Outcome, Step, Telemetry

NOW_S = 1000.0
TARGETS = {"vllm-0": Target(itl_s=0.05, ttft_s=0.5)}

SIZER = SizerState(
    limit=12.6,
    held=False,
    epoch=3,
    margin=0.92,
    itl_s=0.04,
    ttft_s=0.2,
    kappa=1.0,
    a=0.01,
    b=0.001,
    d=0.0001,
    fit_ratio=0.9,
    reason="headroom",
)

TELEMETRY = Telemetry(at_s=NOW_S - 1.5, running=9, waiting=0, kv_usage=0.5, preemptions=2, engine="vllm")


def upstream(name: str = "vllm-0", **changes: Any) -> UpstreamSnapshot:
    fields: dict[str, Any] = {
        "name": name,
        "models": ("llama",),
        "healthy": True,
        "draining": False,
        "breaker": "closed",
        "limit": 12.6,
        "ceiling_seats": 40,
        "ceiling_tokens": 100_000,
        "ceiling_source": "engine",
        "in_flight": 9,
        "aborting": 1,
        "prefill_out_tokens": 10.2,
        "kv_reserved_tokens": 2048,
        "telemetry": TELEMETRY,
        "sizer": SIZER,
    }
    return UpstreamSnapshot(**{**fields, **changes})


def snapshot(*upstreams: UpstreamSnapshot, queued: int = 3, released: int = 90) -> Snapshot:
    return Snapshot(
        at_s=NOW_S,
        upstreams=upstreams,
        classes=(ClassSnapshot("high", queued, 64, 1.25, 0.5), ClassSnapshot("low", 0, 128, 0.0, None)),
        queue_bytes=4096,
        top_tenants=(TenantSnapshot("acme", 9, 3),),
        steps=(Step("vllm-0", 10.0, 12.6, Direction.UP, "headroom", NOW_S - 5),),
        refusals=(RefusalRecord(NOW_S - 2, Outcome.QUEUE_FULL, "high", "acme", "class places"),),
        granted=100,
        released=released,
        held=10,
        drain_per_s=2.0,
    )
