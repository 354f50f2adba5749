"""The margin of the target, alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission.margin import SAMPLES, SPREADS_MAX, MarginLoop
from proxy.admission.step_model import Coefficients


def hear(loop: MarginLoop, ratios: Sequence[float], dispatched_s: float = 9.0) -> None:
    for ratio in ratios:
        loop.observe(ratio, dispatched_s, 10.0)


W = 1.05  # room for a level that wanders
FIT = Coefficients(0.01, 1e-4, 4e-5)


@pytest.mark.parametrize(
    ("ratio", "count", "margin"),
    [
        (0.5, 100, 0.94 * 1.015),
        (0.945, 100, 0.94 * (W * 0.945) ** -0.5),
        (0.0, 99, 0.94),
        (0.5, 124, 0.94 * 1.015),  # the next judgement is due after 25 more
        (0.5, 125, 0.94 * 1.015**2),
    ],
)
def test_margin_rises_with_headroom(ratio: float, count: int, margin: float) -> None:
    loop = MarginLoop(0.95)
    hear(loop, [ratio] * count)
    assert loop.margin == pytest.approx(margin)


@pytest.mark.parametrize(
    ("ratios", "margin"),
    [
        ([2.0] * 5, 0.94),  # as many late ones as a batch may have
        ([2.0] * 6, 0.94 * 0.93),  # one more: what there is, is judged at once
        ([0.9, 1.01] * 6, 0.94 * (W * 1.01) ** -0.5),
        ([0.8] * 95 + [1.0] * 5, 0.94 * W**-0.5),
        ([0.8] * 97 + [1.0] * 3, 0.94 * 1.015),  # fewer than four in a hundred
    ],
)
def test_margin_falls_with_the_tail(ratios: list[float], margin: float) -> None:
    loop = MarginLoop(0.95)
    hear(loop, ratios)
    assert loop.margin == pytest.approx(margin)


@pytest.mark.parametrize(("dispatched_s", "rises"), [(9.0, True), (10.0, False)])
def test_latencies_are_compared_with_the_margin_of_their_dispatch(dispatched_s: float, rises: bool) -> None:
    loop = MarginLoop(0.95)
    hear(loop, [2.0] * 6)
    loop.restart()
    hear(loop, [0.97] * 100, dispatched_s)
    assert (loop.margin > 0.94 * 0.93) == rises


def test_margin_stays_within_its_bounds() -> None:
    loop = MarginLoop(0.95)
    hear(loop, [9.0] * 100)
    assert loop.margin == 0.5
    loop.restart()
    hear(loop, [0.0] * 6000)
    assert loop.margin == 1.08


@pytest.mark.parametrize(("later_s", "rises"), [(15.0, False), (25.0, True)])
def test_margin_forgets_after_twenty_seconds_what_a_hundred_later_ones_have_replaced(
    later_s: float, rises: bool
) -> None:
    loop = MarginLoop(0.95)
    hear(loop, [0.98] * 100)
    for _ in range(99):
        loop.observe(0.5, 9.0, 10.0 + later_s)
    before = loop.margin
    for _ in range(26):
        loop.observe(0.5, 9.0, 10.0 + later_s)
    assert (loop.margin > before) == rises


def stands(loop: MarginLoop, fit: Coefficients = FIT, rho: float = 20.0) -> float:
    """The margin where nothing but a fit is known, T = 40 ms and 100 seats."""
    loop.expect(fit, 0.04, rho, 100, 1.0)
    return loop.margin


def test_until_requests_have_told_the_margin_stands_where_the_prefill_of_others_leaves_it() -> None:
    loop, spread = MarginLoop(0.95), 10 * 4e-5 * 20 / 0.03
    expected = 0.25 + 0.75 / (W * (1 + 1.5 * spread))
    assert stands(loop) == pytest.approx(expected)
    hear(loop, [2.0] * 6)
    told = loop.margin
    assert told == pytest.approx(0.25 + 0.93 * (expected - 0.25))
    assert stands(loop, rho=2.0) == told
    loop.shifted()
    assert stands(loop) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("base_s", "margin"),
    [
        (0.01, 0.94),  # 6 % of the target
        (0.02, 0.94),  # the same: 12 % of the rest
        (0.03, 1 - 0.25 * 0.12),  # 12 % of the rest
        (0.05, 1 - 0.05 * 0.12),  # a floor above the target
    ],
)
def test_the_nearer_the_floor_is_to_the_target_the_less_of_it_is_kept_back(base_s: float, margin: float) -> None:
    assert stands(MarginLoop(0.95), Coefficients(base_s, 1e-4, 4e-5), 0.0) == pytest.approx(margin)


def test_a_slower_engine_moves_the_margin_and_not_the_share_of_the_rest() -> None:
    loop = MarginLoop(0.95)
    stands(loop)
    hear(loop, [2.0] * 6)
    rest = (loop.margin - 0.25) / 0.75
    assert (stands(loop, Coefficients(0.01, 1e-4, 4e-5, kappa=2.0)) - 0.5) / 0.5 == pytest.approx(rest)


def test_latencies_are_compared_above_the_floor() -> None:
    loop = MarginLoop(0.95)
    aim = stands(loop, rho=0.0)
    hear(loop, [0.25 + 1.04 * (aim - 0.25)] * 100)
    assert (loop.margin - 0.25) / (aim - 0.25) == pytest.approx((W * 1.04 * (aim - 0.25) / 0.75) ** -0.5)


@pytest.mark.parametrize(("attainment", "falls"), [(0.95, True), (0.5, False)])
def test_margin_quantile_comes_from_the_attainment(attainment: float, falls: bool) -> None:
    loop = MarginLoop(attainment)
    hear(loop, [2.0 if index < 6 else 0.8 for index in range(100)])
    assert (loop.margin < 0.94) == falls


def test_margin_restart_forgets() -> None:
    loop = MarginLoop(0.95)
    hear(loop, [9.0] * 5)
    loop.restart()
    hear(loop, [9.0] * 5 + [0.5] * 94)
    assert loop.margin == 0.94


def at_rest() -> MarginLoop:
    loop = MarginLoop(0.95)
    hear(loop, [1.01 / W] * 100)
    return loop


@pytest.mark.parametrize(
    ("off", "count", "moved"),
    [
        (1.02, 25, 1.0),
        (1.04, 25, (1.04 / 1.02) ** -0.5),  # by half of what exceeds 2 %
        (0.97, 100, 1.0),
        (0.95, 100, (0.95 / 0.96079) ** -0.5),  # and 4 % below: e^-0.04
        (0.5, 100, 1.015),
    ],
)
def test_a_margin_at_rest_is_moved_by_what_exceeds_its_band_alone(off: float, count: int, moved: float) -> None:
    loop = at_rest()
    before = loop.margin
    for _ in range(count):
        loop.observe(off * 0.94 / (W * before), 9.0, 50.0)
    assert loop.margin == pytest.approx(before * moved, rel=1e-3)


@pytest.mark.parametrize(("later_s", "excess"), [(11.0, 1.04), (30.1, 1.04 / 1.02)])
def test_a_margin_rests_only_where_it_has_stood_for_twenty_seconds(later_s: float, excess: float) -> None:
    loop = MarginLoop(0.95)
    hear(loop, [2.0] * 6)  # cut at second 10
    loop.restart()
    for ratio, count in ((1.01 / W, 100), (1.04 * 1.01**0.5 / W, 25)):
        before = loop.margin
        for _ in range(count):
            loop.observe(ratio, 10.0, later_s)
    assert loop.margin == pytest.approx(before * excess**-0.5, rel=1e-3)


def test_a_margin_at_rest_still_obeys_more_late_ones_than_a_batch_may_have() -> None:
    loop = at_rest()
    before = loop.margin
    hear(loop, [1.01] * 6, 9.0)
    assert loop.margin == pytest.approx(before * (W * 1.01 / 0.94 * before) ** -0.5)


def test_a_long_rest_forgets_no_earlier_aim() -> None:
    loop = at_rest()
    before = loop.margin
    hear(loop, [1.01 / W] * 25 * 70)  # more judgements than aims are remembered
    assert loop.margin == before
    for _ in range(100):
        loop.observe(0.95 * 0.94 / (W * before), 9.0, 50.0)
    assert loop.margin == pytest.approx(before * (0.95 / 0.96079) ** -0.5, rel=1e-4)


def test_new_conditions_end_the_rest() -> None:
    loop = at_rest()
    before = loop.margin
    loop.restart()
    hear(loop, [0.95 * 0.94 / (W * before)] * 100)
    assert loop.margin == pytest.approx(before * 1.015)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.01, 3.0, 25.0]), st.floats(0.1, 2.0)), min_size=1, max_size=300))
def test_spreads_stay_sorted_and_few(steps: list[tuple[float, float]]) -> None:
    loop, now = MarginLoop(0.95), 0.0
    for wait_s, ratio in steps * 6:
        now += wait_s
        loop.observe(ratio, now, now)
    kept = [spread for _, spread in loop._spreads]
    assert loop._ranked == sorted(kept)
    assert len(kept) <= SPREADS_MAX
    assert all(now - end_s <= loop.SPAN_S for end_s, _ in loop._spreads) or len(kept) <= SAMPLES
