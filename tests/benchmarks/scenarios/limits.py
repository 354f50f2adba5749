"""Scenarios of the limit: does it find the best number of requests at once, soon, and stay there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from proxy.admission.limits import Target
from proxy.admission.queue import ClassConfig
from proxy.laboratory.lab import Lab
from proxy.laboratory.measures import (
    attainment,
    goodput,
    quantile,
    served,
    settled_s,
    variation,
    within,
)
from proxy.laboratory.workload import Stream
from tests.benchmarks.scenarios.scenario import ATTAINMENT, Found, Measure, Numbers, Oracle, Scenario, relative
from tests.benchmarks.scenarios.worlds import TARGET, World

BAND = 0.10
SHORT_QUEUE = (ClassConfig("only", queue_max=60, queue_timeout_s=60.0),)


def overload(rate: float, until_s: float, **changes: object) -> World:
    """One Poisson stream that never lets the queue run dry."""
    return replace(World((Stream(rate, 0.0, until_s),), until_s), **changes)  # type: ignore[arg-type]


# -- A: cold start

COLD = overload(26.0, 100.0)


def read_cold(_: str, lab: Lab, found: Found) -> Numbers:
    best = found["steady"]
    settled = settled_s(lab.moments, best.seats, BAND, (0.0, 100.0))
    before = [one for one in served(lab.requests) if one.ticket.dispatched_s < min(settled, 40.0)]
    late = sum(one.arrival.output_tokens for one in before if one.itl_s > TARGET.itl_s)
    return {
        "settled": settled,
        "peak": max(one.in_flight for one in within(lab.moments, (0.0, 60.0))) / best.seats,
        "late": late / max(1, sum(one.arrival.output_tokens for one in before)),
        "goodput": goodput(lab.requests, TARGET, (0.0, 60.0)) / found["first"].goodput,
    }


A = Scenario(
    "A",
    "cold start of an unknown engine",
    "The engine is unknown and the limit starts at 8 under 1.5 times the load that the engine can serve within 40 ms "
    "per token. Settled: in flight stays within 10 % of the best static limit for 80 % of the next minute. Late "
    "tokens are those of requests dispatched before that, at most 40 s in, that missed 40 ms per token.",
    {"cold": COLD},
    read_cold,
    (
        Measure("settled", "settled after", "s", at_most=15.0),
        Measure("peak", "highest in flight over the best", "ratio", at_most=1.15),
        Measure("late", "late tokens before it settled", "percent", at_most=0.02),
        Measure("goodput", "goodput of the first minute over the best static", "ratio"),
    ),
    oracles={"steady": Oracle(COLD, (30.0, 100.0), 110.0, 190.0), "first": Oracle(COLD, (0.0, 60.0), 110.0, 190.0)},
    picture="cold",
)

# -- B: steady state at seven targets

TARGETS = {22: (30, 70, 13.0), 25: (45, 95, 12.0), 28: (60, 120, 15.0), 34: (85, 160, 20.0), 40: (110, 190, 25.0)} | {
    48: (150, 260, 30.0),
    80: (280, 480, 42.0),
}
STEADY = (50.0, 110.0)


def steady_world(itl_ms: int, rate: float) -> World:
    return overload(rate, 110.0, target=Target(itl_s=itl_ms / 1000, ttft_s=0.5))


def read_steady(name: str, lab: Lab, found: Found) -> Numbers:
    world = B.worlds[name]
    numbers = relative(lab, world, STEADY, found[name])
    return {**numbers, "cv": variation(one.in_flight for one in within(lab.moments, STEADY))}


def judge_steady(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    each = {f"{key} {name}": value for name, row in numbers.items() for key, value in row.items() if key == "goodput"}
    return {
        **each,
        "attainment": min(row["attainment"] for row in numbers.values()),
        "cv": max(row["cv"] for row in numbers.values()),
    }


B = Scenario(
    "B",
    "steady state at seven targets",
    "Minutes after the start, at targets from 22 ms (a quarter of the engine's batch) to 80 ms per token. Attainment "
    "and the variation of in flight are those of the worst target.",
    {f"{itl_ms} ms": steady_world(itl_ms, rate) for itl_ms, (_, _, rate) in TARGETS.items()},
    read_steady,
    (
        *(Measure(f"goodput {t} ms", f"goodput over the best static, {t} ms", "ratio", at_least=0.97) for t in TARGETS),
        ATTAINMENT,
        Measure("cv", "variation of in flight", "ratio", at_most=0.05),
    ),
    judge_steady,
    {
        f"{itl_ms} ms": Oracle(steady_world(itl_ms, rate), STEADY, low, high)
        for itl_ms, (low, high, rate) in TARGETS.items()
    },
)

# -- C: the engine becomes slower, and recovers

SLOWER = overload(26.0, 180.0, slow=((60.0, 1.5), (125.0, 1.0)))


def read_slower(_: str, lab: Lab, found: Found) -> Numbers:
    slow, back = found["slow"], found["back"]
    ended = [(goodput(lab.requests, TARGET, (125.0 + after, 130.0 + after)), after + 5.0) for after in range(50)]
    regained = next((after for value, after in ended if value >= 0.9 * back.goodput), 99.0)
    return {
        "attainment": attainment(lab.requests, TARGET, (60.0, 120.0)),
        "settled": settled_s(lab.moments, slow.seats, 0.15, (60.0, 125.0), span_s=40.0),
        "goodput": goodput(lab.requests, TARGET, (80.0, 125.0)) / slow.goodput,
        "regained": regained,
    }


C = Scenario(
    "C",
    "the engine becomes 1.5 times slower, and recovers",
    "From second 60 to 125 every step of the engine takes 1.5 times as long. Settled: within 15 % of the best static "
    "limit of the slow engine. Regained: the first five seconds with 90 % of the best goodput after it has recovered.",
    {"slower": SLOWER},
    read_slower,
    (
        Measure("attainment", "requests within both targets in the minute after", "percent", at_least=0.95),
        Measure("settled", "settled after", "s", at_most=10.0),
        Measure("goodput", "goodput while slow over the best static", "ratio", at_least=0.95),
        Measure("regained", "90 % of the goodput back after", "s", at_most=20.0),
    ),
    oracles={
        "slow": Oracle(SLOWER, (80.0, 125.0), 35.0, 110.0),
        "back": Oracle(SLOWER, (140.0, 180.0), 110.0, 190.0),
    },
    picture="slower",
)

# -- D: other requests come

SHIFTED = World(
    (
        Stream(26.0, 0.0, 60.0),
        Stream(6.0, 60.0, 180.0, prompt_mean=3000.0, output_mean=150.0),
        Stream(26.0, 180.0, 300.0),
    ),
    300.0,
    classes=SHORT_QUEUE,
)


def read_shifted(_: str, lab: Lab, found: Found) -> Numbers:
    there, back, alone = found["there"], found["back"], found["alone"]
    return {
        "settled": settled_s(lab.moments, there.seats, 0.15, (60.0, 180.0), span_s=30.0),
        "returned": settled_s(lab.moments, alone.seats, 0.15, (180.0, 300.0), span_s=30.0),
        "goodput": goodput(lab.requests, TARGET, (85.0, 180.0)) / there.goodput,
        "goodput back": goodput(lab.requests, TARGET, (200.0, 300.0)) / back.goodput,
    }


D = Scenario(
    "D",
    "the mix of requests shifts, and shifts back",
    "From second 60 to 180 prompts have 3,000 tokens instead of 512 and outputs 150 instead of 256: ten times as much "
    "prefill for each output token. The queue is short (60), so that the shift reaches the engine at once. "
    "Settled: within 15 % of the best static limit of the mix for 80 % of the next 30 s.",
    {"shifted": SHIFTED},
    read_shifted,
    (
        Measure("settled", "settled after", "s", at_most=30.0),
        Measure("returned", "settled after the way back", "s", at_most=30.0),
        Measure("goodput", "goodput after the shift over the best static", "ratio", at_least=0.95),
        Measure("goodput back", "goodput after the way back over the best static", "ratio", at_least=0.95),
    ),
    oracles={
        "there": Oracle(SHIFTED, (85.0, 180.0), 10.0, 60.0),
        "back": Oracle(SHIFTED, (200.0, 300.0), 60.0, 190.0),
        "alone": Oracle(COLD, (30.0, 100.0), 110.0, 190.0),  # of the first mix where it is all there is
    },
    picture="shifted",
)

# -- E: idle, then a burst

IDLE = World((Stream(26.0, 0.0, 60.0), Stream(1.0, 60.0, 260.0), Stream(40.0, 260.0, 290.0)), 300.0,
             classes=(ClassConfig("only", queue_max=100_000, queue_timeout_s=60.0),))  # fmt: skip


def read_idle(_: str, lab: Lab, __: Found) -> Numbers:
    spell = within(lab.moments, (199.0, 259.5))
    burst = [one for one in served(lab.requests, (260.0, 300.0)) if 260.0 <= one.ticket.dispatched_s < 290.0]
    return {
        "limit": spell[-1].limit / (2 * max(one.in_flight for one in spell) + 8),
        "tpot": quantile((one.itl_s for one in burst), 0.95) / TARGET.itl_s,
        "ttft": quantile((one.engine_ttft_s for one in burst), 0.95),
        "served": float(len(burst)),
    }


E = Scenario(
    "E",
    "an idle spell, then a burst",
    "A minute of load, 200 s with one request per second, then a burst of 40 per second. A limit that has grown, or "
    "stayed, unproven lets the burst flood the engine.",
    {"idle": IDLE},
    read_idle,
    (
        Measure("limit", "limit before the burst over 2 x peak in flight + 8", "ratio", at_most=1.0),
        Measure("tpot", "p95 time per token in the burst over the target", "ratio", at_most=1.1),
        Measure("ttft", "p95 TTFT in the engine", "ms", at_most=0.5),
        Measure("served", "requests of the burst served by its end", "count"),
    ),
    picture="idle",
)

LIMITS = (A, B, C, D, E)
