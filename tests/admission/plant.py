"""A small engine in virtual time, with a saturating queue in front of the sizer and the ledger.

Step time: t = slow * (a + b n + c KV + d prefill_tokens) * lognormal noise; decode first, then prefill up to the chunk;
paged memory is counted in tokens, the youngest sequence is preempted and recomputed when it runs out. Counts of
generated tokens follow from step numbers, so that a step costs the changes in the batch and not its depth.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import exp, log

from proxy.admission.batch_sizer import AdaptiveBatchSizer, TickInput
from proxy.admission.ledger import Ledger
from proxy.types import Sample, Step, Telemetry, Usage, Work


@dataclass(frozen=True, slots=True)
class Engine:
    """Seconds per step, sequence, KV token and prefill token; sizes in tokens and sequences."""

    a: float = 13.58e-3
    b: float = 27.3e-6
    c: float = 0.08e-6
    d: float = 39.4e-6
    noise: float = 0.12
    chunk: int = 2048
    seqs: int = 256
    kv_tokens: int = 240_000


H100 = Engine()
ROOMY = Engine(seqs=1024, kv_tokens=600_000)
T4 = Engine(a=25.1e-3, b=1.2e-3, c=0.8e-6, d=0.4e-3, seqs=64, kv_tokens=40_000)  # 27 ms alone, 40 ms at a batch of 8


@dataclass(frozen=True, slots=True)
class Mix:
    """Lognormal prompts and outputs by mean and sigma of the logarithm."""

    prompt: float = 512
    output: float = 256
    sigma: float = 0.5

    def draw(self, rng: random.Random) -> tuple[int, int]:
        shift = self.sigma**2 / 2
        return (
            max(1, round(rng.lognormvariate(log(self.prompt) - shift, self.sigma))),
            max(2, round(rng.lognormvariate(log(self.output) - shift, self.sigma))),
        )


@dataclass(slots=True, eq=False)
class Request:
    id: int
    prompt: int
    output: int
    at_s: float
    epoch: int
    ahead: float
    todo: int  # prefill tokens still to do
    kept: int = 0  # tokens generated before a preemption
    first_step: int = 0  # number of the step that gave the first token since the last prefill
    first_s: float = -1.0
    running: bool = False


@dataclass(slots=True)
class Finished:
    at_s: float
    tpot_s: float
    ttft_s: float
    output: int


@dataclass(slots=True)
class Moment:
    """The state after one tick."""

    at_s: float
    in_flight: int
    limit: float
    running: float
    waiting: int


@dataclass(slots=True)
class Trace:
    finished: list[Finished] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    tokens: int = 0
    recomputed: int = 0

    def goodput(self, target_s: float, since_s: float, until_s: float) -> float:
        """Output tokens per second of requests within the target."""
        good = [f.output for f in self.finished if since_s <= f.at_s < until_s and f.tpot_s <= target_s]
        return sum(good) / (until_s - since_s)

    def attainment(self, target_s: float, since_s: float, until_s: float = 1e9) -> float:
        seen = [f.tpot_s <= target_s for f in self.finished if since_s <= f.at_s < until_s]
        return sum(seen) / max(len(seen), 1)

    def ttft(self, quantile: float, since_s: float) -> float:
        seen = sorted(f.ttft_s for f in self.finished if f.at_s >= since_s)
        return seen[min(int(quantile * len(seen)), len(seen) - 1)]

    def settled_s(self, level: float, band: float, since_s: float = 0.0, span_s: float = 20.0) -> float:
        """Seconds from `since_s` until in-flight stays near `level` for 80 % of the next `span_s`."""
        later = [m for m in self.moments if m.at_s >= since_s]
        for moment in later:
            near = [abs(m.in_flight / level - 1) <= band for m in later if moment.at_s <= m.at_s < moment.at_s + span_s]
            if near[0] and sum(near) >= 0.8 * len(near):
                return moment.at_s - since_s
        return float("inf")


class Plant:
    """Engine, queue, dispatcher's predicate and tick loop in one. `demand(now)`: requests that want to be in flight."""

    def __init__(
        self,
        sizer: AdaptiveBatchSizer,
        seed: int,
        engine: Engine = ROOMY,
        mix: Mix = Mix(),
        slow: Callable[[float], float] = lambda _now: 1.0,
        demand: Callable[[float], float] = lambda _now: float("inf"),
        ledger: Ledger | None = None,
        telemetry: bool = False,
    ) -> None:
        self.sizer, self.engine, self.mix, self.slow, self.demand = sizer, engine, mix, slow, demand
        self.ledger = Ledger(None) if ledger is None else ledger
        self.telemetry = telemetry
        self.rng = random.Random(seed)
        self.now = 0.0
        self.trace = Trace()
        self.live: dict[int, Request] = {}
        self.waiting: deque[Request] = deque()
        self.decoding: dict[int, Request] = {}
        self._ends: list[tuple[int, int]] = []  # (step of the last token, id)
        self._prefilled: list[Request] = []
        self._step = 0
        self._next_id = 0
        self._kv = 0
        self._prefill_out = 0
        self._upcoming = mix.draw(self.rng)
        self._preemptions = 0
        self._tick_at = self._integral = self._gap = self._tokens = self._blocked = 0.0
        self._prefill_done = 0

    def run(self, until_s: float) -> Trace:
        while self.now < until_s:
            self._dispatch()
            self._advance()
            if self.now - self._tick_at >= (0.5 if self.sizer.limit >= 64 else 1.0):
                self._tick()
        return self.trace

    def _generated(self, request: Request) -> int:
        return request.kept + (self._step - request.first_step + 1 if request.running else 0)

    def _dispatch(self) -> None:
        while len(self.live) < self.demand(self.now):
            prompt, output = self._upcoming
            if len(self.live) + 1 > self.sizer.seats:
                return
            if self._prefill_out and self._prefill_out + prompt > self.sizer.prefill_tokens_max:
                return
            if not self.ledger.fits("t", prompt, None):
                return
            self._next_id += 1
            self.ledger.reserve(self._next_id, "t", prompt, None)
            request = Request(self._next_id, prompt, output, self.now, self.sizer.epoch, self._prefill_out, prompt)
            self._prefill_out += prompt
            self.live[request.id] = request
            self.waiting.append(request)
            self._upcoming = self.mix.draw(self.rng)

    def _advance(self) -> None:
        """One engine step, or an idle 50 ms."""
        engine = self.engine
        self._make_room(len(self.decoding))
        n = len(self.decoding)
        budget, prefill = max(engine.chunk - n, 0), 0
        firsts: list[Request] = []
        while self.waiting and budget > 0 and n + len(firsts) < engine.seqs:
            request = self.waiting[0]
            part = min(budget, request.todo)
            if self._kv + n + part > engine.kv_tokens:
                break
            request.todo -= part
            self._kv += part
            budget, prefill = budget - part, prefill + part
            if request.todo:
                break
            firsts.append(self.waiting.popleft())
        if n == 0 and prefill == 0:
            self._pass(0.05, 0)
            return
        seconds = engine.a + engine.b * n + engine.c * self._kv + engine.d * prefill
        seconds *= self.slow(self.now) * exp(self.rng.gauss(0, engine.noise))
        self._pass(seconds, n)
        self._step += 1
        self._kv += n
        self.trace.tokens += n + prefill
        for request in firsts:
            self._first(request)
        while self._ends and self._ends[0][0] <= self._step:
            step, request_id = heappop(self._ends)
            request_ = self.decoding.get(request_id)
            if request_ is not None and request_.first_step + request_.output - request_.kept - 1 == step:
                self._finish(request_)

    def _pass(self, seconds: float, n: int) -> None:
        if len(self.live) < self.demand(self.now):
            self._blocked += seconds
        self.now += seconds
        self._gap += seconds * n
        self._tokens += n
        self._integral += seconds * n

    def _first(self, request: Request) -> None:
        request.running, request.first_step = True, self._step
        self.decoding[request.id] = request
        heappush(self._ends, (self._step + request.output - request.kept - 1, request.id))
        if request.first_s < 0:
            request.first_s = self.now
            self._prefill_out -= request.prompt
            self._prefill_done += request.prompt

    def _make_room(self, n: int) -> None:
        while self._kv + n > self.engine.kv_tokens and n > 1:
            victim = self.decoding.pop(next(reversed(self.decoding)))
            victim.kept = self._generated(victim)
            victim.running = False
            victim.todo = victim.prompt + victim.kept
            self._kv -= victim.todo
            self.waiting.appendleft(victim)
            self.trace.recomputed += victim.todo
            self._preemptions += 1
            n = len(self.decoding)

    def _finish(self, request: Request) -> None:
        del self.decoding[request.id], self.live[request.id]
        self._kv -= request.prompt + request.output - 1
        tpot_s = (self.now - request.first_s) / (request.output - 1)
        ttft_s = request.first_s - request.at_s
        self.trace.finished.append(Finished(self.now, tpot_s, ttft_s, request.output))
        self.ledger.release(request.id, Usage(request.prompt, request.output))
        sample = Sample(
            work=Work.GENERATE,
            streaming=True,
            prompt_tokens=request.prompt,
            cached_tokens=0,
            output_tokens=request.output,
            ttft_s=ttft_s,
            tpot_s=tpot_s,
            duration_s=self.now - request.at_s,
            epoch=request.epoch,
            prefill_out_tokens=request.ahead,
        )
        step = self.sizer.observe(sample, self.now)
        if step is not None:
            self.trace.steps.append(step)

    def _tick(self) -> None:
        duration_s = self.now - self._tick_at
        for request in self.decoding.values():
            self.ledger.progress(request.id, self._generated(request))
        self.ledger.tick()
        seen = None
        if self.telemetry:
            kv_usage = self._kv / self.engine.kv_tokens
            seen = Telemetry(self.now, len(self.decoding), len(self.waiting), kv_usage, self._preemptions)
            self.ledger.calibrate(kv_usage, len(self.waiting), self.now)
        self.trace.steps += self.sizer.tick(
            TickInput(
                now=self.now,
                duration_s=duration_s,
                gap_s=self._gap,
                tokens=self._tokens,
                running=self._integral / duration_s,
                prefill_tokens=self._prefill_done,
                in_flight=len(self.live),
                prefill_out_tokens=self._prefill_out,
                queue_share=self._blocked / duration_s,
                mean_prompt_tokens=self.ledger.mean_uncached_tokens,
                mean_output_tokens=self.ledger.mean_output_tokens,
                mix=self.ledger.mix,
                engine=seen,
            )
        )
        self.ledger.factor = self.sizer.kv_factor
        self.trace.moments.append(
            Moment(self.now, len(self.live), self.sizer.limit, self._integral / duration_s, len(self.waiting))
        )
        self._tick_at, self._integral, self._gap, self._tokens, self._blocked = self.now, 0.0, 0.0, 0.0, 0.0
        self._prefill_done = 0
