"""Takes tickets out of the queue while upstreams can take them.

The chosen head goes to the best upstream that can start it now. If none can:

    seats, holdback, prefill, stop   the lane waits: what it waits for comes back within a step or a request
    elephant, tenant at its bound,   the line is parked and the next one chosen
      failed at all with room
    memory                           the head gets a reservation at the upstream that is least full; others may pass it
                                     there while their total cost stays within a quarter of the head's, so the wait of a
                                     big request is bounded (EASY backfilling, Lifka 1995). Higher classes ignore the
                                     reservation unless its class is owed service.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Final

from proxy.admission.queue import Choice
from proxy.dispatcher.permits import Block
from proxy.dispatcher.pool import BACKFILL_SHARE, Lane, Pool, Reservation
from proxy.dispatcher.station import Station
from proxy.routing.balance import Balancer, Candidate, Policy
from proxy.types import Ticket

# Blocks that let others pass, in order of precedence.
HELPED: Final[tuple[Block, ...]] = (Block.MEMORY, Block.ELEPHANT, Block.EXCLUDED)


class Host(ABC):
    """What the pump asks of the dispatcher and tells it. No protocol: compiled, those are called by name."""

    @abstractmethod
    def excluded(self, ticket: Ticket) -> frozenset[str]: ...
    @abstractmethod
    def at_bound(self, ticket: Ticket) -> bool: ...
    @abstractmethod
    def dispatch(self, choice: Choice, station: Station, now: float) -> None: ...
    @abstractmethod
    def expired(self, ticket: Ticket, now: float) -> None: ...
    @abstractmethod
    def infeasible(self, ticket: Ticket, now: float) -> None: ...


class Pump:
    """Moves tickets from the queues of a pool to its upstreams."""

    def __init__(self, policy: Policy, rng: Random, host: Host) -> None:
        self._rng = rng
        self._host = host
        self._balancer = Balancer(policy, rng)

    def configure(self, policy: Policy) -> None:
        """Choose among upstreams by this policy from now on."""
        self._balancer = Balancer(policy, self._rng)

    def run(self, pool: Pool, lanes: Sequence[Lane], now: float) -> None:
        """Dispatch from these lanes all that can go."""
        for lane in lanes:
            for station in lane.stations:
                station.kept_seats = 0
            if lane.reservation is not None:
                self._reserved(pool, lane, lane.reservation, now)
            if lane.second_tries:
                self._second_tries(pool, lane, now)
        if len(lanes) == 1:
            self._from_one(pool, lanes[0], now)
        else:
            self._from_many(pool, lanes, now)
        for lane in lanes:
            lane.mark(lane.reservation is not None or pool.has_ready(lane), now)

    def _from_one(self, pool: Pool, lane: Lane, now: float) -> None:
        while lane.has_room:
            choice = pool.queue.choose(lane.key, now, lane.over_cap)
            if choice is None or not self.place(pool, lane, choice, now):
                return

    def _from_many(self, pool: Pool, lanes: Sequence[Lane], now: float) -> None:
        open_lanes = [lane for lane in lanes if lane.has_room]
        while open_lanes:
            queue = pool.queue
            found = [(choice, lane) for lane in open_lanes if (choice := queue.choose(lane.key, now, lane.over_cap))]
            if not found:
                break
            choice, lane = found[0] if len(found) == 1 else min(found, key=partial(_urgency, pool))
            placed = self.place(pool, lane, choice, now)
            open_lanes = [one for _, one in found if one.has_room and (placed or one is not lane)]

    def _second_tries(self, pool: Pool, lane: Lane, now: float) -> None:
        """What an upstream has failed goes first, and keeps nobody else from an upstream that it cannot use itself."""
        for key in tuple(lane.second_tries):
            for fair in pool.queue.fair:
                fair.wake_lane(key)
            while key in lane.second_tries and lane.has_room:
                choice = pool.queue.choose(key, now, lane.over_cap)
                if choice is None or not self.place(pool, lane, choice, now):
                    break

    def at_once(self, pool: Pool, lane: Lane, ticket: Ticket, now: float) -> Station | None:
        """The upstream where a newcomer that finds nobody waiting may start without a stay in the queue, if any."""
        queue = pool.queue
        if queue.waiting or lane.reservation is not None or ticket.deadline_s is not None:
            return None
        able: list[Station] = []
        for station in lane.stations:
            station.kept_seats = 0
            if station.block(ticket, queue.seats(ticket.class_index, station.seats, now), False, now) is None:
                able.append(station)
        if not able:
            return None
        if lane.eligible:
            lane.mark(False, now)
        station = able[0] if len(able) == 1 else self._best(able, ticket)
        self._balancer.took(station.config.name)
        return station

    def place(self, pool: Pool, lane: Lane, choice: Choice, now: float) -> bool:
        """Handle one chosen head. False: the lane can do nothing more now."""
        ticket = choice.entry.ticket
        if ticket.expires_s <= now:
            self._host.expired(ticket, now)
            return True
        if self._host.at_bound(ticket):
            self._park(pool, choice)
            return True
        station, block = self._find(pool, lane, choice, now)
        if station is not None:
            self._start(lane, choice, station, now)
            return True
        if block in (Block.ELEPHANT, Block.EXCLUDED):
            lane.sleepers = True
            self._park(pool, choice)
            return True
        if block is Block.MEMORY and (lane.reservation is None or lane.reservation.choice.entry is choice.entry):
            lane.reservation = lane.reservation or self._reserve(lane, choice)
            self._park(pool, choice)
            return True
        return False

    def _start(self, lane: Lane, choice: Choice, station: Station, now: float) -> None:
        ticket = choice.entry.ticket
        if ticket.deadline_s is not None and now + station.wait_s(ticket) > ticket.deadline_s:
            self._host.infeasible(ticket, now)
            return
        if lane.reservation is not None and lane.reservation.station is station:
            lane.reservation.left -= choice.entry.cost
        self._balancer.took(station.name)
        self._host.dispatch(choice, station, now)

    def _find(self, pool: Pool, lane: Lane, choice: Choice, now: float) -> tuple[Station | None, Block | None]:
        """The best upstream that can start it, or what is in the way, the kind that can be helped first."""
        ticket = choice.entry.ticket
        excluded = self._host.excluded(ticket)
        reservation = self._binding(pool, lane, choice)
        blocks: list[Block] = []
        able: list[Station] = []
        for station in lane.stations:
            if station.name in excluded:
                if station.has_room:
                    blocks.append(Block.EXCLUDED)
                continue
            block = self._block(pool, station, choice, reservation, now)
            if block is None:
                able.append(station)
            elif station.upstream.usable:
                blocks.append(block)
        if able:
            return self._best(able, ticket), None
        return None, next((block for block in HELPED if block in blocks), None)

    def _best(self, able: list[Station], ticket: Ticket) -> Station:
        if len(able) == 1:
            return able[0]
        best = self._balancer.order([Candidate(one.name, one.load) for one in able], ticket.prefix_hash)[0].name
        return next(one for one in able if one.name == best)

    def _block(
        self, pool: Pool, station: Station, choice: Choice, reservation: Reservation | None, now: float
    ) -> Block | None:
        """What keeps the choice from starting at this upstream."""
        class_seats = pool.queue.seats(choice.band, station.seats, now)
        block = station.block(choice.entry.ticket, class_seats, choice.owed, now)
        if block is None and reservation is not None and reservation.station is station:
            return Block.RESERVED if choice.entry.cost > reservation.left else None
        return block

    def _binding(self, pool: Pool, lane: Lane, choice: Choice) -> Reservation | None:
        """The reservation that this choice has to respect."""
        reservation = lane.reservation
        if reservation is None or reservation.choice.entry is choice.entry:
            return None
        class_index = reservation.choice.entry.ticket.class_index
        above = choice.band < reservation.choice.band and not pool.queue.owes(class_index)
        return None if above else reservation

    def _reserve(self, lane: Lane, choice: Choice) -> Reservation:
        usable = [station for station in lane.stations if station.upstream.usable]
        station = min(usable, key=lambda one: one.ledger.reserved_tokens / (one.bound.tokens or 1))
        return Reservation(choice, station, BACKFILL_SHARE * choice.entry.cost)

    def _reserved(self, pool: Pool, lane: Lane, reservation: Reservation, now: float) -> None:
        """Start the head that waits for memory as soon as it fits; forget it if it has left or its upstream has."""
        choice = reservation.choice
        ticket = choice.entry.ticket
        if choice.entry.live and reservation.station.upstream.usable and not self._host.at_bound(ticket):
            self.place(pool, lane, choice, now)
            if choice.entry.live:
                return
        lane.reservation = None
        pool.queue.fair[ticket.class_index].wake(ticket.tenant)

    def _park(self, pool: Pool, choice: Choice) -> None:
        pool.queue.fair[choice.entry.ticket.class_index].park(choice.entry)


def _urgency(pool: Pool, found: tuple[Choice, Lane]) -> tuple[bool, int, float, int]:
    """Order of choices from several lanes: owed first, then class, then debt, then age."""
    choice, _ = found
    ticket = choice.entry.ticket
    flow = pool.queue.fair[ticket.class_index].flow(ticket.tenant)
    assert flow is not None, "a waiting ticket has a flow"
    return (not choice.owed, choice.band, flow.debt, choice.entry.number)
