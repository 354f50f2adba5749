"""The shared tables: conservation is checked, and each move happens once."""

from __future__ import annotations

from random import Random

import pytest

from proxy.admission.queue import Choice
from proxy.dispatcher.board import Board, Job
from proxy.dispatcher.station import Station
from proxy.types import TicketState

from .world import World, config, upstream


def board(seats: int = 2) -> Board:
    return Board(config(upstream(seats=seats)), 100.0)


def job(on: Board, rank: int = 2) -> Job:
    ticket = World(seed=3).ticket(rank=rank)
    ticket.id, ticket.expires_s = len(on.jobs) + 1, 160.0
    home = on.home("m")
    assert home is not None
    one = on.jobs[ticket.id] = Job(ticket, on.tenants.get("a", 100.0), *home, 200.0)
    on.wait(one, 100.0)
    return one


def run(on: Board, one: Job) -> Station:
    station = on.stations["u0"]
    assert one.entry is not None
    on.run(one, Choice(one.entry, one.ticket.class_index, owed=False), station, 100.0)
    return station


def test_a_job_waits_runs_and_ends_once() -> None:
    on = board()
    one = job(on)
    assert (one.ticket.state, on.waiting, on.held) == (TicketState.QUEUED, [0, 0, 1, 0], 0)
    station = run(on, one)
    assert (one.ticket.state, on.waiting, on.held, one.tenant.in_flight) == (TicketState.RUNNING, [0, 0, 0, 0], 1, 1)
    with pytest.raises(AssertionError, match="leaves the queue once"):
        on.unwait(one)
    with pytest.raises(AssertionError, match="holds nothing"):
        on.end(one)
    on.stop(one, None, 0.0, 101.0, linger=True)
    with pytest.raises(AssertionError, match="given back once"):
        on.stop(one, None, 0.0, 101.0, linger=False)
    assert (on.held, on.granted, on.released) == (1, 1, 0)
    assert on.aborted(station, one.ticket.id, 102.0) and not on.aborted(station, one.ticket.id, 102.0)
    on.end(one)
    assert (on.held, on.released, one.ticket.state, on.jobs) == (0, 1, TicketState.ENDED, {})
    on.check()


def test_the_newest_of_the_lowest_class_is_found() -> None:
    """Beyond the places that floors cover: 0.15 of 16 and 0.10 of 32, rounded up to 3 and 4."""
    on = board()
    jobs = {rank: [job(on, rank) for _ in range(5)] for rank in (1, 2)}
    assert on.newest_below(0) is jobs[2][-1] and on.newest_below(1) is jobs[2][-1]
    assert on.newest_below(2) is None
    on.unwait(jobs[2].pop())
    assert on.newest_below(0) is jobs[1][-1] and on.newest_below(1) is None
    for one in jobs[1][3:]:
        on.unwait(one)
    assert on.newest_below(0) is None


def test_lifted_jobs_come_back_in_order() -> None:
    on = board()
    jobs = [job(on) for _ in range(20)]
    on.unwait(jobs[7])
    on.wait(jobs[7], 100.0, first=True)
    Random(1).shuffle(jobs)
    lifted = on.lift()
    assert sum(on.waiting) == 0 and [first for _, first in lifted].count(True) == 1
    assert on.settle(lifted, 101.0) == []
    pool, lane = next((pool, lane) for pool in on.pools for lane in pool.lanes.values())
    order = []
    while (choice := pool.queue.choose(lane.key, 101.0, lambda tenant: False)) is not None:
        order.append(choice.entry.ticket.id)
        on.unwait(on.job_of(choice.entry))
    assert order == [8, *range(1, 8), *range(9, 21)]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda on: setattr(on, "granted", 5), "no permit leaks"),
        (lambda on: on.waiting.__setitem__(0, 1), "waits in one pool"),
        (lambda on: setattr(on.expiry, "living", 7), "can expire"),
        (lambda on: setattr(on.stations["u0"].upstream, "seats_taken", 3), "seats are conserved"),
        (lambda on: setattr(on.stations["u0"].upstream, "in_flight", 3), "holds a permit"),
        (lambda on: on.stations["u0"].ledger.release(1, None), "booked once"),
        (lambda on: setattr(on.stations["u0"], "prefill_out_tokens", 1), "prefill is conserved"),
    ],
)
def test_check_finds_what_is_lost(fault: object, message: str) -> None:
    on = board()
    run(on, job(on))
    job(on)
    on.check()
    assert callable(fault)
    fault(on)
    with pytest.raises(AssertionError, match=message):
        on.check()
