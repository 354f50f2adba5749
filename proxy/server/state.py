"""The document of `/admin/state` and `/admin/events`: version 1, times in milliseconds or seconds as named.

`ago_s` counts back from the moment of the document, because a monotonic clock means nothing to a reader.
Keys may be added within a version; none is renamed or removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.adapters.gauges import saturation
from proxy.admission.limits import Target
from proxy.dispatcher.snapshot import ClassSnapshot, Snapshot, UpstreamSnapshot
from proxy.types import Telemetry

VERSION = 1

Document = dict[str, Any]


def state_document(
    snapshot: Snapshot,
    targets: Mapping[str, Target],
    server: Mapping[str, Any],
    outcomes: Mapping[str, int],
    totals: Mapping[str, int],
) -> Document:
    """Everything that an operator may see: no keys, no prompts, no addresses of clients."""
    now = snapshot.at_s
    return {
        "version": VERSION,
        "server": dict(server),
        "saturation": round(saturation(snapshot), 4),
        "upstreams": [_upstream(one, targets.get(one.name), now) for one in snapshot.upstreams],
        "classes": [_class(one) for one in snapshot.classes],
        "queue_bytes": snapshot.queue_bytes,
        "drain_per_s": round(snapshot.drain_per_s, 3),
        "tenants": [{"name": t.name, "in_flight": t.in_flight, "queued": t.queued} for t in snapshot.top_tenants],
        "limit_changes": [
            {
                "ago_s": _seconds(now - step.at_s),
                "upstream": step.upstream,
                "before": round(step.before, 2),
                "after": round(step.after, 2),
                "direction": step.direction.value,
                "reason": step.reason,
            }
            for step in snapshot.steps
        ],
        "refusals": [
            {
                "ago_s": _seconds(now - one.at_s),
                "outcome": one.outcome.value,
                "class": one.class_name,
                "tenant": one.tenant,
                "detail": one.detail,
            }
            for one in snapshot.refusals
        ],
        "permits": {
            "granted": snapshot.granted,
            "released": snapshot.released,
            "held": snapshot.held,
            "leaked": snapshot.leaked,
        },
        "outcomes": dict(outcomes),
        "totals": dict(totals),
    }


def _class(one: ClassSnapshot) -> Document:
    return {
        "name": one.name,
        "queued": one.queued,
        "capacity": one.capacity,
        "oldest_wait_s": _seconds(one.oldest_wait_s),
        "backlog_s": None if one.backlog_s is None else _seconds(one.backlog_s),
    }


def _upstream(one: UpstreamSnapshot, target: Target | None, now: float) -> Document:
    sizer = one.sizer
    return {
        "name": one.name,
        "models": list(one.models),
        "engine": one.telemetry.engine if one.telemetry else "",
        "healthy": one.healthy,
        "draining": one.draining,
        "breaker": one.breaker,
        "limit": round(one.limit, 2),
        "limit_held": sizer.held,
        "limit_reason": sizer.reason,
        "ceiling_seats": one.ceiling_seats,
        "ceiling_tokens": one.ceiling_tokens,
        "ceiling_source": one.ceiling_source,
        "in_flight": one.in_flight,
        "aborting": one.aborting,
        "kv_reserved_tokens": one.kv_reserved_tokens,
        "prefill_out_tokens": round(one.prefill_out_tokens),
        "itl_ms": _ms(sizer.itl_s),
        "itl_target_ms": _ms(target.itl_s if target else None),
        "ttft_ms": _ms(sizer.ttft_s),
        "ttft_target_ms": _ms(target.ttft_s if target else None),
        "model_fit": {
            "fit_ratio": round(sizer.fit_ratio, 4),
            "kappa": sizer.kappa,
            "a_s": sizer.a,
            "b_s": sizer.b,
            "d_s": sizer.d,
            "margin": sizer.margin,
            "epoch": sizer.epoch,
        },
        **_telemetry(one.telemetry, now),
    }


def _telemetry(told: Telemetry | None, now: float) -> Document:
    return {
        "engine_running": told.running if told else None,
        "engine_waiting": told.waiting if told else None,
        "engine_kv_usage": told.kv_usage if told else None,
        "engine_preemptions": told.preemptions if told else None,
        "telemetry_age_s": _seconds(now - told.at_s) if told else None,
    }


def _seconds(value: float) -> float:
    return round(max(0.0, value), 3)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
