"""A run in a few figures."""

from __future__ import annotations

from proxy.admission.limits import LimitConfig, Target
from proxy.admission.queue import ClassConfig, QueueConfig
from proxy.dispatcher import DispatcherConfig, UpstreamConfig
from proxy.laboratory.lab import Lab
from proxy.laboratory.summary import summarize
from proxy.laboratory.workload import Arrival
from proxy.simulator.profiles import H100_QWEN3_14B

TARGET = Target(itl_s=0.04, ttft_s=0.5)
CLASSES = (ClassConfig("high"), ClassConfig("low", queue_max=3))


def lab(trace: list[Arrival], until_s: float) -> Lab:
    upstream = UpstreamConfig("engine", limit=LimitConfig(mode="fixed", initial=2), target=TARGET)
    config = DispatcherConfig(CLASSES, (upstream,), queue=QueueConfig(tenant_share=1.0))
    return Lab(config, {"engine": H100_QWEN3_14B}).run(trace, until_s)


def test_a_run_without_requests_sums_up_to_nothing() -> None:
    empty = summarize(lab([], 2.0), TARGET, ["high", "low"])
    assert (empty.offered, empty.served, empty.goodput_tokens_s, empty.attainment) == (0, 0, 0.0, 1.0)


def test_what_was_offered_is_served_refused_or_not_finished() -> None:
    trace = [Arrival(0.1 * number, 100, 200, class_index=number % 2) for number in range(20)]
    trace.append(Arrival(9.0, 100, 2000, class_index=0))
    told = summarize(lab(trace, 40.0), TARGET, ["high", "low"])
    assert told.offered == 21 == told.served + told.unfinished + sum(told.refused.values())
    assert told.refused["queue_full"] > 0
    assert told.ttft_p50_s <= told.ttft_p95_s <= told.ttft_p99_s and told.wait_p95_s <= told.ttft_p95_s
    assert 0.013 < told.itl_p50_s <= told.itl_p95_s < 0.03
    assert told.goodput_tokens_s == told.tokens_s > 0
    assert (told.limit, told.steps, told.recomputed_share) == (2.0, 0, 0.0)
    high, low = told.classes
    assert (high.name, high.offered, low.name, low.offered) == ("high", 11, "low", 10)
    assert high.served + low.served == told.served and low.good_share == low.served / 10
