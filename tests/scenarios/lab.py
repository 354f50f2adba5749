"""A laboratory in virtual time: the real dispatcher in front of simulated engines, driven from one heap of events.

It plays the shell's part: it hands arrivals, first tokens, endings, one reading per second and the engine's telemetry
to the dispatcher, and performs what the dispatcher decides. Nothing waits and nothing is random but the seed's draws,
so the same seed gives the same run. Requests arrive open-loop (Poisson), whatever became of the earlier ones.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from math import log, log1p, sqrt

from proxy.dispatcher import Dispatcher, DispatcherConfig
from proxy.simulator.engine import Engine, StepResult
from proxy.simulator.profiles import EngineProfile
from proxy.types import Decisions, Outcome, Reading, Step, Telemetry, Ticket, Usage, Work, WorkEstimate

TICK_S = 1.0
EXPIRE_S = 0.05


@dataclass(frozen=True, slots=True)
class Stream:
    """Poisson arrivals of one class and tenant between two times; lengths are lognormal by mean and variation."""

    rate: float  # requests per second
    begin_s: float = 0.0
    end_s: float = 60.0
    class_index: int = 0
    tenant: str = "t"
    prompt_mean: float = 512.0
    output_mean: float = 256.0
    variation: float = 0.5
    output_cap: int | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float
    stream: Stream
    prompt_tokens: int
    output_tokens: int


def lognormal(rng: random.Random, mean: float, variation: float) -> int:
    variance = log1p(variation**2)
    return max(1, round(rng.lognormvariate(log(mean) - variance / 2, sqrt(variance))))


def arrivals(streams: Iterable[Stream], rng: random.Random) -> list[Arrival]:
    """One trace, in order of time: the same for every configuration that is compared on it."""
    trace = []
    for stream in streams:
        at_s = stream.begin_s + rng.expovariate(stream.rate)
        while at_s < stream.end_s:
            prompt = lognormal(rng, stream.prompt_mean, stream.variation)
            output = lognormal(rng, stream.output_mean, stream.variation)
            trace.append(Arrival(at_s, stream, prompt, min(output, stream.output_cap or output)))
            at_s += rng.expovariate(stream.rate)
    return sorted(trace, key=lambda arrival: arrival.at_s)


@dataclass(slots=True, eq=False)
class Request:
    """One arrival and what became of it; times are absolute."""

    arrival: Arrival
    ticket: Ticket
    outcome: Outcome | None = None
    ended_s: float = 0.0

    @property
    def wait_s(self) -> float:
        return self.ticket.dispatched_s - self.arrival.at_s

    @property
    def engine_ttft_s(self) -> float:
        assert self.ticket.first_token_s is not None
        return self.ticket.first_token_s - self.ticket.dispatched_s

    @property
    def itl_s(self) -> float:
        """Mean gap between tokens; 0 for one token."""
        assert self.ticket.first_token_s is not None
        return (self.ended_s - self.ticket.first_token_s) / max(1, self.arrival.output_tokens - 1)


@dataclass(frozen=True, slots=True)
class Moment:
    """The first upstream at a tick."""

    at_s: float
    limit: float
    in_flight: int
    running: int
    waiting: int


@dataclass(slots=True)
class Bench:
    """One engine with the meters that the shell would keep."""

    name: str
    engine: Engine
    stepping: bool = False
    gap_s: float = 0.0
    gap_tokens: int = 0
    paused_s: dict[int, float] = field(default_factory=dict)  # evicted sequences: time of their last token


class Lab:
    """Runs one trace. `changes` are (time, action) pairs that alter an engine or the dispatcher mid-run."""

    def __init__(
        self,
        config: DispatcherConfig,
        engines: Mapping[str, EngineProfile],
        seed: int = 1,
        telemetry: bool = True,
        checks: bool = False,
    ) -> None:
        self.dispatcher = Dispatcher(config, 0.0, random.Random(f"{seed}/dispatcher"), checks)
        self.benches = {
            name: Bench(name, Engine(profile, random.Random(f"{seed}/{name}"))) for name, profile in engines.items()
        }
        self.now = 0.0
        self.requests: list[Request] = []
        self.steps: list[Step] = []
        self.moments: list[Moment] = []
        self._telemetry = telemetry
        self._live: dict[int, Request] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        for bench in self.benches.values():
            self._tell(bench)

    def run(
        self, trace: Iterable[Arrival], until_s: float, changes: Iterable[tuple[float, Callable[[], None]]] = ()
    ) -> Lab:
        for at_s, action in changes:
            self._at(at_s, action)
        self._at(TICK_S, self._tick)
        self._at(EXPIRE_S, self._expire)
        self._feed(iter(trace))
        while self._events and self._events[0][0] <= until_s:
            self.now, _, action = heapq.heappop(self._events)
            action()
        return self

    @property
    def outcomes(self) -> Counter[Outcome]:
        return Counter(request.outcome for request in self.requests if request.outcome is not None)

    def succeeded(self, class_index: int | None = None, after_s: float = 0.0) -> list[Request]:
        """Successes that arrived after a time, of one class or of all."""
        return [
            request
            for request in self.requests
            if request.outcome is Outcome.SUCCESS
            and request.arrival.at_s >= after_s
            and class_index in (None, request.arrival.stream.class_index)
        ]

    def goodput(self, itl_s: float, begin_s: float, end_s: float) -> float:
        """Output tokens per second, ended in the interval, of requests that met the inter-token target."""
        good = [one for one in self.succeeded() if begin_s <= one.ended_s < end_s and one.itl_s <= itl_s]
        return sum(request.arrival.output_tokens for request in good) / (end_s - begin_s)

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), action))

    def _feed(self, trace: Iterator[Arrival]) -> None:
        """Arrivals enter the heap one at a time."""
        arrival = next(trace, None)
        if arrival is None:
            return

        def arrive() -> None:
            self._arrive(arrival)
            self._feed(trace)

        self._at(arrival.at_s, arrive)

    def _arrive(self, arrival: Arrival) -> None:
        stream = arrival.stream
        prompt = arrival.prompt_tokens
        ticket = Ticket(
            id=len(self.requests) + 1,
            tenant=stream.tenant,
            class_index=stream.class_index,
            model="m",
            work=Work.GENERATE,
            streaming=True,
            estimate=WorkEstimate(prompt, prompt // 4, stream.output_cap),
            body_bytes=4 * prompt,
            arrived_s=self.now,
        )
        request = Request(arrival, ticket)
        self.requests.append(request)
        self._live[ticket.id] = request
        self._perform(self.dispatcher.arrived(ticket, self.now))

    def _perform(self, decisions: Decisions) -> None:
        self.steps += decisions.steps
        for refusal in decisions.refusals:
            self._end(refusal.ticket.id, refusal.outcome)
        for dispatch in decisions.dispatches:
            bench, arrival = self.benches[dispatch.upstream], self._live[dispatch.ticket.id].arrival
            bench.engine.submit(dispatch.ticket.id, arrival.prompt_tokens, arrival.output_tokens, self.now)
            if not bench.stepping:
                self._step(bench)

    def _end(self, ticket_id: int, outcome: Outcome) -> None:
        request = self._live.pop(ticket_id)
        request.outcome, request.ended_s = outcome, self.now

    def _step(self, bench: Bench) -> None:
        result = bench.engine.step(self.now)
        bench.stepping = True
        for evicted in result.preempted:
            bench.paused_s[evicted] = self.now
        self._at(self.now + result.duration_s, lambda: self._stepped(bench, result))

    def _stepped(self, bench: Bench, result: StepResult) -> None:
        bench.stepping = False
        tokens = result.tokens - len(result.firsts)
        bench.gap_s += tokens * result.duration_s
        bench.gap_tokens += tokens
        if bench.paused_s:
            self._resume(bench, result)
        for ticket_id in result.firsts:
            self._perform(self.dispatcher.first_token(self._live[ticket_id].ticket, self.now))
        for ticket_id in result.finished:
            request = self._live[ticket_id]
            usage = Usage(request.arrival.prompt_tokens, request.arrival.output_tokens)
            self._end(ticket_id, Outcome.SUCCESS)
            ticket = request.ticket
            self._perform(self.dispatcher.finished(ticket, Outcome.SUCCESS, usage, self.now, self.now))
        if bench.engine.busy and not bench.stepping:
            self._step(bench)

    def _resume(self, bench: Bench, result: StepResult) -> None:
        """A sequence that comes back from eviction has a gap as long as its absence."""
        decoding = bench.engine.decoding
        for ticket_id in [one for one in bench.paused_s if one in decoding or one in result.finished]:
            paused_s = bench.paused_s.pop(ticket_id)
            if ticket_id not in result.firsts:
                bench.gap_s += self.now - paused_s - result.duration_s

    def _tick(self) -> None:
        readings = {}
        for bench in self.benches.values():
            live = [self._live[one] for one in bench.engine.decoding if one in self._live]
            progress = tuple((one.ticket, bench.engine.generated(one.ticket.id)) for one in live)
            readings[bench.name] = Reading(bench.gap_s, bench.gap_tokens, progress)
            bench.gap_s, bench.gap_tokens = 0.0, 0
            self._tell(bench)
        self._perform(self.dispatcher.tick(self.now, readings))
        first = self.dispatcher.snapshot(self.now).upstreams[0]
        engine = self.benches[first.name].engine
        self.moments.append(Moment(self.now, first.limit, first.in_flight, engine.running, engine.waiting))
        self._at(self.now + TICK_S, self._tick)

    def _tell(self, bench: Bench) -> None:
        if not self._telemetry:
            return
        engine, profile = bench.engine, bench.engine.profile
        telemetry = Telemetry(
            at_s=self.now,
            running=engine.running,
            waiting=engine.waiting,
            kv_usage=engine.kv_usage,
            preemptions=engine.counters.preemptions,
            kv_tokens=profile.kv_tokens,
            context_tokens=profile.request_tokens_max,
            engine="vllm",
        )
        self._perform(self.dispatcher.telemetry(bench.name, telemetry, self.now))

    def _expire(self) -> None:
        self._perform(self.dispatcher.expire(self.now))
        self._at(self.now + EXPIRE_S, self._expire)
