"""The laws as tables: what each does to a limit, and when it must not move."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from proxy.admission.limits import (
    AimdLaw,
    Change,
    FixedLaw,
    LimitConfig,
    ModelLaw,
    Reason,
    SeedLaw,
    SeedLawConfig,
    Signal,
    law_of,
)

SIGNAL = Signal(
    now=0.0,
    latency_s=0.02,
    target_s=0.04,
    aim_s=0.036,
    running=10,
    in_flight=10,
    binding=True,
    bound=inf,
    predicted=100.0,
    trusted=42.0,
)


@pytest.mark.parametrize(
    ("config", "law"),
    [
        (LimitConfig(mode="fixed", law="seed"), FixedLaw),
        (LimitConfig(law="seed"), SeedLaw),
        (LimitConfig(law="aimd"), AimdLaw),
        (LimitConfig(), ModelLaw),
    ],
)
def test_configuration_names_the_law(config: LimitConfig, law: type) -> None:
    assert isinstance(law_of(config), law)


def test_fixed_never_moves() -> None:
    assert FixedLaw().sampled(8, 9.0, True) is None
    assert FixedLaw().ticked(8, SIGNAL) is None


@pytest.mark.parametrize(
    ("pressure", "binding", "expected"),
    [
        (0.79, True, Change(12.0, Reason.HEADROOM)),
        (0.79, False, None),
        (0.9, True, None),
        (1.01, False, Change(5.6, Reason.OVER_TARGET)),
    ],
)
def test_seed_steps_on_the_mean_of_an_interval(pressure: float, binding: bool, expected: Change | None) -> None:
    law = SeedLaw(SeedLawConfig(interval=2))
    assert law.sampled(8, pressure - 0.05, binding) is None
    change = law.sampled(8, pressure + 0.05, binding)
    assert (change is None) == (expected is None)
    if change is not None and expected is not None:
        assert change.limit == pytest.approx(expected.limit)
        assert change.reason is expected.reason
    assert law.sampled(8, pressure, binding) is None  # the next interval starts empty
    assert law.ticked(8, SIGNAL) is None


def test_seed_does_not_freeze_at_one() -> None:
    law, limit = SeedLaw(SeedLawConfig(interval=1)), 1.0
    for _ in range(3):
        change = law.sampled(limit, 0.1, True)
        assert change is not None
        limit = change.limit
    assert limit == pytest.approx(1.5**3)


@pytest.mark.parametrize(
    ("limit", "signal", "expected"),
    [
        (16, SIGNAL, Change(17.0, Reason.HEADROOM)),
        (100, SIGNAL, Change(102.5, Reason.HEADROOM)),
        (16, replace(SIGNAL, binding=False), None),
        (16, replace(SIGNAL, latency_s=0.0335), None),
        (16, replace(SIGNAL, latency_s=0.035), Change(9.0, Reason.OVER_TARGET)),
        (5, replace(SIGNAL, latency_s=0.035), Change(4.5, Reason.OVER_TARGET)),
    ],
)
def test_aimd(limit: float, signal: Signal, expected: Change | None) -> None:
    law = AimdLaw()
    assert law.ticked(limit, signal) == expected
    assert law.sampled(limit, 9.0, True) is None


def test_aimd_cuts_once_in_three_seconds_on_smoothed_latency() -> None:
    law, hot = AimdLaw(), replace(SIGNAL, latency_s=0.05)
    assert law.ticked(10, replace(SIGNAL, latency_s=0.017)) is not None
    cuts = [law.ticked(10, replace(hot, now=float(now))) for now in range(1, 6)]
    assert [cut is not None for cut in cuts] == [False, True, False, False, True]


@pytest.mark.parametrize(
    ("limit", "signal", "expected"),
    [
        (8, SIGNAL, Change(16.0, Reason.HEADROOM)),  # doubling
        (30, SIGNAL, Change(42.0, Reason.HEADROOM)),  # no further than the data reach
        (1, SIGNAL, Change(3.0, Reason.HEADROOM)),
        (30, replace(SIGNAL, bound=35), Change(35.0, Reason.HEADROOM)),
        (8, replace(SIGNAL, binding=False), None),
        (8, replace(SIGNAL, predicted=None), None),
        (41.5, SIGNAL, None),  # dead band
        (42.9, SIGNAL, None),
        (50, SIGNAL, Change(42.0, Reason.OVER_TARGET)),
        (100, SIGNAL, Change(70.0, Reason.OVER_TARGET)),
        (8, replace(SIGNAL, predicted=0.2), Change(5.6, Reason.OVER_TARGET)),
        (1, replace(SIGNAL, predicted=0.2), None),
        (8, replace(SIGNAL, marginal_gain=0.14), None),  # plateau
        (8, replace(SIGNAL, marginal_gain=0.14, latency_s=0.0007), Change(16.0, Reason.HEADROOM)),  # answered at once
        (60, replace(SIGNAL, marginal_gain=0.14, trusted=400), Change(100.0, Reason.HEADROOM)),
        (60, replace(SIGNAL, marginal_gain=0.14, trusted=400, target_s=inf), None),
        (10, replace(SIGNAL, gain_up=0.2), Change(12.0, Reason.HEADROOM)),
        (2, replace(SIGNAL, gain_up=0.2), Change(3.0, Reason.HEADROOM)),
    ],
)
def test_model_follows_the_prediction(limit: float, signal: Signal, expected: Change | None) -> None:
    law = ModelLaw()
    assert law.ticked(limit, signal) == expected
    assert law.sampled(limit, 9.0, True) is None


@pytest.mark.parametrize("arrival", [replace(SIGNAL, predicted=40.0), replace(SIGNAL, predicted=20.0)])
def test_model_ramps_slower_after_it_arrived_until_it_restarts(arrival: Signal) -> None:
    law = ModelLaw()
    law.ticked(40.0, arrival)
    assert law.ticked(20.0, SIGNAL) == Change(25.0, Reason.HEADROOM)
    law.restart()
    assert law.ticked(20.0, SIGNAL) == Change(40.0, Reason.HEADROOM)


@pytest.mark.parametrize(("slope", "raises"), [(1.0, True), (-1.0, False)])
def test_model_stops_where_measured_throughput_falls(slope: float, raises: bool) -> None:
    law = ModelLaw()
    for n in range(30):
        law.ticked(10, replace(SIGNAL, running=float(n), token_rate=100 + slope * n))
    assert (law.ticked(10, replace(SIGNAL, running=15.0, token_rate=100 + slope * 15)) is not None) == raises


def test_throughput_of_another_engine_stops_nothing() -> None:
    law = ModelLaw()
    for n in range(30):
        law.ticked(10, replace(SIGNAL, running=float(n), token_rate=100.0 - n))
    law.ticked(10, replace(SIGNAL, predicted=None))
    assert law.ticked(10, replace(SIGNAL, running=15.0, token_rate=85.0)) is not None


@pytest.mark.parametrize("limit", [4.0, 40.0, 400.0])
def test_aimd_beside_others_takes_the_same_step_as_they(limit: float) -> None:
    signal = Signal(1.0, 0.01, 0.05, 0.05, limit, int(limit), binding=True, bound=1e9, total=128.0)
    assert AimdLaw().ticked(limit, signal) == Change(limit + 2.0, Reason.HEADROOM)
