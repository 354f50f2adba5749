"""Arrival to ending through the public events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.admission.ceiling import MemoryBound
from proxy.routing.breaker import BreakerConfig
from proxy.routing.retry import RetryConfig
from proxy.types import Failure, Outcome, Telemetry, TicketState, Usage, Work

from .world import CLASSES, QueueConfig, World, config, upstream

BREAKER = BreakerConfig(window_s=10, min_requests=2, failure_ratio=0.5, open_s=5)


def test_runs_up_to_the_limit_then_queues_and_refills_from_the_head() -> None:
    world = World()
    tickets = [world.arrive() for _ in range(6)]
    assert [world.outcome(one) for one in tickets] == ["running"] * 4 + ["waiting"] * 2
    world.finish(tickets[1])
    assert [world.outcome(one) for one in tickets[4:]] == ["running", "waiting"]
    assert tickets[4].state is TicketState.RUNNING and tickets[4].upstream == "u0"
    world.empty()


def test_only_a_running_ticket_can_finish_or_fail_and_a_second_ending_is_an_error() -> None:
    world = World(config(upstream(seats=1)))
    first, second = world.arrive(), world.arrive()
    world.finish(first)
    for ticket in (first, world.ticket()):
        with pytest.raises(LookupError, match="does not run"):
            world.dispatcher.finished(ticket, Outcome.SUCCESS, None, world.now)
        with pytest.raises(LookupError, match="does not run"):
            world.dispatcher.failed(ticket, Failure.CONNECT, world.now)
        assert not world.dispatcher.cancelled(ticket, world.now).dispatches
        assert not world.dispatcher.first_token(ticket, world.now).dispatches
    assert world.outcome(second) == "running"
    world.empty()


@pytest.mark.parametrize(
    ("failure", "upstreams", "retryable", "expected"),
    [
        (Failure.CONNECT, 2, True, "running"),
        (Failure.CONNECT, 2, False, "running"),  # nothing was sent
        (Failure.CONNECT, 1, True, Outcome.UPSTREAM_ERROR),
        (Failure.LOCAL, 2, True, Outcome.NO_UPSTREAM),
        (Failure.SHED, 2, False, "running"),
        (Failure.SHED, 1, True, Outcome.UPSTREAM_STATUS),
        (Failure.STALE, 1, True, "running"),  # the same upstream, on a fresh connection
        (Failure.STALE, 2, False, Outcome.UPSTREAM_ERROR),
        (Failure.RESET, 2, True, Outcome.UPSTREAM_ERROR),
        (Failure.TIMEOUT, 2, True, Outcome.UPSTREAM_TIMEOUT),
    ],
)
def test_failures(failure: Failure, upstreams: int, retryable: bool, expected: Outcome | str) -> None:
    world = World(config(*(upstream(f"u{index}", 1) for index in range(upstreams))))
    ticket = world.arrive(retryable=retryable)
    first = ticket.upstream
    world.fail(ticket, failure)
    assert world.outcome(ticket) == expected and ticket.tried == (first,)
    if expected == "running":
        assert (ticket.upstream == first) is (failure is Failure.STALE)
        if failure is Failure.STALE:
            world.fail(ticket, failure)
            assert world.outcome(ticket) is Outcome.UPSTREAM_ERROR, "once"
    world.empty()


@pytest.mark.parametrize("failure", Failure)
def test_nothing_runs_again_after_its_first_token(failure: Failure) -> None:
    world = World(config(upstream("u0"), upstream("u1")))
    ticket = world.arrive()
    world.first_token(ticket)
    world.fail(ticket, failure)
    assert isinstance(world.outcome(ticket), Outcome) and len(ticket.tried) == 1
    world.empty()


def test_a_retry_waits_at_the_head_of_its_flow_and_lets_others_use_the_upstream_that_failed_it() -> None:
    world = World(config(upstream("u0", 1), upstream("u1", 1)))
    first, second, third, fourth = (world.arrive() for _ in range(4))
    world.fail(first, Failure.CONNECT)
    assert [world.outcome(one) for one in (first, third, fourth)] == ["waiting", "running", "waiting"]
    world.finish(second)
    assert world.outcome(first) == "running" and first.upstream != first.tried[0]
    assert world.outcome(fourth) == "waiting"
    world.empty()


def test_second_tries_that_different_upstreams_have_failed_do_not_wait_for_one_another() -> None:
    world = World(config(*(upstream(f"u{number}", 1) for number in range(3))))
    twice, once, other = (world.arrive() for _ in range(3))
    first, second, third = twice.upstream, once.upstream, other.upstream
    world.fail(twice, Failure.SHED)
    world.finish(once)
    assert twice.upstream == second
    blocker = world.arrive()
    assert blocker.upstream == first
    world.fail(twice, Failure.SHED)
    filler = world.arrive()
    assert (world.outcome(twice), filler.upstream) == ("waiting", second)
    world.fail(filler, Failure.SHED)
    world.fail(blocker, Failure.SHED)
    assert {world.outcome(twice), world.outcome(filler), world.outcome(blocker)} == {"waiting", "running"}
    assert (filler.upstream, blocker.upstream) == (first, second)
    world.finish(other)
    assert (world.outcome(twice), twice.upstream) == ("running", third)
    world.empty()


def test_what_every_usable_upstream_has_failed_ends_and_keeps_nobody_waiting() -> None:
    world = World(config(upstream("u0", 1), upstream("u1", 1)))
    first, second, third = (world.arrive() for _ in range(3))
    world.fail(first, Failure.SHED)
    assert [world.outcome(one) for one in (first, third)] == ["waiting", "running"]
    world.apply(world.dispatcher.health(second.upstream, False, world.now))
    assert world.outcome(first) is Outcome.UPSTREAM_ERROR
    world.finish(third)
    assert world.outcome(world.arrive()) == "running"
    world.empty()


def test_a_second_try_goes_as_soon_as_a_breaker_lets_one_through() -> None:
    breaker = BreakerConfig(window_s=10, min_requests=1, failure_ratio=0.5, open_s=5)
    world = World(config(upstream("u0", 1), upstream("u1", 1), upstream("u2", 1), breaker=breaker))
    broken, failed, busy = (world.arrive() for _ in range(3))
    world.finish(broken, Outcome.UPSTREAM_ERROR)
    world.fail(failed, Failure.SHED)
    assert world.outcome(failed) == "waiting" and world.outcome(busy) == "running"
    world.pass_time(6.0)
    assert world.outcome(failed) == "running" and failed.upstream == broken.upstream
    world.empty()


def test_retries_stop_at_their_number_their_budget_and_the_deadline() -> None:
    three = tuple(upstream(f"u{index}", 50) for index in range(3))
    world = World(config(*three, retry=RetryConfig(retries=1)))
    ticket = world.arrive()
    world.fail(ticket, Failure.SHED)
    world.fail(ticket, Failure.SHED)
    assert world.outcome(ticket) is Outcome.UPSTREAM_STATUS and len(ticket.tried) == 2
    world = World(config(*three, retry=RetryConfig(budget=0.01)))
    tickets = [world.arrive(str(index % 7)) for index in range(20)]
    for ticket in tickets:
        world.fail(ticket, Failure.SHED)
    assert sum(world.outcome(ticket) == "running" for ticket in tickets) == 10, "the reserve, and no more"
    world = World(config(*three))
    ticket = world.arrive(deadline_s=5)
    world.now += 6
    world.fail(ticket, Failure.CONNECT)
    assert world.outcome(ticket) is Outcome.UPSTREAM_ERROR
    world.empty()


def test_cancelled_work_of_a_slow_engine_keeps_its_seat_until_it_is_over() -> None:
    world = World(config(upstream(seats=2, slow_abort=True)))
    first, second, third, fourth = (world.arrive() for _ in range(4))
    world.cancel(first)
    world.finish(second, Outcome.CLIENT_STALLED)
    state = world.dispatcher.snapshot(world.now).upstreams[0]
    assert (state.in_flight, state.aborting) == (0, 2) and world.outcome(third) == "waiting"
    world.apply(world.dispatcher.aborted(first, world.now))
    world.apply(world.dispatcher.aborted(first, world.now))
    assert (world.outcome(third), world.outcome(fourth)) == ("running", "waiting")
    world.pass_time(10.0)
    assert world.outcome(fourth) == "running", "the grace is over"
    world.empty()


@pytest.mark.parametrize(("deadline_s", "expected"), [(None, Outcome.QUEUE_TIMEOUT), (7, Outcome.DEADLINE_EXCEEDED)])
def test_waiting_ends_in_time(deadline_s: float | None, expected: Outcome) -> None:
    world = World(config(upstream(seats=1)))
    world.arrive()
    ticket = world.arrive(deadline_s=deadline_s)
    wait_s = deadline_s or CLASSES[2].queue_timeout_s
    world.pass_time(wait_s - 0.01)
    assert world.outcome(ticket) == "waiting"
    world.pass_time(0.01)
    assert world.outcome(ticket) is expected
    world.empty()


def test_all_upstreams_gone_refuses_at_once_and_recovery_starts_at_the_initial_limit() -> None:
    world = World(config(upstream(seats=1)))
    running, waiting = world.arrive(), world.arrive()
    world.apply(world.dispatcher.health("u0", False, world.now))
    assert world.outcome(waiting) is Outcome.NO_UPSTREAM and world.outcome(running) == "running"
    assert world.outcome(world.arrive()) is Outcome.NO_UPSTREAM
    assert not world.dispatcher.usable() and not world.dispatcher.usable("m")
    world.apply(world.dispatcher.health("u0", True, world.now))
    assert world.dispatcher.usable() and world.dispatcher.usable("m")
    world.apply(world.dispatcher.health("gone", True, world.now))
    later = world.arrive()
    world.finish(running)
    assert world.outcome(later) == "running"
    world.empty()


def test_recovery_forgets_a_limit_that_was_cut() -> None:
    adaptive = replace(upstream(), limit=replace(upstream().limit, mode="adaptive", initial=8))
    world = World(config(adaptive))
    for failure in (Failure.TIMEOUT, Failure.RESET):
        world.fail(world.arrive(), failure)
    assert world.dispatcher.snapshot(world.now).upstreams[0].limit < 8
    world.apply(world.dispatcher.health("u0", False, world.now))
    world.apply(world.dispatcher.health("u0", True, world.now))
    state = world.dispatcher.snapshot(world.now)
    assert state.upstreams[0].limit == 8
    assert [step.reason for step in state.steps] == ["timeout", "restored"]
    world.empty()


def test_the_breaker_opens_on_errors_lets_one_through_and_closes() -> None:
    world = World(config(breaker=BREAKER))
    tickets = [world.arrive() for _ in range(5)]
    world.finish(tickets[0], Outcome.UPSTREAM_STATUS, status=404)
    world.finish(tickets[1], Outcome.UPSTREAM_STATUS, status=500)
    assert world.dispatcher.snapshot(world.now).upstreams[0].breaker == "open"
    assert world.outcome(world.arrive()) is Outcome.NO_UPSTREAM
    refusal = world.last.refusals[0]
    assert refusal.retry_after_s is not None and 4 <= refusal.retry_after_s <= 6
    world.pass_time(5.0)
    trial, second = world.arrive(), world.arrive()
    assert (world.outcome(trial), world.outcome(second)) == ("running", "waiting")
    world.finish(tickets[2])
    assert world.outcome(second) == "waiting", "an exchange from before tells nothing"
    world.finish(trial)
    assert world.outcome(second) == "running"
    world.empty()


def test_drained_upstream_gets_nothing_new_and_resumes() -> None:
    world = World(config(upstream("u0"), upstream("u1")))
    world.apply(world.dispatcher.drain_upstream("u0", True, world.now))
    assert {world.arrive().upstream for _ in range(4)} == {"u1"}
    waiting = world.arrive()
    world.apply(world.dispatcher.drain_upstream("u0", False, world.now))
    assert waiting.upstream == "u0"
    for event in (world.dispatcher.drain_upstream, world.dispatcher.hold_limit):
        with pytest.raises(LookupError, match="no upstream is named 'x'"):
            event("x", True, world.now)
    world.empty()


def test_a_held_limit_holds_until_it_is_let_go_or_reloaded() -> None:
    world = World()
    world.apply(world.dispatcher.hold_limit("u0", 1, world.now))
    tickets = [world.arrive() for _ in range(4)]
    assert len(world.running) == 1
    world.apply(world.dispatcher.health("u0", False, world.now))
    world.apply(world.dispatcher.health("u0", True, world.now))
    assert world.dispatcher.snapshot(world.now).upstreams[0].limit == 1, "a recovery does not let go"
    world.apply(world.dispatcher.reconfigure(config(), world.now))
    assert world.dispatcher.snapshot(world.now).upstreams[0].limit == 4
    assert world.outcome(tickets[1]) is Outcome.NO_UPSTREAM
    world.empty()


def test_drain_refuses_what_waits_and_what_comes_and_lets_the_rest_finish() -> None:
    world = World(config(upstream("u0", 1), upstream("u1", 1)))
    running, other, waiting = world.arrive(), world.arrive(), world.arrive()
    world.apply(world.dispatcher.drain(world.now))
    assert world.outcome(waiting) is Outcome.SHUTTING_DOWN and world.outcome(running) == "running"
    assert world.outcome(world.arrive()) is Outcome.SHUTTING_DOWN
    world.fail(other, Failure.CONNECT)
    assert world.outcome(other) is Outcome.UPSTREAM_ERROR
    world.empty()


def test_reload_moves_what_waits_and_keeps_what_runs() -> None:
    world = World(config(upstream("u0", 1, models=("m",)), upstream("u1", 1, models=("n",))))
    running, moved = world.arrive("b", 3), world.arrive("b", 3)
    lost_running, lost = world.arrive(model="n"), world.arrive(model="n")
    classes = (CLASSES[0], CLASSES[3])
    world.apply(world.dispatcher.reconfigure(config(upstream("u2", 1, models=("m",)), classes=classes), world.now))
    assert world.outcome(moved) == "running" and moved.upstream == "u2" and moved.class_index == 1
    assert world.outcome(lost) is Outcome.NO_UPSTREAM and lost.class_index == 1
    assert world.dispatcher.models() == {"m": ("u2",)} and not world.dispatcher.knows("n")
    assert [one.name for one in world.dispatcher.snapshot(world.now).upstreams] == ["u0", "u1", "u2"]
    world.finish(running)
    world.finish(lost_running)
    world.pass_time(0.1)
    assert [one.name for one in world.dispatcher.snapshot(world.now).upstreams] == ["u2"]
    world.empty()


def test_models_are_discovered_and_disappear() -> None:
    world = World(config(upstream("u0", 1), upstream("u1", 1, models=("n",))))
    assert world.dispatcher.knows("anything") and world.arrive().upstream == "u0"
    waiting = world.arrive()
    world.apply(world.dispatcher.telemetry("u0", Telemetry(world.now, models=("m", "n")), world.now))
    assert world.dispatcher.models() == {"m": ("u0",), "n": ("u0", "u1")}
    assert world.outcome(waiting) == "waiting" and not world.dispatcher.knows("anything")
    world.apply(world.dispatcher.telemetry("u0", Telemetry(world.now, models=("n",)), world.now))
    assert world.outcome(waiting) is Outcome.NO_UPSTREAM
    assert world.outcome(world.arrive()) is Outcome.NO_UPSTREAM
    world.apply(world.dispatcher.telemetry("gone", Telemetry(world.now), world.now))
    world.empty()


def test_a_model_without_a_seat_does_not_block_another() -> None:
    world = World(config(upstream("u0", 1, models=("m",)), upstream("u1", 1, models=("n",))))
    world.arrive(rank=0)
    blocked = world.arrive(rank=0)
    assert world.outcome(world.arrive(rank=3, model="n")) == "running"
    assert world.outcome(blocked) == "waiting"
    world.empty()


def test_work_without_a_permit_is_sent_to_any_usable_upstream_not_tried_yet() -> None:
    world = World(config(upstream("u0", models=("m",)), upstream("u1", models=("m", "n"))))
    ask = world.dispatcher.any_upstream
    assert (ask("m"), ask("m", ("u0",)), ask("m", ("u0", "u1")), ask("n"), ask("x")) == ("u0", "u1", None, "u1", None)
    world.apply(world.dispatcher.health("u0", False, world.now))
    assert ask("m") == "u1"


def test_only_success_is_a_sample_and_its_clock_starts_at_dispatch() -> None:
    world = World(config(upstream(seats=1)))
    running, ticket = world.arrive(), world.arrive()
    world.pass_time(20)
    world.finish(running, Outcome.UPSTREAM_ERROR)
    world.pass_time(0.25)
    world.first_token(ticket)
    world.first_token(ticket)
    world.finish(ticket, usage=Usage(100, 10))
    state = world.dispatcher.snapshot(world.now).upstreams[0].sizer
    assert state.ttft_s == pytest.approx(0.25)
    world.empty()


@pytest.mark.parametrize(
    ("fields", "learnt"),
    [
        pytest.param({}, 200, id="one prompt"),
        pytest.param({"choices": 2}, 100, id="one of several"),
        pytest.param({"work": Work.EMBED}, 100, id="nothing is generated"),
    ],
)
def test_a_refused_prompt_s_count_corrects_what_later_ones_are_expected_to_hold(
    fields: dict[str, Any], learnt: int
) -> None:
    world = World(config(upstream(memory=MemoryBound(tokens=10_000, source="config"))))
    ticket = world.arrive(prompt=100, cap=0, **fields)
    world.dispatcher.prompt_counted(ticket, 200, at_least=False)
    world.finish(ticket, Outcome.UPSTREAM_STATUS)
    world.dispatcher.prompt_counted(ticket, 900, at_least=False)  # it has ended
    world.arrive(prompt=100, cap=0)
    assert world.dispatcher.snapshot(world.now).upstreams[0].kv_reserved_tokens == learnt


def test_bytes_are_counted_for_the_whole_and_for_each_tenant() -> None:
    world = World(config(queue=QueueConfig(max_bytes=100, tenant_share=0.5)))
    assert world.dispatcher.reserve_bytes("a", 100), "alone, a tenant may use all"
    assert not world.dispatcher.reserve_bytes("b", 1)
    world.dispatcher.release_bytes("a", 60)
    assert world.dispatcher.reserve_bytes("b", 50) and not world.dispatcher.reserve_bytes("b", 1)
    assert world.dispatcher.snapshot(world.now).queue_bytes == 90


def test_a_head_that_leaves_makes_way_for_those_who_fit() -> None:
    world = World(config(upstream(seats=3)))
    world.arrive(choices=2)
    head, small = world.arrive(choices=2), world.arrive()
    assert [world.outcome(one) for one in (head, small)] == ["waiting", "waiting"]
    world.cancel(head)
    assert world.outcome(small) == "running"
    world.empty()
