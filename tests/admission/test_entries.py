"""Lazy heaps hand out the living in order and do not grow with the dead."""

from __future__ import annotations

from random import Random

import pytest

from proxy.admission.entries import Entry, EntryHeap, EntryStack
from proxy.types import Ticket, Work, WorkEstimate


def entry(number: int = 1, first: bool = False) -> Entry:
    ticket = Ticket(number, "a", 0, "m", Work.GENERATE, True, WorkEstimate(), 0, arrived_s=10.0)
    ticket.expires_s = 40.0
    return Entry(ticket, "u0", 1.0, first)


def test_an_entry_knows_its_urgency_and_when_it_is_old() -> None:
    assert (entry().urgency_s, entry().aged_s) == (40.0, 25.0)
    assert entry(first=True).urgency_s == float("-inf")
    assert repr(entry(3)) == "Entry(ticket=3, lane=u0, live=True)"


@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0, -0.1])
def test_order_ties_and_lazy_leaving(slope: float) -> None:
    heap, rng, living = EntryHeap(), Random(3), []
    for number in range(500):
        one = entry(number)
        key = float(int(slope * number) + rng.randrange(20))
        heap.push(key, one)
        living.append((key, one.number, one))
    seen = []
    while living:
        gone = living.pop(rng.randrange(len(living)))[2] if rng.random() < 0.5 else min(living)[2]
        living = [item for item in living if item[2] is not gone]
        gone.live = False
        heap.left()
        expected = min(living)[2] if living else None
        assert heap.peek() is expected and heap.living == len(living)
        seen.append(gone)
    assert len(seen) == 500


def test_what_has_gone_from_the_front_is_let_go_of() -> None:
    heap = EntryHeap()
    entries = [entry(number) for number in range(3000)]
    for key, one in enumerate(entries):
        heap.push(float(key), one)
    for gone, one in enumerate(entries, 1):
        assert heap.peek() is one
        one.live = False
        heap.left()
        heap.peek()
        assert len(heap) - (3000 - gone) <= min(3000 - gone, 1023)
    heap.push(-1.0, last := entry())
    assert heap.peek() is last


def test_dead_entries_do_not_pile_up_below_a_living_top() -> None:
    heap = EntryHeap()
    heap.push(0.0, entry())
    for number in range(10_000):
        one = entry(number)
        heap.push(1.0, one)
        one.live = False
        heap.left()
    assert len(heap) < 100


def test_a_stack_hands_out_the_newest_of_the_living() -> None:
    stack, rng = EntryStack(), Random(3)
    living: list[Entry] = []
    for number in range(2000):
        if living and rng.random() < 0.5:
            gone = living.pop(rng.randrange(len(living)))
            gone.live = False
            stack.left()
        else:
            living.append(entry(number))
            stack.push(living[-1])
        assert stack.living == len(living)
        assert stack.peek() is (living[-1] if living else None)
    assert len(stack._items) <= 2 * len(living) + 64
    for one in living:
        one.live = False
        stack.left()
    assert stack.peek() is None


def test_dead_entries_do_not_pile_up_in_a_stack() -> None:
    stack = EntryStack()
    for number in range(10_000):
        one = entry(number)
        stack.push(one)
        one.live = False
        stack.left()
    assert len(stack._items) < 100
