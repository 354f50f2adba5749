"""Every way to be turned away, and how long to stay away."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import mean

import pytest

from proxy.admission.ceiling import MemoryBound
from proxy.dispatcher.arrivals import jittered
from proxy.dispatcher.config import DispatcherConfig
from proxy.types import Outcome, Telemetry, Usage, Work

from .world import CLASSES, TenantConfig, World, config, upstream


def tiny(floors: bool = True, **fields: object) -> DispatcherConfig:
    """One seat; two places per class."""
    classes = tuple(replace(one, queue_max=2, floor=one.floor * floors) for one in CLASSES)
    return config(upstream(seats=1), **{"classes": classes, **fields})


def test_a_full_class_refuses_its_own_and_never_a_higher_one() -> None:
    world = World(tiny())
    running, kept = world.arrive(rank=0), [world.arrive(rank=2) for _ in range(2)]
    assert world.outcome(world.arrive(rank=2)) is Outcome.QUEUE_FULL
    assert [world.outcome(one) for one in (running, *kept)] == ["running", "waiting", "waiting"]
    world.empty()


def test_a_newcomer_displaces_the_newest_of_the_lowest_class_below_and_the_total_stays() -> None:
    world = World(tiny(floors=False))
    world.arrive(rank=0)
    lower = {rank: [world.arrive(rank=rank) for _ in range(2)] for rank in (3, 2, 1, 0)}
    displaced = []
    for _ in range(6):
        assert world.outcome(world.arrive(rank=0)) == "waiting"
        displaced.append(world.last.refusals[0].ticket)
        assert world.last.refusals[0].outcome is Outcome.DISPLACED and world.last.refusals[0].retry_after_s
    assert displaced == [one for rank in (3, 2, 1) for one in reversed(lower[rank])]
    assert world.outcome(world.arrive(rank=0)) is Outcome.QUEUE_FULL
    assert world.outcome(world.arrive(rank=3)) is Outcome.QUEUE_FULL, "its places are taken from above"
    assert len(world.waiting) == 8
    world.empty()


def test_a_flood_from_above_leaves_a_class_the_places_that_its_floor_covers() -> None:
    world = World(tiny())
    world.arrive(rank=0)
    lower = {rank: [world.arrive(rank=rank) for _ in range(2)] for rank in (1, 2, 3)}
    for _ in range(20):
        world.arrive(rank=0)
    kept = [rank for rank in (1, 2, 3) for one in lower[rank] if world.outcome(one) == "waiting"]
    assert kept == [1, 2, 3]
    world.empty()


@pytest.mark.parametrize(
    ("tenant", "running", "waiting"),
    [
        (TenantConfig("a", max_in_flight=2), 2, 0),  # refused where waiting is not provided for
        (TenantConfig("a", max_in_flight=1, max_queued=2), 1, 2),
        (TenantConfig("a", max_queued=1), 4, 1),
        (TenantConfig("a", requests_per_minute=3), 3, 0),
        (TenantConfig("a", tokens_per_minute=500), 2, 0),  # each 100 + 100
    ],
)
def test_a_tenant_stays_within_its_own_bounds(tenant: TenantConfig, running: int, waiting: int) -> None:
    world = World(config(tenants=(tenant,)))
    tickets = [world.arrive() for _ in range(8)]
    outcomes = [world.outcome(one) for one in tickets]
    assert (outcomes.count("running"), outcomes.count("waiting")) == (running, waiting)
    assert outcomes.count(Outcome.RATE_LIMITED) == 8 - running - waiting
    assert world.last.refusals[0].retry_after_s
    if running < 4:
        assert world.outcome(world.arrive("b")) == "running", "others are not affected"
    world.empty()


def test_a_tenant_at_its_bound_goes_on_when_its_own_request_ends() -> None:
    world = World(config(tenants=(TenantConfig("a", max_in_flight=1, max_queued=5),)))
    first, second = world.arrive(), world.arrive()
    world.pass_time(1.0, tick=True)
    assert world.outcome(second) == "waiting"
    world.finish(first)
    assert world.outcome(second) == "running"
    world.empty()


def test_quotas_are_charged_for_what_was_used_and_given_back_for_what_was_not() -> None:
    world = World(
        config(upstream(seats=1), tenants=(TenantConfig("a", tokens_per_minute=1000, requests_per_minute=9),))
    )
    first, second = world.arrive(), world.arrive()
    world.finish(first, usage=Usage(700, 200))
    assert world.outcome(world.arrive()) is Outcome.RATE_LIMITED
    world.cancel(second)
    assert world.outcome(world.arrive()) is Outcome.RATE_LIMITED, "the prompt of a running one was used"
    world.pass_time(60.0)
    third, fourth = world.arrive(), world.arrive()
    world.cancel(fourth)
    world.finish(third, Outcome.UPSTREAM_ERROR)
    assert [world.outcome(world.arrive()) for _ in range(5)].count(Outcome.RATE_LIMITED) == 1, "900 are left"
    world.empty()


def test_one_tenant_of_several_gets_its_share_of_the_places() -> None:
    world = World(tiny(classes=tuple(replace(one, queue_max=6) for one in CLASSES)))
    alone = [world.arrive() for _ in range(7)]
    assert [world.outcome(one) for one in alone] == ["running"] + ["waiting"] * 6
    for one in alone[1:]:
        world.cancel(one)
    world.arrive("b")
    outcomes = [world.outcome(world.arrive("a")) for _ in range(5)]
    assert outcomes == ["waiting"] * 3 + [Outcome.RATE_LIMITED] * 2
    assert world.outcome(world.arrive("b")) == "waiting"
    world.empty()


@pytest.mark.parametrize(
    ("memory", "context", "work", "expected"),
    [
        (MemoryBound(tokens=1000, source="config"), None, Work.GENERATE, Outcome.TOO_LARGE_FOR_ENGINE),
        (MemoryBound(tokens=1001, source="config"), None, Work.GENERATE, "running"),
        (None, 1000, Work.GENERATE, Outcome.TOO_LARGE_FOR_ENGINE),
        (None, 1000, Work.EMBED, "running"),
        (None, None, Work.GENERATE, "running"),
    ],
)
def test_what_can_never_fit(memory: MemoryBound | None, context: int | None, work: Work, expected: str) -> None:
    world = World(config(upstream(memory=memory)))
    told = Telemetry(world.now, context_tokens=context)
    world.apply(world.dispatcher.telemetry("u0", told, world.now))
    assert world.outcome(world.arrive(prompt=4004, work=work)) == expected  # a lower bound of 1001 tokens
    world.empty()


@pytest.mark.parametrize(
    ("deadline_s", "expected"), [(0.0, Outcome.DEADLINE_EXCEEDED), (-3.0, Outcome.DEADLINE_EXCEEDED)]
)
def test_a_deadline_that_has_passed(deadline_s: float, expected: Outcome) -> None:
    world = World()
    assert world.outcome(world.arrive(deadline_s=deadline_s)) is expected


def busy(seconds: int) -> World:
    """One seat, one request per second, always three waiting."""
    world = World(config(upstream(seats=1)))
    for _ in range(seconds):
        while len(world.waiting) < 3:
            world.arrive()
        world.pass_time(1.0, tick=True)
        (ticket,) = world.running.values()
        world.first_token(ticket)
        world.finish(ticket, usage=Usage(100, 100))
    return world


def test_a_backlog_that_outlasts_patience_is_refused_once_the_rate_is_known() -> None:
    for seconds, expected in ((5, "waiting"), (15, Outcome.DEADLINE_EXCEEDED)):
        world = busy(seconds)
        assert world.outcome(world.arrive(deadline_s=2.0)) == expected
        assert world.outcome(world.arrive(deadline_s=9.0)) == "waiting"
        assert world.outcome(world.arrive("new", deadline_s=3.5)) == "waiting", (
            "a share of its own, nothing ahead in it"
        )
    world = busy(15)
    outcomes = [world.outcome(world.arrive(rank=1)) for _ in range(16)]
    assert outcomes.count("waiting") == 16 and len(world.waiting) == 18
    slow = replace(CLASSES[1], queue_timeout_s=5.0)
    world.apply(
        world.dispatcher.reconfigure(config(upstream(seats=1), classes=(CLASSES[0], slow, *CLASSES[2:])), world.now)
    )
    assert world.outcome(world.arrive(rank=1)) is Outcome.QUEUE_FULL
    world.empty()


def test_retry_after_follows_the_drain_rate_and_is_spread() -> None:
    world = busy(40)
    waits = [world.dispatcher.retry_after_s(world.now) for _ in range(500)]
    expected = len(world.waiting) + 1
    assert mean(waits) == pytest.approx(expected, rel=0.05)
    assert max(waits) / min(waits) == pytest.approx(1.5, rel=0.05)
    assert 1 <= World().dispatcher.retry_after_s(0.0) <= 1.5


@pytest.mark.parametrize(("wait_s", "low", "high"), [(0.0, 1.0, 1.5), (10.0, 8.0, 12.0), (1e9, 40.0, 60.0)])
def test_jitter_stays_within_1_and_60_seconds(wait_s: float, low: float, high: float) -> None:
    rng = Random(5)
    waits = [jittered(wait_s, rng) for _ in range(500)]
    assert low - 1e-9 <= min(waits) < low * 1.02 and high * 0.98 < max(waits) <= high + 1e-9


def test_an_unknown_rate_asks_for_patience_while_tickets_wait() -> None:
    world = World(tiny())
    for _ in range(4):
        world.arrive()
    refused = world.last.refusals[0]
    assert refused.outcome is Outcome.QUEUE_FULL and refused.retry_after_s is not None
    assert 4 <= refused.retry_after_s <= 6
