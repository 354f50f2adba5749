"""The whole control loop in virtual time: Qwen3-14B on one H100, 40 ms per token, first token in 0.5 s.

These guard the laboratory and the loop in seconds; `make scenarios` measures all scenarios against every law.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig, Target
from proxy.admission.queue import ClassConfig, QueueConfig
from proxy.dispatcher import DispatcherConfig, UpstreamConfig
from proxy.laboratory.lab import Lab, Scrape
from proxy.laboratory.measures import goodput
from proxy.laboratory.workload import Arrival, Stream, arrivals
from proxy.simulator.profiles import H100_QWEN3_14B, EngineProfile
from proxy.types import Outcome, Work

TARGET = Target(itl_s=0.04, ttft_s=0.5)
PATIENT = (ClassConfig("only", queue_max=100_000, queue_timeout_s=3600.0),)
ADAPTIVE, AT_ONCE = LimitConfig(), Scrape()
CAPACITY_PER_S = 17.0  # requests of 512 + 256 tokens that the engine completes


def config(limit: LimitConfig = ADAPTIVE, shared_by: int = 1, memory: MemoryBound | None = None) -> DispatcherConfig:
    upstream = UpstreamConfig("engine", ("m",), limit=limit, target=TARGET, shared_by=shared_by, memory=memory)
    return DispatcherConfig(PATIENT, (upstream,), queue=QueueConfig(tenant_share=1.0))


def run(
    streams: Iterable[Stream],
    until_s: float,
    seed: int = 1,
    limit: LimitConfig = ADAPTIVE,
    profile: EngineProfile = H100_QWEN3_14B,
    scrape: Scrape | None = AT_ONCE,
    checks: bool = False,
    memory: MemoryBound | None = None,
) -> Lab:
    lab = Lab(config(limit, memory=memory), {"engine": profile}, seed, scrape, checks)
    return lab.run(arrivals(streams, random.Random(seed)), until_s)


def fixed(seats: int) -> LimitConfig:
    return LimitConfig(mode="fixed", initial=seats)


def endings(lab: Lab) -> list[tuple[Outcome | None, float]]:
    return [(one.outcome, one.ended_s) for one in lab.requests]


def books_are_kept(lab: Lab) -> None:
    for proxy, dispatcher in enumerate(lab.dispatchers):
        snapshot = dispatcher.snapshot(lab.now)
        own = [one for one in lab.requests if one.arrival.proxy == proxy]
        running = [one for one in own if one.outcome is None and one.ticket.upstream]
        assert snapshot.leaked == 0 and snapshot.held == len(running)
        assert len(own) == sum(one.outcome is not None for one in own) + snapshot.held + snapshot.classes[0].queued
    meters = [meter for bench in lab.benches.values() for meter in bench.meters]
    streams = [
        one
        for bench in lab.benches.values()
        for one in bench.live.values()
        if one.first_s is not None and one.ticket.id not in bench.paused and one.arrival.streaming and not one.stalled
    ]
    assert sum(meter.live for meter in meters) == len(streams)


MIXED = [
    Stream(8.0, 0, 20),
    Stream(4.0, 0, 20, like=Arrival(0.0, 1, 1, streaming=False)),
    Stream(4.0, 0, 20, like=Arrival(0.0, 1, 1, patience_s=3.0)),
    Stream(2.0, 0, 20, output_mean=900, like=Arrival(0.0, 1, 1, read_tokens_s=5.0)),
    Stream(4.0, 0, 20, like=Arrival(0.0, 1, 1, tokens_per_step=3.0, estimate_ratio=1.3)),
    Stream(4.0, 0, 20, like=Arrival(0.0, 1, 1, work=Work.EMBED)),
]


@pytest.mark.parametrize("kv_tokens", [240_000, 20_000])
def test_the_laboratory_keeps_its_books_over_all_kinds_of_work(kv_tokens: int) -> None:
    profile = replace(H100_QWEN3_14B, kv_tokens=kv_tokens)
    lab = run(MIXED, 25.0, 1, fixed(100), profile, checks=True, memory=MemoryBound(source="none"))
    books_are_kept(lab)
    ended = {one.outcome for one in lab.requests}
    assert {Outcome.SUCCESS, Outcome.CLIENT_GONE} <= ended
    assert (lab.benches["engine"].engine.counters.preemptions > 0) is (kv_tokens == 20_000)
    done = [one for one in lab.requests if one.outcome is Outcome.SUCCESS]
    assert all(one.wait_s >= 0 and one.engine_ttft_s >= 0 and one.itl_s >= 0 for one in done)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    first, second, other = (run(MIXED, 15.0, seed) for seed in (1, 1, 2))
    assert endings(first) == endings(second) != endings(other)


def test_simulated_time_runs_far_faster_than_real_time() -> None:
    start_s = time.process_time()
    run([Stream(CAPACITY_PER_S, end_s=60.0)], 60.0, limit=fixed(150))
    assert 60.0 / (time.process_time() - start_s) > 30.0  # about ten times that on a quiet core


def test_a_client_that_leaves_frees_its_seat_wherever_it_is() -> None:
    leavers = Stream(10.0, 0, 10, output_mean=500, like=Arrival(0.0, 1, 1, patience_s=1.0))
    lab = run([leavers], 12.0, limit=fixed(2), checks=True)
    assert {one.outcome for one in lab.requests} == {Outcome.CLIENT_GONE}
    assert max(one.ended_s - one.arrival.at_s for one in lab.requests) <= 1.0 + 1e-9
    assert not lab.benches["engine"].engine.busy


def test_speculative_decoding_is_read_in_tokens_and_not_in_events() -> None:
    plain = run([Stream(4.0, 0, 40)], 40.0, limit=fixed(64))
    spec = run([Stream(4.0, 0, 40, like=Arrival(0.0, 1, 1, tokens_per_step=4.0))], 40.0, limit=fixed(64))
    meter = spec.benches["engine"].meters[0]
    assert meter.tokens_per_event == pytest.approx(4.0, rel=0.1)
    assert spec.moments[-1].itl_s == pytest.approx(plain.moments[-1].itl_s / 4, rel=0.3)


def test_a_slow_reader_keeps_its_seat_until_it_has_read_and_teaches_nothing() -> None:
    slow = Stream(1.0, 0, 10, output_mean=600, variation=0.01, like=Arrival(0.0, 1, 1, read_tokens_s=10.0))
    lab = run([slow], 60.0, limit=fixed(64))
    for one in lab.requests:
        assert one.ended_s - (one.first_s or 0) == pytest.approx((one.arrival.output_tokens - 330) / 10.0)
    assert lab.moments[-1].itl_s < 0.03


def test_telemetry_may_be_late_zero_or_absent() -> None:
    streams = [Stream(5.0, 0, 30)]
    told = {}
    scrapes = {"now": Scrape(), "late": Scrape(lag_s=5), "zero": Scrape(zero_until_s=40), "none": None}
    for name, scrape in {**scrapes, "outage": Scrape(outage_s=(10.0, 40.0))}.items():
        lab = run(streams, 30.0, scrape=scrape)
        telemetry = lab.dispatcher.snapshot(lab.now).upstreams[0].telemetry
        told[name] = None if telemetry is None else (telemetry.running or 0, lab.now - telemetry.at_s)
    assert told["none"] is None
    assert (told["now"] or (0, 9))[0] > 0 and (told["late"] or (0, 9))[0] > 0
    assert (told["zero"] or (9, 9))[0] == 0
    assert (told["outage"] or (0, 0))[1] > 20


def test_proxies_that_share_an_engine_each_see_their_own_requests() -> None:
    trace = arrivals(
        [Stream(12.0, 0, 40, like=Arrival(0.0, 1, 1, proxy=proxy)) for proxy in range(2)], random.Random(1)
    )
    lab = Lab([config(shared_by=2)] * 2, {"engine": H100_QWEN3_14B}, checks=True).run(trace, 40.0)
    books_are_kept(lab)
    last = lab.moments[-2:]
    assert [one.proxy for one in last] == [0, 1] and last[0].in_flight + last[1].in_flight >= last[0].running > 60


def test_a_change_happens_in_the_middle_of_a_run() -> None:
    def slower(lab: Lab) -> None:
        lab.benches["engine"].engine.slowdown = 3.0

    seen: list[float] = []
    lab = Lab(config(fixed(20)), {"engine": H100_QWEN3_14B})
    lab.run(arrivals([Stream(10.0, 0, 40)], random.Random(1)), 40.0, [(20.0, slower)], progress=seen.append)
    before, after = lab.moments[15].itl_s, lab.moments[35].itl_s
    assert after > 2 * before
    assert seen == [float(second) for second in range(1, 41)]


@pytest.mark.parametrize("seed", [1, 2])
def test_cold_start_finds_the_best_limit(seed: int) -> None:
    streams = [Stream(30.0, end_s=60.0)]
    lab, best = run(streams, 60.0, seed), run(streams, 60.0, seed, limit=fixed(144))
    window = (25.0, 60.0)
    assert next(one.at_s for one in lab.moments if one.limit >= 0.8 * 144) <= 15.0
    assert goodput(lab.requests, TARGET, window) >= 0.9 * goodput(best.requests, TARGET, window)
