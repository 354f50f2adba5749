"""Classes: strict order, floors, aging, holdback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.admission.entries import Entry
from proxy.admission.queue import ACTIVE_S, AdmissionQueue, Choice, ClassConfig
from proxy.types import Ticket, Work, WorkEstimate

HOLDBACKS = (1.0, 0.97, 0.93, 0.85)
CLASSES = tuple(
    ClassConfig(name, floor, holdback)
    for name, floor, holdback in zip(
        ("critical", "high", "normal", "low"), (0, 0.15, 0.10, 0.05), HOLDBACKS, strict=True
    )
)
_next = iter(range(1, 1 << 60))


def push(queue: AdmissionQueue, rank: int, now: float = 0.0, expires_s: float = 1e9, tenant: str = "a") -> Entry:
    ticket = Ticket(next(_next), tenant, rank, "m", Work.GENERATE, True, WorkEstimate(), 0, now)
    ticket.expires_s = expires_s
    entry = Entry(ticket, "u0", 1.0)
    queue.push(entry, 1.0, now)
    return entry


def never(tenant: str) -> bool:
    return False


def serve(queue: AdmissionQueue, now: float = 0.0, cost: float = 1.0) -> Choice:
    choice = queue.choose("u0", now, never)
    assert choice is not None
    queue.served(choice, cost, now)
    queue.remove(choice.entry)
    return choice


def test_the_highest_class_goes_first() -> None:
    queue = AdmissionQueue(tuple(replace(one, floor=0.0) for one in CLASSES))
    entries = [push(queue, rank) for rank in (3, 1, 2, 0, 1)]
    assert queue.waiting == 5
    assert [serve(queue).entry for _ in range(5)] == [entries[index] for index in (3, 1, 4, 2, 0)]
    assert queue.choose("u0", 0.0, never) is None


def test_waiting_classes_get_their_floor_and_what_is_owed_most_goes_first() -> None:
    queue = AdmissionQueue(CLASSES)
    served = [0, 0, 0, 0]
    for _ in range(2000):
        for rank in range(4):
            while queue.fair[rank].waiting < 2:
                push(queue, rank)
        choice = serve(queue)
        served[choice.entry.ticket.class_index] += 1
        assert choice.owed is (choice.entry.ticket.class_index > 0) and choice.band == choice.entry.ticket.class_index
    assert served == pytest.approx([1400, 300, 200, 100], abs=12)


def test_service_on_slack_is_not_held_against_a_class() -> None:
    queue = AdmissionQueue(CLASSES)
    for _ in range(50):
        push(queue, 3)
        serve(queue)
    assert queue.lag(3) == 0.0
    push(queue, 3)
    waits = 0
    while True:
        push(queue, 0)
        if serve(queue).owed:
            break
        waits += 1
    assert waits <= 21, "(q + cost) / sigma"


def test_what_is_owed_lapses_when_nothing_waits_and_is_bounded() -> None:
    queue = AdmissionQueue(CLASSES)
    entry = push(queue, 3)
    for _ in range(15):
        push(queue, 0)
        serve(queue)
    assert queue.lag(3) == pytest.approx(0.75) and not queue.owes(3)
    queue.remove(entry)
    assert queue.lag(3) == 0.0
    parked = push(queue, 3)
    queue.fair[3].park(parked)
    for _ in range(1000):
        push(queue, 0)
        serve(queue)
    assert queue.lag(3) == 10.0 and queue.owes(3)
    queue.correct(parked.ticket, 4.0, owed=True)
    assert queue.lag(3) == 6.0


def test_an_old_ticket_goes_with_the_class_above_in_one_dispatch_of_ten() -> None:
    queue = AdmissionQueue(tuple(replace(one, floor=0.0) for one in CLASSES))
    for _ in range(400):
        push(queue, 1)
        push(queue, 2, expires_s=100.0)
        push(queue, 3, expires_s=100.0)
    assert all(serve(queue, now=49.0).entry.ticket.class_index == 1 for _ in range(20))
    choices = [serve(queue, now=51.0) for _ in range(200)]
    promoted = [choice for choice in choices if choice.entry.ticket.class_index == 2]
    assert len(promoted) == pytest.approx(20, abs=1) and {choice.band for choice in promoted} == {1}
    assert queue.promoted == len(promoted)
    assert all(choice.entry.ticket.class_index != 3 for choice in choices), "one class up, no more"


def test_a_parked_ticket_is_not_promoted() -> None:
    queue = AdmissionQueue(tuple(replace(one, floor=0.0) for one in CLASSES))
    for _ in range(30):
        push(queue, 1)
    old = push(queue, 2, expires_s=10.0)
    queue.fair[2].park(old)
    assert all(serve(queue, now=9.0).entry is not old for _ in range(20))


@pytest.mark.parametrize(
    ("limit", "seats"),
    [
        (1, [1, 1, 1, 1]),
        (2, [2, 1, 1, 1]),
        (4, [4, 3, 2, 1]),
        (8, [8, 7, 6, 5]),
        (15, [15, 14, 13, 12]),
        (16, [16, 16, 15, 14]),
        (100, [100, 97, 93, 85]),
    ],
)
def test_holdback_with_every_class_active(limit: int, seats: list[int]) -> None:
    queue = AdmissionQueue(CLASSES)
    for rank in range(4):
        push(queue, rank)
    assert [queue.seats(rank, limit, 0.0) for rank in range(4)] == seats


def test_seats_are_kept_for_active_classes_above_only() -> None:
    queue = AdmissionQueue(CLASSES)
    push(queue, 3, now=0.0)
    assert queue.seats(3, 8, 0.0) == 8
    push(queue, 1, now=10.0)
    assert [queue.seats(rank, 8, 10.0) for rank in range(4)] == [8, 8, 7, 7]
    assert queue.seats(3, 8, 10.0 + ACTIVE_S) == 7
    assert queue.seats(3, 8, 10.1 + ACTIVE_S) == 8
    even = AdmissionQueue(tuple(replace(one, holdback=1.0) for one in CLASSES))
    push(even, 0)
    assert even.seats(3, 4, 0.0) == 4, "no difference asked for"


def test_guesses_that_were_too_high_leave_a_class_no_debt() -> None:
    queue = AdmissionQueue((ClassConfig("high"), ClassConfig("low", floor=0.1)))
    push(queue, 1)
    push(queue, 0)
    first = serve(queue, cost=100.0)
    assert first.entry.ticket.class_index == 0 and queue.lag(1) == pytest.approx(10.0)
    for _ in range(2):
        queue.correct(first.entry.ticket, -99.0, owed=False)
    assert queue.lag(1) == 0.0
