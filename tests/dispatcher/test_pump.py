"""What happens to a head that cannot start: elephants, memory, reservations, deadlines, several lanes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.admission.ceiling import MemoryBound
from proxy.dispatcher import UpstreamConfig
from proxy.types import Outcome, Reading, Usage

from .world import CLASSES, TenantConfig, World, config, upstream

ELEPHANT = 9000


def memory(tokens: int) -> UpstreamConfig:
    return upstream("u0", 8, memory=MemoryBound(tokens=tokens, source="config"))


def test_one_elephant_in_prefill_and_small_ones_pass_the_next() -> None:
    world = World(config(upstream(seats=8)))
    small = world.arrive()
    world.first_token(small)
    first, second = world.arrive("big", prompt=ELEPHANT), world.arrive("big", prompt=ELEPHANT)
    assert (world.outcome(first), world.outcome(second)) == ("running", "waiting")
    world.first_token(first)
    assert world.outcome(second) == "running"
    third, fourth = world.arrive("big", prompt=ELEPHANT), world.arrive("other")
    assert [world.outcome(one) for one in (third, fourth)] == ["waiting", "waiting"], "prefill is full for both"
    world.finish(second, Outcome.UPSTREAM_ERROR)
    assert [world.outcome(one) for one in (third, fourth)] == ["running", "waiting"]
    world.empty()


@pytest.mark.parametrize("alone", [False, True])
def test_an_elephant_lets_the_others_breathe_after_the_last_one(alone: bool) -> None:
    world = World(config(upstream(seats=8)))
    for _ in range(60):  # the usual prompt is short
        usual = world.arrive(prompt=10)
        world.first_token(usual)
        world.finish(usual)
    small = world.arrive(prompt=10)
    world.first_token(small)
    first, second = world.arrive("big", prompt=ELEPHANT), world.arrive("big", prompt=ELEPHANT)
    world.pass_time(2.0)
    world.first_token(first)
    assert world.outcome(second) == "waiting"
    world.pass_time(1.9, tick=True)
    assert world.outcome(second) == "waiting"
    if alone:
        world.finish(small)
        world.finish(first)
    else:
        world.pass_time(0.2, tick=True)
    assert world.outcome(second) == "running", "the rest is over, or nobody is left to spare"
    world.empty()


def test_an_elephant_goes_to_the_upstream_that_has_none() -> None:
    world = World(config(upstream("u0"), upstream("u1")))
    for _ in range(2):
        world.first_token(world.arrive())
    elephants = [world.arrive(prompt=ELEPHANT) for _ in range(3)]
    assert sorted(one.upstream for one in elephants) == ["", "u0", "u1"]
    world.empty()


def test_outstanding_prefill_is_bounded_but_one_always_goes() -> None:
    world = World(config(upstream(seats=8)))
    first, second, third = (world.arrive(prompt=3000) for _ in range(3))
    assert [world.outcome(one) for one in (first, second, third)] == ["running", "waiting", "waiting"]
    world.first_token(first)
    assert [world.outcome(one) for one in (second, third)] == ["running", "waiting"]
    world.empty()


def test_a_head_that_does_not_fit_is_reserved_for_and_little_passes_it() -> None:
    world = World(config(memory(1000)))
    running = [world.arrive("a", prompt=200, cap=100) for _ in range(2)]
    for one in running:
        world.first_token(one)
    head = world.arrive("big", prompt=600, cap=100)
    passing = [world.arrive("small", prompt=20, cap=10) for _ in range(9)]
    outcomes = [world.outcome(one) for one in passing]
    assert world.outcome(head) == "waiting"
    assert outcomes == ["running"] * 5 + ["waiting"] * 4, "5 x (20 + 2 x 10) <= (600 + 2 x 100) / 4 < 6 x 40"
    world.pass_time(0.5, tick=True)
    world.arrive("small", prompt=20, cap=10)
    assert len(world.running) == 7, "a tick changes nothing"
    world.finish(running[0])
    assert world.outcome(head) == "waiting"
    world.finish(running[1])
    assert world.outcome(head) == "running"
    assert [world.outcome(one) for one in passing].count("running") > 5
    world.empty()


def test_a_head_that_memory_is_kept_for_counts_as_waiting() -> None:
    world = World(config(memory(1000)))
    running = world.arrive("a", prompt=500, cap=100)
    world.first_token(running)
    head = world.arrive("big", prompt=800, cap=100)
    (lane,) = world.dispatcher._board.pools[0].lanes.values()
    seen = [(world.outcome(head), lane.eligible)]
    world.finish(running)
    seen.append((world.outcome(head), lane.eligible))
    assert seen == [("waiting", True), ("running", False)], "else a full memory looks like no demand"
    world.empty()


def test_higher_classes_ignore_a_reservation_until_its_class_is_owed() -> None:
    world = World(config(memory(1000)))
    running = world.arrive("a", prompt=500, cap=100)
    world.first_token(running)
    head = world.arrive("big", 3, prompt=600, cap=100)
    critical = []
    for _ in range(40):
        critical.append(world.arrive("c", 0, prompt=100, cap=20))
        if world.outcome(critical[-1]) != "running":
            break
        world.first_token(critical[-1])
        world.finish(critical[-1], usage=Usage(100, 20))
    assert world.outcome(head) == "waiting" and world.outcome(critical[-1]) == "waiting"
    assert 2 < len(critical) < 40
    world.finish(running)
    assert world.outcome(head) == "running"
    world.empty()


@pytest.mark.parametrize("leaves", ["cancelled", "expired", "moved", "tenant at its bound"])
def test_a_reservation_ends_with_its_head(leaves: str) -> None:
    tenants = (TenantConfig("big", max_in_flight=1, max_queued=9),)
    world = World(config(memory(1000), upstream("u1", 1), tenants=tenants))
    low, elsewhere = world.arrive("x", prompt=500, cap=100), world.arrive("x", prompt=500, cap=500)
    assert (low.upstream, elsewhere.upstream) == ("u0", "u1")
    world.first_token(low)
    head = world.arrive("big", prompt=800, cap=100, deadline_s=5)
    late = world.arrive("s", prompt=100, cap=200)
    assert [world.outcome(one) for one in (head, late)] == ["waiting"] * 2, "it would fit, but not pass"
    match leaves:
        case "cancelled":
            world.cancel(head)
        case "expired":
            world.pass_time(5)
        case "moved":
            world.finish(elsewhere)
            assert head.upstream == "u1"
        case _:
            assert world.outcome(world.arrive("big", 0, prompt=20, cap=10)) == "running"
    world.pass_time(0.1)
    assert world.outcome(late) == "running"
    world.empty()


def test_a_ticket_whose_first_token_would_come_too_late_is_dropped_before_it_runs() -> None:
    limit = replace(upstream().limit, mode="adaptive", initial=4)
    world = World(config(replace(upstream(), limit=limit)))
    for _ in range(2):
        world.first_token(world.arrive())
    for _ in range(30):  # teach the step model, and with it the prefill rate
        ticket = world.arrive(prompt=1000)
        world.now += 0.5
        world.first_token(ticket)
        world.now += 0.5
        reading = Reading(gap_s=20 * 0.025, tokens=20)
        world.apply(world.dispatcher.tick(world.now, {"u0": reading}))
        world.finish(ticket, usage=Usage(1000, 20))
    in_time = world.arrive(prompt=100, deadline_s=30)
    world.first_token(in_time)
    assert world.outcome(in_time) == "running"
    assert world.outcome(world.arrive(prompt=4000, deadline_s=0.001)) is Outcome.DEADLINE_EXCEEDED
    world.empty()


def test_an_expired_ticket_never_starts_even_if_nobody_swept() -> None:
    world = World(config(upstream(seats=1)))
    running, waiting = world.arrive(), world.arrive(deadline_s=1)
    world.now += 2
    world.finish(running)
    assert world.outcome(waiting) is Outcome.DEADLINE_EXCEEDED
    world.empty()


def test_lanes_that_share_an_upstream_take_turns_by_class_then_debt() -> None:
    world = World(config(upstream("u0", 1), upstream("u1", 1, models=("n",))))
    first, blocker = world.arrive(model="m"), world.arrive(model="n")
    assert (first.upstream, blocker.upstream) == ("u0", "u1")
    low = world.arrive("x", 3, model="m")
    shared = [world.arrive("y", 1, model="n"), world.arrive("z", 2, model="n")]
    world.finish(first)
    assert [world.outcome(one) for one in (shared[0], low)] == ["running", "waiting"]
    world.finish(shared[0])
    assert [world.outcome(one) for one in (shared[1], low)] == ["running", "waiting"]
    world.finish(shared[1])
    assert world.outcome(low) == "running"
    world.empty()


def test_policies_change_with_a_reload() -> None:
    world = World(config(upstream("u0", 9), upstream("u1", 9), policy="round_robin"))
    assert [world.arrive().upstream for _ in range(4)] == ["u0", "u1", "u0", "u1"]
    weighted = config(upstream("u0", 9, weight=9.0), upstream("u1", 9))
    world.apply(world.dispatcher.reconfigure(weighted, world.now))
    assert {world.arrive().upstream for _ in range(4)} == {"u0"}
    world.empty()


def test_holdback_keeps_a_seat_for_an_active_higher_class() -> None:
    held = tuple(replace(one, holdback=share) for one, share in zip(CLASSES, (1.0, 0.97, 0.93, 0.85), strict=True))
    world = World(config(classes=held))
    world.finish(world.arrive(rank=0))
    low = [world.arrive(rank=3) for _ in range(5)]
    assert sum(world.outcome(one) == "running" for one in low) == 3, "one active class above keeps one seat of four"
    assert world.outcome(world.arrive(rank=0)) == "running"
    world.pass_time(61.0)
    assert sum(world.outcome(one) == "running" for one in low) == 3
    world.empty()
    one_seat = World(config(upstream(seats=1), classes=held))
    for rank in (0, 3):
        ticket = one_seat.arrive(rank=rank)
        assert one_seat.outcome(ticket) == "running", "never what keeps an upstream empty"
        one_seat.finish(ticket)
