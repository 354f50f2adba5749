"""Virtual-time fair queue over the tenants of one class.

Each flow (a tenant in a class) has a counter v of the service it got, per unit of weight; the eligible backlogged flow
with the least v goes next (Virtual Token Counter, Sheng et al., OSDI 2024; start-time fair queueing, Goyal 1996):

    charge    v += cost / weight, at dispatch, corrected when the true cost is known
    lift      on becoming backlogged v = max(v, min over backlogged), or the counter of the flow served last if nobody
              waits: what a flow did not use while idle is not saved up
    decay     differences halve every H = 60 s: what a burst borrowed is forgotten softly

Decay is kept without touching idle flows (forward decay, Cormode et al. 2009): all counters are scaled by 2^(t/H), a
positive factor common to all, so order is unaffected, and are held as logarithms so that they never overflow:

    debt = log2(v 2^(t/H)),    charge: debt = log2(2^debt + (cost / weight) 2^(now/H))

A flow's tickets wait in one line per lane (upstreams that may run them). A line is ready, capped (its tenant has more
than its share in flight: it goes only when no ready line waits) or parked (it cannot go until something is woken).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable
from math import inf, log2
from typing import Final

from proxy.admission.entries import SLACK, Entry, EntryHeap

HALF_LIFE_S: Final = 60.0
FLOWS_MAX: Final = 10_000  # flows remembered per class; as many as tenants that a trusted proxy may name
EVICTION_SCAN: Final = 4
NEGLIGIBLE: Final = 60.0  # 2^-60 of the new charge: lost in the rounding of a float


# Where a line is. Plain numbers, which cost nothing when compiled: each decision asks many times.
NOWHERE: Final = 0
READY: Final = 1
CAPPED: Final = 2
PARKED: Final = 3


class Flow:
    """One tenant in one class. `debt` is a logarithm, see above; `cost` sums what waits."""

    __slots__ = ("cost", "debt", "lines", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, weight: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.debt = -inf
        self.waiting = 0
        self.cost = 0.0
        self.lines: dict[str, Line] = {}

    def __repr__(self) -> str:
        return f"Flow({self.tenant}, weight={self.weight:g}, debt={self.debt:.3f}, waiting={self.waiting})"


class Line:
    """The tickets of one flow in one lane, and by what it is ranked: debt, arrival and number of its head back then."""

    __slots__ = ("arrived_s", "debt", "flow", "heap", "number", "place")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.heap = EntryHeap()
        self.place = NOWHERE
        self.debt = -inf
        self.arrived_s = 0.0
        self.number = 0


class Ranking:
    """Lines by debt, then by arrival and number of the head, least first.

    The debts stand side by side in an array, and a line finds its place by them alone: thousands of lines lie all over
    the memory, and a heap waits for dozens of them at every step. What moves to make room is one piece of it.
    """

    __slots__ = ("_debts", "_first", "_lines")

    def __init__(self) -> None:
        self._debts = array("d")
        self._lines: list[Line] = []
        self._first = 0  # those before it are gone

    def __len__(self) -> int:
        return len(self._lines) - self._first

    def least(self) -> Line | None:
        return self._lines[self._first] if self._first < len(self._lines) else None

    def add(self, line: Line) -> None:
        """Rank the line as it stands now."""
        head = line.heap.peek()
        assert head is not None, "a ranked line has a ticket"
        line.debt, line.arrived_s, line.number = line.flow.debt, head.ticket.arrived_s, head.number
        at = self._find(line)
        self._debts.insert(at, line.debt)
        self._lines[at:at] = (line,)  # moves the rest in one go, which `insert` does not

    def remove(self, line: Line) -> None:
        if self._lines[self._first] is not line:
            at = self._find(line)
            del self._debts[at], self._lines[at]
            return
        self._first += 1
        if self._first == SLACK:
            del self._debts[:SLACK], self._lines[:SLACK]
            self._first = 0

    def _find(self, line: Line) -> int:
        """Where the line stands, or belongs."""
        debt, debts, lines = line.debt, self._debts, self._lines
        at = bisect_left(debts, debt, self._first)
        if at < len(lines) and debts[at] == debt and lines[at] is not line:
            ends = bisect_right(debts, debt, at)
            at = bisect_left(lines, (line.arrived_s, line.number), at, ends, key=_age)
        return at


def _age(line: Line) -> tuple[float, int]:
    return line.arrived_s, line.number


class Lane:
    """The lines of one class that wait for the same upstreams."""

    __slots__ = ("capped", "parked", "ready")

    def __init__(self) -> None:
        self.ready = Ranking()
        self.capped = Ranking()
        self.parked: dict[str, Line] = {}


class FairQueue:
    """Backlogged flows of one class, by debt."""

    def __init__(self, half_life_s: float = HALF_LIFE_S, flows_max: int = FLOWS_MAX) -> None:
        self._half_life_s = half_life_s
        self._flows_max = flows_max
        self._flows: OrderedDict[str, Flow] = OrderedDict()
        self._lanes: dict[str, Lane] = {}
        self._served = Flow("", 1.0)  # served last; nobody yet
        self.waiting = 0
        self.cost = 0.0
        self.backlogged_weight = 0.0

    def __len__(self) -> int:
        return len(self._flows)

    def flow(self, tenant: str) -> Flow | None:
        return self._flows.get(tenant)

    def push(self, entry: Entry, weight: float) -> None:
        """A ticket joins its flow's line."""
        flow = self._touch(entry.ticket.tenant, weight)
        if flow.waiting == 0:
            flow.debt = max(flow.debt, self._floor())
            self.backlogged_weight += flow.weight
        flow.waiting += 1
        flow.cost += entry.cost
        self.waiting += 1
        self.cost += entry.cost
        line = flow.lines.setdefault(entry.lane, Line(flow))
        line.heap.push(entry.urgency_s, entry)
        if line.place == NOWHERE:
            self._rank(entry.lane, line, READY)

    def left(self, entry: Entry) -> None:
        """The entry, already marked dead, leaves its line."""
        flow = self._flows[entry.ticket.tenant]
        line = flow.lines[entry.lane]
        line.heap.left()
        flow.waiting -= 1
        flow.cost -= entry.cost
        self.waiting -= 1
        self.cost -= entry.cost
        if line.heap.living == 0:
            self._leave(self._lanes[entry.lane], line)
            del flow.lines[entry.lane]
        if flow.waiting == 0:
            flow.cost = 0.0
            self.backlogged_weight -= flow.weight
        if self.waiting == 0:
            self.cost = self.backlogged_weight = 0.0

    def head(self, lane_key: str, over_cap: Callable[[str], bool]) -> Entry | None:
        """The ticket that goes next in this lane; tenants over their cap only if nobody else is ready."""
        lane = self._lanes.get(lane_key)
        if lane is None:
            return None
        while (line := self._least(lane.ready)) is not None:
            if not over_cap(line.flow.tenant):
                return line.heap.peek()
            self._rank(lane_key, line, CAPPED)
        capped = self._least(lane.capped)
        return None if capped is None else capped.heap.peek()

    def eligible(self, entry: Entry) -> bool:
        """True unless the entry's line is parked."""
        return self._flows[entry.ticket.tenant].lines[entry.lane].place != PARKED

    def has_ready(self, lane_key: str) -> bool:
        """True if some line of this lane could go."""
        lane = self._lanes.get(lane_key)
        return lane is not None and (len(lane.ready) > 0 or len(lane.capped) > 0)

    def park(self, entry: Entry) -> None:
        """The entry's line cannot go until it is woken."""
        self._rank(entry.lane, self._flows[entry.ticket.tenant].lines[entry.lane], PARKED)

    def wake(self, tenant: str) -> None:
        """A seat of this tenant is free again: its capped and parked lines are ready."""
        flow = self._flows.get(tenant)
        if flow is not None:
            for lane_key, line in flow.lines.items():
                if line.place != READY:
                    self._rank(lane_key, line, READY)

    def wake_lane(self, lane_key: str) -> None:
        """Parked lines of one lane are ready again."""
        lane = self._lanes.get(lane_key)
        if lane is not None:
            for line in list(lane.parked.values()):
                self._rank(lane_key, line, READY)

    def uncap(self) -> None:
        """Shares may have changed: capped lines are judged again."""
        for lane_key, lane in self._lanes.items():
            while (line := self._least(lane.capped)) is not None:
                self._rank(lane_key, line, READY)

    def charge(self, tenant: str, cost: float, now: float) -> None:
        """The flow is served now."""
        flow = self._served = self._flows[tenant]
        flow.debt = _add(flow.debt, cost / flow.weight, now / self._half_life_s)

    def passed(self, tenant: str, weight: float, cost: float, now: float) -> None:
        """A ticket comes and goes while nobody waits: `push`, `charge` and `left` in one, with the same accounts."""
        flow = self._flows.get(tenant)
        if flow is None or flow.weight != weight:
            flow = self._touch(tenant, weight)
        else:
            self._flows.move_to_end(tenant)
        debt, floor = flow.debt, self._served.debt
        if debt < floor:
            debt = floor
        scale = now / self._half_life_s
        if scale - debt > NEGLIGIBLE or cost <= 0:
            flow.debt = _add(debt, cost / weight, scale)
        else:  # as `_add` does
            flow.debt = debt + log2(1.0 + cost / weight * 2.0 ** (scale - debt))
        self._served = flow

    def correct(self, tenant: str, cost: float, charged_s: float) -> None:
        """What was charged at `charged_s` has turned out to cost this much more (negative: less)."""
        flow = self._flows.get(tenant)
        if flow is None:
            return
        flow.debt = _add(flow.debt, cost / flow.weight, charged_s / self._half_life_s)
        if cost < 0 and flow.waiting:
            for lane_key, line in flow.lines.items():
                if line.place != PARKED:
                    self._rank(lane_key, line, line.place)

    def adopt(self, other: FairQueue) -> None:
        """Take over the debts of another queue whose flows move here."""
        for flow in other._flows.values():
            mine = self._touch(flow.tenant, flow.weight)
            mine.debt = max(mine.debt, flow.debt)
        if other._served.debt > self._served.debt:
            self._served = self._flows.get(other._served.tenant, other._served)

    def _touch(self, tenant: str, weight: float) -> Flow:
        flow = self._flows.get(tenant)
        if flow is None:
            self._evict()
            flow = self._flows[tenant] = Flow(tenant, weight)
        else:
            self._flows.move_to_end(tenant)
            if flow.weight != weight:
                self.backlogged_weight += (weight - flow.weight) * (flow.waiting > 0)
                flow.weight = weight
        return flow

    def _evict(self) -> None:
        """Forget flows, least recently used first, that would be lifted to the floor anyway."""
        if len(self._flows) < self._flows_max:
            return
        oldest = [flow for flow, _ in zip(self._flows.values(), range(EVICTION_SCAN), strict=False)]
        for flow in oldest:
            if flow.waiting == 0 and flow.debt <= self._served.debt:
                del self._flows[flow.tenant]
            elif flow.waiting:
                self._flows.move_to_end(flow.tenant)

    def _floor(self) -> float:
        tops = [line.flow.debt for lane in self._lanes.values() if (line := self._least(lane.ready))]
        return min(tops) if tops else self._served.debt

    def _rank(self, lane_key: str, line: Line, place: int) -> None:
        """Put the line where it belongs now."""
        lane = self._lanes.get(lane_key)
        if lane is None:
            lane = self._lanes[lane_key] = Lane()
        self._leave(lane, line)
        line.place = place
        if place == PARKED:
            lane.parked[line.flow.tenant] = line
        else:
            (lane.ready if place == READY else lane.capped).add(line)

    def _leave(self, lane: Lane, line: Line) -> None:
        place, line.place = line.place, NOWHERE
        if place == PARKED:
            del lane.parked[line.flow.tenant]
        elif place != NOWHERE:
            (lane.ready if place == READY else lane.capped).remove(line)

    def _least(self, ranking: Ranking) -> Line | None:
        """The line with the least debt; those that are outdated are ranked again once they are the least."""
        while (line := ranking.least()) is not None:
            head = line.heap.peek()
            assert head is not None, "a ranked line has a ticket"
            if line.flow.debt == line.debt and head.number == line.number:
                return line
            ranking.remove(line)
            ranking.add(line)
        return None


def _add(debt: float, amount: float, scale: float) -> float:
    """log2(2^debt + amount 2^scale), -inf where nothing is left."""
    if scale - debt > NEGLIGIBLE:
        return log2(amount) + scale if amount > 0 else debt
    total = 1.0 + amount * 2.0 ** (scale - debt)
    return debt + log2(total) if total > 0 else -inf
