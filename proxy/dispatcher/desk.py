"""What every event of the dispatcher may have to do: pump, refuse, judge an upstream, take note of a step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Final

from proxy.admission.queue import Choice
from proxy.dispatcher.arrivals import Refusal, drain_s, expiry_outcome, full, jittered, on_waiting, reopens_s
from proxy.dispatcher.board import Board, Job
from proxy.dispatcher.pump import Host, Pump
from proxy.dispatcher.snapshot import RefusalRecord
from proxy.dispatcher.station import Station
from proxy.dispatcher.verdicts import Verdict
from proxy.routing.balance import Policy
from proxy.routing.breaker import BreakerState
from proxy.types import GENERATE, NOTHING, Decisions, Dispatch, Outcome, Refuse, Step, Ticket, TicketState, new_tuple

REMEMBERED: Final = 50  # limit changes and refusals kept for operators


class Desk(Host):
    """The board, the pump, and the decisions of the event at hand."""

    def __init__(self, board: Board, policy: Policy, rng: Random, checks: bool, now: float) -> None:
        self.board = board
        self.now = now
        self.pump = Pump(policy, rng, self)
        self.steps: deque[Step] = deque(maxlen=REMEMBERED)
        self.refusals: deque[RefusalRecord] = deque(maxlen=REMEMBERED)
        self._rng = rng
        self._checks = checks
        self._made: Decisions | None = None

    def begin(self, now: float) -> None:
        """An event comes in."""
        self.now = now
        self._made = None

    def end(self) -> Decisions:
        """The event has been dealt with."""
        if self._checks:
            self.board.check()
        return self._made or NOTHING

    @property
    def _decisions(self) -> Decisions:
        """Of the event at hand; most events decide nothing."""
        if self._made is None:
            self._made = Decisions()
        return self._made

    # -- decisions

    def step(self, step: Step | None) -> None:
        """Take note of a limit that may have changed."""
        if step is not None:
            self._decisions.steps.append(step)
            self.steps.append(step)

    def refuse(self, ticket: Ticket, refusal: Refusal, now: float) -> None:
        """The ticket, which holds nothing, ends here."""
        ticket.state = TicketState.ENDED
        outcome, detail, wait_s = refusal
        retry_after_s = None if wait_s is None else jittered(wait_s, self._rng)
        self._decisions.refusals.append(Refuse(ticket, outcome, retry_after_s, detail))
        class_name = self.board.config.classes[ticket.class_index].name
        self.refusals.append(RefusalRecord(now, outcome, class_name, ticket.tenant, detail))

    def drop(self, job: Job, refusal: Refusal, now: float) -> None:
        """A job that does not run ends with a refusal; its quota is given back."""
        if job.entry is not None:
            self.board.unwait(job)
        job.tenant.charge(-1.0, -job.quota_tokens)
        self.board.end(job)
        self.refuse(job.ticket, refusal, now)

    def bound(self, job: Job, now: float) -> None:
        """A ticket has to wait: keep the queue within its bounds."""
        refusal = on_waiting(self.board, job, now)
        if refusal is None and full(self.board, job.ticket):
            lower = self.board.newest_below(job.ticket.class_index)
            wait_s = drain_s(job.pool)
            if lower is not None:
                self.drop(lower, Refusal(Outcome.DISPLACED, "a higher class needed the place", wait_s), now)
            else:
                refusal = Refusal(Outcome.QUEUE_FULL, "the queue of its class is full", wait_s)
        if refusal is not None:
            self.drop(job, refusal, now)

    def abandon(self, now: float) -> None:
        """Refuse what waits for upstreams none of which is usable any more, or has not failed it yet."""
        for job in [job for job in self.board.jobs.values() if job.entry is not None and not job.hopeful]:
            outcome = Outcome.UPSTREAM_ERROR if job.tries else Outcome.NO_UPSTREAM
            self.drop(job, Refusal(outcome, "no usable upstream", reopens_s(job.lane, now)), now)

    # -- upstreams

    def judge(self, station: Station, ticket: Ticket, verdict: Verdict, now: float) -> None:
        """What an ending tells about its upstream."""
        works, overload = verdict
        if overload is not None:
            self.step(station.overloaded(overload, now))
        if not station.upstream.judge(ticket.id, works, now):
            return
        if station.upstream.breaker.state is BreakerState.CLOSED:
            self.step(station.restart(now))
        else:
            self.abandon(now)

    def settle(self, lifted: list[tuple[Job, bool]], now: float, class_map: Sequence[int] | None = None) -> None:
        """Rebuild the lanes, put the lifted jobs back, refuse those without a home."""
        for job in self.board.settle(lifted, now, class_map):
            self.drop(job, Refusal(Outcome.NO_UPSTREAM, "no upstream serves this model any more"), now)
        self.abandon(now)
        self.pump_all(now)

    def pump_station(self, station: Station, now: float) -> None:
        """Something at this upstream has come free."""
        lanes = self.board.lanes_of(station)
        if not lanes:
            return
        pool = lanes[0][0]
        if not (pool.queue.waiting or pool.unsettled):
            return
        for _, lane in lanes:
            if lane.sleepers and not station.elephants_wait(now):
                pool.wake(lane)
        self.pump.run(pool, [lane for _, lane in lanes], now)

    def pump_all(self, now: float) -> None:
        for pool in self.board.pools:
            if pool.queue.waiting:
                for lane in pool.lanes.values():
                    if lane.sleepers and not all(station.elephants_wait(now) for station in lane.stations):
                        pool.wake(lane)
                self.pump.run(pool, list(pool.lanes.values()), now)

    # -- what the pump asks and tells

    def excluded(self, ticket: Ticket) -> frozenset[str]:
        return self.board.jobs[ticket.id].excluded

    def at_bound(self, ticket: Ticket) -> bool:
        """The tenant runs as much as it may."""
        tenant = self.board.jobs[ticket.id].tenant
        return tenant.config.max_in_flight is not None and tenant.in_flight >= tenant.config.max_in_flight

    def start_at_once(self, job: Job, now: float) -> bool:
        """Give a newcomer its permit where nobody waits and nothing is in its way. False: it has to queue."""
        bound = job.tenant.config.max_in_flight
        if bound is not None and job.tenant.in_flight >= bound:
            return False
        station = self.pump.at_once(job.pool, job.lane, job.ticket, now)
        if station is None:
            return False
        self.board.run_at_once(job, station, now)
        self._made = Decisions(new_tuple(Dispatch, (job.ticket, station.config.name)))
        return True

    def dispatch(self, choice: Choice, station: Station, now: float) -> None:
        ticket = choice.entry.ticket
        self.board.run(self.board.jobs[ticket.id], choice, station, now)
        assert not self._checks or ticket.work is not GENERATE or station.ledger.within, "a grant fits the memory"
        self._decisions.dispatches.append(new_tuple(Dispatch, (ticket, station.config.name)))

    def expired(self, ticket: Ticket, now: float) -> None:
        """A waiting ticket has run out of time."""
        job = self.board.jobs[ticket.id]
        self.drop(job, Refusal(expiry_outcome(ticket), "waited too long", drain_s(job.pool)), now)

    def infeasible(self, ticket: Ticket, now: float) -> None:
        refusal = Refusal(Outcome.DEADLINE_EXCEEDED, "the first token would come after the deadline")
        self.drop(self.board.jobs[ticket.id], refusal, now)
