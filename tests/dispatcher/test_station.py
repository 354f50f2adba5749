"""One upstream: what blocks, what it measures for its limit, memory from several sources."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig
from proxy.dispatcher.permits import Block
from proxy.dispatcher.station import Station
from proxy.dispatcher.turns import TURN
from proxy.routing.breaker import BreakerConfig
from proxy.types import Reading, Telemetry, Ticket, Usage, Work, WorkEstimate

from .world import World, config, upstream


def make(seats: int = 4, **fields: object) -> Station:
    return Station(upstream("u0", seats, **fields), BreakerConfig(), 5.0, 0.0)


_next = iter(range(1, 1 << 60))


def ticket(prompt: int = 100, work: Work = Work.GENERATE, streaming: bool = True, choices: int = 1) -> Ticket:
    return Ticket(next(_next), "a", 0, "m", work, streaming, WorkEstimate(prompt, 0, 100, choices), 0, 0.0)


def start(station: Station, one: Ticket, now: float = 0.0) -> Ticket:
    station.grant(one, station.cost(one), False, now)
    return one


@pytest.mark.parametrize(
    ("seats", "before", "candidate", "class_seats", "owed", "expected"),
    [
        (2, [100], 100, 2, False, None),
        (2, [100, 100], 100, 2, False, Block.SEATS),
        (2, [100], 100, 1, False, Block.HELD_BACK),
        (2, [100], 100, 1, True, None),  # an owed class is not held back
        (2, [], 100, 0, False, None),  # nothing runs: one always goes
        (9, [4000], 100, 9, False, Block.PREFILL),
        (9, [4000], 100, 9, True, Block.PREFILL),  # owed or not
        (9, [9000], 9000, 9, False, Block.ELEPHANT),
    ],
)
def test_blocks(
    seats: int, before: list[int], candidate: int, class_seats: int, owed: bool, expected: Block | None
) -> None:
    station = make(seats)
    for prompt in before:
        start(station, ticket(prompt))
    assert station.block(ticket(candidate), class_seats, owed, 0.0) is expected


@pytest.mark.parametrize(
    ("out", "class_seats", "owed", "held_s", "expected"),
    [
        (1_900, 8, False, None, None),  # half of 4,096 holds 1,900 + 100
        (2_000, 8, False, None, Block.PREFILL),
        (2_000, 8, True, None, None),
        (4_000, 8, True, None, Block.PREFILL),
        (4_000, 9, False, None, Block.PREFILL),
        (4_000, 9, False, 0.0, None),  # somebody is held back for it: 2.5 times as much
        (4_000, 9, False, -60.0, Block.PREFILL),  # a minute ago
    ],
)
def test_a_class_that_is_held_back_leaves_room_for_prompts(
    out: int, class_seats: int, owed: bool, held_s: float | None, expected: Block | None
) -> None:
    station = make(9)
    start(station, ticket(out), -60.0)
    if held_s is not None:
        station.block(ticket(), 8, False, held_s)
    assert station.block(ticket(), class_seats, owed, 0.0) is expected


@pytest.mark.parametrize(("memory", "expected"), [(500, Block.MEMORY), (1000, None), (None, None)])
def test_memory_blocks_generation_only(memory: int | None, expected: Block | None) -> None:
    station = make(memory=MemoryBound(tokens=memory, source="config"))
    start(station, ticket(300))
    assert station.block(ticket(300), 4, False, 0.0) is expected
    assert station.block(ticket(300, Work.EMBED), 4, False, 0.0) is None


def test_several_choices_take_several_seats_and_alone_they_always_run() -> None:
    station = make(4)
    first = start(station, ticket(choices=3))
    assert station.block(ticket(choices=2), 4, False, 0.0) is Block.SEATS
    assert station.block(ticket(), 4, False, 0.0) is None
    station.end(station.permits[first.id], None, 0.0, linger=False)
    assert station.block(ticket(choices=9), 4, False, 0.0) is None
    start(station, ticket(choices=9))
    assert station.upstream.seats_taken == 9 and not station.has_room


@pytest.mark.parametrize(
    ("usage", "waiting", "age_s", "expected"),
    [
        (0.95, 1, 0.0, Block.STOPPED),
        (0.95, 1, 5.1, None),  # too old to stop anything
        (0.95, 0, 0.0, None),
        (0.94, 9, 0.0, None),
        (None, 9, 0.0, None),
        (1.0, None, 0.0, None),
    ],
)
def test_a_full_cache_with_a_queue_behind_it_stops_while_fresh(
    usage: float | None, waiting: int | None, age_s: float, expected: Block | None
) -> None:
    station = make()
    station.told(Telemetry(10.0, running=2, waiting=waiting, kv_usage=usage))
    assert station.block(ticket(), 4, False, 10.0 + age_s) is None, "nothing runs: one always goes"
    first = start(station, ticket())
    station.first_token(station.permits[first.id], 10.0)
    assert station.block(ticket(), 4, False, 10.0 + age_s) is expected


def test_invisible_prefill_ends_when_the_engine_must_be_through() -> None:
    station = make()
    start(station, ticket(1024, streaming=False), now=0.0)
    start(station, ticket(1024, streaming=False), now=0.0)
    assert station.prefill_out_tokens == 2048
    assert station.advance(0.3) == [] and station.prefill_out_tokens == 1024, "2048 tokens per TTFT target of 0.5 s"
    gone = next(iter(station.permits.values()))
    station.end(gone, None, 0.3, linger=False)
    station.advance(0.5)
    assert station.prefill_out_tokens == 0


def test_reservations_never_exceed_the_ceiling_and_true_up_may() -> None:
    station = make(memory=MemoryBound(tokens=1000, source="config"))
    huge = start(station, ticket(5000))
    assert huge.reserved_tokens == station.ledger.reserved_tokens == 1000
    assert station.block(ticket(1), 4, False, 0.0) is Block.PREFILL
    station.first_token(station.permits[huge.id], 0.0)
    assert station.block(ticket(1), 4, False, 0.0) is Block.MEMORY
    station.tick(1.0, Reading(progress=((huge, 90), (ticket(), 5))), 0.0)
    assert huge.generated_tokens == 90 and station.ledger.reserved_tokens >= 1000


def test_of_a_crowd_each_has_its_memory_trued_up_in_turn() -> None:
    station = make(seats=TURN + 1)
    progress = tuple((start(station, ticket()), 50) for _ in range(TURN + 1))
    held = station.ledger.held_tokens
    station.tick(1.0, Reading(progress=progress), 0.0)
    assert [one.generated_tokens for one, _ in progress] == [50] * (TURN + 1)
    assert station.ledger.held_tokens == held + 50 * TURN
    station.tick(2.0, Reading(progress=progress), 0.0)
    assert station.ledger.held_tokens == held + 50 * (TURN + 1)


@pytest.mark.parametrize(
    ("memory", "told", "expected"),
    [
        (None, None, MemoryBound()),
        (None, Telemetry(0.0, kv_tokens=800, running_cap=3), MemoryBound(800, 3, None, "engine")),
        (MemoryBound(500, source="plan"), None, MemoryBound(500, source="plan")),
        (MemoryBound(500, source="plan"), Telemetry(0.0, kv_tokens=800), MemoryBound(800, source="engine")),
        (MemoryBound(500, source="config"), Telemetry(0.0, kv_tokens=800), MemoryBound(500, source="config")),
        (MemoryBound(source="none"), Telemetry(0.0, kv_tokens=800, context_tokens=9), MemoryBound(context_tokens=9)),
    ],
)
def test_who_says_what_memory_holds(memory: MemoryBound | None, told: Telemetry | None, expected: MemoryBound) -> None:
    station = make(memory=memory)
    if told is not None:
        station.told(told)
    assert station.bound == expected
    assert station.ledger.capacity_tokens == expected.tokens
    if expected.tokens is None:
        assert station.ceiling_seats is None
    else:
        assert station.ceiling_seats is not None and station.ceiling_seats <= (expected.seats or 10**6)


def test_cost_is_corrected_by_what_was_used() -> None:
    station = make()
    one = start(station, ticket(100))
    one.generated_tokens = 50
    used = station.cost_of(one, Usage(100, 50))
    assert station.cost_of(one, None) == used < station.cost(one)
    assert station.cost_of(one, Usage(100, 50, 60)) < used
    embed = ticket(100, Work.EMBED)
    assert station.cost_of(embed, Usage(100, 0)) == station.cost(embed) < used


def test_the_limit_rises_on_what_the_station_measures() -> None:
    """Backlog of 40 ms steps against a 50 ms target: the limit leaves its start, also where seats are held back."""
    held = tuple(replace(one, holdback=1 - rank / 10) for rank, one in enumerate(config().classes))
    world = World(config(replace(upstream(), limit=LimitConfig(initial=4)), classes=held))
    world.finish(world.arrive(rank=0))
    for _ in range(40):
        while len(world.waiting) < 5:
            world.arrive(rank=2)
        for one in world.running.values():
            if one.first_token_s is None:
                world.first_token(one)
                break
        world.now += 1.0
        running = [one for one in world.running.values() if one.first_token_s is not None]
        reading = Reading(gap_s=float(len(running)), tokens=len(running) / 0.01)
        world.apply(world.dispatcher.tick(world.now, {"u0": reading}))
        world.finish(next(iter(world.running.values())), usage=Usage(100, 100))
    assert world.dispatcher.snapshot(world.now).upstreams[0].limit > 4
    world.empty()


def test_samples_from_before_a_restart_teach_nothing() -> None:
    station = make()
    one = start(station, ticket())
    permit = station.permits[one.id]
    station.restart(0.0)
    world = World()
    running = world.arrive()
    world.first_token(running)
    world.apply(world.dispatcher.health("u0", False, world.now))
    world.apply(world.dispatcher.health("u0", True, world.now))
    world.finish(running, usage=Usage(100, 50))
    assert world.dispatcher.snapshot(world.now).upstreams[0].sizer.ttft_s is None
    assert permit.sizer is not station.sizer


@pytest.mark.parametrize(("running", "in_flight", "expected"), [(0, True, None), (0, False, 0.0), (3, True, 3.0)])
def test_a_gauge_of_zero_while_work_runs_is_missing(running: int, in_flight: bool, expected: float | None) -> None:
    station = make()
    if in_flight:
        start(station, ticket())
    station.told(Telemetry(1.0, running=running))
    given = station.tick_input(1.0, Reading(), 0.0)
    assert given.engine_total_running == expected and given.engine is station.telemetry
    assert station.tick_input(9.0, Reading(), 0.0).engine is None, "too old"


def test_the_tick_sees_time_averages_and_kept_seats() -> None:
    station = make()
    first, second = (start(station, ticket(prompt)) for prompt in (100, 50))
    station.first_token(station.permits[first.id], 0.5)
    start(station, ticket(streaming=False), 0.5)
    station.block(ticket(), 1, False, 0.5)
    given = station.tick_input(1.0, Reading(gap_s=0.3, tokens=9), 0.4)
    assert (given.running, given.prefill_tokens, given.prefill_out_tokens) == (1.0, 100, 150)
    assert (given.in_flight, given.queue_share, given.duration_s) == (3 + 3, 0.4, 1.0)
    assert (given.gap_s, given.tokens, given.kv_limit_seats) == (0.3, 9, None)
    assert station.tick_input(1.0, Reading(), 0.0).in_flight == 3, "nobody waits for the seats that are kept"
    station.tick(1.0, Reading(), 0.0)
    assert station.tick_input(2.0, Reading(), 0.0).running == 2.0 and second.upstream == "u0"
