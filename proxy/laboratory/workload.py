"""What arrives, and when: Poisson streams with lognormal lengths, open loop.

Arrivals come whatever became of the earlier ones, as those of independent clients do; a closed loop would hide an
overload (Schroeder, Wierman and Harchol-Balter, NSDI 2006). Lengths have mean m and coefficient of variation v:
sigma^2 = ln(1 + v^2), mu = ln m - sigma^2 / 2. A trace is drawn once and is then the same for all that is compared.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import log, log1p, sqrt

from proxy.types import Work


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it will be, which the dispatcher does not know.

    `cached_tokens` of the prompt are in the engine's prefix cache. `estimate_ratio`: our estimate of the prompt over
    the engine's count. `tokens_per_step` above 1: speculative decoding. `patience_s`: the client leaves then.
    `read_tokens_s`: how fast the client reads. `proxy`: which of several proxies it comes to.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    tenant: str = "t"
    class_index: int = 0
    work: Work = Work.GENERATE
    streaming: bool = True
    output_cap: int | None = None
    cached_tokens: int = 0
    estimate_ratio: float = 1.0
    tokens_per_step: float = 1.0
    patience_s: float | None = None
    read_tokens_s: float | None = None
    proxy: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """Poisson arrivals of one class and tenant between two times, `rate` per second.

    `like` holds what the arrivals have in common beside their lengths.
    """

    rate: float
    begin_s: float = 0.0
    end_s: float = 60.0
    class_index: int = 0
    tenant: str = "t"
    prompt_mean: float = 512.0
    output_mean: float = 256.0
    variation: float = 0.5
    output_cap: int | None = None
    like: Arrival = Arrival(0.0, 1, 1)

    def draw(self, at_s: float, rng: random.Random) -> Arrival:
        prompt = lognormal(rng, self.prompt_mean, self.variation)
        output = 0 if self.like.work is Work.EMBED else lognormal(rng, self.output_mean, self.variation)
        return replace(
            self.like,
            at_s=at_s,
            prompt_tokens=prompt,
            output_tokens=min(output, self.output_cap or output),
            tenant=self.tenant,
            class_index=self.class_index,
            output_cap=self.output_cap,
        )


def lognormal(rng: random.Random, mean: float, variation: float) -> int:
    """A whole number, at least 1."""
    variance = log1p(variation**2)
    return max(1, round(rng.lognormvariate(log(mean) - variance / 2, sqrt(variance))))


def arrivals(streams: Iterable[Stream], rng: random.Random) -> list[Arrival]:
    """One trace, in order of time."""
    trace = []
    for stream in streams:
        at_s = stream.begin_s + rng.expovariate(stream.rate)
        while at_s < stream.end_s:
            trace.append(stream.draw(at_s, rng))
            at_s += rng.expovariate(stream.rate)
    return sorted(trace, key=lambda arrival: arrival.at_s)
