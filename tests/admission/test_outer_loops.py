"""Each slow loop alone."""

from __future__ import annotations

from math import inf

import pytest

from proxy.admission.measure import Measure
from proxy.admission.outer_loops import (
    Drag,
    Epoch,
    FractionalSeat,
    MemoryFactor,
    Peak,
    PrefillLoop,
    Price,
    Sharing,
)
from proxy.admission.step_model import Coefficients
from proxy.types import Telemetry


def test_prefill_follows_the_rate_down_at_once_and_up_slowly() -> None:
    loop = PrefillLoop()
    loop.tick(None, 0.5, True, 0, inf, 500)
    assert loop.tokens_max == 4096
    loop.tick(20_000, 0.5, True, 0, inf, 500)
    assert loop.tokens_max == pytest.approx(8_000)
    loop.tick(30_000, 0.5, True, 0, inf, 500)
    assert loop.tokens_max == pytest.approx(8_400)
    loop.tick(15_000, 0.5, True, 0, inf, 500)
    assert loop.tokens_max == pytest.approx(0.4 * (21_000 + 15_000) / 2)
    for _ in range(20):
        loop.tick(100, 0.5, True, 0, inf, 500)
    assert loop.tokens_max == 2048  # one chunk always


@pytest.mark.parametrize(
    ("ttft_s", "waiting", "cut"),
    [(0.30, 0, True), (0.20, 0, False), (0.30, 2, False)],
)
def test_prefill_backs_off_when_first_tokens_come_late_for_no_known_reason(
    ttft_s: float, waiting: int, cut: bool
) -> None:
    loop = PrefillLoop()
    loop.observe(9.0, 0, 0.02)  # no rate yet: nothing to compare with
    loop.tick(20_000, 0.5, True, waiting, inf, 500)
    for tick in range(3):
        assert loop.tokens_max == pytest.approx(8_000), tick
        loop.observe(ttft_s, 2_000, 0.02)  # explained: 0.10 + 0.02
        loop.tick(20_000, 0.5, True, waiting, inf, 500)
    assert loop.tokens_max == pytest.approx(6_400 if cut else 8_000)
    loop.tick(20_000, 0.5, False, waiting, inf, 500)
    assert loop.tokens_max == pytest.approx(6_400 if cut else 8_000)
    loop.tick(20_000, 0.5, True, waiting, inf, 500)
    assert loop.tokens_max == pytest.approx(6_528 if cut else 8_000)


@pytest.mark.parametrize(
    ("room", "prompt", "most"),
    [(600, 100, 1_200), (600, 512, 1_200), (300, 512, 1_024), (10_000, 512, 8_000), (0, 3_000, 6_000)],
)
def test_prefill_is_paced_by_what_two_steps_take_within_the_target(room: float, prompt: float, most: float) -> None:
    loop = PrefillLoop()
    loop.tick(20_000, 0.5, True, 0, room, prompt)
    assert loop.tokens_max == pytest.approx(most)


@pytest.mark.parametrize(
    ("seen", "factor"), [(1.0, 1.0), (1.1, 1.0), (0.9, 1.0), (2.0, 2 / 1.15), (0.5, 0.5 / 0.85), (99.0, 4 / 1.15)]
)
def test_drag_corrects_the_lengths_by_what_the_engine_shows(seen: float, factor: float) -> None:
    drag = Drag()
    assert drag.factor == 1.0
    for _ in range(200):
        drag.tick(2.0, rest(seen * 200.0), 100.0)
    assert drag.factor == pytest.approx(factor, rel=1e-3)


def rest(prefill: float, latency_s: float = 0.04, span_s: float = 0.5) -> Measure:
    """Half a second of a hundred requests, with so many prefill tokens per step."""
    return Measure(latency_s, 100.0, prefill, 1.0, False, span_s)


def test_drag_believes_in_eight_seconds_and_starts_from_what_lengths_say() -> None:
    drag = Drag()
    drag.tick(2.0, rest(800.0), 100.0)
    assert drag.factor == pytest.approx((1 + 3 * 0.5 / 8.5) / 1.15, rel=0.02)
    for _ in range(15):
        drag.tick(2.0, rest(800.0), 100.0)
    assert drag.factor == pytest.approx((1 + 3 * (1 - 1 / 2.718)) / 1.15, rel=0.02)


def test_drag_counts_tokens_for_steps_with_much_prefill_are_long() -> None:
    drag = Drag()
    for _ in range(100):
        drag.tick(2.0, rest(0.0), 100.0)  # 12.5 steps
        drag.tick(2.0, rest(600.0, latency_s=0.08), 100.0)  # 6.25 steps: 200 per step, as lengths say
    assert drag.factor == 1.0


@pytest.mark.parametrize(
    ("prompt", "factor"), [(100.0, 2 / 1.15), (5_000.0, 2 / (1 + (2 * 5_000 / 40_000) ** 0.5)), (40_000.0, 2 / 1.9)]
)
def test_drag_takes_a_few_prompts_of_uneven_length_for_noise(prompt: float, factor: float) -> None:
    drag = Drag()
    for _ in range(400):
        drag.tick(2.0, rest(400.0), prompt)
    assert drag.factor == pytest.approx(factor, rel=0.02)


def test_drag_believes_nothing_where_no_prefill_is_expected() -> None:
    drag = Drag()
    drag.tick(0.0, rest(0.0), 0.0)
    assert drag.factor == 1.0


def scrape(at_s: float, running: int | None = 64, waiting: int | None = 10, **more: float) -> Telemetry:
    kv_usage = more.get("kv_usage")
    preemptions = int(more["preemptions"]) if "preemptions" in more else None
    return Telemetry(at_s, running, waiting, kv_usage, preemptions)


@pytest.mark.parametrize(
    ("pressures", "times"),
    [([0.8], 1.1), ([0.95], 1.0), ([1.1], 1.0), ([0.8, 0.8, 0.8, 1.1], 1.1**3 * 0.8), ([0.8] * 99, 8)],
)
def test_prefill_that_alone_keeps_seats_empty_is_paced_less(pressures: list[float], times: float) -> None:
    loop = PrefillLoop()
    for pressure in pressures:
        loop.alone(pressure)
    loop.tick(1e6, 0.5, True, 0, 1000, 500)
    assert loop.tokens_max == pytest.approx(times * 2000)


def test_a_request_costs_its_share_of_the_batch_that_runs_or_will() -> None:
    price, fit = Price(), Coefficients(0.01, 1e-4, 4e-5, 2.0)
    assert price.cost(None, 100, 50) == pytest.approx(4e-5 * 200)
    for price.running, price.full, batch in ((8.0, 100.0, 100), (120.0, 100.0, 120), (0.0, 0.5, 1)):
        assert price.cost(fit, 100, 50) == pytest.approx(2 * (4e-5 * 100 + (0.01 / batch + 1e-4) * 50))


@pytest.mark.parametrize(
    ("kv_usage", "wanted", "factor"),
    [
        (0.5, True, 0.918),
        (0.85, True, 0.9072),
        (0.95, True, 0.9),
        (0.5, False, 0.9),
        (None, True, 0.9),
        (0.0, True, 0.9),
    ],
)
def test_memory_factor_regains(kv_usage: float | None, wanted: bool, factor: float) -> None:
    loop = MemoryFactor()
    for now in (1.0, 2.0):  # once in five seconds
        assert not loop.tick(Telemetry(now, kv_usage=kv_usage, preemptions=3), now, wanted)
    assert loop.factor == pytest.approx(factor)


@pytest.mark.parametrize(("full_s", "now", "grows"), [(0.0, 10.0, False), (0.0, 20.5, True), (15.0, 20.5, False)])
def test_memory_factor_waits_until_memory_has_not_been_full_for_a_while(full_s: float, now: float, grows: bool) -> None:
    loop = MemoryFactor()
    loop.tick(Telemetry(full_s, kv_usage=0.95, preemptions=0), full_s, True)
    loop.tick(Telemetry(now, kv_usage=0.6, preemptions=0), now, True)
    assert (loop.factor > 0.9) == grows


def test_memory_factor_cuts_once_per_burst_of_preemptions() -> None:
    loop = MemoryFactor()
    told = [loop.tick(scrape(float(now), preemptions=now), float(now), False) for now in range(1, 9)]
    assert told == [False, True, False, False, False, False, True, False]
    assert loop.factor == pytest.approx(0.9 * 0.88**2)
    assert not loop.tick(None, 20.0, True)
    for now in range(20, 400):
        loop.tick(scrape(float(now), preemptions=now), float(now), False)
    assert loop.factor == 0.5
    for now in range(400, 1200):
        loop.tick(scrape(float(now), preemptions=399, kv_usage=0.3), float(now), True)
    assert loop.factor == 1.3


@pytest.mark.parametrize(("limit", "share"), [(5.7, 0.7), (5.25, 0.25), (5.0, 0.0), (40.5, 0.0), (0.5, 0.0)])
def test_a_fraction_of_a_seat_is_lent_on_time_average(limit: float, share: float) -> None:
    fraction = FractionalSeat()
    lent = 0
    for _ in range(400):
        fraction.tick(limit, int(limit) + fraction.extra, wanted=True)
        lent += fraction.extra
    assert lent / 400 == pytest.approx(share, abs=0.02)
    fraction.tick(limit, 0, wanted=False)
    assert fraction.extra == 0


def test_peak_of_a_minute() -> None:
    peak = Peak()
    assert [peak.tick(value, now) for now, value in ((0.0, 9), (10.0, 3), (50.0, 5), (60.0, 4), (61.0, 4))] == [
        9, 9, 9, 9, 5,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shared_by", "total", "own", "seconds", "active"),
    [
        (1, 30.0, 10, 12, True),
        (1, 30.0, 10, 9, False),
        (1, 10.7, 10, 60, False),
        (1, 109.0, 100, 12, True),  # one that holds nearly all of the engine
        (1, None, 10, 60, False),
        (1, 30.0, 0, 60, False),
        (None, 30.0, 10, 12, True),
        (3, 10.0, 10, 60, True),  # configured: true whatever the gauge says
    ],
)
def test_sharing(shared_by: int | None, total: float | None, own: int, seconds: int, active: bool) -> None:
    sharing = Sharing(shared_by)
    for now in range(seconds):
        sharing.tick(total, own, float(now))
    assert sharing.active == active


def test_sharing_ends_when_alone_again() -> None:
    sharing = Sharing(1)
    for now in range(12):
        sharing.tick(30.0, 10, float(now))
    sharing.tick(10.6, 10, 12.5)  # not alone yet
    sharing.tick(10.0, 10, 13.0)
    sharing.tick(30.0, 10, 14.0)  # a moment does not count
    for now in range(15, 26):
        assert sharing.active
        sharing.tick(10.0, 10, float(now))
    assert not sharing.active


def test_epoch_opens_on_a_moved_kappa_at_most_every_twenty_seconds() -> None:
    epoch = Epoch(0.0)
    moves = ((0.3, 10.0), (0.1, 25.0), (0.3, 26.0), (0.3, 37.0), (0.5, 38.0), (0.5, 46.5))
    assert [epoch.follow(kappa, now) for kappa, now in moves] == [False, False, True, False, False, True]
    assert epoch.number == 2


def test_epoch_opens_again_for_ten_seconds_while_the_same_move_goes_on() -> None:
    epoch = Epoch(0.0)
    moves = (
        (0.2, 20.0),
        (0.24, 21.0),
        (0.3, 22.0),
        (0.34, 25.0),
        (0.36, 30.0),
        (0.45, 31.0),
        (0.45, 49.0),
        (0.2, 50.5),
    )
    assert [epoch.follow(kappa, now) for kappa, now in moves] == [
        True, False, True, False, True, False, False, True,
    ]  # fmt: skip


def test_engine_has_become_slower_where_kappa_is_a_tenth_higher_and_only_the_pause_keeps_an_epoch_back() -> None:
    epoch = Epoch(0.0)
    assert not epoch.slower(0.0), "nothing is known yet"
    for now, kappa_log in ((1.0, 0.0), (2.0, 0.09), (3.0, 0.14)):
        assert not epoch.follow(kappa_log, now)
    assert not epoch.slower(1.0), "too little for an epoch"
    for now, kappa_log in ((4.0, 0.25), (5.0, 0.3)):
        assert not epoch.follow(kappa_log, now)
    assert [epoch.slower(since_s) for since_s in (0.5, 1.0, 3.9, 4.0, 5.5)] == [True, True, True, False, False]
    for second in range(epoch.TICKS_KNOWN):
        epoch.follow(0.3, 6.0 + 0.1 * second)
    assert not epoch.slower(1.0), "the earliest that is known"
    assert epoch.follow(0.3, 30.0)
    for now, kappa_log in ((31.0, 0.3), (41.0, 0.1)):
        assert not epoch.follow(kappa_log, now)
    assert not epoch.slower(31.0), "it is faster now"
