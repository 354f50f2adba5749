"""What is remembered for operators."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from random import Random

import pytest

from proxy.admission.limits import LimitConfig
from proxy.dispatcher import Dispatcher
from proxy.types import Failure, Outcome

from .world import CLASSES, World, config, upstream


def test_the_last_fifty_refusals_and_limit_changes_are_kept() -> None:
    tiny = tuple(replace(one, queue_max=0) for one in CLASSES)
    world = World(config(replace(upstream(), limit=LimitConfig(initial=8)), classes=tiny))
    for seats in range(1, 61):
        world.apply(world.dispatcher.hold_limit("u0", seats % 7 + 1, world.now))
        world.arrive("a", rank=seats % 4)
    state = world.dispatcher.snapshot(world.now)
    assert len(state.steps) == len(state.refusals) == 50
    assert {(one.outcome, one.detail) for one in state.refusals} == {
        (Outcome.QUEUE_FULL, "the queue of its class is full")
    }
    assert state.steps[-1].after == 5 and state.steps[-1].reason == "held"


def test_a_retry_that_waits_is_told_of_its_failure_when_all_upstreams_go() -> None:
    world = World(config(upstream("u0", 1), upstream("u1", 1)))
    first, second = world.arrive(), world.arrive()
    third, fresh = world.arrive(), world.arrive()
    world.fail(first, Failure.CONNECT)
    for name in ("u0", "u1"):
        world.apply(world.dispatcher.health(name, False, world.now))
    assert world.outcome(first) is Outcome.UPSTREAM_ERROR
    assert [world.outcome(one) for one in (second, third, fresh)] == ["running", "running", Outcome.NO_UPSTREAM]
    world.empty()


def test_invariants_are_checked_where_asked_for() -> None:
    for checks in (False, True):
        dispatcher = Dispatcher(config(), 0.0, Random(1), checks)
        dispatcher._board.granted = 7
        with pytest.raises(AssertionError, match="no permit leaks") if checks else nullcontext():
            dispatcher.expire(0.0)
