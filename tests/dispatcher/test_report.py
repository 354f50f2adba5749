"""The snapshot shows what is there."""

from __future__ import annotations

import pytest

from proxy.admission.ceiling import MemoryBound
from proxy.dispatcher import ClassSnapshot, TenantSnapshot
from proxy.types import Outcome, Telemetry, Usage

from .world import World, config, upstream


def test_everything_is_in_the_snapshot() -> None:
    world = World(config(upstream(seats=2, models=("m",), memory=MemoryBound(tokens=4000, source="plan"))))
    told = Telemetry(world.now, running=1, kv_usage=0.1)
    world.apply(world.dispatcher.telemetry("u0", told, world.now))
    for tenant in "abbc":
        world.arrive(tenant)
    world.now += 3
    world.arrive("c", 3)
    state = world.dispatcher.snapshot(world.now)
    (one,) = state.upstreams
    assert (one.name, one.models, one.healthy, one.draining, one.breaker) == ("u0", ("m",), True, False, "closed")
    assert (one.limit, one.in_flight, one.aborting, one.prefill_out_tokens) == (2.0, 2, 0, 200)
    assert (one.ceiling_tokens, one.ceiling_source, one.kv_reserved_tokens, one.telemetry) == (4000, "plan", 400, told)
    assert one.ceiling_seats is not None and one.ceiling_seats > 2 and one.sizer.limit == 2
    assert state.classes[2] == ClassSnapshot("normal", 2, 32, 3.0, None)
    assert state.classes[1] == ClassSnapshot("high", 0, 16, 0.0, 0.0)
    assert state.top_tenants[0] == TenantSnapshot("b", 1, 1) or state.top_tenants[0] == TenantSnapshot("c", 0, 2)
    assert state.at_s == world.now and state.drain_per_s == 0
    world.apply(world.dispatcher.drain(world.now))
    refusals = world.dispatcher.snapshot(world.now).refusals
    assert [(one.outcome, one.class_name, one.tenant) for one in refusals] == [
        (Outcome.SHUTTING_DOWN, "normal", "b"),
        (Outcome.SHUTTING_DOWN, "normal", "c"),
        (Outcome.SHUTTING_DOWN, "low", "c"),
    ]


def test_backlog_is_told_in_seconds_once_the_rate_is_known() -> None:
    world = World(config(upstream(seats=1)))
    for _ in range(30):
        while len(world.waiting) < 4:
            world.arrive(rank=2)
        world.pass_time(2.0, tick=True)
        (ticket,) = world.running.values()
        world.finish(ticket, usage=Usage(100, 100))
    state = world.dispatcher.snapshot(world.now)
    assert state.drain_per_s == pytest.approx(0.5, rel=0.02)
    assert [one.backlog_s for one in state.classes] == [
        0.0,
        0.0,
        pytest.approx(6.0, rel=0.02),
        pytest.approx(6.0, rel=0.02),
    ]
