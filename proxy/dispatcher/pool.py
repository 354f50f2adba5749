"""A group of upstreams that share models, and all that waits for them.

Models with the same upstreams wait in one lane, so that a model without a free seat never blocks another one. Lanes
that share an upstream form one pool: one virtual time, one account of floors. Unconnected pools do not know each other.

    cap_t = max(1, 1.5 w_t / sum(w) L)   seats of a tenant in a lane of L seats, w over the tenants active in the pool
                                         (waiting or in flight); it holds while another tenant of the class waits
    mu                                   cost dispatched per second while tickets wait
    wait = min((higher + same) / mu, same / (sigma mu)),  same = min(class, own W / w_t): backlog ahead of a newcomer
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp
from typing import Final

from proxy.admission.entries import Entry
from proxy.admission.queue import AdmissionQueue, Choice, ClassConfig
from proxy.dispatcher.station import Station
from proxy.types import Ticket

CAP_SHARE: Final = 1.5
RATE_MEMORY_S: Final = 15.0
RATE_KNOWN_S: Final = 10.0  # of backlog, before a rate is believed
BACKFILL_SHARE: Final = 0.25


@dataclass(slots=True)
class Reservation:
    """The head that waits for memory at one upstream, and how much cost may still pass it."""

    choice: Choice
    station: Station
    left: float


class Lane:
    """Tickets that the same upstreams may run."""

    def __init__(self, key: str, stations: tuple[Station, ...], now: float) -> None:
        self.key = key
        self.second_tries: dict[str, int] = {}  # tickets that upstreams here have failed, by the lines they wait in
        self.stations = stations
        self.reservation: Reservation | None = None
        self.sleepers = False  # some line is parked until an upstream frees something
        self.eligible = False
        self.over_cap: Callable[[str], bool]  # of a tenant; the pool of the lane gives the answer
        self._eligible_s = 0.0
        self._marked_s = now

    @property
    def usable(self) -> bool:
        for station in self.stations:  # noqa: SIM110 - every request asks, and a generator costs twice as much
            if station.upstream.usable:
                return True
        return False

    def too_large(self, ticket: Ticket) -> bool:
        """The prompt can never fit anywhere."""
        for station in self.stations:  # noqa: SIM110 - as above
            if not station.too_large(ticket):
                return False
        return True

    @property
    def has_room(self) -> bool:
        for station in self.stations:  # noqa: SIM110 - as above
            if station.upstream.free_seats(station.seats):
                return True
        return False

    @property
    def seats(self) -> int:
        seats = 0
        for station in self.stations:
            if station.upstream.usable:
                seats += station.seats
        return seats

    def mark(self, eligible: bool, now: float) -> None:
        """From now on tickets that could go are waiting, or not."""
        if self.eligible:
            self._eligible_s += max(0.0, now - self._marked_s)
        self.eligible, self._marked_s = eligible, now

    def take_eligible_s(self, now: float) -> float:
        """Seconds with an eligible ticket waiting, since the last call."""
        self.mark(self.eligible, now)
        seconds, self._eligible_s = self._eligible_s, 0.0
        return seconds


class Rate:
    """Units per second while tickets wait, averaged over `RATE_MEMORY_S`. `units` counts those of this tick."""

    def __init__(self) -> None:
        self.units = 0.0
        self._mean = 0.0
        self._known_s = 0.0

    @property
    def per_s(self) -> float | None:
        return self._mean if self._known_s >= RATE_KNOWN_S and self._mean > 0 else None

    def tick(self, duration_s: float, backlogged_s: float) -> None:
        """Close a tick; one with tickets waiting for less than half of it measures demand, not the rate."""
        if duration_s > 0 and backlogged_s >= 0.5 * duration_s:
            self._known_s += duration_s
            gain = max(1 - exp(-duration_s / RATE_MEMORY_S), duration_s / self._known_s)
            self._mean += gain * (self.units / duration_s - self._mean)
        self.units = 0.0


@dataclass(slots=True)
class _Use:
    """What a tenant has in one pool. Its weight is fixed: a reload makes new pools."""

    weight: float
    waiting: int = 0
    in_flight: int = 0


class Pool:
    """Lanes that share upstreams."""

    def __init__(self, classes: tuple[ClassConfig, ...], lanes: list[Lane]) -> None:
        self.queue = AdmissionQueue(classes)
        self.lanes = {lane.key: lane for lane in lanes}
        for lane in lanes:
            lane.over_cap = partial(self.over_cap, lane)
        self.stations = tuple({station.name: station for lane in lanes for station in lane.stations}.values())
        self.cost_rate = Rate()
        self.drain_rate = Rate()
        self._use: dict[str, _Use] = {}
        self._active_weight = 0.0

    @property
    def unsettled(self) -> bool:
        """Some lane still counts as having work, or keeps memory for a ticket that may be gone."""
        for lane in self.lanes.values():  # noqa: SIM110 - as above
            if lane.eligible or lane.reservation is not None:
                return True
        return False

    def waits(self, entry: Entry, weight: float, now: float) -> None:
        """A ticket starts to wait."""
        self.queue.push(entry, weight, now)
        self._use_of(entry.ticket.tenant, weight).waiting += 1

    def leaves(self, entry: Entry) -> None:
        """A ticket stops waiting."""
        self.queue.remove(entry)
        use = self._use[entry.ticket.tenant]
        use.waiting -= 1
        if not (use.waiting or use.in_flight):
            self._forget(entry.ticket.tenant, use)

    def runs(self, tenant: str, weight: float) -> None:
        """A tenant got a seat."""
        (self._use.get(tenant) or self._use_of(tenant, weight)).in_flight += 1

    def stopped(self, tenant: str) -> None:
        """A tenant gave a seat back: what it was over its bounds with may go."""
        use = self._use[tenant]
        use.in_flight -= 1
        if not (use.in_flight or use.waiting):
            self._forget(tenant, use)
        if self.queue.waiting:
            for fair in self.queue.fair:
                fair.wake(tenant)

    def served(self, choice: Choice, cost: float, now: float) -> None:
        """The chosen ticket, still waiting, is dispatched."""
        self.queue.served(choice, cost, now)
        self.cost_rate.units += cost
        self.drain_rate.units += 1.0

    def passed(self, ticket: Ticket, weight: float, cost: float, now: float) -> None:
        """A ticket is dispatched while nobody waits."""
        self.queue.passed(ticket, weight, cost, now)
        self.cost_rate.units += cost
        self.drain_rate.units += 1.0

    def inherit(self, old: list[Pool], class_map: Sequence[int] | None) -> None:
        """Take over debts and rates of the pools whose upstreams come here; `class_map`: new index of each class."""
        for pool in old:
            self.cost_rate, self.drain_rate = pool.cost_rate, pool.drain_rate
            for index, fair in enumerate(pool.queue.fair):
                self.queue.fair[index if class_map is None else class_map[index]].adopt(fair)

    def over_cap(self, lane: Lane, tenant: str) -> bool:
        """True if the tenant holds its share of the lane under contention."""
        use = self._use[tenant]
        if use.in_flight == 0:
            return False
        return use.in_flight >= max(1.0, CAP_SHARE * use.weight / self._active_weight * lane.seats)

    def wake(self, lane: Lane) -> None:
        """Something that parked tickets waited for has happened."""
        lane.sleepers = False
        for fair in self.queue.fair:
            fair.wake_lane(lane.key)

    def has_ready(self, lane: Lane) -> bool:
        return any(fair.waiting and fair.has_ready(lane.key) for fair in self.queue.fair)

    def wait_s(self, entry: Entry) -> float | None:
        """How long a newcomer, already counted, will wait for what is ahead of it; None: the rate is unknown."""
        rate = self.cost_rate.per_s
        if rate is None:
            return None
        index = entry.ticket.class_index
        fair = self.queue.fair[index]
        flow = fair.flow(entry.ticket.tenant)
        assert flow is not None, "a waiting ticket has a flow"
        same = min(fair.cost, flow.cost * fair.backlogged_weight / flow.weight) - entry.cost
        higher = sum([above.cost for above in self.queue.fair[:index]])
        floor = self.queue.classes[index].floor
        wait_s = (higher + same) / rate
        return min(wait_s, same / (floor * rate)) if floor else wait_s

    def tick(self, duration_s: float, backlogged_s: float) -> None:
        """Close a tick."""
        self.cost_rate.tick(duration_s, backlogged_s)
        self.drain_rate.tick(duration_s, backlogged_s)
        for fair in self.queue.fair:
            fair.uncap()
        for lane in self.lanes.values():
            self.wake(lane)

    def _use_of(self, tenant: str, weight: float) -> _Use:
        use = self._use.get(tenant)
        if use is None:
            use = self._use[tenant] = _Use(weight)
            self._active_weight += weight
        return use

    def _forget(self, tenant: str, use: _Use) -> None:
        del self._use[tenant]
        self._active_weight = self._active_weight - use.weight if self._use else 0.0

    def __repr__(self) -> str:
        return f"Pool({', '.join(station.name for station in self.stations)}: {self.queue.waiting} waiting)"


def group(stations: list[Station], now: float) -> list[list[Lane]]:
    """Lanes by the set of upstreams that serve each model, grouped into pools that share no upstream."""
    models = {model for station in stations for model in station.upstream.models or ()}
    sets = {tuple(station for station in stations if station.upstream.serves(model)) for model in models}
    sets.add(tuple(station for station in stations if station.upstream.models is None))
    groups: list[tuple[set[str], list[Lane]]] = []
    for members in sorted((one for one in sets if one), key=lambda one: [station.name for station in one]):
        names = {station.name for station in members}
        lanes = [Lane(lane_key(members), members, now)]
        for joined in [one for one in groups if one[0] & names]:
            groups.remove(joined)
            names |= joined[0]
            lanes = joined[1] + lanes
        groups.append((names, lanes))
    return [lanes for _, lanes in groups]


def lane_key(stations: Iterable[Station]) -> str:
    """Names of its upstreams; they hold no comma."""
    return ",".join(sorted(station.name for station in stations))
