"""Which latency steers an upstream: inter-token time of visible streams, else finished requests, each with its n.

    streams   x = sum(gap) / sum(tokens) of the tick; the engine's steps as they are, without delay
    bodies    not streamed: x_i = (E2E_i - d P_i) / O_i of finished requests
    service   one forward pass (embeddings, scores): x_i = duration_i, against the TTFT target
    (audio has no such signal: its duration is that of its content)

A finished request tells about its whole life, so its n is the mean in flight between its dispatch and its end; that
keeps (x, n) consistent while the limit moves. Such samples are pooled until 30 of them, or as many as run, are there,
and weigh 0.3 beside a tick of streams.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final

from proxy.admission.limits import Target
from proxy.types import Sample, Work

POOL_SAMPLES: Final = 30
BODY_WEIGHT: Final = 0.3
TOKENS_MIN: Final = 20  # fewer gaps in a tick say little about its steps
PROMPTS_MIN: Final = 4
LUMPY_S: Final = 2.0  # the longest that a signal waits for prompts to be counted where they cost


@dataclass(frozen=True, slots=True)
class Measure:
    """x in s, n, p in tokens per step, the weight of the tick, whether x is a service time, and the span in s."""

    latency_s: float
    running: float
    prefill_per_step: float
    weight: float
    service: bool
    span_s: float


class InFlightHistory:
    """Time average of the requests in flight over any recent interval, from its integral at each tick."""

    def __init__(self, now: float) -> None:
        self._times: deque[float] = deque([now], maxlen=600)
        self._integrals: deque[float] = deque([0.0], maxlen=600)

    def tick(self, in_flight: float, now: float) -> None:
        span_s = max(now - self._times[-1], 0.0)
        self._integrals.append(self._integrals[-1] + span_s * in_flight)
        self._times.append(now)

    def mean(self, since_s: float) -> float | None:
        """Mean from `since_s` to the last tick; None when no tick lies in between."""
        index = max(bisect_right(self._times, since_s) - 1, 0)
        span_s = self._times[-1] - self._times[index]
        return None if span_s <= 0 else (self._integrals[-1] - self._integrals[index]) / span_s


@dataclass(slots=True)
class Pool:
    """Finished requests since the signal was last taken."""

    weight: float = 0.0
    latency: float = 0.0
    running: float = 0.0
    count: int = 0
    since_s: float = 0.0

    def add(self, latency_s: float, weight: float, running: float, now: float) -> None:
        """One request: its latency, how much it counts (tokens), mean n of its life."""
        if self.count == 0:
            self.since_s = now
        self.weight += weight
        self.latency += weight * latency_s
        self.running += weight * running
        self.count += 1

    def ready(self, in_flight: float, now: float) -> bool:
        """Enough requests over at least a second."""
        return self.count >= min(POOL_SAMPLES, max(4.0, in_flight)) and now - self.since_s >= 1.0

    def measure(self, service: bool, now: float) -> Measure:
        latency_s, running = self.latency / self.weight, self.running / self.weight
        return Measure(latency_s, running, 0.0, BODY_WEIGHT, service, now - self.since_s)


@dataclass(frozen=True, slots=True)
class Streams:
    """Sums of visible streams since the signal was last taken."""

    seconds: float = 0.0
    gap_s: float = 0.0
    tokens: float = 0.0
    running_s: float = 0.0
    prefill: float = 0.0

    def plus(self, duration_s: float, gap_s: float, tokens: float, running: float, prefill: float) -> Streams:
        return Streams(
            self.seconds + duration_s,
            self.gap_s + gap_s,
            self.tokens + tokens,
            self.running_s + running * duration_s,
            self.prefill + prefill,
        )

    def measure(self) -> Measure:
        latency_s = self.gap_s / self.tokens
        running, prefill = self.running_s / self.seconds, self.prefill * latency_s / self.seconds
        return Measure(latency_s, running, prefill, 1.0, False, self.seconds)


class Meter:
    """Reads samples, and chooses the signal of a tick: streams before bodies before service."""

    def __init__(self, now: float) -> None:
        self._history = InFlightHistory(now)
        self._streams = Streams()
        self._bodies = Pool()
        self._service = Pool()
        self._in_flight = 1

    def sample(self, sample: Sample, target: Target, prefill_s: float, now: float) -> float | None:
        """Latency / target of a finished request, None for work whose duration says nothing about load.

        `prefill_s`: predicted prefill time of its prompt, taken off the duration where there is no first token.
        """
        if sample.work is Work.EMBED:
            self._service.add(sample.duration_s, 1.0, self._life(sample.duration_s, now), now)
            return sample.duration_s / target.ttft_s
        if sample.work is not Work.GENERATE:
            return None
        if sample.streaming:
            return None if sample.tpot_s is None else sample.tpot_s / target.itl_s
        if sample.output_tokens < 2:
            return None
        decode_s = max(sample.duration_s - prefill_s, 0.5 * sample.duration_s)
        tpot_s = decode_s / sample.output_tokens
        self._bodies.add(tpot_s, sample.output_tokens, self._life(sample.duration_s, now), now)
        return tpot_s / target.itl_s

    def tick(
        self,
        now: float,
        duration_s: float,
        gap_s: float,
        tokens: float,
        running: float,
        prefill: float,
        in_flight: int,
        prefill_out: float = 0.0,
        prompt: float = 0.0,
    ) -> Measure | None:
        """The signal of a tick, if there is one. `prefill`: tokens whose first token came in the tick, `prefill_out`:
        those still outstanding, `prompt`: the mean prompt.

        A slow engine gives few tokens in a tick; they add up over ticks until they say something. So do prompts: what
        one of them costs shows in the steps before its first token, and a tick with one or two of them would put the
        cost and the count into different ticks.
        """
        self._in_flight = in_flight
        self._history.tick(in_flight, now)
        self._streams = self._streams.plus(duration_s, gap_s, tokens, running, prefill) if tokens > 0 else Streams()
        whole = not prefill_out or self._streams.prefill >= PROMPTS_MIN * prompt or self._streams.seconds >= LUMPY_S
        if self._streams.tokens >= TOKENS_MIN and whole:
            streams, self._streams, self._bodies = self._streams, Streams(), Pool()
            return streams.measure()
        if self._bodies.ready(in_flight, now):
            pool, self._bodies = self._bodies, Pool()
            return pool.measure(False, now)
        if self._service.ready(in_flight, now):
            pool, self._service = self._service, Pool()
            return pool.measure(True, now)
        return None

    def _life(self, duration_s: float, now: float) -> float:
        return self._history.mean(now - duration_s) or float(self._in_flight)
