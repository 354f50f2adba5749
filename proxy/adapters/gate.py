"""The async shell of the dispatcher: feeds it events with the time, performs its decisions, counts what it needs.

A `Waiter` (the ticket's `client`) hears `granted` or `refused`; what it does then may raise further events, which are
performed after the decisions at hand, never inside them. Each upstream has a `Lane`: the running exchanges and the
sums of inter-token gaps that become one `Reading` per tick. Nothing here runs per token but two additions.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from proxy.adapters.metrics import Metrics
from proxy.adapters.tasks import FailureTold
from proxy.adapters.upstream_pool import Carried, UpstreamPool
from proxy.dispatcher import Dispatcher
from proxy.native import mypyc_attr
from proxy.routing.retry import FINAL_OUTCOME
from proxy.types import NOTHING, Decisions, Dispatch, Failure, Outcome, Reading, Refuse, Ticket, Usage
from proxy.wire import prompt_count

TICK_S: Final = 0.5
EXPIRE_S: Final = 0.05
HELD_UP_S: Final = 0.25  # a loop that is later than this stood still: a frozen process, a starved machine
TOKENS_PER_EVENT_GAIN: Final = 0.05


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiter(Carried):
    """The side of a request that waits for its permit."""

    __slots__ = ()

    @abstractmethod
    def granted(self, upstream: str) -> None: ...
    @abstractmethod
    def refused(self, refusal: Refuse) -> None: ...


class Running(Protocol):
    """What a tick and a sweep need from a running exchange."""

    ticket: Ticket

    def tokens_so_far(self) -> int: ...
    def sweep(self, now: float) -> None: ...
    def broke(self, error: Exception) -> None: ...


def raise_it(where: str, error: BaseException) -> None:
    """Where nobody is to be spared a fault of ours: in tests."""
    raise error


@dataclass(slots=True, eq=False)
class Lane:
    """One upstream as the data path sees it: its connections, what goes into each request head, live counts."""

    name: str
    pool: UpstreamPool
    lines: bytes  # header lines that every request to it carries: Host, its own key
    base_path: bytes = b""  # path of the configured URL, put before the route
    running: dict[Running, None] = field(default_factory=dict)  # in the order of their starts
    gap_s: float = 0.0
    events: int = 0
    tokens_per_event: float = 1.0  # speculative decoding and coalescing put several tokens into one event

    def calibrate(self, tokens: int, events: int) -> None:
        """Learn from one finished stream with `usage` how many tokens an event carries."""
        if events >= 8:
            ratio = min(max(tokens / events, 0.5), 64.0)
            self.tokens_per_event += TOKENS_PER_EVENT_GAIN * (ratio - self.tokens_per_event)

    def reading(self) -> Reading:
        """Sums since the last call, which start at zero again."""
        gap_s, events = self.gap_s, self.events
        self.gap_s, self.events = 0.0, 0
        progress = tuple((exchange.ticket, exchange.tokens_so_far()) for exchange in self.running)
        return Reading(gap_s=gap_s, tokens=events * self.tokens_per_event, progress=progress)


class Gate:
    """Dispatcher plus clock. All methods run on the loop's thread. `fault` hears of what fails on our side: it ends
    the one request that it happened to, and none of those that the same event concerns."""

    def __init__(
        self, dispatcher: Dispatcher, metrics: Metrics, clock: Callable[[], float], fault: FailureTold = raise_it
    ) -> None:
        self.dispatcher = dispatcher
        self.metrics = metrics
        self.clock = clock
        self.fault = fault
        self.lanes: dict[str, Lane] = {}
        self._pending: deque[Decisions] = deque()
        self._performing = False

    # ---- events of a request's life ----
    def submit(self, ticket: Ticket) -> None:
        try:
            decisions = self.dispatcher.arrived(ticket, self.clock())
        except Exception as error:
            cast(Waiter, ticket.client).broke(error)
        else:
            self._perform(decisions)

    def first_token(self, ticket: Ticket, now: float) -> None:
        self._perform(self.dispatcher.first_token(ticket, now))

    def finished(
        self,
        ticket: Ticket,
        outcome: Outcome,
        usage: Usage | None,
        last_token_s: float | None = None,
        status: int = 0,
    ) -> None:
        now = self.clock()
        self._perform(self.dispatcher.finished(ticket, outcome, usage, now, last_token_s=last_token_s, status=status))

    def refused_by_engine(self, ticket: Ticket, status: int, body: bytes) -> None:
        """The engine's own error passes through; one about the length of a prompt tells how long it is."""
        if status in prompt_count.STATUSES and (count := prompt_count.read_prompt_count(body)) is not None:
            self.dispatcher.prompt_counted(ticket, count.tokens, count.at_least)

    def failed(self, ticket: Ticket, failure: Failure) -> None:
        if failure in (Failure.CONNECT, Failure.SHED, Failure.STALE):
            self.metrics.retry(ticket.upstream, failure.value)
        self._perform(self.dispatcher.failed(ticket, failure, self.clock()))

    def cancelled(self, ticket: Ticket) -> None:
        self._perform(self.dispatcher.cancelled(ticket, self.clock()))

    def aborted(self, ticket: Ticket) -> None:
        self._perform(self.dispatcher.aborted(ticket, self.clock()))

    # ---- decisions ----
    def perform(self, decisions: Decisions) -> None:
        """Do what an event raised elsewhere (reload, drain, operator) decided."""
        self._perform(decisions)

    def _perform(self, decisions: Decisions) -> None:
        if decisions is NOTHING:
            return
        if self._performing:
            self._pending.append(decisions)
            return
        self._performing = True
        try:
            self._perform_one(decisions)
            while self._pending:
                self._perform_one(self._pending.popleft())
        finally:
            self._performing = False

    def _perform_one(self, decisions: Decisions) -> None:
        for step in decisions.steps:
            self.metrics.limit_changed(step)
        for dispatch in decisions.dispatches:
            self._grant(dispatch)
        for refusal in decisions.refusals:
            waiter = cast(Waiter, refusal.ticket.client)
            try:
                waiter.refused(refusal)
            except Exception as error:
                waiter.broke(error)

    def _grant(self, dispatch: Dispatch) -> None:
        waiter = cast(Waiter, dispatch.ticket.client)
        try:
            waiter.granted(dispatch.upstream)
        except Exception as error:
            waiter.broke(error)

    # ---- time ----
    def tick(self) -> None:
        """Once per `TICK_S`: hand over what was measured."""
        readings = {name: lane.reading() for name, lane in self.lanes.items()}
        for name, reading in readings.items():
            if reading.tokens:
                self.metrics.inter_token(name, reading.gap_s, reading.tokens)
        self._perform(self.dispatcher.tick(self.clock(), readings))

    def expire(self) -> None:
        self.metrics.count()
        self._perform(self.dispatcher.expire(self.clock()))

    def sweep(self) -> None:
        """Silent upstreams, ended streams whose connection stays open, idle connections, lanes of removed upstreams."""
        now = self.clock()
        for name, lane in tuple(self.lanes.items()):
            for exchange in tuple(lane.running):
                try:
                    exchange.sweep(now)
                except Exception as error:
                    exchange.broke(error)
            lane.pool.sweep(now)
            if lane.pool.closed and not lane.running:
                del self.lanes[name]

    def lagged(self, late_s: float) -> None:
        """How late the loop ran. Where it stood still, the gaps that it shows are ours, not the engines'."""
        self.metrics.loop_lag(late_s)
        if late_s > HELD_UP_S:
            for lane in self.lanes.values():
                lane.gap_s, lane.events = 0.0, 0


class Driven(Protocol):
    """A gate, as `drive` sees it."""

    def lagged(self, late_s: float) -> None: ...
    def expire(self) -> None: ...
    def tick(self) -> None: ...
    def sweep(self) -> None: ...


async def drive(gate: Driven) -> None:
    """Call `expire`, `tick` and `sweep` when they are due, until cancelled, and tell how late the loop runs."""
    loop = asyncio.get_running_loop()
    due = next_tick = loop.time() + EXPIRE_S
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        now = loop.time()
        if now - due > HELD_UP_S:
            await asyncio.sleep(0)  # what came meanwhile is read before any silence is judged
        gate.lagged(max(0.0, now - due))
        gate.expire()
        if now >= next_tick:
            gate.tick()
            gate.sweep()
            next_tick = now + TICK_S
        due = max(due + EXPIRE_S, now)


class Bypass(Gate):
    """The gate of routes that take no seat, such as /tokenize: any usable upstream of the model, no accounting."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate.dispatcher, gate.metrics, gate.clock, gate.fault)
        self.lanes = gate.lanes

    def submit(self, ticket: Ticket) -> None:
        upstream = self.dispatcher.any_upstream(ticket.model, ticket.tried)
        if upstream is None:
            cast(Waiter, ticket.client).refused(Refuse(ticket, Outcome.NO_UPSTREAM, 1.0))
            return
        ticket.upstream = upstream
        cast(Waiter, ticket.client).granted(upstream)

    def first_token(self, ticket: Ticket, now: float) -> None:
        """No signal."""

    def finished(
        self,
        ticket: Ticket,
        outcome: Outcome,
        usage: Usage | None,
        last_token_s: float | None = None,
        status: int = 0,
    ) -> None:
        """No permit to give back."""

    def failed(self, ticket: Ticket, failure: Failure) -> None:
        """Another upstream, where nothing was sent and one is left."""
        ticket.tried = (*ticket.tried, ticket.upstream)
        if failure is Failure.CONNECT and self.dispatcher.any_upstream(ticket.model, ticket.tried) is not None:
            self.metrics.retry(ticket.upstream, failure.value)
            self.submit(ticket)
            return
        outcome = FINAL_OUTCOME[failure]
        cast(Waiter, ticket.client).refused(Refuse(ticket, outcome))

    def cancelled(self, ticket: Ticket) -> None:
        """Nothing is held."""
