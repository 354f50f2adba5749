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


_NUMBERS = count()


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


class EntryHeap:
    """Entries by a key, least first; ties by order of entry."""

    __slots__ = ("_items", "living")

    def __init__(self) -> None:
        self._items: list[tuple[float, int, Entry]] = []
        self.living = 0

    def push(self, key: float, entry: Entry) -> None:
        heappush(self._items, (key, entry.number, entry))
        self.living += 1

    def peek(self) -> Entry | None:
        """The living entry with the least key."""
        items = self._items
        while items and not items[0][2].live:
            heappop(items)
        return items[0][2] if items else None

    def left(self) -> None:
        """One entry of this heap has just been marked dead."""
        self.living -= 1
        if len(self._items) > 2 * self.living + SLACK:
            self._items = [item for item in self._items if item[2].live]
            heapify(self._items)


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
