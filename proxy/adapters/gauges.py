"""Gauges read from the dispatcher's snapshot at the moment that somebody asks for the metrics.

saturation = min(1, (running + waiting) / seats of usable upstreams), 1 where there is no seat: what autoscalers need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.adapters import metrics as m
from proxy.adapters.histograms import Exposed, Family, Labels, label_text
from proxy.adapters.metrics import Metrics
from proxy.admission.limits import Target
from proxy.dispatcher.snapshot import Snapshot, UpstreamSnapshot
from proxy.types import Telemetry

BREAKER_VALUES: Final = {"closed": 0, "half_open": 1, "open": 2}

Values = Iterator[tuple[Family, Labels, float | None]]


def saturation(snapshot: Snapshot) -> float:
    """0..1: how much of the room that exists is asked for."""
    usable = [one for one in snapshot.upstreams if one.healthy and not one.draining and one.breaker != "open"]
    seats = sum(int(one.limit) for one in usable)
    wanted = sum(one.in_flight for one in usable) + sum(one.queued for one in snapshot.classes)
    return min(1.0, wanted / seats) if seats > 0 else 1.0


def gauges(snapshot: Snapshot, targets: Mapping[str, Target], version: str) -> list[Exposed]:
    """Every gauge as of the snapshot; `targets` by upstream. A value that is not known has no series."""
    families: dict[str, Exposed] = {}
    for family, labels, value in _all(snapshot, targets, version):
        exposed = families.setdefault(family.name, Exposed(family, []))
        if value is not None:
            exposed.values.append((tuple(map(label_text, labels)), float(value)))
    return list(families.values())


def _all(snapshot: Snapshot, targets: Mapping[str, Target], version: str) -> Values:
    yield m.BUILD, (version,), 1
    yield m.LEAKED, (), snapshot.leaked
    yield m.SATURATION, (), saturation(snapshot)
    yield m.QUEUE_BYTES, (), snapshot.queue_bytes
    for one in snapshot.classes:
        yield m.QUEUE_DEPTH, (one.name,), one.queued
        yield m.QUEUE_CAPACITY, (one.name,), one.capacity
        yield m.QUEUE_OLDEST, (one.name,), one.oldest_wait_s
        yield m.BACKLOG, (one.name,), one.backlog_s
    for upstream in snapshot.upstreams:
        yield from _upstream(upstream)
        yield from _telemetry((upstream.name,), upstream.telemetry, snapshot.at_s)
        target = targets.get(upstream.name)
        if target is not None:
            yield m.LATENCY_TARGET, (upstream.name, "itl"), target.itl_s
            yield m.LATENCY_TARGET, (upstream.name, "ttft"), target.ttft_s


def _upstream(one: UpstreamSnapshot) -> Values:
    name = (one.name,)
    sizer = one.sizer
    yield m.UPSTREAM_UP, name, one.healthy
    yield m.BREAKER, name, BREAKER_VALUES[one.breaker]
    yield m.LIMIT, name, one.limit
    yield m.IN_FLIGHT, name, one.in_flight
    yield m.ABORTING, name, one.aborting
    yield m.DRAINING, name, one.draining
    yield m.CEILING_SEATS, name, one.ceiling_seats
    yield m.CEILING_TOKENS, name, one.ceiling_tokens
    yield m.KV_RESERVED, name, one.kv_reserved_tokens
    yield m.MODEL_FIT, name, sizer.fit_ratio
    for term, value in (("kappa", sizer.kappa), ("a", sizer.a), ("b", sizer.b), ("d", sizer.d)):
        yield m.MODEL_COEFFICIENT, (one.name, term), value


def _telemetry(name: Labels, told: Telemetry | None, now: float) -> Values:
    if told is None:
        return
    yield m.TELEMETRY_AGE, name, max(0.0, now - told.at_s)
    yield m.ENGINE_RUNNING, name, told.running
    yield m.ENGINE_WAITING, name, told.waiting
    yield m.ENGINE_KV_USAGE, name, told.kv_usage
    yield m.ENGINE_PREEMPTIONS, name, told.preemptions


@dataclass(slots=True)
class Scrape:
    """All numbers of the process at one moment, ready to be rendered."""

    metrics: Metrics
    snapshot: Callable[[], Snapshot]
    targets: Callable[[], Mapping[str, Target]]

    def __call__(self) -> list[Exposed]:
        return self.metrics.copy() + gauges(self.snapshot(), self.targets(), self.metrics.config.version)
