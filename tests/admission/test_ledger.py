"""Reservations: the future-peak test against its definition, conservation under any order of events, calibration."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission.ledger import BAND_RATIO, Ledger
from proxy.types import Usage


def taught(capacity: int | None, outputs: list[int]) -> Ledger:
    """A ledger that expects these outputs; estimates are exact."""
    ledger = Ledger(capacity)
    for index, output in enumerate(outputs):
        ledger.reserve(-1 - index, "t", 100, None)
        ledger.release(-1 - index, Usage(100, output))
    return ledger


def true_peak(requests: list[tuple[int, int]]) -> int:
    """max_k (sum of the first k holdings + k R_k), R descending."""
    ordered = sorted(requests, key=lambda one: -one[1])
    held = accumulate(holding for holding, _ in ordered)
    return max((sum_ + (k + 1) * ordered[k][1] for k, sum_ in enumerate(held)), default=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 3000)), max_size=30))
def test_peak_is_within_half_a_band_of_its_definition(sizes: list[tuple[int, int]]) -> None:
    ledger = taught(None, [10**6] * 100)  # every request will use its cap
    for index, (prompt, cap) in enumerate(sizes):
        ledger.reserve(index, "t", prompt, cap)
    assert ledger.reserved_tokens == pytest.approx(true_peak(sizes), rel=BAND_RATIO - 1, abs=1)
    assert ledger.held_tokens == sum(prompt for prompt, _ in sizes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["reserve", "progress", "release"]), st.integers(0, 9)), max_size=80))
def test_conservation(events: list[tuple[str, int]]) -> None:
    ledger, live = Ledger(50_000), set[int]()
    for step, (event, ticket) in enumerate(events):
        if event == "reserve" and ticket not in live:
            if ledger.fits("t", 1000 * ticket, None):
                ledger.reserve(ticket, "t", 1000 * ticket, None)
                live.add(ticket)
                assert ledger.reserved_tokens <= 50_000
        elif event == "progress" and ticket in live:
            ledger.progress(ticket, 10 * step)
        elif event == "release" and ticket in live:
            ledger.release(ticket, Usage(1000 * ticket, 10 * step) if step % 2 else None)
            live.remove(ticket)
        elif ticket not in live:
            with pytest.raises(LookupError):
                ledger.release(ticket, None)
        assert len(ledger) == len(live)
    for ticket in live:
        ledger.release(ticket, None)
    assert (ledger.reserved_tokens, ledger.held_tokens, len(ledger)) == (0, 0, 0)


def test_a_ticket_is_booked_once() -> None:
    ledger = Ledger(1000)
    ledger.reserve(1, "t", 10, 10)
    with pytest.raises(ValueError, match="ticket 1 is already reserved"):
        ledger.reserve(1, "t", 10, 10)
    with pytest.raises(LookupError):
        ledger.progress(2, 5)


def test_oversize_runs_alone_and_alone_only() -> None:
    ledger = Ledger(1000)
    assert ledger.fits("t", 5000, None)
    assert ledger.reserve(1, "t", 5000, None) == 1000
    assert ledger.reserved_tokens == 1000
    assert not ledger.fits("t", 1, 1)
    ledger.release(1, None)
    assert ledger.fits("t", 5000, None)


def test_unknown_capacity_fits_everything() -> None:
    ledger = Ledger(None)
    for ticket in range(50):
        assert ledger.fits("t", 10**6, None)
        ledger.reserve(ticket, "t", 10**6, None)
    assert repr(ledger).startswith("Ledger(50 live")


@pytest.mark.parametrize(
    ("factor", "seats"),
    [(0.5, 2), (0.9, 4), (1.0, 5), (1.3, 7)],  # each holds 100 and grows by 100; above 1 only 40 of them count
)
def test_factor(factor: float, seats: int) -> None:
    ledger, running = taught(1000, [100] * 100), 0
    assert ledger.factor == 0.9
    ledger.factor = factor
    while ledger.fits("t", 100, None):
        ledger.reserve(running, "t", 100, None)
        running += 1
    assert running == seats


def test_true_up_replaces_expectation_by_fact() -> None:
    ledger = taught(10_000, [100, 300] * 50)
    ledger.reserve(1, "t", 50, None)
    assert (ledger.held_tokens, ledger.reserved_tokens) == (50, 250)
    ledger.progress(1, 150)
    assert (ledger.held_tokens, ledger.reserved_tokens) == (200, 350)
    ledger.progress(1, 100)  # never backwards
    assert ledger.held_tokens == 200
    ledger.progress(1, 400)
    assert ledger.reserved_tokens == 50 + 400 + 200


def test_prompt_estimates_are_corrected() -> None:
    ledger = Ledger(None)
    for ticket in range(30):
        ledger.reserve(ticket, "t", 100, None)
        ledger.release(ticket, Usage(200, 10, cached_tokens=50))
    ledger.reserve(99, "t", 100, 0)
    assert ledger.held_tokens == 200
    assert ledger.mean_prompt_tokens == pytest.approx(200, rel=0.05)
    assert ledger.mean_uncached_tokens == pytest.approx(150, rel=0.05)
    assert ledger.mean_output_tokens == pytest.approx(10, abs=6)
    assert ledger.output_variation == 0.0


@pytest.mark.parametrize(("later", "mix"), [(120, 0), (3000, 1), (10, 1)])
def test_prompts_of_another_size_begin_a_new_mix(later: int, mix: int) -> None:
    ledger = taught(None, [400] * 200)
    assert ledger.mix == 0
    assert ledger.mean_output_tokens == pytest.approx(400, rel=0.1)
    ledger.reserve(1, "t", 100, None)
    for ticket in range(2, 12):
        ledger.reserve(ticket, "t", later, None)
    assert ledger.mix == 0, "to look changes nothing"
    ledger.tick()
    assert ledger.mix == mix
    for ticket in range(12, 62):
        ledger.reserve(ticket, "t", later, None)
        ledger.release(ticket, Usage(later, 50))
    ledger.release(1, Usage(100, 4000))
    if mix:
        assert ledger.mean_output_tokens < 100, "one of the earlier mix that ends last is not counted"


def test_a_prompt_that_was_counted_and_refused_corrects_the_next_estimate() -> None:
    ledger = Ledger(None)
    assert ledger.size("t", 100, 0).prompt == 100
    ledger.reserve(1, "t", 100, 0)
    ledger.counted(1, 300, at_least=False)
    assert ledger.held_tokens == 100, "what is booked stays booked"
    assert ledger.size("t", 100, 0).prompt == 300
    ledger.release(1, None)
    assert ledger.held_tokens == 0


@pytest.mark.parametrize(
    ("usage", "waiting", "seconds", "fits_more"),
    [
        (0.25, 0, 40, True),  # shared prefixes: half of what is booked
        (0.25, 0, 20, False),  # not for long enough
        (0.25, 3, 40, False),  # the rest waits inside the engine
        (0.46, 0, 40, False),  # near enough
    ],
)
def test_calibration_loosens(usage: float, waiting: int, seconds: int, fits_more: bool) -> None:
    ledger = taught(1000, [1] * 100)
    for ticket in range(5):
        ledger.reserve(ticket, "t", 100, 1)
    for now in range(seconds):
        ledger.calibrate(usage, waiting, float(now))
    assert ledger.fits("t", 600, 1) == fits_more


def test_calibration_tightens_and_needs_something_to_compare() -> None:
    ledger = taught(1000, [1] * 100)
    for now in range(100):
        ledger.calibrate(0.9, 0, float(now))  # nothing is booked
    ledger.reserve(1, "t", 400, 1)
    assert ledger.fits("t", 400, 1)
    for now in range(100, 140):
        ledger.calibrate(0.8, 5, float(now))
    assert not ledger.fits("t", 400, 1)
    assert ledger.reserved_tokens == pytest.approx(802, abs=2)


def test_a_sum_that_is_not_that_of_its_entries_is_noticed() -> None:
    ledger = taught(1000, [1] * 10)
    for ticket in range(2):
        ledger.reserve(ticket, "t", 400, 1)
    ledger.check()
    verdicts = [ledger.within]
    ledger.capacity_tokens = 500
    verdicts.append(ledger.within)
    ledger.release(0, None)
    verdicts.append(ledger.within)
    assert verdicts == [True, False, True], "one alone may be beyond"
    ledger._held_tokens -= 1
    with pytest.raises(AssertionError, match="held tokens"):
        ledger.check()
