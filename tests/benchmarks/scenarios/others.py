"""Scenarios beyond chat on a known engine: embeddings, mixed and non-streamed work, engines drawn at random."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from math import exp, log

from proxy.admission.limits import Target
from proxy.laboratory.lab import Lab
from proxy.laboratory.measures import goodput, mean, quantile, settled_s, within
from proxy.laboratory.workload import Arrival, Stream
from proxy.simulator.profiles import EngineProfile, StepTime
from proxy.types import Work
from tests.benchmarks.scenarios.scenario import ATTAINMENT, Found, Measure, Numbers, Oracle, Scenario, relative
from tests.benchmarks.scenarios.worlds import OURS, World

LIKE = Arrival(0.0, 1, 1)
LATER = (50.0, 110.0)

# -- T: embeddings

EMBEDDINGS = World(
    (Stream(90.0, 0.0, 110.0, prompt_mean=400.0, like=replace(LIKE, work=Work.EMBED, streaming=False)),), 110.0
)


def read_embeddings(_: str, lab: Lab, found: Found) -> Numbers:
    best = found["steady"]
    return {
        **relative(lab, EMBEDDINGS, LATER, best),
        "settled": settled_s(lab.moments, best.seats, 0.25, (0.0, 110.0)),
    }


T = Scenario(
    "T",
    "embeddings: work without tokens",
    "One forward pass per request and no token to time: the duration from dispatch, against the TTFT target of 0.5 s, "
    "is the signal. Goodput counts prompt tokens of requests within it.",
    {"embeddings": EMBEDDINGS},
    read_embeddings,
    (
        Measure("goodput", "goodput over the best static", at_least=0.95),
        ATTAINMENT,
        Measure("settled", "within 25 % of the best static after", "s"),
    ),
    oracles={"steady": Oracle(EMBEDDINGS, LATER, 8.0, 60.0)},
    laws=("none", "fixed", "seed", "aimd", "vegas", "gradient2", "envoy", OURS),
)

# -- U: kinds of work together

MIXED = {
    "bodies": World((Stream(26.0, 0.0, 140.0, like=replace(LIKE, streaming=False)),), 140.0),
    "cached": World(
        (Stream(30.0, 0.0, 110.0, prompt_mean=1500.0, variation=0.2, like=replace(LIKE, cached_tokens=1000)),), 110.0
    ),
    "both": World(
        (
            Stream(18.0, 0.0, 110.0),
            Stream(15.0, 0.0, 110.0, prompt_mean=400.0, like=replace(LIKE, work=Work.EMBED, streaming=False)),
        ),
        110.0,
    ),
    "estimate": World((Stream(26.0, 0.0, 110.0, like=replace(LIKE, estimate_ratio=1.8)),), 110.0),
}


def read_mixed(name: str, lab: Lab, found: Found) -> Numbers:
    return relative(lab, MIXED[name], (60.0, MIXED[name].until_s), found[name])


def judge_mixed(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    return {f"{key} {name}": value for name, row in numbers.items() for key, value in row.items()}


WORDS = {
    "bodies": "nothing streamed",
    "cached": "1,000 of 1,500 prompt tokens cached",
    "both": "chat and embeddings",
    "estimate": "prompts estimated at 1.8 times their size",
}
U = Scenario(
    "U",
    "answers not streamed, cached prefixes, mixed work, wrong estimates",
    "The same engine and 40 ms per token. Bodies that are not streamed show their latency only when they end; prompts "
    "found in the engine's cache need no prefill; embeddings share the engine with chat; our estimate of prompts is "
    "far too high.",
    MIXED,
    read_mixed,
    tuple(
        Measure(f"{key} {name}", f"{what}, {words}", show, at_least=0.95)
        for name, words in WORDS.items()
        for key, what, show in (
            ("goodput", "goodput over the best static", "ratio"),
            ("attainment", "requests within both targets", "percent"),
        )
    ),
    judge_mixed,
    {name: Oracle(world, (60.0, world.until_s), 80.0, 220.0) for name, world in MIXED.items()},
    laws=(OURS,),
)

# -- V: engines drawn at random

STRANGERS = 12


def between(rng: random.Random, low: float, high: float) -> float:
    """Uniform in the logarithm."""
    return exp(rng.uniform(log(low), log(high)))


def stranger(number: int) -> tuple[World, float]:
    """An engine, lengths and a target that nothing was tuned on, and roughly the best limit."""
    rng = random.Random(f"stranger {number}")
    ranges = ((6e-3, 40e-3), (10e-6, 300e-6), (0.01e-6, 0.3e-6), (10e-6, 200e-6))
    step = StepTime(*(between(rng, low, high) for low, high in ranges))
    prompt, output, variation = between(rng, 100, 2000), between(rng, 80, 600), rng.uniform(0.3, 1.2)
    held = prompt + output * (1 + variation**2) / 2
    slope = step.sequence_s + step.kv_token_s * held + step.prefill_token_s * prompt / output
    itl_s = step.base_s * rng.uniform(1.5, 3.5)
    seats = (itl_s - step.base_s) / slope
    profile = EngineProfile(
        f"stranger {number}", "m", step, 4_000_000, 131_072, 2048, rng.choice((2048, 4096, 8192)),
        noise=rng.uniform(0.02, 0.2),
    )  # fmt: skip
    rate = 1.5 * seats / (itl_s * output)
    streams = (Stream(rate, 0.0, 110.0, prompt_mean=prompt, output_mean=output, variation=variation),)
    return World(streams, 110.0, profile, Target(itl_s=itl_s, ttft_s=1.0)), seats


DRAWN = {f"{number:02d}": stranger(number) for number in range(1, STRANGERS + 1)}
AFTER = (50.0, 110.0)
KEEPING = ", targets kept"


def read_stranger(name: str, lab: Lab, found: Found) -> Numbers:
    world, best, keeping = DRAWN[name][0], found[name], found[name + KEEPING]
    level = mean(one.in_flight for one in within(lab.moments, AFTER))
    return {
        **relative(lab, world, AFTER, best),
        "keeping": goodput(lab.requests, world.target, AFTER) / keeping.goodput,
        "settled": settled_s(lab.moments, level, 0.15, (0.0, 110.0), span_s=40.0),
        "off": level / best.seats - 1,
    }


def judge_strangers(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    goodputs = [row["goodput"] for row in numbers.values()]
    return {
        "goodput": min(goodputs),
        "median": quantile(goodputs, 0.5),
        "keeping": min(row["keeping"] for row in numbers.values()),
        "attainment": min(row["attainment"] for row in numbers.values()),
        "settled": max(row["settled"] for row in numbers.values()),
        "typical": quantile((row["settled"] for row in numbers.values()), 0.5),
    }


V = Scenario(
    "V",
    "twelve engines, mixes and targets drawn at random",
    "Step times, lengths, their variation, chunk size, noise and target are drawn anew for each; nothing was tuned on "
    "them. Settled: within 15 % of its own level from second 50 on.",
    {name: world for name, (world, _) in DRAWN.items()},
    read_stranger,
    (
        Measure("goodput", "goodput over the best static, worst engine", at_least=0.95),
        Measure("median", "goodput over the best static, median engine", at_least=0.97),
        Measure("keeping", "goodput over the best static that keeps 95 % within both targets, worst engine"),
        Measure("attainment", "requests within both targets, worst engine", "percent", at_least=0.95),
        Measure("settled", "settled after, worst engine", "s"),
        Measure("typical", "settled after, median engine", "s", at_most=15.0),
    ),
    judge_strangers,
    {
        **{name: Oracle(one, AFTER, max(1.0, 0.6 * seats), 1.5 * seats + 3) for name, (one, seats) in DRAWN.items()},
        **{
            name + KEEPING: Oracle(one, AFTER, max(1.0, 0.3 * seats), 1.2 * seats + 3, keeps=0.95)
            for name, (one, seats) in DRAWN.items()
        },
    },
    laws=("fixed", "seed", "aimd", "gradient2", "dynamic", OURS),
    seeds=(1,),
)

OTHERS = (T, U, V)
