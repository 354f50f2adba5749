"""The sizer where conditions change: other requests, a slower engine, another one."""

from __future__ import annotations

import pytest

from proxy.admission.batch_sizer import AdaptiveBatchSizer
from proxy.admission.limits import LimitConfig, Target
from tests.admission.fluid import Fluid, generation, ticks
from tests.admission.test_batch_sizer import TARGET, moment, sizer


def test_margin_hears_only_requests_of_this_epoch_that_have_a_time_per_token() -> None:
    one = sizer()
    ticks([one], 3)  # the limit is what holds requests back
    one.epoch = 2
    for _ in range(100):
        one.observe(generation(0.09, epoch=1), 30.0)
        one.observe(generation(0.09, epoch=2, output=1), 30.0)
    before = one.state()
    for _ in range(6):
        one.observe(generation(0.09, epoch=2), 30.0)
    assert before.a is not None and before.kappa is not None
    floor = before.kappa * before.a / TARGET.itl_s
    assert one.state().margin == pytest.approx(floor + 0.93 * (before.margin - floor))
    assert one.state().ttft_s == pytest.approx(0.05)


def test_other_requests_open_an_epoch_give_the_margin_back_and_ramp_anew() -> None:
    one = sizer()
    ticks([one], 40)
    for _ in range(6):
        one.observe(generation(0.09, epoch=one.epoch), 40.0)
    before, cut = one.epoch, one.state().margin
    one.hold(20, 41.0)
    one.hold(None, 41.0)
    one.tick(moment(42.0, 20, 0.0175))
    assert one.limit == pytest.approx(25), "an arrived limit rises by a quarter"
    one.tick(moment(43.0, 25, 0.0184, mix=1))
    assert one.limit == pytest.approx(50)
    assert one.epoch == before + 1 and one.state().margin > cut


def test_slowdown_opens_an_epoch() -> None:
    one = sizer()
    ticks([one], 40)
    before = one.epoch
    ticks([one], 10, Fluid(a=0.028, s=0.00035), since_s=40.0)
    assert before < one.epoch <= before + 4, "at the start of the move, and on its way"


def test_requests_that_a_slowdown_has_made_late_judge_no_margin_in_the_pause_between_epochs() -> None:
    one = sizer()
    ticks([one], 40)
    one.tick(moment(41.0, one.seats, 0.038, mix=1))
    ticks([one], 2, since_s=41.0)
    others = one.epoch
    ticks([one], 6, Fluid(a=0.021, s=0.0002625), since_s=43.0)
    assert one.epoch == others, "no epoch opens within 20 s of the last"

    def rest() -> float:
        state = one.state()
        assert state.a is not None and state.kappa is not None
        floor = state.kappa * state.a / TARGET.itl_s
        return (state.margin - floor) / (1 - floor)

    before = rest()
    for _ in range(20):
        one.observe(generation(0.05, others, output=160), 49.0)  # dispatched at the old pace
    assert rest() == pytest.approx(before)
    for _ in range(6):
        one.observe(generation(0.05, others, output=10), 49.0)
    assert rest() == pytest.approx(0.93 * before)


def test_answers_that_become_slow_whatever_n_hold_the_limit_nowhere() -> None:
    one = AdaptiveBatchSizer("u", LimitConfig(), Target(itl_s=0.05, ttft_s=0.5), 0.0)
    ticks([one], 40, Fluid(a=0.0012, s=5e-6), demand=lambda _now: 16.0)
    for now, base_s in ((40.0, 0.007), (41.0, 0.0167)):  # ticks in which both kinds run
        ticks([one], 1, Fluid(a=base_s, s=0.0), since_s=now)
    limits = ticks([one], 12, Fluid(a=0.02, s=0.0), since_s=42.0, demand=lambda _now: 256.0)
    assert limits[-1][0] >= 256
