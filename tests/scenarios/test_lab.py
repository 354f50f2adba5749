"""Scenarios of the whole control loop in virtual time: Qwen3-14B on one H100, 40 ms per token, first token in 0.5 s.

`BEST_SEATS` are the fixed limits that do best in the mean over these traces, by a sweep in steps of 8. Bounds are what
the laws reach on the seeds listed, with a little room; they guard against getting worse and do not claim the optimum.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Iterable, Sequence

import pytest

from proxy.admission.limits import LimitConfig, Target
from proxy.admission.queue import ClassConfig, QueueConfig
from proxy.dispatcher import DispatcherConfig, UpstreamConfig
from proxy.simulator.profiles import H100_QWEN3_14B, EngineProfile
from proxy.types import Outcome
from tests.scenarios.lab import Lab, Request, Stream, arrivals

TARGET = Target(itl_s=0.04, ttft_s=0.5)
BEST_SEATS = 144
BEST_SEATS_OF_SMALL_MEMORY = 48
CAPACITY_PER_S = 17.0  # requests of 512 + 256 tokens that the engine completes
PATIENT = (ClassConfig("only", queue_max=100_000, queue_timeout_s=3600.0),)
SEEDS = (1, 2)


def lab(
    streams: Iterable[Stream],
    until_s: float,
    seed: int,
    classes: tuple[ClassConfig, ...] = PATIENT,
    limit: LimitConfig | None = None,
    profile: EngineProfile = H100_QWEN3_14B,
    checks: bool = False,
) -> Lab:
    config = DispatcherConfig(
        classes=classes,
        upstreams=(UpstreamConfig("engine", ("m",), limit=limit or LimitConfig(), target=TARGET),),
        queue=QueueConfig(tenant_share=1.0),
    )
    run = Lab(config, {"engine": profile}, seed, checks=checks)
    return run.run(arrivals(streams, random.Random(seed)), until_s)


def fixed(seats: int) -> LimitConfig:
    return LimitConfig(mode="fixed", initial=seats)


def quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def attainment(requests: Sequence[Request]) -> float:
    return statistics.fmean(one.itl_s <= TARGET.itl_s for one in requests)


def test_the_laboratory_keeps_its_books() -> None:
    run = lab([Stream(30.0, end_s=20.0)], 20.0, seed=1, checks=True)
    snapshot, engine = run.dispatcher.snapshot(run.now), run.benches["engine"].engine
    assert snapshot.leaked == 0 and snapshot.held == snapshot.upstreams[0].in_flight
    assert snapshot.held == engine.running + engine.waiting
    ended = sum(run.outcomes.values())
    assert len(run.requests) == ended + snapshot.held + snapshot.classes[0].queued
    assert all(one.wait_s >= 0 and one.engine_ttft_s > 0 and one.itl_s >= 0 for one in run.succeeded())


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    def trace(seed: int) -> list[tuple[Outcome | None, float]]:
        return [(one.outcome, one.ended_s) for one in lab([Stream(20.0, end_s=15.0)], 15.0, seed).requests]

    assert trace(1) == trace(1) != trace(2)


def test_simulated_time_runs_far_faster_than_real_time() -> None:
    start_s = time.process_time()
    lab([Stream(CAPACITY_PER_S, end_s=60.0)], 60.0, seed=1, limit=fixed(150))
    assert 60.0 / (time.process_time() - start_s) > 30.0  # about ten times that on a quiet core


@pytest.mark.parametrize("seed", SEEDS)
def test_cold_start_finds_the_best_limit_and_stays_there(seed: int) -> None:
    streams = [Stream(30.0, end_s=90.0)]
    run, best = lab(streams, 90.0, seed), lab(streams, 90.0, seed, limit=fixed(BEST_SEATS))
    reached = next(moment.at_s for moment in run.moments if moment.limit >= 0.8 * BEST_SEATS)
    assert reached <= 15.0
    assert run.goodput(TARGET.itl_s, 30.0, 90.0) >= 0.93 * best.goodput(TARGET.itl_s, 30.0, 90.0)
    assert attainment(run.succeeded()) >= 0.90
    assert max(moment.waiting for moment in run.moments[20:]) <= 60


@pytest.mark.parametrize("seed", SEEDS)
def test_memory_binds_before_latency_without_thrashing(seed: int) -> None:
    small = dataclasses.replace(H100_QWEN3_14B, kv_tokens=60_000)
    streams = [Stream(6.0, end_s=150.0, output_mean=900.0)]
    run = lab(streams, 150.0, seed, profile=small)
    best = lab(streams, 150.0, seed, limit=fixed(BEST_SEATS_OF_SMALL_MEMORY), profile=small)
    counters = run.benches["engine"].engine.counters
    assert counters.recomputed_tokens <= 0.03 * (counters.prompt_tokens + counters.generation_tokens)
    assert quantile((moment.waiting for moment in run.moments[30:]), 0.95) <= 2
    assert counters.generation_tokens >= 0.85 * best.benches["engine"].engine.counters.generation_tokens


@pytest.mark.parametrize("seed", SEEDS)
def test_an_idle_spell_leaves_no_limit_that_a_burst_could_abuse(seed: int) -> None:
    run = lab([Stream(30.0, 0.0, 40.0), Stream(0.5, 40.0, 240.0), Stream(40.0, 240.0, 270.0)], 280.0, seed)
    spell = [moment for moment in run.moments if 180.0 <= moment.at_s <= 239.0]
    assert spell[-1].limit <= 2 * max(moment.in_flight for moment in spell) + 8
    burst = [one for one in run.succeeded(after_s=240.0) if one.ticket.dispatched_s < 270.0]
    assert quantile((one.itl_s for one in burst), 0.95) <= 1.1 * TARGET.itl_s
    assert quantile((one.engine_ttft_s for one in burst), 0.95) <= TARGET.ttft_s


CLASSES = (
    ClassConfig("high", 0.0, 1.0, 400, 60.0),
    ClassConfig("normal", 0.20, 0.97, 400, 60.0),
    ClassConfig("low", 0.05, 0.90, 400, 60.0),
)


@pytest.mark.parametrize("seed", SEEDS)
def test_overload_neither_collapses_nor_sheds_the_high_class_first(seed: int) -> None:
    goodput = {}
    for load in (1.5, 4.0):
        shares = enumerate((0.2, 0.3, 0.5))
        streams = [Stream(CAPACITY_PER_S * load * share, end_s=80.0, class_index=rank) for rank, share in shares]
        run = lab(streams, 80.0, seed, CLASSES)
        goodput[load] = run.goodput(TARGET.itl_s, 30.0, 80.0)
        ended = [one.arrival.stream.class_index for one in run.requests if one.outcome is not None]
        served = [len(run.succeeded(rank)) / ended.count(rank) for rank in range(3)]
        assert served == sorted(served, reverse=True)
    assert goodput[4.0] >= 0.93 * goodput[1.5]


@pytest.mark.parametrize("seed", SEEDS)
def test_priorities_decide_who_waits_and_floors_who_is_never_starved(seed: int) -> None:
    high = Stream(4.0, end_s=150.0, class_index=0)
    others = [Stream(11.0, end_s=150.0, class_index=rank) for rank in (1, 2)]
    run = lab([high, *others], 150.0, seed, CLASSES)
    waits = [quantile((one.wait_s for one in run.succeeded(rank, 30.0)), 0.95) for rank in range(3)]
    assert waits[0] <= 0.1 * waits[2] and waits[0] <= 0.1
    ended = [[one for one in run.succeeded(rank) if one.ended_s >= 70.0] for rank in range(3)]
    tokens = [sum(one.arrival.output_tokens for one in part) for part in ended]
    aging = 0.10  # at most this share of dispatches is given to heads that waited for half of their time
    assert CLASSES[2].floor - 0.01 <= tokens[2] / sum(tokens) <= CLASSES[2].floor + aging
