"""The ladder: the limiters that others ship or publish, each as the sizer of a real dispatcher.

They get the concurrency limit alone: no ledger, no prefill bound, no learnt engine cap, since their systems have none
(the memory bound of dynamic batching apart, which is part of it). Where a law needs a latency it gets the time per
output token of finished requests, the signal that suits it best; `seed, end to end` shows what the usual one does.
Its target is the fairest there is: the TTFT target plus the mean output times the target per token.

    none         no limit
    fixed        256, the default number of sequences of engines
    seed         x 1.5 below 0.8 of the target, x 0.7 above it, every 10 requests; 1..256
    aimd         Netflix concurrency-limits, AIMDLimit: +1 per completion with 2 in_flight >= L, L 0.9 on a late one
    vegas        VegasLimit: q = L (1 - rtt_min / rtt); q <= log10 L: + 6 log10 L; q < 3 log10 L: + log10 L;
                 q > 6 log10 L: - log10 L; the baseline is measured anew every 30 L samples
    gradient2    Gradient2Limit on windows of a second: L' = 0.8 L + 0.2 (g L + 4), g = clamp(1.5 long / short, 0.5, 1)
    envoy        adaptive_concurrency: L' = g L + sqrt(g L), g = clamp(1.25 rtt_min / p50, 0.5, 2); every 60 s the
                 limit is pinned to 3 until 50 requests have measured rtt_min
    dynamic      arXiv 2503.05248, algorithm 2, with its memory bound: noisy binary search on the decode latency
    saturation   llm-d utilisation detector: holds while max(waiting / 5, kv_usage / 0.8) >= 1, scraped each 50 ms
"""

from __future__ import annotations

from math import inf, log10, sqrt
from typing import Protocol

from proxy.admission.batch_sizer import AdaptiveBatchSizer, TickInput
from proxy.admission.limits import LimitConfig, Target
from proxy.laboratory.measures import quantile
from proxy.types import Failure, Sample, Step, Telemetry, Work

UNBOUNDED = 1_000_000
LIMIT_MAX = 1000  # of the laws whose default of 200 would be the reason why they stay below


class Limiter(Protocol):
    """One law. `in_flight` is what runs now; a latency is in units of its target."""

    limit: float

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        """One finished request."""

    def tick(self, given: TickInput) -> None:
        """Twice a second."""

    def told(self, telemetry: Telemetry) -> None:
        """A scrape."""


class Fixed:
    def __init__(self, limit: float) -> None:
        self.limit = limit

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        pass

    def tick(self, given: TickInput) -> None:
        pass

    def told(self, telemetry: Telemetry) -> None:
        pass


class Switched(Fixed):
    """Fixed limits of one who knows when the engine changes, and to what: what runs still has to end."""

    def __init__(self, before: float, after: float, at_s: float) -> None:
        super().__init__(before)
        self._after, self._at_s = after, at_s

    def tick(self, given: TickInput) -> None:
        if given.now >= self._at_s:
            self.limit = self._after


class Seed(Fixed):
    def __init__(self) -> None:
        super().__init__(8.0)
        self._seen: list[float] = []

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        self._seen.append(latency)
        if len(self._seen) < 10:
            return
        mean = sum(self._seen) / len(self._seen)
        self._seen.clear()
        if mean > 1.0:
            self.limit = max(1.0, 0.7 * self.limit)
        elif mean < 0.8:
            self.limit = min(256.0, 1.5 * self.limit)


class Aimd(Fixed):
    def __init__(self) -> None:
        super().__init__(20.0)

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        if latency > 1.0:
            self.limit *= 0.9
        elif 2 * in_flight >= self.limit:
            self.limit += 1.0
        self.limit = min(max(self.limit, 1.0), float(LIMIT_MAX))


class Vegas(Fixed):
    def __init__(self) -> None:
        super().__init__(20.0)
        self._base = inf
        self._count = 0

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        self._count += 1
        if self._count >= 30 * self.limit:
            self._count, self._base = 0, latency
        if latency < self._base:
            self._base = latency
            return
        if 2 * in_flight < self.limit:
            return
        unit = log10(max(self.limit, 10.0))
        queue = self.limit * (1 - self._base / latency)
        if queue <= unit:
            self.limit += 6 * unit
        elif queue < 3 * unit:
            self.limit += unit
        elif queue > 6 * unit:
            self.limit -= unit
        self.limit = min(max(self.limit, 1.0), float(LIMIT_MAX))


class Gradient2(Fixed):
    def __init__(self) -> None:
        super().__init__(20.0)
        self._long = 0.0
        self._seen: list[float] = []
        self._since_s = 0.0

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        self._seen.append(latency)
        if len(self._seen) < 10 or now - self._since_s < 1.0:
            return
        short = sum(self._seen) / len(self._seen)
        self._seen.clear()
        self._since_s = now
        self._long += (short - self._long) * (2 / 601 if self._long else 1.0)
        if self._long / short > 2:
            self._long *= 0.95
        if in_flight < self.limit / 2:
            return
        gradient = min(max(1.5 * self._long / short, 0.5), 1.0)
        limit = 0.8 * self.limit + 0.2 * (gradient * self.limit + 4)
        self.limit = min(max(limit, 20.0), float(LIMIT_MAX))


class Envoy(Fixed):
    PINNED = 3.0

    def __init__(self) -> None:
        super().__init__(self.PINNED)
        self._base: float | None = None
        self._kept = self.PINNED
        self._seen: list[float] = []
        self._measured_s = 0.0
        self._updated_s = 0.0

    def sample(self, latency: float, in_flight: int, now: float) -> None:
        self._seen.append(latency)
        if self._base is None:
            if len(self._seen) >= 50:
                self._base, self._measured_s = quantile(self._seen, 0.5), now
                self._seen.clear()
                self.limit = self._kept
        elif now - self._measured_s >= 60.0:
            self._base, self._kept, self.limit = None, self.limit, self.PINNED
            self._seen.clear()
        elif now - self._updated_s >= 0.1:
            gradient = min(max(1.25 * self._base / quantile(self._seen, 0.5), 0.5), 2.0)
            self._seen.clear()
            self._updated_s = now
            self.limit = min(max(gradient * self.limit + sqrt(gradient * self.limit), self.PINNED), float(LIMIT_MAX))


class Dynamic(Fixed):
    """D = target, eps 5 ms of 40, alpha 16, delta 4 (the paper's suggested order), interval of 10 decode steps."""

    EPSILON, ALPHA, DELTA, LOW, HIGH = 0.1, 16.0, 4.0, 1.0, 256.0

    def __init__(self, target: Target) -> None:
        super().__init__((self.LOW + self.HIGH) / 2)
        self._target_s = target.itl_s
        self._low, self._high = self.LOW, self.HIGH
        self._memory = inf

    def tick(self, given: TickInput) -> None:
        if not given.tokens or not given.running:
            return
        latency = given.gap_s / given.tokens / self._target_s
        if latency > 1 + self.EPSILON:
            self._high = max(given.running, self._low + self.ALPHA)
            self._low = max(self._low - self.DELTA, self.LOW)
        elif latency < 1 - self.EPSILON:
            self._low = min(given.running, self._high - self.ALPHA)
            self._high = min(self._high + self.DELTA, float(LIMIT_MAX))
        else:
            self._low = max(given.running - self.ALPHA / 2, self.LOW)
            self._high = min(given.running + self.ALPHA / 2, float(LIMIT_MAX))
        self.limit = max(1.0, min((self._low + self._high) / 2, self._memory))

    def told(self, telemetry: Telemetry) -> None:
        """Algorithm 1: as many as fit at the present size per request."""
        if telemetry.kv_usage and telemetry.running:
            self._memory = 0.95 * telemetry.running / telemetry.kv_usage


class Saturation(Fixed):
    def __init__(self) -> None:
        super().__init__(float(UNBOUNDED))

    def told(self, telemetry: Telemetry) -> None:
        waiting, kv_usage = telemetry.waiting or 0, telemetry.kv_usage or 0.0
        self.limit = 0.0 if max(waiting / 5, kv_usage / 0.8) >= 1 else float(UNBOUNDED)


LADDER = {
    "none": "no limit",
    "fixed": "fixed 256",
    "seed-e2e": "seed, end to end",
    "seed": "seed, per token",
    "aimd": "AIMD",
    "vegas": "Vegas",
    "gradient2": "Gradient2",
    "envoy": "Envoy gradient",
    "dynamic": "dynamic batching",
    "saturation": "saturation 5 / 0.8",
}


def limiter(law: str, target: Target) -> Limiter:
    """By its name in `LADDER`, or `static:N`, or `switch:N:M:SECOND`."""
    name, *numbers = law.split(":")
    if name == "static":
        return Fixed(float(numbers[0]))
    if name == "switch":
        before, after, at_s = map(float, numbers)
        return Switched(before, after, at_s)
    makers = {
        "none": lambda: Fixed(float(UNBOUNDED)),
        "fixed": lambda: Fixed(256.0),
        "seed-e2e": Seed,
        "seed": Seed,
        "aimd": Aimd,
        "vegas": Vegas,
        "gradient2": Gradient2,
        "envoy": Envoy,
        "dynamic": lambda: Dynamic(target),
        "saturation": Saturation,
    }
    maker = makers[law]
    made: Limiter = maker()
    return made


class LadderSizer(AdaptiveBatchSizer):
    """Stands where the dispatcher's own sizer stands, with another law and nothing beside it."""

    def __init__(self, law: str, target: Target, mean_output: float, now: float) -> None:
        super().__init__("engine", LimitConfig(initial=1), target, now)
        self._law_name = law
        self._limiter = limiter(law, target)
        self._in_use = 0
        self._e2e_s = target.ttft_s + mean_output * target.itl_s

    @property
    def limit(self) -> float:
        return self._limiter.limit

    @property
    def seats(self) -> int:
        return int(self._limiter.limit)

    @property
    def prefill_tokens_max(self) -> float:
        return inf

    def told(self, telemetry: Telemetry) -> None:
        self._limiter.told(telemetry)

    def observe(self, sample: Sample, now: float) -> Step | None:
        if self._law_name == "seed-e2e":
            self._limiter.sample(sample.duration_s / self._e2e_s, self._in_use, now)
        elif sample.work is not Work.GENERATE:
            self._limiter.sample(sample.duration_s / self._target.ttft_s, self._in_use, now)
        elif sample.tpot_s is not None:
            self._limiter.sample(sample.tpot_s / self._target.itl_s, self._in_use, now)
        return None

    def tick(self, given: TickInput) -> list[Step]:
        self._in_use = given.in_flight
        self._limiter.tick(given)
        return []

    def overloaded(self, now: float, failure: Failure) -> Step | None:
        return None
