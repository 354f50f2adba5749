"""What a load test sends: flows of requests, the lengths of their prompts and outputs, and when they arrive.

A workload is one seed away from fixed times and lengths: all draws are made in the order of arrival, whatever the
endpoint does. Lognormal lengths with mean m and coefficient of variation v: sigma^2 = ln(1 + v^2), mu = ln m -
sigma^2 / 2. Bounds clip, so a drawn mean lies a little beside the one asked for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

APIS = ("chat", "completions")
OPEN = ("poisson", "constant", "gamma", "steps")
PROCESSES = (*OPEN, "trace", "closed")


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts: fixed, uniform, exponential, lognormal or values (with weights)."""

    distribution: str = "fixed"
    mean: float = 128.0
    cv: float = 1.0
    minimum: int = 1
    maximum: int = 1_000_000
    values: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    def draw(self, rng: random.Random) -> int:
        if self.distribution == "fixed":
            return round(self.mean)
        if self.distribution == "values":
            return rng.choices(self.values, self.weights or None)[0]
        if self.distribution == "uniform":
            return rng.randint(self.minimum, self.maximum)
        if self.distribution == "exponential":
            drawn = rng.expovariate(1 / self.mean)
        else:
            variance = math.log1p(self.cv**2)
            drawn = rng.lognormvariate(math.log(self.mean) - variance / 2, math.sqrt(variance))
        return max(self.minimum, min(self.maximum, round(drawn)))


@dataclass(frozen=True, slots=True)
class Flow:
    """One kind of request. `share` is its weight among the flows; keys are named by environment variable, never kept.

    `prefix_tokens` begin every prompt alike, for engines with a prefix cache. `ignore_eos` asks engines that know it
    for exactly the drawn output.
    """

    name: str
    share: float = 1.0
    api: str = "chat"
    stream: bool = True
    prompt_tokens: Lengths = Lengths(mean=200.0)
    output_tokens: Lengths = Lengths(mean=100.0)
    prefix_tokens: int = 0
    class_name: str = ""
    tenant: str = ""
    key_env: str = ""
    model: str = ""
    ignore_eos: bool = True


@dataclass(frozen=True, slots=True)
class RateStep:
    """`rate` requests per second for `duration_s`."""

    rate: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """When requests begin: at their own times (open loop), or when one of `concurrency` has ended (closed loop)."""

    process: str = "poisson"
    rate: float = 1.0
    cv: float = 1.0  # of the gaps, for gamma; 1 is Poisson, above it bursts
    steps: tuple[RateStep, ...] = ()
    concurrency: int = 1
    think_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One recorded arrival."""

    at_s: float
    tenant: str
    class_name: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """`duration_s` follows `warmup_s` and is what counts; `requests` ends the run earlier. 0 means no such bound."""

    name: str
    flows: tuple[Flow, ...]
    arrival: Arrival = Arrival()
    duration_s: float = 45.0
    warmup_s: float = 5.0
    requests: int = 0
    seed: int = 0
    in_flight_max: int = 0
    timeout_s: float = 600.0
    silence_s: float = 120.0
    description: str = ""
    trace: tuple[TraceEntry, ...] = field(default=(), repr=False)

    @property
    def closed(self) -> bool:
        return self.arrival.process == "closed"

    @property
    def end_s(self) -> float:
        """When the last request may begin."""
        return self.warmup_s + self.duration_s


@dataclass(frozen=True, slots=True)
class Shot:
    """One request to be sent. `at_s` is its due time since the start; None: as soon as a place is free."""

    index: int
    at_s: float | None
    flow: Flow
    prompt_tokens: int
    output_tokens: int


def shots(workload: Workload, rng: random.Random) -> Iterator[Shot]:
    """All requests of the workload in order; without end for a closed loop."""
    if workload.arrival.process == "trace":
        yield from _recorded(workload)
        return
    flows, shares = workload.flows, [flow.share for flow in workload.flows]
    times = gaps(workload.arrival, rng)
    index, at_s = 0, 0.0
    while True:
        if not workload.closed:
            at_s = next(times)
            if at_s >= workload.end_s:
                return
        flow = rng.choices(flows, shares)[0]
        prompt, output = flow.prompt_tokens.draw(rng), flow.output_tokens.draw(rng)
        yield Shot(index, None if workload.closed else at_s, flow, prompt, max(1, output))
        index += 1


def gaps(arrival: Arrival, rng: random.Random) -> Iterator[float]:
    """Due times of an open loop since its start, without end."""
    if arrival.process == "steps":
        yield from _stepped(arrival.steps, rng)
    if arrival.process == "constant":
        yield from (index / arrival.rate for index in count())
    shape = 1 / arrival.cv**2 if arrival.process == "gamma" else 1.0
    at_s = 0.0
    while True:
        at_s += rng.gammavariate(shape, 1 / (shape * arrival.rate))  # of shape 1: exponential, so Poisson
        yield at_s


def _stepped(steps: tuple[RateStep, ...], rng: random.Random) -> Iterator[float]:
    """A Poisson process whose rate follows the steps, over and over: unit arrivals through the inverse of its mean."""
    begin_s, left = 0.0, rng.expovariate(1.0)
    while True:
        for step in steps:
            at_s, end_s = begin_s, begin_s + step.duration_s
            while step.rate > 0 and at_s + left / step.rate < end_s:
                at_s += left / step.rate
                left = rng.expovariate(1.0)
                yield at_s
            left -= (end_s - at_s) * step.rate
            begin_s = end_s


def _recorded(workload: Workload) -> Iterator[Shot]:
    """A flow that is named like the tenant shapes its requests; else the first flow does, under the tenant's name."""
    named = {flow.name: flow for flow in workload.flows}
    made: dict[tuple[str, str], Flow] = {}
    for index, entry in enumerate(sorted(workload.trace, key=lambda one: one.at_s)):
        if entry.at_s >= workload.end_s:
            return
        who = entry.tenant, entry.class_name
        if who not in made:
            like = named.get(entry.tenant, workload.flows[0])
            name = "/".join(filter(None, who)) or like.name
            made[who] = replace(like, name=name, tenant=entry.tenant or like.tenant, class_name=entry.class_name)
        yield Shot(index, entry.at_s, made[who], entry.prompt_tokens, max(1, entry.output_tokens))


def public(workload: Workload) -> dict[str, object]:
    """The workload as it stands in results: everything that shapes the load, no key, no trace."""
    arrival = workload.arrival
    return {
        "name": workload.name,
        "arrival": {
            "process": arrival.process,
            **({"concurrency": arrival.concurrency, "think_s": arrival.think_s} if workload.closed else {}),
            **({"rate": arrival.rate} if arrival.process in ("poisson", "constant", "gamma") else {}),
            **({"cv": arrival.cv} if arrival.process == "gamma" else {}),
            **({"steps": [[step.rate, step.duration_s] for step in arrival.steps]} if arrival.steps else {}),
        },
        "duration_s": workload.duration_s,
        "warmup_s": workload.warmup_s,
        "requests": workload.requests,
        "seed": workload.seed,
        "in_flight_max": workload.in_flight_max,
        "flows": [_public_flow(flow) for flow in workload.flows],
    }


def _public_flow(flow: Flow) -> dict[str, object]:
    lengths = {"prompt_tokens": flow.prompt_tokens, "output_tokens": flow.output_tokens}
    plain = ("name", "share", "api", "stream", "prefix_tokens", "class_name", "tenant", "model", "ignore_eos")
    return {key: getattr(flow, key) for key in plain} | {key: _public_lengths(one) for key, one in lengths.items()}


def _public_lengths(lengths: Lengths) -> Mapping[str, object]:
    if lengths.distribution == "fixed":
        return {"distribution": "fixed", "mean": lengths.mean}
    if lengths.distribution == "values":
        return {"distribution": "values", "values": list(lengths.values), "weights": list(lengths.weights)}
    bounds = {"min": lengths.minimum, "max": lengths.maximum}
    if lengths.distribution == "uniform":
        return {"distribution": "uniform", **bounds}
    return {"distribution": lengths.distribution, "mean": lengths.mean, "cv": lengths.cv, **bounds}
