"""The sizer's rules one by one, on an upstream in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from proxy.admission.batch_sizer import AdaptiveBatchSizer, SizerMemory, TickInput
from proxy.admission.limits import LimitConfig, Reason, SeedLawConfig, Target
from proxy.admission.step_model import Coefficients
from proxy.types import Direction, Failure, Telemetry, Work
from tests.admission.fluid import Fluid, generation, single, ticks

BEST = (0.04 - 0.014) / 0.000175  # 148 seats at 40 ms
AIM = (0.92 * 0.04 - 0.014) / 0.000175  # the same at the margin of the start
TARGET = Target(itl_s=0.04, ttft_s=0.5)


def sizer(
    law: Literal["model", "aimd", "seed"] = "model", shared_by: int | None = 1, **config: object
) -> AdaptiveBatchSizer:
    return AdaptiveBatchSizer("u", replace(LimitConfig(law=law), **config), TARGET, 0.0, shared_by)  # type: ignore[arg-type]


def moment(now: float, in_flight: int = 8, latency_s: float = 0.02, **more: object) -> TickInput:
    tokens = in_flight / latency_s
    given = TickInput(
        now=now,
        duration_s=1.0,
        gap_s=float(in_flight),
        tokens=tokens,
        running=float(in_flight),
        prefill_tokens=0.0,
        in_flight=in_flight,
        prefill_out_tokens=0.0,
        queue_share=1.0,
        mean_prompt_tokens=10,
        mean_output_tokens=100,
    )
    return replace(given, **more)  # type: ignore[arg-type]


def reasons(one: AdaptiveBatchSizer, given: TickInput) -> list[str]:
    return [step.reason for step in one.tick(given)]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("law", "within", "band"), [("model", 20, 0.15), ("aimd", 90, 0.35)])
def test_finds_the_target(law: Literal["model", "aimd"], within: int, band: float, seed: int) -> None:
    limits = ticks([sizer(law)], within + 60, seed=seed)
    settled = [limit for (limit,) in limits[within:]]
    assert all((1 - band) * AIM < limit < 1.15 * AIM for limit in settled), (seed, settled)


def test_bodies_alone_find_it_too() -> None:
    limits = ticks([sizer()], 160, streaming=False)
    assert all(0.75 * BEST < limit < 1.15 * BEST for (limit,) in limits[100:])


def test_embeddings_follow_their_service_time() -> None:
    limits = ticks([sizer()], 60, Fluid(a=0.05, s=0.005), work=Work.EMBED)
    assert all(0.8 * 90 < limit <= 92 for (limit,) in limits[30:])


@pytest.mark.parametrize(
    ("shared_by", "gauge", "seconds", "jain"), [(3, True, 60, 0.99), (3, False, 300, 0.92), (1, True, 400, 0.92)]
)
def test_proxies_share_an_upstream_fairly(shared_by: int, gauge: bool, seconds: int, jain: float) -> None:
    sizers = [sizer(shared_by=shared_by, initial=initial) for initial in (100, 20, 6)]
    limits = ticks(sizers, seconds, gauge=gauge)[-20:]
    mean = [sum(column) / 20 for column in zip(*limits, strict=True)]
    assert sum(mean) ** 2 / (3 * sum(value**2 for value in mean)) > jain
    assert 0.7 * BEST < sum(mean) < 1.1 * BEST


def test_demand_and_not_the_limit_holds_requests_back() -> None:
    one = sizer()
    ticks([one], 30, demand=lambda _now: 5.0)
    assert one.limit == 8.0


def test_unused_limit_decays_and_ramps_again() -> None:
    one = sizer()
    limits = ticks([one], 300, demand=lambda now: 25.0 if 60 <= now < 280 else 500.0)
    assert limits[59][0] > 0.8 * BEST
    assert limits[270][0] == 58.0
    assert limits[288][0] > 0.8 * BEST


def test_unused_limit_decays_under_any_law() -> None:
    one = sizer("seed", initial=100)
    assert reasons(one, moment(1.0, 5, queue_share=0.0)) == [Reason.IDLE]
    assert one.limit == 90.0


@pytest.mark.parametrize("minimum", [1, 4])
def test_hopeless_target_stops_at_the_minimum(minimum: int) -> None:
    one = sizer(minimum=minimum)
    ticks([one], 60, Fluid(a=0.2))
    assert one.limit == minimum
    assert one.seats == minimum


@pytest.mark.parametrize("law", ["model", "aimd", "seed"])
def test_ceiling_binds_at_once_and_is_reported(law: Literal["model", "aimd", "seed"]) -> None:
    one = sizer(law, initial=20)
    one.set_ceiling(12)
    assert (one.limit, one.seats) == (12.0, 12)
    (step,) = one.tick(moment(1.0, queue_share=0.0))
    assert (step.before, step.after, step.direction, step.reason) == (20.0, 12.0, Direction.DOWN, Reason.CEILING)
    one.set_ceiling(0)
    assert one.seats == 1  # one request at a time always runs


def test_maximum_and_measured_memory_stop_a_raise() -> None:
    one = sizer(maximum=20)
    assert max(limit for (limit,) in ticks([one], 30)) == 20.0
    tight = sizer()
    for now in range(1, 9):
        tight.tick(moment(float(now), tight.seats, kv_limit_seats=11.0))
    assert tight.limit == 11.0


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Failure.SHED, Reason.SHED),
        (Failure.TIMEOUT, Reason.TIMEOUT),
        (Failure.RESET, Reason.RESET),
        (Failure.CONNECT, None),
        (Failure.STALE, None),
    ],
)
def test_failures_cut_once(failure: Failure, reason: Reason | None) -> None:
    one = sizer(initial=40)
    step = one.overloaded(0.0, failure)
    assert (step.reason if step is not None else None) == reason
    assert one.limit == (40.0 if reason is None else 30.0)
    one.tick(moment(1.0, 20, queue_share=0.0))
    assert one.overloaded(9.0, failure) is None
    later = one.overloaded(11.0, failure)
    assert later is None if reason is None else later is not None and later.after == 15.0


def test_a_cut_is_not_undone_before_it_has_drained() -> None:
    one = sizer(initial=40)
    for now in range(1, 5):
        one.tick(moment(float(now), 40, 0.02, queue_share=0.0))
    one.overloaded(5.0, Failure.TIMEOUT)
    assert reasons(one, moment(6.0, 38)) == []
    assert reasons(one, moment(7.0, 30)) == [Reason.HEADROOM]


def test_shedding_engine_is_capped_below_what_ran() -> None:
    one = sizer(initial=100)
    one.tick(moment(1.0, 50, queue_share=0.0))
    one.overloaded(2.0, Failure.SHED)
    for now in range(3, 20):
        one.tick(moment(float(now), one.seats, 0.015))
    assert one.limit == 45.0


def test_waiting_inside_the_engine_caps_the_limit() -> None:
    one = sizer(initial=100)
    seen = [
        reasons(one, moment(float(now), 100, queue_share=0.0, engine=Telemetry(float(now), running=64, waiting=36)))
        for now in (1, 2)
    ]
    assert seen == [[], [Reason.ENGINE_CAP]]
    assert one.seats == 64


def test_arrivals_of_a_step_of_short_answers_are_no_engine_cap() -> None:
    one = sizer(initial=40)
    told = [
        reasons(one, moment(float(now), 40, engine=Telemetry(float(now), running=28, waiting=4), mean_output_tokens=18))
        for now in range(1, 6)
    ]
    assert not any(Reason.ENGINE_CAP in reason for reason in told)


def test_preemption_cuts_limit_and_memory_factor_and_teaches_nothing() -> None:
    one = sizer(initial=40)
    one.tick(moment(1.0, 40, engine=Telemetry(1.0, preemptions=5)))
    before = one.state().a
    assert reasons(one, moment(2.0, 40, 9.9, engine=Telemetry(2.0, preemptions=6))) == [Reason.PREEMPTION]
    assert one.limit == 34.0
    assert one.kv_factor == pytest.approx(0.9 * 0.88)
    assert one.state().a == before
    assert reasons(one, moment(8.0, 20, queue_share=0, engine=Telemetry(8.0, preemptions=7))) == [Reason.PREEMPTION]
    assert one.limit == 17.0
    assert reasons(one, moment(14.0, 30, queue_share=0, engine=Telemetry(14.0, preemptions=8))) == []


@pytest.mark.parametrize(
    ("latency_s", "prefill_tokens", "expected"),
    [(0.07, 0.0, [Reason.EMERGENCY]), (0.06, 0.0, [])],
)
def test_emergency_after_three_hot_ticks(latency_s: float, prefill_tokens: float, expected: list[str]) -> None:
    one = sizer("aimd", initial=40)
    epoch = one.epoch
    seen = [
        reason
        for now in (1, 2, 3, 4, 5)
        for reason in reasons(one, moment(float(now), 40, latency_s, prefill_tokens=prefill_tokens))
        if reason == Reason.EMERGENCY
    ]
    assert seen == expected
    assert one.epoch == epoch + len(expected)


def test_latency_that_prefill_explains_is_no_emergency() -> None:
    one = sizer("aimd")
    ticks([one], 60)
    d = one.state().d
    assert d is not None
    prefill_per_step = 0.06 / d
    for now in range(61, 66):
        given = moment(float(now), 40, 0.08, prefill_tokens=prefill_per_step / 0.08)
        assert Reason.EMERGENCY not in reasons(one, given)


def test_poor_fit_hands_over_to_additive_steps() -> None:
    one = sizer(maximum=60)
    for now in range(1, 90):
        one.tick(moment(float(now), one.seats, 0.004 if now % 2 else 0.09))
    assert one.state().fit_ratio < 0.3
    one.hold(30, 90.0)
    one.hold(None, 90.0)
    steps = [step for now in range(91, 101) for step in one.tick(moment(float(now), one.seats, 0.004))]
    assert [step.after - step.before for step in steps if step.direction is Direction.UP][-1] < 2.0


def test_seed_law_moves_on_samples_and_only_while_the_limit_binds() -> None:
    one = sizer("seed", seed_law=SeedLawConfig(interval=2))
    quick = generation(0.01)
    assert [one.observe(quick, 1.0) for _ in range(2)] == [None, None]  # nothing has bound yet
    one.tick(moment(2.0))
    steps = [one.observe(quick, 3.0) for _ in range(2)]
    assert steps[0] is None and steps[1] is not None
    assert (steps[1].after, steps[1].reason) == (12.0, Reason.HEADROOM)
    slow = [one.observe(generation(0.06), 4.0) for _ in range(2)]
    assert slow[1] is not None and slow[1].after == pytest.approx(8.4)


def test_audio_recovers_to_its_start_and_never_beyond() -> None:
    one = sizer()
    one.overloaded(0.0, Failure.TIMEOUT)
    assert one.limit == 6.0
    limits = []
    for now in range(1, 61):
        one.observe(single(Work.AUDIO, 20.0), float(now))
        one.tick(moment(float(now), one.seats, tokens=0.0, gap_s=0.0))
        limits.append(one.limit)
    assert limits[8] == 6.0 and limits[9] == 7.0 and limits[-1] == 8.0
    assert one.state().reason == Reason.RECOVERY


def test_operator_holds_and_lets_go() -> None:
    one = sizer()
    step = one.hold(30, 0.0)
    assert step is not None and (step.after, step.reason) == (30.0, Reason.HELD)
    assert one.overloaded(1.0, Failure.SHED) is None
    assert all(limit == 30.0 for (limit,) in ticks([one], 30))
    assert one.state().held
    assert one.hold(None, 31.0) is None
    assert ticks([one], 20, since_s=31.0)[-1][0] > 100
    seed = sizer("seed", seed_law=SeedLawConfig(interval=1))
    seed.hold(30, 0.0)
    assert seed.observe(generation(9.0), 1.0) is None


def test_fixed_mode_holds_but_keeps_learning() -> None:
    one = sizer(mode="fixed", initial=50)
    assert all(limit == 50.0 for (limit,) in ticks([one], 30))
    assert one.overloaded(31.0, Failure.SHED) is None
    assert one.state().kappa is not None
    assert one.restore(one.memory(), 32.0) is None
    one.hold(3, 33.0)
    step = one.hold(None, 34.0)
    assert step is not None and (step.after, step.reason) == (50.0, Reason.RECONFIGURED)


def test_reconfigure_keeps_what_was_learnt() -> None:
    one = sizer()
    ticks([one], 40)
    before = one.state()
    assert one.reconfigure(LimitConfig(), TARGET, 41.0) is None
    assert one.limit == before.limit
    one.reconfigure(LimitConfig(), Target(itl_s=0.025), 42.0)
    assert one.epoch > before.epoch
    limits = ticks([one], 20, since_s=43.0)
    assert limits[-1][0] == pytest.approx((0.025 * 0.92 - 0.014) / 0.000175, rel=0.2)
    step = one.reconfigure(LimitConfig(mode="fixed", initial=5), TARGET, 70.0)
    assert step is not None and (step.after, step.reason) == (5.0, Reason.RECONFIGURED)


def test_restart_resumes_at_seventy_per_cent_with_the_fit() -> None:
    old = sizer()
    ticks([old], 60)
    one = sizer()
    step = one.restore(old.memory(), 0.0)
    assert step is not None and step.reason == Reason.RESTORED
    assert step.after == pytest.approx(0.7 * old.limit)
    assert one.state().a == old.state().a
    assert ticks([one], 5)[-1][0] > 0.8 * BEST
    fresh = sizer()
    assert fresh.restore(sizer().memory(), 0.0) is not None
    assert fresh.state().a is None


@pytest.mark.parametrize(("fit", "kept"), [(Coefficients(0.014, 1.9e-4, 4e-5), True), (None, False)])
def test_a_restart_keeps_the_margin_that_requests_have_told_and_shifts_nothing(
    fit: Coefficients | None, kept: bool
) -> None:
    one = sizer()
    one.restore(SizerMemory(100.0, 0.8, fit), 0.0)
    assert one.state().margin == pytest.approx(0.8 if kept else 0.94)
    for now in range(1, 6):
        one.tick(moment(float(now), 100, 0.033, mix=3))
    assert (one.state().margin < 0.85) == kept
    assert one.epoch <= 1, "the mix was there before"


def test_service_cost_keeps_its_unit() -> None:
    one = sizer()
    guess_s = one.service_cost(512, 256)
    assert one.prefill_rate() is None
    ticks([one], 60)
    assert guess_s / 5 < one.service_cost(512, 256) < guess_s * 5
    assert one.service_cost(0, 256) == pytest.approx(256 * 0.04 / BEST, rel=0.5)
    rate = one.prefill_rate()
    assert rate is not None and rate > 0


def test_free_seats_beside_waiting_requests_loosen_the_prefill_bound_unless_memory_is_full() -> None:
    bounds = {}
    for seats in (None, 8.0):
        one = sizer(initial=100)
        for now in range(20):
            one.tick(
                moment(float(now), 8, 0.015, prefill_out_tokens=5000.0, mean_prompt_tokens=400, kv_limit_seats=seats)
            )
        bounds[seats] = one.prefill_tokens_max
    assert bounds[None] > 2 * bounds[8.0]


def test_unfitted_state_is_empty_and_readable() -> None:
    one = sizer()
    state = one.state()
    assert (state.a, state.b, state.d, state.kappa, state.itl_s, state.reason) == (None,) * 6
    assert repr(one) == "AdaptiveBatchSizer('u', limit=8.0, epoch=0, None)"
    assert one.prefill_tokens_max == 4096
