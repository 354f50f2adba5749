"""Which signal steers, and that a finished request is matched with the load of its own life."""

from __future__ import annotations

import pytest

from proxy.admission.limits import Target
from proxy.admission.measure import InFlightHistory, Measure, Meter
from proxy.types import Sample, Work
from tests.admission.fluid import generation, single

TARGET = Target(itl_s=0.05, ttft_s=0.5)


@pytest.mark.parametrize(
    ("sample", "prefill_s", "pressure"),
    [
        (generation(0.04), 9.9, 0.8),
        (generation(0.04, streaming=False), 0.0, 0.8),
        (generation(0.04, streaming=False), 0.25 * 256 * 0.04, 0.6),
        (generation(0.04, streaming=False), 1e9, 0.4),  # at most half of it was prefill
        (generation(0.04, streaming=False, output=1), 0.0, None),
        (single(Work.EMBED, 0.4), 0.0, 0.8),
        (single(Work.AUDIO, 30.0), 0.0, None),
        (single(Work.LIGHT, 0.1), 0.0, None),
    ],
)
def test_pressure_of_a_sample(sample: Sample, prefill_s: float, pressure: float | None) -> None:
    got = Meter(0.0).sample(sample, TARGET, prefill_s, 1.0)
    assert got == (None if pressure is None else pytest.approx(pressure))


def test_stream_without_second_token_has_no_pressure() -> None:
    sample = Sample(Work.GENERATE, True, 10, 0, 1, 0.1, None, 0.1, 0)
    assert Meter(0.0).sample(sample, TARGET, 0.0, 1.0) is None


def tick(meter: Meter, now: float, tokens: float = 0.0, in_flight: int = 4) -> Measure | None:
    return meter.tick(now, 0.5, tokens * 0.02, tokens, 3.0, 100.0, in_flight)


def test_streams_come_first_and_clear_what_lags() -> None:
    meter = Meter(0.0)
    for _ in range(30):
        meter.sample(generation(0.04, streaming=False), TARGET, 0.0, 0.1)
    assert tick(meter, 2.0, tokens=100) == Measure(0.02, 3.0, 4.0, 1.0, False, 0.5)
    assert tick(meter, 3.0) is None


def test_few_tokens_add_up_unless_the_streams_have_ended() -> None:
    meter = Meter(0.0)
    assert tick(meter, 1.0, tokens=15) is None
    assert tick(meter, 2.0, tokens=15) == Measure(0.02, 3.0, 4.0, 1.0, False, 1.0)
    assert tick(meter, 3.0, tokens=15) is None
    assert meter.tick(4.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0) is None
    assert tick(meter, 5.0, tokens=15) is None


@pytest.mark.parametrize(
    ("prefill", "prefill_out", "waits"),
    [(0.0, 900.0, 3), (500.0, 900.0, 3), (2000.0, 900.0, 0), (0.0, 0.0, 0)],
)
def test_prompts_add_up_until_they_count_where_they_cost(prefill: float, prefill_out: float, waits: int) -> None:
    """Four prompts, or nothing outstanding, or two seconds."""
    meter = Meter(0.0)
    seen = [meter.tick(0.5 * (n + 1), 0.5, 4.0, 100, 50, prefill, 50, prefill_out, 500.0) for n in range(4)]
    assert [one is None for one in seen].index(False) == waits
    first = seen[waits]
    assert first is not None and first.latency_s == pytest.approx(0.04)
    assert first.prefill_per_step == pytest.approx(prefill * 0.04 / 0.5)


@pytest.mark.parametrize(
    ("work", "count", "now", "ready"),
    [
        (Work.GENERATE, 4, 2.0, True),
        (Work.GENERATE, 3, 2.0, False),
        (Work.GENERATE, 40, 1.0, False),  # within a second
        (Work.EMBED, 4, 2.0, True),
    ],
)
def test_finished_requests_are_pooled(work: Work, count: int, now: float, ready: bool) -> None:
    meter = Meter(0.0)
    sample = single(work, 0.4) if work is Work.EMBED else generation(0.04, streaming=False)
    for _ in range(count):
        meter.sample(sample, TARGET, 0.0, 0.5)
    measure = tick(meter, now)
    assert (measure is not None) == ready
    if measure is not None:
        assert measure.latency_s == pytest.approx(0.4 if work is Work.EMBED else 0.04)
        assert measure.service == (work is Work.EMBED)
        assert measure.weight == 0.3
        assert tick(meter, now + 2) is None  # taken once


def test_a_pool_waits_for_as_many_as_run_but_no_more_than_thirty() -> None:
    meter = Meter(0.0)
    for count in range(1, 31):
        assert tick(meter, 2.0 + count, in_flight=100) is None
        meter.sample(single(Work.EMBED, 0.4), TARGET, 0.0, 1.0)
    assert tick(meter, 40.0, in_flight=100) is not None


def test_a_finished_request_carries_the_load_of_its_life() -> None:
    meter = Meter(0.0)
    for now in range(1, 21):
        tick(meter, float(now), in_flight=8 if now <= 10 else 16)
    for _ in range(16):
        meter.sample(generation(20 / 256, streaming=False), TARGET, 0.0, 20.0)
    measure = tick(meter, 21.0, in_flight=16)
    assert measure is not None
    assert measure.running == pytest.approx(12.0)


@pytest.mark.parametrize(("since_s", "mean"), [(0.0, 6.0), (10.0, 8.0), (20.0, None), (-50.0, 6.0), (5.0, 6.0)])
def test_in_flight_history(since_s: float, mean: float | None) -> None:
    history = InFlightHistory(0.0)
    history.tick(4, 10.0)
    history.tick(8, 20.0)
    assert history.mean(since_s) == mean
