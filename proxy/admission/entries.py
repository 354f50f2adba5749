"""Waiting tickets in heaps that forget lazily.

A ticket waits in several orders at once (its flow's, expiry, age, newest first). Leaving marks its entry dead in O(1);
each heap drops dead entries when they reach its top, and rebuilds itself once they outnumber the living: O(log n)
amortised, memory at most twice what waits.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final

from proxy.types import Ticket

SLACK: Final = 64  # dead entries that are never worth a rebuild
GONE_MAX: Final = 1024  # dead entries that the front of a row may keep: letting go of them takes 0.1 ms


_NUMBERS: Final = count()


class Entry:
    """One stay of a ticket in the queue; `first` puts it at the head of its flow, as after a failed try."""

    __slots__ = ("aged_s", "cost", "first", "lane", "live", "number", "ticket", "urgency_s")

    def __init__(self, ticket: Ticket, lane: str, cost: float, first: bool = False) -> None:
        self.ticket = ticket
        self.lane = lane
        self.cost = cost
        self.number = next(_NUMBERS)
        self.live = True
        self.first = first
        self.urgency_s = -inf if first else ticket.expires_s
        self.aged_s = ticket.arrived_s + 0.5 * (ticket.expires_s - ticket.arrived_s)

    def __repr__(self) -> str:
        return f"Entry(ticket={self.ticket.id}, lane={self.lane}, live={self.live})"


_Item = tuple[float, int, Entry]


class EntryHeap:
    """Entries by a key, least first; ties by order of entry.

    Nearly all come in order and stand in a list. Only the others are in a heap: what a heap moves at each step lies all
    over the memory.
    """

    __slots__ = ("_first", "_heap", "_last", "_row", "living")

    def __init__(self) -> None:
        self._row: list[_Item] = []
        self._first = 0  # those of the row before it are gone
        self._last = -inf  # key of the last in the row
        self._heap: list[_Item] = []
        self.living = 0

    def __len__(self) -> int:
        """Entries that are kept, dead ones among them."""
        return len(self._row) + len(self._heap)

    def push(self, key: float, entry: Entry) -> None:
        if key >= self._last:
            self._row.append((key, entry.number, entry))
            self._last = key
        else:
            heappush(self._heap, (key, entry.number, entry))
        self.living += 1

    def peek(self) -> Entry | None:
        """The living entry with the least key."""
        row, heap, first = self._row, self._heap, self._first
        while first < len(row) and not row[first][2].live:
            first += 1
        if first > self._first:
            self._drop(first)
            first = self._first
        while heap and not heap[0][2].live:
            heappop(heap)
        if heap and (first == len(row) or heap[0] < row[first]):
            return heap[0][2]
        return row[first][2] if first < len(row) else None

    def left(self) -> None:
        """One entry of this heap has just been marked dead."""
        self.living -= 1
        if len(self) > 2 * self.living + SLACK:
            self._row = [item for item in self._row if item[2].live]
            self._first = 0
            self._last = self._row[-1][0] if self._row else -inf
            self._heap = [item for item in self._heap if item[2].live]
            heapify(self._heap)

    def _drop(self, first: int) -> None:
        """The row begins here now. What is gone is let go of before it outweighs the rest, and never much at once."""
        if 2 * first >= len(self._row) or first >= GONE_MAX:
            del self._row[:first]
            first = 0
            if not self._row:
                self._last = -inf
        self._first = first


class EntryStack:
    """Entries in the order they came, the newest last."""

    __slots__ = ("_items", "living")

    def __init__(self) -> None:
        self._items: list[Entry] = []
        self.living = 0

    def push(self, entry: Entry) -> None:
        self._items.append(entry)
        self.living += 1

    def peek(self) -> Entry | None:
        """The newest living entry."""
        items = self._items
        while items and not items[-1].live:
            items.pop()
        return items[-1] if items else None

    def left(self) -> None:
        """One entry of this stack has just been marked dead."""
        self.living -= 1
        if len(self._items) > 2 * self.living + SLACK:
            self._items = [item for item in self._items if item.live]
