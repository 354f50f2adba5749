"""Scenarios of the limit where something else is in the way: memory, the engine's own cap, noise, bad signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from proxy.admission.limits import Target
from proxy.admission.queue import ClassConfig
from proxy.laboratory.bench import Request
from proxy.laboratory.lab import Lab, Scrape
from proxy.laboratory.measures import (
    goodput,
    mean,
    quantile,
    served,
    within,
)
from proxy.laboratory.workload import Arrival, Stream
from tests.benchmarks.scenarios.laws import LADDER
from tests.benchmarks.scenarios.limits import overload
from tests.benchmarks.scenarios.scenario import ATTAINMENT, Found, Measure, Numbers, Oracle, Scenario, relative
from tests.benchmarks.scenarios.worlds import OURS, ROOMY, TARGET, World

LIKE = Arrival(0.0, 1, 1)
STEADY = (50.0, 110.0)


# -- F: memory binds

SMALL = replace(ROOMY, kv_tokens=60_000, max_seqs=256)
TIGHT = World((Stream(5.0, 0.0, 200.0, output_mean=900.0),), 200.0, SMALL)


def read_memory(_: str, lab: Lab, found: Found) -> Numbers:
    counters = lab.benches["engine"].engine.counters
    done = counters.prompt_tokens + counters.generation_tokens
    return {
        **relative(lab, TIGHT, (60.0, 200.0), found["steady"]),
        "recomputed": counters.recomputed_tokens / done,
        "waiting": quantile((one.waiting for one in within(lab.moments, (30.0, 200.0))), 0.95),
    }


F = Scenario(
    "F",
    "memory binds before latency",
    "60,000 tokens of KV cache and outputs of 900 tokens in the mean, not announced by max_tokens. The engine makes "
    "room by throwing requests out and computing them again.",
    {"tight": TIGHT},
    read_memory,
    (
        Measure("goodput", "goodput over the best static", "ratio", at_least=0.95),
        Measure("recomputed", "tokens computed again", "percent", at_most=0.03),
        Measure("waiting", "p95 of requests waiting in the engine", "count", at_most=2.0),
        Measure("attainment", "requests within both targets", "percent"),
    ),
    oracles={"steady": Oracle(TIGHT, (60.0, 200.0), 30.0, 80.0)},
    picture="tight",
)

# -- G: the engine runs fewer than its latency would allow

CAPPED = overload(16.0, 100.0, profile=replace(ROOMY, max_seqs=64))


def read_capped(_: str, lab: Lab, found: Found) -> Numbers:
    ended = served(lab.requests, (35.0, 100.0))
    return {
        "waiting": quantile((one.waiting for one in within(lab.moments, (30.0, 100.0))), 0.95),
        "ttft": quantile((one.engine_ttft_s for one in ended), 0.95),
        **relative(lab, CAPPED, (35.0, 100.0), found["steady"]),
    }


G = Scenario(
    "G",
    "the engine runs at most 64 sequences",
    "Its own limit is far below what the target allows; what we send beyond it waits in the engine, where order and "
    "fairness are not ours. It does not tell that limit.",
    {"capped": CAPPED},
    read_capped,
    (
        Measure("waiting", "p95 of requests waiting in the engine", "count", at_most=4.0),
        Measure("ttft", "p95 TTFT in the engine", "ms"),
        Measure("goodput", "goodput over the best static", "ratio", at_least=0.95),
        ATTAINMENT,
    ),
    oracles={"steady": Oracle(CAPPED, (35.0, 100.0), 50.0, 80.0)},
)

# -- H: noise and two kinds of outputs

NOISY = {
    "noise": overload(26.0, 120.0, profile=replace(ROOMY, noise=0.35)),
    "bimodal": World(
        (Stream(8.0, 0.0, 180.0, output_mean=30.0), Stream(1.6, 0.0, 180.0, output_mean=3000.0)),
        180.0,
    ),
}


def read_noisy(name: str, lab: Lab, found: Found) -> Numbers:
    window = (50.0, 120.0) if name == "noise" else (80.0, 180.0)
    return relative(lab, NOISY[name], window, found[name])


def judge_noisy(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    return {f"{key} {name}": value for name, row in numbers.items() for key, value in row.items()}


H = Scenario(
    "H",
    "a noisy engine; outputs of 30 and of 3,000 tokens",
    "Step times vary by a lognormal factor of sigma 0.35; or one request in six puts out 3,000 tokens and the others "
    "30.",
    NOISY,
    read_noisy,
    (
        Measure("goodput noise", "goodput over the best static, noise", "ratio", at_least=0.95),
        Measure("attainment noise", "requests within both targets, noise", "percent", at_least=0.95),
        Measure("goodput bimodal", "goodput over the best static, two kinds", "ratio", at_least=0.95),
        Measure("attainment bimodal", "requests within both targets, two kinds", "percent", at_least=0.95),
    ),
    judge_noisy,
    {
        "noise": Oracle(NOISY["noise"], (50.0, 120.0), 100.0, 190.0),
        "bimodal": Oracle(NOISY["bimodal"], (80.0, 180.0), 110.0, 300.0),
    },
)

# -- J: telemetry that lags, starts at zero, or fails

LAGGING = {
    "fresh": overload(26.0, 120.0),
    "late": overload(26.0, 120.0, scrape=Scrape(lag_s=6.0, zero_until_s=18.0, outage_s=(75.0, 120.0))),
    "fresh, memory": replace(TIGHT, until_s=160.0),
    "late, memory": replace(TIGHT, until_s=160.0, scrape=Scrape(lag_s=6.0, zero_until_s=18.0, outage_s=(100.0, 160.0))),
}


def read_lagging(name: str, lab: Lab, _: Found) -> Numbers:
    counters = lab.benches["engine"].engine.counters
    return {
        "goodput": goodput(lab.requests, TARGET, (30.0, LAGGING[name].until_s)),
        "recomputed": counters.recomputed_tokens / (counters.prompt_tokens + counters.generation_tokens),
    }


def judge_lagging(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    return {
        "goodput": numbers["late"]["goodput"] / numbers["fresh"]["goodput"],
        "memory": numbers["late, memory"]["goodput"] / numbers["fresh, memory"]["goodput"],
        "recomputed": numbers["late, memory"]["recomputed"],
    }


J = Scenario(
    "J",
    "telemetry lags, starts at zero, then fails",
    "Gauges are 6 s late, read zero for 18 s, and from the middle of the run on nothing comes at all; beside the same "
    "with fresh telemetry, where latency binds and where memory does.",
    LAGGING,
    read_lagging,
    (
        Measure("goodput", "goodput over that with fresh telemetry", "ratio", at_least=0.98),
        Measure("memory", "the same where memory binds", "ratio", at_least=0.98),
        Measure("recomputed", "tokens computed again where memory binds", "percent", at_most=0.03),
    ),
    judge_lagging,
    laws=(OURS,),
)

# -- L: several tokens per event

SPECULATIVE = World(
    tuple(Stream(9.0, 0.0, 110.0, like=replace(LIKE, tokens_per_step=k)) for k in (2.4, 2.7, 3.0, 3.3, 3.6)), 110.0,
    target=Target(itl_s=0.016, ttft_s=0.5),
)  # fmt: skip


def read_speculative(_: str, lab: Lab, found: Found) -> Numbers:
    best = found["steady"]
    in_flight = mean(one.in_flight for one in within(lab.moments, STEADY))
    return {"error": abs(in_flight / best.seats - 1), **relative(lab, SPECULATIVE, STEADY, best)}


L = Scenario(
    "L",
    "speculative decoding: several tokens per event",
    "Each request gets 2.4 to 3.6 tokens per step, all in one event; the target is 16 ms per token. A limiter "
    "that takes gaps for inter-token times sees three times the latency that users see.",
    {"speculative": SPECULATIVE},
    read_speculative,
    (
        Measure("error", "in flight off the best static", "percent", at_most=0.10),
        Measure("goodput", "goodput over the best static", "ratio", at_least=0.95),
        Measure("attainment", "requests within both targets", "percent"),
    ),
    oracles={"steady": Oracle(SPECULATIVE, STEADY, 60.0, 300.0)},
    laws=(*(law for law in LADDER if law != "seed-e2e"), OURS),
)

# -- M: clients that read slowly

QUICK = overload(22.0, 110.0)
SLOW_CLIENTS = World((Stream(19.8, 0.0, 110.0), Stream(2.2, 0.0, 110.0, like=replace(LIKE, read_tokens_s=5.0))), 110.0)


def read_clients(_: str, lab: Lab, __: Found) -> Numbers:
    seen = within(lab.moments, STEADY)
    return {"limit": mean(one.limit for one in seen), "running": mean(one.running for one in seen)}


def judge_clients(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    slow, quick = numbers["slow"], numbers["quick"]
    return {key: abs(slow[key] / quick[key] - 1) for key in ("limit", "running")}


M = Scenario(
    "M",
    "one client in ten reads 1 kB per second",
    "Their tokens pile up in our buffers, and once these are full in the engine's. Beside the same load with quick "
    "clients.",
    {"quick": QUICK, "slow": SLOW_CLIENTS},
    read_clients,
    (
        Measure("limit", "change of the mean limit", "percent", at_most=0.03),
        Measure("running", "change of what the engine runs", "percent", at_most=0.03),
    ),
    judge_clients,
    laws=(OURS,),
)

# -- N: very long prompts

LONG = replace(ROOMY, context_tokens=131_072, kv_tokens=2_000_000)
ELEPHANTS = World(
    (Stream(6.0, 0.0, 200.0), Stream(0.12, 0.0, 200.0, tenant="e", prompt_mean=64_000.0, variation=0.05)),
    200.0,
    LONG,
    classes=(ClassConfig("only", queue_max=100_000, queue_timeout_s=60.0),),
)


def read_elephants(_: str, lab: Lab, __: Found) -> Numbers:
    ended = served(lab.requests, (40.0, 200.0))
    small: list[Request] = [one for one in ended if one.arrival.tenant == "t"]
    big = [one for one in ended if one.arrival.tenant == "e"]
    return {
        "tpot": quantile((one.itl_s for one in small), 0.99) / TARGET.itl_s,
        "wait": max((one.wait_s for one in big), default=0.0) / 30.0,
        "ttft": quantile((one.engine_ttft_s for one in small), 0.95),
    }


N = Scenario(
    "N",
    "one prompt in fifty has 64,000 tokens",
    "Such a prompt takes the engine 2.5 s of nothing else, in chunks that slow everybody's tokens meanwhile.",
    {"elephants": ELEPHANTS},
    read_elephants,
    (
        Measure("tpot", "p99 time per token of the others over the target", "ratio", at_most=1.5),
        Measure("wait", "longest wait of a long prompt over half of its patience", "ratio", at_most=1.0),
        Measure("ttft", "p95 TTFT of the others in the engine", "ms"),
    ),
)

OBSTACLES = (F, G, H, J, L, M, N)
