"""What waits, what runs, and where: the shared tables of the dispatcher, each changed by one method here.

A `Job` is a ticket inside the dispatcher. It waits (it has an entry), runs (it has a permit), or is on its way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from proxy.admission.entries import Entry, EntryHeap, EntryStack
from proxy.admission.queue import Choice
from proxy.admission.tenants import Tenant, TenantBook
from proxy.dispatcher.config import DispatcherConfig
from proxy.dispatcher.permits import Permit
from proxy.dispatcher.pool import Lane, Pool, group, lane_key
from proxy.dispatcher.station import Station
from proxy.types import ENDED, QUEUED, RUNNING, Step, Ticket, Usage, Work

NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(slots=True, eq=False, init=False)
class Job:
    """A ticket that has arrived and not ended."""

    ticket: Ticket
    tenant: Tenant
    pool: Pool
    lane: Lane
    quota_tokens: float
    entry: Entry | None
    permit: Permit | None
    station: Station | None
    excluded: frozenset[str]  # upstreams that failed it
    tries: int
    stale_tries: int

    def __init__(self, ticket: Ticket, tenant: Tenant, pool: Pool, lane: Lane, quota_tokens: float) -> None:
        self.ticket, self.tenant, self.pool, self.lane, self.quota_tokens = ticket, tenant, pool, lane, quota_tokens
        self.entry = None
        self.permit = None
        self.station = None
        self.excluded, self.tries, self.stale_tries = NOBODY, 0, 0

    @property
    def hopeful(self) -> bool:
        """Some upstream that has not failed it is usable."""
        return any(one.upstream.usable and one.name not in self.excluded for one in self.lane.stations)


class Board:
    """Upstreams, pools, jobs and the orders in which tickets wait."""

    def __init__(self, config: DispatcherConfig, now: float) -> None:
        self.config = config
        self.tenants = TenantBook(config.tenants, config.queue, now)
        self.stations: dict[str, Station] = {}
        self.pools: list[Pool] = []
        self.jobs: dict[int, Job] = {}
        self.granted = 0
        self.released = 0
        self._homes: dict[str, tuple[Pool, Lane]] = {}
        self._wild_home: tuple[Pool, Lane] | None = None
        for upstream in config.upstreams:
            self.stations[upstream.name] = Station(upstream, config.breaker, config.telemetry_max_age_s, now)
        self._clear_orders()
        self.settle([], now)

    # -- where a model runs

    def home(self, model: str) -> tuple[Pool, Lane] | None:
        """Where tickets of this model wait; None: no upstream serves it."""
        return self._homes.get(model, self._wild_home)

    def models(self) -> dict[str, tuple[str, ...]]:
        return {model: tuple(one.name for one in lane.stations) for model, (_, lane) in self._homes.items()}

    def lanes_of(self, station: Station) -> list[tuple[Pool, Lane]]:
        """Lanes whose tickets may run at this upstream."""
        return self._lanes.get(station.name, [])

    def lift(self) -> list[tuple[Job, bool]]:
        """Take all waiting jobs out, oldest first, each with whether it stood first in its flow."""
        waiting = [(job, job.entry) for job in self.jobs.values() if job.entry is not None]
        waiting.sort(key=lambda pair: pair[1].number)
        for job, _ in waiting:
            self.unwait(job)
        return [(job, entry.first) for job, entry in waiting]

    def settle(self, lifted: list[tuple[Job, bool]], now: float, class_map: Sequence[int] | None = None) -> list[Job]:
        """Rebuild lanes after upstreams, models or classes changed, and put the lifted jobs back.

        Returns those that no upstream serves now. `class_map`: new index of each old class.
        """
        old = self.pools
        members = [station for station in self.stations.values() if not station.leaving]
        self.pools = [Pool(self.config.classes, lanes) for lanes in group(members, now)]
        self._find_homes(members)
        self._lanes: dict[str, list[tuple[Pool, Lane]]] = {}
        for pool in self.pools:
            for lane in pool.lanes.values():
                for station in lane.stations:
                    self._lanes.setdefault(station.name, []).append((pool, lane))
        for pool in self.pools:
            pool.inherit([one for one in old if set(one.stations) & set(pool.stations)], class_map)
        if class_map is not None:
            self._clear_orders()
            for job in self.jobs.values():
                job.ticket.class_index = class_map[job.ticket.class_index]
        for job in self.jobs.values():
            home = self.home(job.ticket.model)
            if home is not None:
                job.pool, job.lane = home
                if job.permit is not None:
                    job.pool.runs(job.ticket.tenant, job.tenant.config.weight)
        for job, first in lifted:
            if self.home(job.ticket.model) is not None:
                self.wait(job, now, first)
        return [job for job, _ in lifted if job.entry is None]

    def reconfigure(self, config: DispatcherConfig, now: float) -> list[Step]:
        """Apply bounds and upstreams; the caller settles lanes and classes afterwards."""
        self.config = config
        self.tenants.reconfigure(config.tenants, config.queue, now)
        for station in self.stations.values():
            station.leaving = True
        steps = []
        for upstream in config.upstreams:
            known = self.stations.get(upstream.name)
            if known is None:
                known = Station(upstream, config.breaker, config.telemetry_max_age_s, now)
                self.stations[upstream.name] = known
            else:
                known.telemetry_max_age_s = config.telemetry_max_age_s
                steps.append(known.reconfigure(upstream, config.breaker, now))
        return [step for step in steps if step is not None]

    # -- life of a job

    def wait(self, job: Job, now: float, first: bool = False) -> Entry:
        """The job starts to wait; `first`: at the head of its flow."""
        ticket, lane = job.ticket, job.lane
        key = lane.key
        if job.excluded:  # a line of those that the same upstreams have failed
            key = "!".join((key, *sorted(job.excluded)))
            lane.second_tries[key] = lane.second_tries.get(key, 0) + 1
        entry = job.entry = Entry(ticket, key, lane.stations[0].cost(ticket), first)
        ticket.state = QUEUED
        self.waiting[ticket.class_index] += 1
        self.expiry.push(ticket.expires_s, entry)
        self.oldest[ticket.class_index].push(ticket.arrived_s, entry)
        self.newest[ticket.class_index].push(entry)
        job.tenant.queue(ticket.class_index, 1)
        job.pool.waits(entry, job.tenant.config.weight, now)
        return entry

    def unwait(self, job: Job) -> None:
        """The job waits no more."""
        entry, ticket = job.entry, job.ticket
        assert entry is not None, "a job leaves the queue once"
        job.entry = None
        if entry.lane != job.lane.key:
            lines = job.lane.second_tries
            lines[entry.lane] -= 1
            if not lines[entry.lane]:
                del lines[entry.lane]
        self.waiting[ticket.class_index] -= 1
        job.pool.leaves(entry)
        self.expiry.left()
        self.oldest[ticket.class_index].left()
        self.newest[ticket.class_index].left()
        job.tenant.queue(ticket.class_index, -1)

    def run(self, job: Job, choice: Choice, station: Station, now: float) -> None:
        """The waiting job gets its permit."""
        cost = station.cost(job.ticket)
        job.pool.served(choice, cost, now)
        self.unwait(job)
        self._seat(job, station, cost, choice.owed, now)

    def run_at_once(self, job: Job, station: Station, now: float) -> None:
        """A job that finds nobody waiting gets its permit without a stay in the queue."""
        cost = station.cost(job.ticket)
        job.pool.passed(job.ticket, job.tenant.config.weight, cost, now)
        self._seat(job, station, cost, False, now)

    def stop(self, job: Job, usage: Usage | None, cost: float, now: float, linger: bool) -> Permit:
        """The running job gives its permit back; `cost` is what it took in the end."""
        permit, station, ticket = job.permit, job.station, job.ticket
        assert permit is not None and station is not None, "a permit is given back once"
        job.permit = job.station = None
        job.tenant.in_flight -= 1
        job.pool.queue.correct(ticket, cost - permit.cost, permit.owed)
        station.end(permit, usage, now, linger)
        job.pool.stopped(ticket.tenant)
        self.released += not linger
        return permit

    def aborted(self, station: Station, ticket_id: int, now: float) -> bool:
        """The engine has stopped a cancelled ticket. False where that was known."""
        known = station.aborted(ticket_id, now) is not None
        self.released += known
        return known

    def end(self, job: Job) -> None:
        """The job is over: it neither waits nor runs."""
        assert job.entry is None and job.permit is None, "an ended job holds nothing"
        job.ticket.state = ENDED
        del self.jobs[job.ticket.id]

    def job_of(self, entry: Entry) -> Job:
        return self.jobs[entry.ticket.id]

    def newest_below(self, class_index: int) -> Job | None:
        """The newest waiting job of the lowest class below this one that holds more places than its floor covers: a
        floor would be worth nothing to a class whose tickets a flood from above pushes out before their turn."""
        for index in range(len(self.newest) - 1, class_index, -1):
            config = self.config.classes[index]
            entry = self.newest[index].peek()
            if entry is not None and self.waiting[index] > ceil(config.floor * config.queue_max):
                return self.job_of(entry)
        return None

    # -- invariants

    @property
    def held(self) -> int:
        """Permits that hold seats, those of aborting work included."""
        return sum(len(station.permits) + len(station.aborting) for station in self.stations.values())

    def check(self) -> None:
        """Assert what must always hold; O(what runs)."""
        assert self.granted - self.released == self.held, "no permit leaks"
        assert sum(self.waiting) == sum(pool.queue.waiting for pool in self.pools), "each ticket waits in one pool"
        assert sum(self.waiting) == self.expiry.living, "each waiting ticket can expire"
        jobs = self.jobs.values()
        assert all((job.entry is None) is not (job.permit is None) for job in jobs), "a job waits or runs, never both"
        assert sum(self.waiting) == sum(job.entry is not None for job in jobs), "each waiting job is counted once"
        retried = [job.ticket for job in jobs if job.tries and job.entry is not None]
        assert all(ticket.first_token_s is None for ticket in retried), "no second try after a first token"
        for station in self.stations.values():
            holders = [*station.permits.values(), *(permit for permit, _ in station.aborting.values())]
            booked = sum(permit.ticket.work is Work.GENERATE for permit in holders)
            prefill = sum(permit.prompt_tokens for permit in station.permits.values() if permit.prefilling)
            assert station.upstream.seats_taken == sum(permit.seats for permit in holders), "seats are conserved"
            assert station.upstream.in_flight == len(station.permits), "in flight is what holds a permit"
            assert len(station.ledger) == booked, "each generating permit is booked once"
            station.ledger.check()
            assert station.prefill_out_tokens == prefill, "outstanding prefill is conserved"
            limit, config = station.sizer.limit, station.config.limit
            assert config.minimum <= limit or station.held_seats is not None, "the limit is not below its minimum"
            assert station.bound.seats is None or limit <= max(station.bound.seats, config.minimum), "nor above memory"

    def _seat(self, job: Job, station: Station, cost: float, owed: bool, now: float) -> None:
        ticket, tenant = job.ticket, job.tenant
        job.permit, job.station = station.grant(ticket, cost, owed, now), station
        ticket.state = RUNNING
        tenant.in_flight += 1
        job.pool.runs(ticket.tenant, tenant.config.weight)
        self.granted += 1

    def _find_homes(self, members: list[Station]) -> None:
        pairs = {lane.key: (pool, lane) for pool in self.pools for lane in pool.lanes.values()}
        self._homes = {
            model: pairs[lane_key([one for one in members if one.upstream.serves(model)])]
            for model in {model for station in members for model in station.upstream.models or ()}
        }
        self._wild_home = pairs.get(lane_key([one for one in members if one.upstream.models is None]))

    def _clear_orders(self) -> None:
        self.waiting = [0] * len(self.config.classes)
        self.expiry = EntryHeap()
        self.oldest = [EntryHeap() for _ in self.config.classes]
        self.newest = [EntryStack() for _ in self.config.classes]
