"""The dispatcher: events in, decisions out. The only writer of admission and routing state.

    NEW --arrived--> QUEUED --(pump)--> RUNNING --finished | cancelled--> ENDED
                       ^                   |
                       +------- failed ----+          refused, expired, displaced, drained: QUEUED --> ENDED

Every event changes the board, then pumps the lanes that it may have helped. What an ending tells: a success is a
sample for the limit; a refusal by the engine, a timeout or a reset cuts the limit; errors, timeouts and 5xx count
against the breaker; a client that left tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from proxy.admission.queue import Choice
from proxy.dispatcher.arrivals import NO_HOME, UNKNOWN_RATE_S, Refusal, at_once, drain_s, jittered, quota_tokens
from proxy.dispatcher.board import Board, Job
from proxy.dispatcher.config import DispatcherConfig
from proxy.dispatcher.desk import Desk
from proxy.dispatcher.report import take
from proxy.dispatcher.snapshot import Snapshot
from proxy.dispatcher.station import Station
from proxy.dispatcher.verdicts import GOOD, MAY_LINGER, SILENT, lesson_of, of_ending, of_failure, sample_of, tokens_used
from proxy.routing.retry import FINAL_OUTCOME, RULES, RetryBudget, may_retry
from proxy.types import Decisions, Failure, Outcome, Reading, Telemetry, Ticket, Usage, Work

SHORT: Final = Refusal(Outcome.NO_UPSTREAM, "the proxy is short of open files or ports", UNKNOWN_RATE_S)
DRAINING: Final = Refusal(Outcome.SHUTTING_DOWN, "draining", UNKNOWN_RATE_S)


class Dispatcher:
    """Decides when and where each ticket runs. Synchronous; `now` is any monotonic clock, in seconds.

    Every method that returns `Decisions` may dispatch or refuse tickets other than the one it names. A ticket ends
    exactly once: in `refusals`, by `finished`, or by `cancelled`. `checks` turns the invariants on.
    """

    def __init__(self, config: DispatcherConfig, now: float, rng: Random, checks: bool = False) -> None:
        self._rng = rng
        self._ticked_s = now
        self._draining = False
        self._board = Board(config, now)
        self._desk = Desk(self._board, config.policy, rng, checks, now)
        self._budget = RetryBudget(config.retry.budget, now)

    # -- life of a ticket

    def arrived(self, ticket: Ticket, now: float) -> Decisions:
        """A complete request: dispatch at once, queue, or refuse (it, or a lower one that it displaces)."""
        self._desk.begin(now)
        board = self._board
        timeout_s = ticket.arrived_s + board.config.classes[ticket.class_index].queue_timeout_s
        ticket.expires_s = timeout_s if ticket.deadline_s is None else min(ticket.deadline_s, timeout_s)
        self._budget.deposit()
        home = board.home(ticket.model)
        if self._draining or home is None:
            self._desk.refuse(ticket, DRAINING if self._draining else NO_HOME, now)
            return self._desk.end()
        pool, lane = home
        tenant = board.tenants.get(ticket.tenant, now)
        tokens = quota_tokens(lane, ticket, tenant)
        refusal = at_once(ticket, lane, tenant, tokens, now)
        if refusal is not None:
            self._desk.refuse(ticket, refusal, now)
            return self._desk.end()
        job = board.jobs[ticket.id] = Job(ticket, tenant, pool, lane, tokens)
        if tenant.metered:
            tenant.charge(1.0, tokens)
        if not self._desk.start_at_once(job, now):
            board.wait(job, now)
            self._desk.pump.run(pool, [lane], now)
            if job.entry is not None:
                self._desk.bound(job, now)
        return self._desk.end()

    def first_token(self, ticket: Ticket, now: float) -> Decisions:
        """The first token of a running ticket came; its prefill is over. Ignored for a ticket that has ended."""
        self._desk.begin(now)
        job = self._board.jobs.get(ticket.id)
        if job is not None and job.permit is not None and job.station is not None:
            if ticket.first_token_s is None:
                ticket.first_token_s = now
            job.station.first_token(job.permit, now)
            self._desk.pump_station(job.station, now)
        return self._desk.end()

    def prompt_counted(self, ticket: Ticket, tokens: int, at_least: bool) -> None:
        """The engine refused a running ticket for its length and told its prompt's tokens: later estimates follow.

        Of several prompts or choices it tells about one, which teaches nothing.
        """
        job = self._board.jobs.get(ticket.id)
        if (
            job is not None
            and job.station is not None
            and ticket.work is Work.GENERATE
            and ticket.estimate.choices == 1
        ):
            job.station.ledger.counted(ticket.id, tokens, at_least)

    def finished(
        self,
        ticket: Ticket,
        outcome: Outcome,
        usage: Usage | None,
        now: float,
        last_token_s: float | None = None,
        status: int = 0,
    ) -> Decisions:
        """A running ticket ended, in any way. Only SUCCESS gives a sample; `status` is the engine's HTTP status.

        LookupError: the ticket does not run.
        """
        self._desk.begin(now)
        job, station = self._running(ticket)
        success = outcome is Outcome.SUCCESS
        verdict = GOOD if success else of_ending(outcome, status)
        linger = not success and station.config.slow_abort and outcome in MAY_LINGER
        if job.tenant.metered:
            job.tenant.charge(0.0, sum(tokens_used(ticket, usage)) - job.quota_tokens)
        lesson = lesson_of(ticket, usage) if success else None
        permit = self._board.stop(job, lesson, station.cost_of(ticket, usage), now, linger)
        if success:
            step = station.observe(permit, sample_of(ticket, permit.ahead_tokens, usage, now, last_token_s), now)
            if step is not None:
                self._desk.step(step)
        self._board.end(job)
        if not success or not station.upstream.good(now):
            self._desk.judge(station, ticket, verdict, now)
        self._desk.pump_station(station, now)
        return self._desk.end()

    def failed(self, ticket: Ticket, failure: Failure, now: float) -> Decisions:
        """One try failed before any response byte: the permit is released, the ticket runs again or is in `refusals`.

        A refusal with UPSTREAM_STATUS means: pass the engine's own refusal through. LookupError: the ticket does not
        run.
        """
        self._desk.begin(now)
        job, station = self._running(ticket)
        linger = station.config.slow_abort and failure is Failure.TIMEOUT
        self._board.stop(job, None, 0.0, now, linger)
        ticket.tried += (station.name,)
        job.tries += 1
        job.stale_tries += failure is Failure.STALE
        if RULES[failure].elsewhere:
            job.excluded |= {station.name}
        verdict = of_failure(failure)
        self._desk.judge(station, ticket, verdict, now)
        if self._may_retry(job, failure, now):
            entry = self._board.wait(job, now, first=True)
            self._desk.pump.place(job.pool, job.lane, Choice(entry, ticket.class_index, owed=False), now)
        else:
            refusal = Refusal(FINAL_OUTCOME[failure], f"upstream failed: {failure.value}")
            self._desk.drop(job, SHORT if failure is Failure.LOCAL else refusal, now)
        self._desk.pump_station(station, now)
        return self._desk.end()

    def cancelled(self, ticket: Ticket, now: float) -> Decisions:
        """The client left, queued or running. At an upstream that aborts late the seat stays counted as aborting."""
        self._desk.begin(now)
        job = self._board.jobs.get(ticket.id)
        if job is None:
            return self._desk.end()
        station = job.station
        if station is None:
            job.tenant.charge(-1.0, -job.quota_tokens)
            self._board.unwait(job)
            self._board.end(job)
            if job.lane.has_room:  # a head that needed more than was free may have kept others from it
                self._desk.pump.run(job.pool, [job.lane], now)
            return self._desk.end()
        job.tenant.charge(0.0, sum(tokens_used(ticket, None)) - job.quota_tokens)
        self._board.stop(job, None, station.cost_of(ticket, None), now, station.config.slow_abort)
        self._board.end(job)
        self._desk.judge(station, ticket, SILENT, now)
        self._desk.pump_station(station, now)
        return self._desk.end()

    def aborted(self, ticket: Ticket, now: float) -> Decisions:
        """The engine has surely stopped work on a cancelled ticket. Unknown tickets are ignored (grace ended first)."""
        self._desk.begin(now)
        station = self._board.stations.get(ticket.upstream)
        if station is not None and self._board.aborted(station, ticket.id, now):
            self._desk.pump_station(station, now)
        return self._desk.end()

    # -- time

    def tick(self, now: float, readings: Mapping[str, Reading]) -> Decisions:
        """Once per 0.5 to 1 s: limits, ledger, quotas."""
        self._desk.begin(now)
        duration_s = max(now - self._ticked_s, 1e-3)
        self._ticked_s = now
        shares: dict[str, float] = {}
        for pool in self._board.pools:
            eligible = {lane.key: lane.take_eligible_s(now) for lane in pool.lanes.values()}
            pool.tick(duration_s, max(eligible.values()))
            for lane in pool.lanes.values():
                for station in lane.stations:
                    share = min(1.0, eligible[lane.key] / duration_s)
                    shares[station.name] = max(shares.get(station.name, 0.0), share)
        for name, station in self._board.stations.items():
            for step in station.tick(now, readings.get(name, Reading()), shares.get(name, 0.0)):
                self._desk.step(step)
        self._desk.pump_all(now)
        return self._desk.end()

    def expire(self, now: float) -> Decisions:
        """Every 50 ms or so: queue timeouts, aborting grace, breakers that reopen, aged promotion."""
        self._desk.begin(now)
        board = self._board
        while (entry := board.expiry.peek()) is not None and entry.ticket.expires_s <= now:
            self._desk.expired(entry.ticket, now)
        for station in list(board.stations.values()):
            for ticket_id in station.advance(now):
                board.aborted(station, ticket_id, now)
            station.upstream.breaker.advance(now)
            if station.leaving and not station.permits and not station.aborting:
                del board.stations[station.name]
        self._desk.pump_all(now)
        return self._desk.end()

    # -- upstreams

    def health(self, upstream: str, healthy: bool, now: float) -> Decisions:
        """The prober's verdict. Upstreams start healthy. One that recovers restarts at its initial limit."""
        self._desk.begin(now)
        station = self._board.stations.get(upstream)
        if station is not None and station.upstream.healthy is not healthy:
            station.upstream.healthy = healthy
            if healthy:
                station.upstream.breaker.reset()
                self._desk.step(station.restart(now))
                self._desk.pump_station(station, now)
            else:
                self._desk.abandon(now)
        return self._desk.end()

    def telemetry(self, upstream: str, telemetry: Telemetry, now: float) -> Decisions:
        """What the engine told. Discovered models and memory take effect here."""
        self._desk.begin(now)
        station = self._board.stations.get(upstream)
        if station is not None and station.told(telemetry):
            self._desk.settle(self._board.lift(), now)
        return self._desk.end()

    def drain_upstream(self, upstream: str, draining: bool, now: float) -> Decisions:
        """Stop (or resume) sending new work to one upstream. LookupError: no such upstream."""
        self._desk.begin(now)
        station = self._station(upstream)
        station.upstream.draining = draining
        self._desk.abandon(now)
        self._desk.pump_station(station, now)
        return self._desk.end()

    def hold_limit(self, upstream: str, seats: int | None, now: float) -> Decisions:
        """Pin an upstream's limit; None lets go. LookupError: no such upstream."""
        self._desk.begin(now)
        station = self._station(upstream)
        self._desk.step(station.hold(seats, now))
        self._desk.pump_station(station, now)
        return self._desk.end()

    # -- the whole

    def drain(self, now: float) -> Decisions:
        """Refuse all that waits and all that will arrive with SHUTTING_DOWN."""
        self._desk.begin(now)
        self._draining = True
        for job in [job for job in self._board.jobs.values() if job.entry is not None]:
            self._desk.drop(job, DRAINING, now)
        return self._desk.end()

    def reconfigure(self, config: DispatcherConfig, now: float) -> Decisions:
        """Apply a new configuration: permits live on, waiting tickets move, those without a home are refused.

        Tickets of a class that is gone move to the class of the same rank, or to the lowest.
        """
        self._desk.begin(now)
        lifted = self._board.lift()
        names = [one.name for one in config.classes]
        class_map = [
            names.index(old.name) if old.name in names else min(rank, len(names) - 1)
            for rank, old in enumerate(self._board.config.classes)
        ]
        for step in self._board.reconfigure(config, now):
            self._desk.step(step)
        self._desk.pump.configure(config.policy)
        self._budget.budget = config.retry.budget
        self._desk.settle(lifted, now, class_map)
        return self._desk.end()

    def reserve_bytes(self, tenant: str, count: int) -> bool:
        """True, and counted, if `count` more body bytes of this tenant fit into the queue."""
        return self._board.tenants.reserve_bytes(tenant, count, self._desk.now)

    def release_bytes(self, tenant: str, count: int) -> None:
        """Give reserved bytes back."""
        self._board.tenants.release_bytes(tenant, count, self._desk.now)

    # -- questions

    def models(self) -> dict[str, tuple[str, ...]]:
        """Known model names, each with the upstreams that serve it."""
        return self._board.models()

    def knows(self, model: str) -> bool:
        """False where the model is surely unknown; an upstream whose models are not discovered yet may serve any."""
        return self._board.home(model) is not None

    def usable(self, model: str | None = None) -> bool:
        """True if some upstream (of this model) is healthy, not draining and not cut off by its breaker."""
        if model is None:
            return any(lane.usable for pool in self._board.pools for lane in pool.lanes.values())
        home = self._board.home(model)
        return home is not None and home[1].usable

    def any_upstream(self, model: str, tried: tuple[str, ...] = ()) -> str | None:
        """A usable upstream of this model that is not in `tried`, for requests that need no permit."""
        home = self._board.home(model)
        stations = home[1].stations if home is not None else ()
        return next((one.name for one in stations if one.upstream.usable and one.name not in tried), None)

    def retry_after_s(self, now: float) -> float:
        """Seconds after which a refused client may come back: 1 to 60, jittered by 20 %."""
        waits = [drain_s(pool) for pool in self._board.pools]
        return jittered(max(waits, default=UNKNOWN_RATE_S), self._rng)

    def snapshot(self, now: float) -> Snapshot:
        """Everything, as plain data."""
        return take(self._board, tuple(self._desk.steps), tuple(self._desk.refusals), now)

    # -- parts

    def _running(self, ticket: Ticket) -> tuple[Job, Station]:
        job = self._board.jobs.get(ticket.id)
        if job is None or job.station is None:
            raise LookupError(f"ticket {ticket.id} does not run: it is {ticket.state.value}")
        return job, job.station

    def _station(self, name: str) -> Station:
        station = self._board.stations.get(name)
        if station is None:
            raise LookupError(f"no upstream is named {name!r}")
        return station

    def _may_retry(self, job: Job, failure: Failure, now: float) -> bool:
        """No token came, the failure allows another try, somebody is left, there is time, the budget has a token."""
        ticket = job.ticket
        if ticket.first_token_s is not None:
            return False
        same = job.stale_tries if failure is Failure.STALE else job.tries
        if self._draining or not may_retry(self._board.config.retry, ticket, failure, job.tries, same):
            return False
        return job.hopeful and now < ticket.expires_s and self._budget.take(now)
