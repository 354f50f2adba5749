"""A newcomer that finds nobody waiting is seated without a stay in the queue; every account is as if it had queued."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from proxy.admission.ceiling import MemoryBound
from proxy.dispatcher import DispatcherConfig
from proxy.dispatcher.desk import Desk
from proxy.types import Failure, Outcome, Reading, Usage

from .world import CLASSES, TenantConfig, World, config, upstream

SETTINGS = {
    "plain": config(upstream("u0", 6), upstream("u1", 3)),
    "bounds": config(
        upstream("u0", 8, memory=MemoryBound(tokens=4000, source="config"), models=("m",)),
        upstream("u1", 4),
        tenants=(TenantConfig("a", 3.0, max_in_flight=2), TenantConfig("b", tokens_per_minute=9000)),
        policy="power_of_two",
    ),
    "affinity": config(upstream("u0", 6), upstream("u1", 6, weight=2.0), policy="round_robin"),
}


def books(world: World) -> list[Any]:
    """Every account that a dispatch writes to."""
    board = world.dispatcher._board
    kept: list[Any] = [board.granted, board.released, board.waiting, sorted(world.running), sorted(world.ended.items())]
    kept += [ticket.upstream for _, ticket in sorted(world.running.items())]
    for pool in board.pools:
        kept += [pool.cost_rate.units, pool.drain_rate.units, pool._active_weight, pool._use]
        kept += [pool.queue._standing, pool.queue._mean_cost, pool.queue._unpromoted, pool.queue.waiting]
        for fair in pool.queue.fair:
            kept.append(
                [(flow.tenant, flow.weight, flow.debt, flow.cost, sorted(flow.lines)) for flow in fair._flows.values()]
            )
            kept += [fair._served.tenant, fair.waiting, fair.cost, fair.backlogged_weight]
        kept += [(lane.eligible, lane._eligible_s) for lane in pool.lanes.values()]
    kept += [(one.name, repr(one.ledger), one.prefill_out_tokens, one.kept_seats) for one in board.stations.values()]
    return [repr(one) for one in kept]


def play(settings: DispatcherConfig, seed: int) -> tuple[list[list[Any]], int]:
    """Light random traffic; the books after each event, and how many tickets started on arrival."""
    rng, world = Random(seed), World(settings, seed)
    pages, at_once = [], 0
    for _ in range(250):
        event = rng.random()
        world.now += rng.expovariate(20.0)
        if event < 0.45:
            ticket = world.arrive(rng.choice("abc"), rng.randrange(len(CLASSES)), prompt=rng.choice([10, 40, 400]),
                                  streaming=rng.random() < 0.7, model=rng.choice("mmn"))  # fmt: skip
            at_once += ticket.id in world.running
        elif event < 0.9 and world.running:
            ticket = world.running[rng.choice(sorted(world.running))]
            ending = rng.random()
            if ending < 0.1:
                world.fail(ticket, Failure.CONNECT)
            elif ending < 0.2:
                world.cancel(ticket)
            else:
                world.first_token(ticket)
                world.finish(ticket, Outcome.SUCCESS, Usage(rng.randrange(1, 1000), rng.randrange(0, 300), 5))
        elif event < 0.95:
            world.apply(world.dispatcher.tick(world.now, {"u0": Reading(1.0, 30.0)}))
        else:
            world.pass_time(0.05)
        pages.append(books(world))
    return pages, at_once


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", SETTINGS)
def test_the_short_way_keeps_the_same_books(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    short, at_once = play(SETTINGS[kind], seed)
    with monkeypatch.context() as patch:
        patch.setattr(Desk, "start_at_once", lambda *_: False)
        long, _ = play(SETTINGS[kind], seed)
    assert at_once > 20
    for index, (ours, theirs) in enumerate(zip(short, long, strict=True)):
        assert ours == theirs, f"after event {index}"
