"""Virtual time: real dispatchers and simulated engines driven from one heap of events.

The laboratory plays the shell's part: it hands arrivals, first tokens, endings, a reading every half second and the
engine's telemetry to the dispatcher, and performs what that decides. Nothing waits, and nothing is random but the
seed's draws: the same seed gives the same run. An engine begins its next step when the last one ends, so what is
dispatched on an ending joins the step after, as it does over a network.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf

from proxy.dispatcher import Dispatcher, DispatcherConfig
from proxy.laboratory.bench import BUFFER_TOKENS, Bench, Meter, Request
from proxy.laboratory.workload import Arrival
from proxy.simulator.engine import Engine, StepResult
from proxy.simulator.profiles import EngineProfile
from proxy.types import Decisions, Outcome, Reading, Step, Telemetry, Ticket, Usage, Work, WorkEstimate

TICK_S = 0.5
EXPIRE_S = 0.05
MOMENT_S = 1.0


@dataclass(frozen=True, slots=True)
class Scrape:
    """How telemetry reaches the proxies: `lag_s` late, zero until `zero_until_s`, not at all within `outage_s`."""

    every_s: float = 1.0
    lag_s: float = 0.0
    zero_until_s: float = 0.0
    outage_s: tuple[float, float] = (inf, inf)


@dataclass(frozen=True, slots=True)
class Moment:
    """One upstream of one proxy, once a second. `tokens_s`: output tokens of the engine in that second."""

    at_s: float
    proxy: int
    upstream: str
    limit: float
    in_flight: int
    running: int
    waiting: int
    queued: int
    itl_s: float
    tokens_s: float


def seeded(name: str) -> random.Random:
    """Draws of one part of a run, independent of all others."""
    return random.Random(name)  # noqa: S311 (reproducible, guards nothing)


class Lab:
    """Runs one trace through one or several proxies that share the engines."""

    def __init__(
        self,
        configs: DispatcherConfig | Sequence[DispatcherConfig],
        engines: Mapping[str, EngineProfile],
        seed: int = 1,
        scrape: Scrape | None = Scrape(),
        checks: bool = False,
    ) -> None:
        """`scrape` None: the engines tell nothing."""
        configs = (configs,) if isinstance(configs, DispatcherConfig) else configs
        self.dispatchers = [
            Dispatcher(config, 0.0, seeded(f"{seed}/dispatcher/{proxy}"), checks)
            for proxy, config in enumerate(configs)
        ]
        self.benches = {
            name: Bench(name, Engine(profile, seeded(f"{seed}/{name}")), [Meter() for _ in configs])
            for name, profile in engines.items()
        }
        self._names = [[one.name for one in config.upstreams] for config in configs]
        self.now = 0.0
        self.requests: list[Request] = []
        self.steps: list[Step] = []
        self.moments: list[Moment] = []
        self._scrape = scrape
        self._live: dict[int, Request] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._decoded = dict.fromkeys(engines, 0)

    @property
    def dispatcher(self) -> Dispatcher:
        """The first proxy's."""
        return self.dispatchers[0]

    def run(
        self,
        trace: Iterable[Arrival],
        until_s: float,
        changes: Iterable[tuple[float, Callable[[Lab], None]]] = (),
        progress: Callable[[float], None] | None = None,
    ) -> Lab:
        """`changes`: what happens when, beside arrivals. `progress` hears the time at each moment."""
        for at_s, action in changes:
            self._at(at_s, lambda action=action: action(self))  # type: ignore[misc]
        self._begin()
        self._every(MOMENT_S, lambda: self._moment(progress))
        self._feed(iter(trace))
        events = self._events
        while events and events[0][0] <= until_s:
            self.now, _, happen = heapq.heappop(events)
            happen()
        self.now = until_s
        return self

    def _begin(self) -> None:
        scrape = self._scrape
        if scrape is not None:
            for bench in self.benches.values():
                self._tell(scrape, bench)
                self._every(scrape.every_s, lambda bench=bench: self._tell(scrape, bench))  # type: ignore[misc]
        phase_s = TICK_S / len(self.dispatchers)  # proxies tick each in its own time
        for proxy, dispatcher in enumerate(self.dispatchers):
            self._every(TICK_S, lambda proxy=proxy: self._tick(proxy), proxy * phase_s)  # type: ignore[misc]
            self._every(EXPIRE_S, lambda it=dispatcher: self._perform(it.expire(self.now)))  # type: ignore[misc]

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), action))

    def _every(self, period_s: float, action: Callable[[], object], phase_s: float = 0.0) -> None:
        due_s = (phase_s + period_s * number for number in count(1))  # sums of a period would drift

        def happen() -> None:
            action()
            self._at(next(due_s), happen)

        self._at(next(due_s), happen)

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
        estimated = max(1, round(arrival.prompt_tokens * arrival.estimate_ratio))
        ticket = Ticket(
            id=len(self.requests) + 1,
            tenant=arrival.tenant,
            class_index=arrival.class_index,
            model="m",
            work=arrival.work,
            streaming=arrival.streaming,
            estimate=WorkEstimate(estimated, estimated // 4, arrival.output_cap),
            body_bytes=4 * estimated,
            arrived_s=self.now,
        )
        request = Request(arrival, ticket)
        self.requests.append(request)
        self._live[ticket.id] = request
        if arrival.patience_s is not None:
            self._at(self.now + arrival.patience_s, lambda: self._give_up(request))
        self._perform(self.dispatchers[arrival.proxy].arrived(ticket, self.now))

    def _give_up(self, request: Request) -> None:
        if request.outcome is not None:
            return
        upstream = request.ticket.upstream
        if upstream:
            self.benches[upstream].abort(request)
        self._end(request, Outcome.CLIENT_GONE)
        self._perform(self.dispatchers[request.arrival.proxy].cancelled(request.ticket, self.now))

    def _perform(self, decisions: Decisions) -> None:
        if decisions.steps:
            self.steps += decisions.steps
        for refusal in decisions.refusals:
            self._end(self._live[refusal.ticket.id], refusal.outcome)
        for dispatch in decisions.dispatches:
            bench = self.benches[dispatch.upstream]
            bench.submit(self._live[dispatch.ticket.id], self.now)
            if not bench.stepping:
                self._step(bench)

    def _end(self, request: Request, outcome: Outcome) -> None:
        del self._live[request.ticket.id]
        request.outcome, request.ended_s = outcome, self.now

    def _step(self, bench: Bench) -> None:
        result = bench.step(self.now)
        self._at(self.now + result.duration_s, lambda: self._stepped(bench, result))

    def _stepped(self, bench: Bench, result: StepResult) -> None:
        firsts, finished = bench.stepped(result, self.now)
        if bench.engine.busy:
            self._step(bench)
        for request in firsts:
            if request.arrival.streaming:
                self._perform(self.dispatchers[request.arrival.proxy].first_token(request.ticket, self.now))
        for request in finished:
            drained_s = self._drained_s(request)
            if drained_s > self.now:
                self._at(drained_s, lambda request=request: self._finished(bench, request))  # type: ignore[misc]
            else:
                self._finished(bench, request)

    def _drained_s(self, request: Request) -> float:
        """When a client that reads slowly has taken all but what the buffers hold."""
        arrival = request.arrival
        if arrival.read_tokens_s is None or request.first_s is None:
            return self.now
        return request.first_s + (arrival.output_tokens - BUFFER_TOKENS) / arrival.read_tokens_s

    def _finished(self, bench: Bench, request: Request) -> None:
        arrival = request.arrival
        if request.outcome is not None:  # its client has left while it was draining
            return
        self._end(request, Outcome.SUCCESS)
        usage = Usage(arrival.prompt_tokens, arrival.output_tokens, arrival.cached_tokens)
        if arrival.streaming and arrival.work is Work.GENERATE:
            bench.meters[arrival.proxy].calibrate(arrival.output_tokens, request.engine_tokens)
        slowed = request.ended_s > request.last_s  # its gaps are the client's
        dispatcher = self.dispatchers[arrival.proxy]
        last_s = None if slowed else request.last_s
        self._perform(dispatcher.finished(request.ticket, Outcome.SUCCESS, usage, self.now, last_s))

    def _tick(self, proxy: int) -> None:
        readings: dict[str, Reading] = {
            name: self.benches[name].reading(proxy, self.now) for name in self._names[proxy]
        }
        self._perform(self.dispatchers[proxy].tick(self.now, readings))

    def _tell(self, scrape: Scrape, bench: Bench) -> None:
        if scrape.outage_s[0] <= self.now < scrape.outage_s[1]:
            return
        told = bench.telemetry(self.now)
        if self.now < scrape.zero_until_s:
            told = Telemetry(
                told.at_s, 0, 0, 0.0, 0, told.kv_tokens, context_tokens=told.context_tokens, engine=told.engine
            )
        for proxy, names in enumerate(self._names):
            if bench.name not in names:
                continue
            if scrape.lag_s:
                self._at(self.now + scrape.lag_s, lambda proxy=proxy: self._hand(proxy, bench, told))  # type: ignore[misc]
            else:
                self._hand(proxy, bench, told)

    def _hand(self, proxy: int, bench: Bench, told: Telemetry) -> None:
        """The shell dates telemetry by when it read it; that the engine's own gauges lag, nobody tells it."""
        lag_s = self._scrape.lag_s if self._scrape is not None else 0.0
        dated = Telemetry(
            self.now if lag_s else told.at_s, told.running, told.waiting, told.kv_usage, told.preemptions,
            told.kv_tokens, None, told.context_tokens, (), told.engine,
        )  # fmt: skip
        self._perform(self.dispatchers[proxy].telemetry(bench.name, dated, self.now))

    def _moment(self, progress: Callable[[float], None] | None) -> None:
        rates = {}
        for name, bench in self.benches.items():
            rates[name] = (bench.decoded - self._decoded[name]) / MOMENT_S
            self._decoded[name] = bench.decoded
        for proxy, dispatcher in enumerate(self.dispatchers):
            snapshot = dispatcher.snapshot(self.now)
            queued = sum(one.queued for one in snapshot.classes)
            for one in snapshot.upstreams:
                engine = self.benches[one.name].engine
                self.moments.append(
                    Moment(
                        self.now, proxy, one.name, one.limit, one.in_flight, engine.running, engine.waiting, queued,
                        one.sizer.itl_s or 0.0, rates[one.name],
                    )
                )  # fmt: skip
        if progress is not None:
            progress(self.now)
