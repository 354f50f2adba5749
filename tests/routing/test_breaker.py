"""The transition table, the window and the pause."""

from __future__ import annotations

import pytest

from proxy.routing.breaker import Breaker, BreakerConfig, BreakerState, Event

CONFIG = BreakerConfig(window_s=10, min_requests=4, failure_ratio=0.5, open_s=5)


@pytest.mark.parametrize(
    ("results", "at_s", "opens"),
    [
        ("bbb", 0, False),  # too few
        ("bbbb", 0, True),
        ("ggbb", 0, True),
        ("gggbb", 0, False),
        ("bbgg", 0, False),  # a good result never opens
        ("bbb", 2.5, False),  # older ones leave the window
        ("bbbb", 2.5, True),
        ("ggggggbbbbb", 1, True),
    ],
)
def test_closed_opens_by_ratio_of_a_window(results: str, at_s: float, opens: bool) -> None:
    breaker = Breaker(CONFIG)
    moved = [breaker.result(result == "g", 100 + index * at_s) for index, result in enumerate(results)]
    assert any(moved) is opens and moved[-1] is opens
    assert breaker.state is (BreakerState.OPEN if opens else BreakerState.CLOSED)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(CONFIG)
    assert [breaker.result(False, now) for _ in range(4)][-1]
    return breaker


def test_old_results_leave_the_window() -> None:
    breaker = Breaker(CONFIG)
    for _ in range(3):
        breaker.result(False, 0.0)
    assert not breaker.result(False, 10.5)


@pytest.mark.parametrize(("ok", "after"), [(True, BreakerState.CLOSED), (False, BreakerState.OPEN)])
def test_half_open_is_decided_by_one_result(ok: bool, after: BreakerState) -> None:
    breaker = opened()
    assert (breaker.passes, breaker.result(True, 1.0), breaker.advance(4.9)) == (0, False, False)
    assert breaker.advance(5.0) and breaker.passes == 1
    assert breaker.result(ok, 5.1) and breaker.state is after
    assert breaker.passes == (None if ok else 0)


def test_the_pause_doubles_up_to_a_minute_until_the_prober_resets_it() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(6):
        pauses.append(breaker.reopens_s - now)
        now = breaker.reopens_s
        breaker.advance(now)
        breaker.result(False, now)
    assert pauses == [5, 10, 20, 40, 60, 60]
    breaker.reset()
    for _ in range(4):
        breaker.result(False, now)
    assert breaker.reopens_s == now + 5
    assert repr(breaker) == "Breaker(open, openings=1)"


@pytest.mark.parametrize(("calm_s", "pause_s"), [(1.0, 10.0), (59.0, 10.0), (61.0, 5.0)])
def test_an_upstream_that_comes_and_goes_pauses_longer_and_one_that_was_well_for_long_does_not(
    calm_s: float, pause_s: float
) -> None:
    breaker = opened()
    breaker.advance(5.0)
    breaker.result(True, 5.0)
    now = 5.0 + calm_s
    assert [breaker.result(False, now) for _ in range(4)][-1]
    assert breaker.reopens_s == now + pause_s


def test_closing_clears_the_window() -> None:
    breaker = opened()
    breaker.advance(5.0)
    breaker.result(True, 5.0)
    assert not any(breaker.result(False, 5.0) for _ in range(3))
    assert breaker.result(False, 5.0)


def test_events_without_an_entry_change_nothing() -> None:
    assert set(Event) == {"tripped", "paused", "good", "bad"}
    assert not Breaker(CONFIG).advance(1e9)
