"""Which class goes next among those that wait for the same upstreams.

Strict order from the highest class, with three exceptions:

    floor    class c is owed service when lag_c = sigma_c V - S_c > q_c. V: cost served while c was backlogged, S_c:
             what c got of it, q_c: its mean cost. Service that c gets on slack pays what is owed and no more, so that
             a calm hour is not held against it. Its head waits at most (q_c + cost_max) / (sigma_c mu) plus one seat,
             mu the cost served per second: the bound of deficit schedulers (Shreedhar and Varghese 1996).
    aging    in a class without a floor, a ticket older than half its longest wait is served with the class above, at
             most one dispatch in ten. A floor is held to itself: aging beside it would double it.
    holdback class c leaves seats to the active classes above it: seats_c = ceil(holdback_c L), and at least one seat
             less than theirs while L < 16, where rounding would hide the difference. A class is active for a minute
             after an arrival: seats are not kept for nobody. An owed class is not held back.

Inside a class tenants share by virtual time (`fairness`); inside a tenant the earliest expiry goes first, which is
arrival order where clients set no deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from proxy.admission.entries import Entry, EntryHeap
from proxy.admission.fairness import FairQueue
from proxy.types import Ticket

ACTIVE_S: Final = 60.0
SMALL_LIMIT: Final = 16
AGING_EVERY: Final = 10  # dispatches, of which one may be a promotion
MEAN_GAIN: Final = 0.05
QUANTUM_MEANS_MAX: Final = 4.0
LAG_MEAN_COSTS_MAX: Final = 10.0  # what a class may be owed: one that could not run must not flood the rest afterwards


@dataclass(frozen=True, slots=True)
class ClassConfig:
    """One class: `floor` guaranteed share of service, `holdback` share of the seats it may fill (both 0..1),
    `queue_max` tickets that wait, `queue_timeout_s` longest wait."""

    name: str
    floor: float = 0.0
    holdback: float = 1.0
    queue_max: int = 1024
    queue_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """One tenant: its share (`weight` > 0) and its own bounds (None: none).

    A request above `max_in_flight` waits if `max_queued` allows it, and is refused where `max_queued` is not given.
    """

    name: str
    weight: float = 1.0
    max_in_flight: int | None = None
    max_queued: int | None = None
    tokens_per_minute: float | None = None
    requests_per_minute: float | None = None


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """`max_bytes` of waiting bodies; `tenant_share`: how much of the places and bytes one tenant of several may use."""

    max_bytes: int = 1 << 30
    tenant_share: float = 0.5


class Choice:
    """The ticket that goes next. `band`: the class it is served with; `owed`: under its floor, so not held back."""

    __slots__ = ("band", "entry", "owed")

    def __init__(self, entry: Entry, band: int, owed: bool) -> None:
        self.entry, self.band, self.owed = entry, band, owed


@dataclass(slots=True)
class _Standing:
    """What a class has got and is owed, in units of cost."""

    lag: float = 0.0
    mean_cost: float = 0.0
    active_s: float = -inf  # last arrival


class AdmissionQueue:
    """All that waits for one group of upstreams."""

    def __init__(self, classes: tuple[ClassConfig, ...]) -> None:
        self.classes = classes
        self.fair = [FairQueue() for _ in classes]
        self._standing = [_Standing() for _ in classes]
        self._floors = [(index, config.floor) for index, config in enumerate(classes) if config.floor]
        self._aged: list[dict[str, EntryHeap]] = [{} for _ in classes]  # by class and lane
        self._allowed = [(-1, -inf, 0) for _ in classes]  # by class: for which limit, until when, how many seats
        self._mean_cost = 0.0
        self._unpromoted = 0  # dispatches since the last promotion
        self.promoted = 0
        self.waiting = 0

    def push(self, entry: Entry, weight: float, now: float) -> None:
        """A ticket starts to wait."""
        index = entry.ticket.class_index
        self.waiting += 1
        self.fair[index].push(entry, weight)
        self._arrived(self._standing[index], now)
        if index > 0:
            aged = self._aged[index].get(entry.lane)
            if aged is None:
                aged = self._aged[index][entry.lane] = EntryHeap()
            aged.push(entry.aged_s, entry)

    def _arrived(self, own: _Standing, now: float) -> None:
        if now - own.active_s > ACTIVE_S:  # it was not active: those below may fill less from now on
            self._allowed = [(-1, -inf, 0) for _ in self.classes]
        own.active_s = now

    def remove(self, entry: Entry) -> None:
        """A ticket stops waiting, for whatever reason. Once per entry."""
        entry.live = False
        self.waiting -= 1
        index = entry.ticket.class_index
        fair = self.fair[index]
        fair.left(entry)
        if index > 0:
            self._aged[index][entry.lane].left()
        if fair.waiting == 0:
            self._standing[index].lag = min(0.0, self._standing[index].lag)

    def choose(self, lane: str, now: float, over_cap: Callable[[str], bool]) -> Choice | None:
        """The ticket that goes next in this lane, if any can."""
        owed = self._owed(lane, over_cap)
        if owed is not None:
            return owed
        for index, fair in enumerate(self.fair):
            entry = fair.head(lane, over_cap) if fair.waiting else None
            if entry is not None:
                return self._aged_below(lane, index, now) or Choice(entry, index, owed=False)
        return None

    def served(self, choice: Choice, cost: float, now: float) -> None:
        """The chosen ticket, still waiting, is dispatched at this cost."""
        ticket = choice.entry.ticket
        index = ticket.class_index
        self.fair[index].charge(ticket.tenant, cost, now)
        own = self._standing[index]
        self._average(own, cost)
        self._accrue(cost)
        own.lag -= cost if choice.owed else min(cost, max(0.0, own.lag))
        self._unpromoted += 1
        if choice.band < index:
            self._unpromoted = 0
            self.promoted += 1

    def passed(self, ticket: Ticket, weight: float, cost: float, now: float) -> None:
        """A ticket is dispatched while nobody waits: `push`, `served` and `remove` in one, with the same accounts."""
        index = ticket.class_index
        own = self._standing[index]
        if now - own.active_s > ACTIVE_S:
            self._arrived(own, now)
        own.active_s = now
        self.fair[index].passed(ticket.tenant, weight, cost, now)
        self._average(own, cost)
        if own.lag < 0:
            own.lag = min(0.0, own.lag + self.classes[index].floor * cost)
        self._unpromoted += 1

    def correct(self, ticket: Ticket, cost: float, owed: bool) -> None:
        """A dispatched ticket has cost this much more (negative: less) than charged."""
        fair = self.fair[ticket.class_index]
        fair.correct(ticket.tenant, cost, ticket.dispatched_s)
        if self.waiting:
            self._accrue(cost)
        if owed:
            own = self._standing[ticket.class_index]
            own.lag -= cost
            if not fair.waiting:
                own.lag = min(0.0, own.lag)  # who does not wait is owed nothing

    def seats(self, band: int, limit: int, now: float) -> int:
        """How many of `limit` seats this class may fill. The answer is kept while the same classes are active."""
        known_limit, until_s, known = self._allowed[band]
        if known_limit == limit and now <= until_s:
            return known
        allowed = self._seats(band, limit, now)
        ends = [one.active_s + ACTIVE_S for one in self._standing[:band] if now - one.active_s <= ACTIVE_S]
        self._allowed[band] = limit, min(ends, default=inf), allowed
        return allowed

    def _seats(self, band: int, limit: int, now: float) -> int:
        allowed = limit
        above: float | None = None
        for index, config in enumerate(self.classes[: band + 1]):
            if index < band and now - self._standing[index].active_s > ACTIVE_S:
                continue
            share = config.holdback if above is None else min(config.holdback, above)
            if above is not None:
                least_difference = limit < SMALL_LIMIT and share < above
                allowed = min(ceil(share * limit - 1e-9), allowed - least_difference)
            above = share
        return max(1, allowed)

    def owes(self, index: int) -> bool:
        """True if the class is owed service under its floor."""
        lag = self._standing[index].lag
        return lag > 0 and self.fair[index].waiting > 0 and lag > self._quantum(index)

    def lag(self, index: int) -> float:
        """Service that a class is owed, in units of cost."""
        return self._standing[index].lag

    def _quantum(self, index: int) -> float:
        """q_c, or the mean of all classes until this one has been served; at most four times that, so that one big
        ticket, or costs guessed before lengths were known, do not make a class wait long for its turn."""
        own, most = self._standing[index].mean_cost or self._mean_cost, QUANTUM_MEANS_MAX * self._mean_cost
        return own if own < most else most

    def _average(self, own: _Standing, cost: float) -> None:
        mean = own.mean_cost
        own.mean_cost = mean + (cost - mean) * MEAN_GAIN if mean else cost
        mean = self._mean_cost
        self._mean_cost = mean + (cost - mean) * MEAN_GAIN if mean else cost

    def _accrue(self, cost: float) -> None:
        """Service was given: every class that waits is owed its floor of it. A correction takes back what was owed for
        too high a guess, and makes no debt: before lengths are known guesses are ten times too high."""
        for index, floor in self._floors:
            if self.fair[index].waiting:
                own = self._standing[index]
                lag = own.lag + floor * cost
                if cost < 0.0:
                    lag = max(lag, min(own.lag, 0.0))
                most = LAG_MEAN_COSTS_MAX * self._quantum(index)
                own.lag = lag if lag < most else most

    def _owed(self, lane: str, over_cap: Callable[[str], bool]) -> Choice | None:
        """The head of the class that is owed most, measured in its own mean cost."""
        found, most = None, 0.0
        for index, fair in enumerate(self.fair):
            if self._standing[index].lag <= 0 or not self.owes(index):
                continue
            ratio = self._standing[index].lag / self._quantum(index)
            if ratio > most and (entry := fair.head(lane, over_cap)) is not None:
                found, most = Choice(entry, index, owed=True), ratio
        return found

    def _aged_below(self, lane: str, index: int, now: float) -> Choice | None:
        """The oldest ticket of the class below, if it has waited long enough and promotions are left."""
        below = index + 1
        if self._unpromoted < AGING_EVERY - 1 or below == len(self.classes) or self.classes[below].floor:
            return None
        heap = self._aged[below].get(lane)
        entry = heap.peek() if heap is not None else None
        if entry is None or entry.aged_s > now or not self.fair[below].eligible(entry):
            return None
        return Choice(entry, index, owed=False)
