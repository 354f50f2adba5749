"""Who gets how much: tenants, weights, floors and the starvation bound, over simulated minutes of overload."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from heapq import heappop, heappush
from random import Random

import pytest

from proxy.dispatcher import DispatcherConfig
from proxy.types import Outcome, Ticket, Usage

from .world import CLASSES, TenantConfig, World, config, upstream

SEATS = 16
TOKEN_S = 0.02
WARM_UP_S = 180.0  # the first charges rest on a guess of the output length


class Overload:
    """Keeps every source backlogged at an engine whose requests take TOKEN_S per output token."""

    def __init__(self, settings: DispatcherConfig, sources: dict[tuple[str, int], int], seed: int = 1) -> None:
        self.world = World(settings)
        self.rng = Random(seed)
        self.sources = sources  # (tenant, rank) -> requests kept waiting
        self.ends: list[tuple[float, int, Ticket, int]] = []
        self.served: dict[tuple[str, int], float] = defaultdict(float)  # engine cost by source
        self.longest_wait_s: dict[int, float] = defaultdict(float)
        self.known: set[int] = set()

    def run(self, seconds: float) -> None:
        until_s = self.world.now + seconds
        next_s = self.world.now
        while self.world.now < until_s:
            self._refill()
            self._start()
            if self.ends and self.ends[0][0] <= next_s:
                self.world.now, _, ticket, output = heappop(self.ends)
                self.world.first_token(ticket)
                self._start()
                self.world.finish(ticket, Outcome.SUCCESS, Usage(ticket.estimate.prompt_tokens, output))
            else:
                self.world.now = next_s = next_s + 0.5
                self.world.pass_time(0.0, tick=True)

    def _refill(self) -> None:
        have: dict[tuple[str, int], int] = defaultdict(int)
        for ticket in self.world.waiting.values():
            have[ticket.tenant, ticket.class_index] += 1
        for (tenant, rank), depth in self.sources.items():
            for _ in range(depth - have[tenant, rank]):
                self.world.arrive(tenant, rank, prompt=self.rng.randrange(50, 400), cap=None)
                self._start()

    def _start(self) -> None:
        for ticket in list(self.world.running.values()):
            if ticket.id not in self.known:
                self.known.add(ticket.id)
                output = self.rng.randrange(20, 200)
                self.served[ticket.tenant, ticket.class_index] += ticket.estimate.prompt_tokens + 2 * output
                wait_s = ticket.dispatched_s - ticket.arrived_s
                self.longest_wait_s[ticket.class_index] = max(self.longest_wait_s[ticket.class_index], wait_s)
                heappush(self.ends, (self.world.now + output * TOKEN_S, ticket.id, ticket, output))


def big(**fields: object) -> DispatcherConfig:
    wide = tuple(replace(one, queue_max=1000, queue_timeout_s=10_000.0) for one in CLASSES)
    return config(upstream(seats=SEATS), **{"classes": wide, **fields})


def jain(shares: list[float]) -> float:
    return float(sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)))


@pytest.mark.parametrize("tenants", [2, 9])
def test_backlogged_tenants_get_equal_service_beside_an_aggressor(tenants: int) -> None:
    overload = Overload(big(), {(f"t{index}", 2): 40 if index == 0 else 4 for index in range(tenants)})
    overload.run(WARM_UP_S)
    overload.served.clear()
    overload.run(30.0)
    assert jain(list(overload.served.values())) >= 0.98
    overload.world.empty()


def test_service_follows_the_weights_within_three_percent() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    tenants = tuple(TenantConfig(name, weight) for name, weight in weights.items())
    overload = Overload(big(tenants=tenants), {(name, 2): 20 for name in weights})
    overload.run(WARM_UP_S)
    overload.served.clear()
    overload.run(300.0)
    total = sum(overload.served.values())
    for name, weight in weights.items():
        assert overload.served[name, 2] / total == pytest.approx(weight / 10, rel=0.03)


def test_lower_classes_get_their_floor_within_a_point_and_nobody_starves() -> None:
    """Ten minutes of a flood of the highest class; W = (q + cost_max) / (sigma mu) + a seat, per waiting ticket."""
    overload = Overload(big(), {("a", 0): 20, ("b", 1): 2, ("c", 2): 2, ("d", 3): 2})
    overload.run(WARM_UP_S)
    overload.served.clear()
    overload.longest_wait_s.clear()
    overload.run(600.0)
    total = sum(overload.served.values())
    for rank, floor in ((1, 0.15), (2, 0.10), (3, 0.05)):
        share = sum(cost for (_, index), cost in overload.served.items() if index == rank) / total
        assert share == pytest.approx(floor, abs=0.01)
        mean, largest = 225 + 2 * 110, 400 + 2 * 512
        bound_s = (2 * mean + largest) / (floor * total / 600.0) + 200 * TOKEN_S
        assert overload.longest_wait_s[rank] <= bound_s
    overload.world.empty()


def test_a_burst_is_not_saved_up_for_and_its_debt_fades() -> None:
    overload = Overload(big(), {("a", 2): 20})
    overload.run(60.0)
    overload.sources["late", 2] = 20
    overload.served.clear()
    overload.run(60.0)
    assert overload.served["late", 2] / sum(overload.served.values()) == pytest.approx(0.5, abs=0.04)
