"""Scenarios beyond chat: embeddings, mixed and non-streamed work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from proxy.laboratory.lab import Lab
from proxy.laboratory.measures import settled_s
from proxy.laboratory.workload import Arrival, Stream
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

OTHERS = (T, U)
