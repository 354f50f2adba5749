"""The dispatcher with a clock and a ledger of its own: every ticket ends once, every dispatch holds one permit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from proxy.admission.limits import LimitConfig
from proxy.admission.queue import ClassConfig, QueueConfig, TenantConfig
from proxy.dispatcher import Dispatcher, DispatcherConfig, UpstreamConfig
from proxy.types import Decisions, Failure, Outcome, Reading, Ticket, Usage, Work, WorkEstimate

CLASSES = (
    ClassConfig("critical", 0.0, 1.0, 8, 30.0),
    ClassConfig("high", 0.15, 1.0, 16, 30.0),
    ClassConfig("normal", 0.10, 1.0, 32, 60.0),
    ClassConfig("low", 0.05, 1.0, 64, 300.0),
)


def upstream(name: str = "u0", seats: int = 4, **fields: object) -> UpstreamConfig:
    """An upstream with a fixed limit."""
    limit = LimitConfig(mode="fixed", initial=seats)
    return replace(UpstreamConfig(name, limit=limit), **fields)  # type: ignore[arg-type]


def config(*upstreams: UpstreamConfig, **fields: object) -> DispatcherConfig:
    base = DispatcherConfig(classes=CLASSES, upstreams=upstreams or (upstream(),))
    return replace(base, **fields)  # type: ignore[arg-type]


class World:
    """Feeds events and keeps its own books."""

    def __init__(self, settings: DispatcherConfig | None = None, seed: int = 7) -> None:
        self.now = 100.0
        self.dispatcher = Dispatcher(settings or config(), self.now, Random(seed), checks=True)
        self.waiting: dict[int, Ticket] = {}
        self.running: dict[int, Ticket] = {}
        self.ended: dict[int, Outcome | str] = {}
        self.dispatched = Counter[str]()
        self.last = Decisions()
        self._next_id = 1

    def ticket(
        self,
        tenant: str = "a",
        rank: int = 2,
        *,
        prompt: int = 100,
        cap: int | None = 100,
        model: str = "m",
        work: Work = Work.GENERATE,
        streaming: bool = True,
        deadline_s: float | None = None,
        choices: int = 1,
        retryable: bool = True,
    ) -> Ticket:
        self._next_id += 1
        return Ticket(
            id=self._next_id,
            tenant=tenant,
            class_index=rank,
            model=model,
            work=work,
            streaming=streaming,
            estimate=WorkEstimate(prompt, prompt // 4, cap, choices),
            body_bytes=10,
            arrived_s=self.now,
            deadline_s=None if deadline_s is None else self.now + deadline_s,
            retryable=retryable,
        )

    def arrive(self, tenant: str = "a", rank: int = 2, **fields: object) -> Ticket:
        ticket = self.ticket(tenant, rank, **fields)  # type: ignore[arg-type]
        self.waiting[ticket.id] = ticket
        self.apply(self.dispatcher.arrived(ticket, self.now))
        return ticket

    def first_token(self, ticket: Ticket) -> None:
        self.apply(self.dispatcher.first_token(ticket, self.now))

    def finish(
        self, ticket: Ticket, outcome: Outcome = Outcome.SUCCESS, usage: Usage | None = None, status: int = 0
    ) -> None:
        del self.running[ticket.id]
        self.ended[ticket.id] = outcome
        self.apply(self.dispatcher.finished(ticket, outcome, usage, self.now, self.now, status))

    def fail(self, ticket: Ticket, failure: Failure) -> None:
        self.waiting[ticket.id] = self.running.pop(ticket.id)
        self.apply(self.dispatcher.failed(ticket, failure, self.now))

    def cancel(self, ticket: Ticket) -> None:
        held = self.running.pop(ticket.id, None) or self.waiting.pop(ticket.id)
        self.ended[held.id] = "cancelled"
        self.apply(self.dispatcher.cancelled(ticket, self.now))

    def pass_time(self, seconds: float, tick: bool = False) -> None:
        self.now += seconds
        self.apply(self.dispatcher.expire(self.now))
        if tick:
            self.apply(self.dispatcher.tick(self.now, {"u0": Reading()}))

    def apply(self, decisions: Decisions) -> Decisions:
        """Move tickets as the shell would; each leaves the waiting ones exactly once."""
        for dispatch in decisions.dispatches:
            ticket = self.waiting.pop(dispatch.ticket.id)
            self.running[ticket.id] = ticket
            self.dispatched[ticket.tenant] += 1
            assert ticket.upstream == dispatch.upstream
        for refusal in decisions.refusals:
            self.waiting.pop(refusal.ticket.id)
            assert refusal.ticket.id not in self.ended
            self.ended[refusal.ticket.id] = refusal.outcome
            assert refusal.retry_after_s is None or 1 <= refusal.retry_after_s <= 60
        self.last = decisions
        return decisions

    def outcome(self, ticket: Ticket) -> Outcome | str:
        """How a ticket ended, else where it is."""
        if ticket.id in self.ended:
            return self.ended[ticket.id]
        return "running" if ticket.id in self.running else "waiting"

    def empty(self) -> None:
        """End everything; then nothing may be held."""
        for ticket in [*self.waiting.values(), *self.running.values()]:
            self.cancel(ticket) if ticket.id not in self.ended else None
        self.pass_time(40.0)  # beyond the grace of an abort, also where time has gone backwards
        state = self.dispatcher.snapshot(self.now)
        assert (state.held, state.leaked, sum(one.queued for one in state.classes)) == (0, 0, 0)
        for one in state.upstreams:
            assert (one.in_flight, one.aborting, one.kv_reserved_tokens, one.prefill_out_tokens) == (0, 0, 0, 0)


__all__ = ["CLASSES", "QueueConfig", "TenantConfig", "World", "config", "upstream"]
