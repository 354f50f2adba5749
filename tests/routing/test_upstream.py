"""Usable, available, and the trial of a half-open breaker."""

from __future__ import annotations

import pytest

from proxy.routing.breaker import BreakerConfig, BreakerState
from proxy.routing.upstream import Upstream

CONFIG = BreakerConfig(min_requests=1)


def make(models: tuple[str, ...] | None = None) -> Upstream:
    return Upstream("u", models, 1.0, CONFIG)


@pytest.mark.parametrize(
    ("healthy", "draining", "state", "usable"),
    [
        (True, False, BreakerState.CLOSED, True),
        (True, False, BreakerState.HALF_OPEN, True),
        (True, False, BreakerState.OPEN, False),
        (False, False, BreakerState.CLOSED, False),
        (True, True, BreakerState.CLOSED, False),
    ],
)
def test_usable(healthy: bool, draining: bool, state: BreakerState, usable: bool) -> None:
    one = make()
    one.healthy, one.draining, one.breaker.state = healthy, draining, state
    assert one.usable is usable and (one.free_seats(3) > 0) is usable


def test_serves_any_model_until_they_are_known() -> None:
    assert make().serves("x") and make(("x",)).serves("x") and not make(("x",)).serves("y")


def test_seats_of_aborting_work_stay_taken() -> None:
    one = make()
    one.take(1, 2)
    one.take(2, 1)
    one.linger()
    assert (one.in_flight, one.aborting, one.free_seats(4), one.free_seats(2)) == (1, 1, 1, 0)
    assert repr(one) == "Upstream(u, usable, in_flight=1, aborting=1)"
    one.aborted(2)
    one.give(1)
    assert (one.in_flight, one.aborting, one.seats_taken) == (0, 0, 0)


def test_half_open_lets_one_through_and_only_its_result_counts() -> None:
    one = make()
    one.take(1, 1)
    assert one.judge(1, False, 0.0) and not one.usable and "unusable" in repr(one)
    one.breaker.advance(100.0)
    assert one.free_seats(4) == 3
    one.take(2, 1)
    assert one.free_seats(4) == 0
    assert not one.judge(1, True, 100.0), "an exchange from before tells nothing"
    assert not one.judge(2, None, 100.0) and one.free_seats(4) == 2, "a silent trial makes room for the next"
    one.take(3, 1)
    assert one.judge(3, True, 100.0) and one.breaker.state is BreakerState.CLOSED
