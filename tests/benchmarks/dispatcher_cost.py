"""Cost of the dispatcher with 100,000 tickets of 10,000 tenants waiting: python -m tests.benchmarks.dispatcher_cost

Prints microseconds per event: arrival that waits, decision (choose, place and grant one ticket, as the limit rises by
one seat), whole `finished` event (accounting of the ending, sample, decision) and the same without a seat to give,
first token, cancellation of a waiting ticket, tick and expire.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from random import Random
from time import thread_time

from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig
from proxy.admission.queue import ClassConfig
from proxy.dispatcher import Dispatcher, DispatcherConfig, UpstreamConfig
from proxy.server.app import GC_THRESHOLDS
from proxy.types import Decisions, Outcome, Reading, Ticket, Usage, Work, WorkEstimate

WAITING = 100_000
TENANTS = 10_000
SEATS = 1_000
TICK_EVENTS = 450  # endings and arrivals of half a second
CLASSES = (
    ClassConfig("critical", 0.0, 1.0, 256, 30.0),
    ClassConfig("high", 0.15, 0.97, 1_024, 30.0),
    ClassConfig("normal", 0.10, 0.93, WAITING, 9_000.0),
    ClassConfig("low", 0.05, 0.85, WAITING, 9_000.0),
)


class Bench:
    """A full dispatcher; collects the time of each kind of event."""

    def __init__(self) -> None:
        self.rng = Random(1)
        self.now = 0.0
        upstream = UpstreamConfig(
            "u0",
            limit=LimitConfig(mode="fixed", initial=SEATS),
            memory=MemoryBound(tokens=4_000_000, source="config"),
        )
        self.dispatcher = Dispatcher(DispatcherConfig(CLASSES, (upstream,)), 0.0, Random(2))
        self.running: list[Ticket] = []
        self.waiting: dict[int, Ticket] = {}
        self.times: dict[str, list[float]] = {}
        self.next_id = 0

    def time(self, kind: str, event: Callable[[], Decisions]) -> None:
        started = thread_time()
        decisions = event()
        self.times.setdefault(kind, []).append(thread_time() - started)
        for dispatch in decisions.dispatches:
            ticket = self.waiting.pop(dispatch.ticket.id)
            self.running.append(ticket)
            self.time("first_token", lambda ticket=ticket: self.dispatcher.first_token(ticket, self.now))  # type: ignore[misc]

    def arrive(self) -> None:
        self.next_id += 1
        ticket = Ticket(
            id=self.next_id,
            tenant=f"t{self.rng.randrange(TENANTS)}",
            class_index=self.rng.choice((2, 2, 3)),
            model="m",
            work=Work.GENERATE,
            streaming=True,
            estimate=WorkEstimate(self.rng.randrange(50, 800), 10, 400),
            body_bytes=2_000,
            arrived_s=self.now,
        )
        self.waiting[ticket.id] = ticket
        self.now += 1e-4
        self.time("arrived", lambda: self.dispatcher.arrived(ticket, self.now))

    def finish(self, kind: str = "finished") -> None:
        ticket = self.running.pop(self.rng.randrange(len(self.running)))
        usage = Usage(ticket.estimate.prompt_tokens, self.rng.randrange(50, 400))
        self.now += 1e-3
        self.time(
            kind,
            lambda: self.dispatcher.finished(ticket, Outcome.SUCCESS, usage, self.now, last_token_s=self.now),
        )

    def tick(self) -> None:
        progress = tuple((ticket, 10) for ticket in self.running)
        readings = {"u0": Reading(gap_s=0.04 * TICK_EVENTS, tokens=TICK_EVENTS, progress=progress)}
        self.time("tick", lambda: self.dispatcher.tick(self.now, readings))
        self.time("expire", lambda: self.dispatcher.expire(self.now))

    def cancel(self) -> None:
        _, ticket = self.waiting.popitem()
        self.time("cancelled", lambda: self.dispatcher.cancelled(ticket, self.now))


def main() -> None:
    bench = Bench()
    while len(bench.waiting) < WAITING:
        bench.arrive()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as the proxy runs
    bench.times.clear()
    for _ in range(5_000):
        bench.arrive()
        bench.cancel()
    for number in range(20_000):
        bench.finish()
        bench.arrive()
        if number % TICK_EVENTS == 0:
            bench.tick()
    for _ in range(20_000):
        bench.dispatcher.hold_limit("u0", SEATS - 1, bench.now)
        bench.finish("no seat")
        bench.time("decision", lambda: bench.dispatcher.hold_limit("u0", SEATS, bench.now))
        bench.arrive()
    print(f"{len(bench.waiting)} waiting, {len(bench.running)} running")
    for kind, times in bench.times.items():
        times.sort()
        mean, p50, p99 = sum(times) / len(times), times[len(times) // 2], times[int(0.99 * len(times))]
        print(f"{kind:12} mean {mean * 1e6:8.1f}  p50 {p50 * 1e6:8.1f}  p99 {p99 * 1e6:8.1f} us  ({len(times)})")


if __name__ == "__main__":
    main()
