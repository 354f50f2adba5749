"""Meters at a simulated engine: gaps, events, evictions, slow readers."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from proxy.laboratory.bench import Bench, Meter, Request
from proxy.laboratory.workload import Arrival
from proxy.simulator.engine import Engine
from proxy.simulator.profiles import H100_QWEN3_14B, EngineProfile
from proxy.types import Ticket, Work, WorkEstimate

QUIET = replace(H100_QWEN3_14B, noise=0.0)


def request(number: int, arrival: Arrival) -> Request:
    ticket = Ticket(number, "t", 0, "m", arrival.work, arrival.streaming, WorkEstimate(arrival.prompt_tokens), 0, 0.0)
    return Request(arrival, ticket)


def drive(bench: Bench, until_s: float, now: float = 0.0) -> tuple[float, float]:
    """Step until a time, or until idle. The sum of the durations of steps, weighted with who decoded, and the time."""
    gaps = 0.0
    while now < until_s and bench.engine.busy:
        result = bench.step(now)
        gaps += result.duration_s * (len(bench.engine.decoding) + len(result.finished) - len(result.firsts))
        now += result.duration_s
        bench.stepped(result, now)
    return gaps, now


def bench(profile: EngineProfile = QUIET, proxies: int = 1) -> Bench:
    return Bench("engine", Engine(profile, random.Random(1)), [Meter() for _ in range(proxies)])


def test_gaps_and_tokens_are_those_of_the_streams() -> None:
    one = bench(proxies=2)
    for number in range(6):
        arrival = Arrival(0.0, 100, 20 + number, proxy=number % 2, streaming=number < 4, cached_tokens=50)
        one.submit(request(number, arrival), 0.0)
    _, end_s = drive(one, 99.0)
    readings = [one.reading(proxy, end_s) for proxy in (0, 1)]
    assert [reading.tokens for reading in readings] == [19 + 21, 20 + 22]
    assert [meter.live for meter in one.meters] == [0, 0]
    assert one.engine.counters.prompt_tokens == 6 * 50
    assert one.reading(0, end_s).tokens == 0


def test_an_eviction_is_a_gap_as_long_as_the_absence() -> None:
    one = bench(replace(QUIET, kv_tokens=640))
    for number in range(2):
        one.submit(request(number, Arrival(0.0, 200, 150)), 0.0)
    gaps, end_s = drive(one, 99.0)
    reading = one.reading(0, end_s)
    assert one.engine.counters.preemptions > 0
    assert reading.tokens == 2 * 149 and not one.paused
    assert reading.gap_s > 1.2 * gaps * 0.9 and one.meters[0].live == 0


@pytest.mark.parametrize("kind", ["decoding", "evicted", "waiting", "unknown"])
def test_a_client_leaves(kind: str) -> None:
    one = bench(replace(QUIET, kv_tokens=640))
    requests = [request(number, Arrival(0.0, 200, 150, read_tokens_s=99.0)) for number in range(3)]
    for each in requests[:2]:
        one.submit(each, 0.0)
    now = 0.0
    while kind == "evicted" and not one.paused:
        now = drive(one, now + 1e-9, now)[1]
    if kind == "decoding":
        drive(one, 0.2)
    gone = {"evicted": next(iter(one.paused), 1), "unknown": 2}.get(kind, 1)
    before = one.meters[0].live
    one.abort(requests[gone])
    assert one.meters[0].live == before - (kind == "decoding")
    assert gone not in one.live and gone not in one.slow and gone not in one.paused
    assert len(one.live) == 2 - (kind != "unknown")


def test_a_slow_reader_is_left_out_once_its_buffer_is_full() -> None:
    one = bench()
    slow = request(1, Arrival(0.0, 10, 2000, read_tokens_s=1.0))
    one.submit(slow, 0.0)
    seen, now = [], 0.0
    for until_s in (2.0, 8.0, 10.0):
        _, now = drive(one, until_s, now)
        seen.append((one.reading(0, now).tokens > 0, slow.stalled, one.meters[0].live))
    assert seen == [(True, False, 1), (True, True, 0), (False, True, 0)]


def test_telemetry_is_what_the_engine_says() -> None:
    one = bench()
    one.submit(request(1, Arrival(0.0, 100, 50)), 0.0)
    drive(one, 0.1)
    told = one.telemetry(0.1)
    assert (told.at_s, told.running, told.waiting, told.kv_tokens) == (0.1, 1, 0, QUIET.kv_tokens)
    assert 0 < (told.kv_usage or 0) < 0.01


def test_times_of_a_request() -> None:
    one = request(1, Arrival(1.0, 10, 11))
    assert one.engine_ttft_s == one.itl_s == 0.0
    one.ticket.dispatched_s, one.first_s, one.last_s = 3.0, 3.5, 4.5
    assert (one.wait_s, one.engine_ttft_s, one.itl_s, one.engine_tokens) == (2.0, 0.5, 0.1, 11)
    assert request(2, Arrival(0.0, 10, 11, work=Work.EMBED, tokens_per_step=4)).engine_tokens == 3
    meter = Meter()
    meter.calibrate(100, 5)
    assert meter.tokens_per_event == 1.0
