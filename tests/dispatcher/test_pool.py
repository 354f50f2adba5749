"""Lanes, pools, rates and the cap of a tenant."""

from __future__ import annotations

import pytest

from proxy.dispatcher.pool import Pool, Rate, group
from proxy.dispatcher.station import Station
from proxy.routing.breaker import BreakerConfig
from proxy.types import Usage

from .world import CLASSES, TenantConfig, World, config, upstream


def station(name: str, models: tuple[str, ...] | None) -> Station:
    return Station(upstream(name, 4, models=models), BreakerConfig(), 5.0, 0.0)


@pytest.mark.parametrize(
    ("models", "pools"),
    [
        ({"u0": ("m",), "u1": ("m",)}, [["u0,u1"]]),
        ({"u0": ("m",), "u1": ("n",)}, [["u0"], ["u1"]]),
        ({"u0": ("m", "n"), "u1": ("n",)}, [["u0", "u0,u1"]]),
        ({"u0": None, "u1": ("n",)}, [["u0", "u0,u1"]]),
        ({"u0": ("m",), "u1": ("n",), "u2": ("m", "n")}, [["u0,u2", "u1,u2"]]),
        ({"u0": None, "u1": None}, [["u0,u1"]]),
        ({}, []),
    ],
)
def test_grouping(models: dict[str, tuple[str, ...] | None], pools: list[list[str]]) -> None:
    stations = [station(name, served) for name, served in models.items()]
    assert [sorted(lane.key for lane in lanes) for lanes in group(stations, 0.0)] == pools


def test_a_rate_is_measured_under_backlog_and_believed_after_a_while() -> None:
    rate = Rate()
    for second in range(9):
        rate.units += 5.0
        rate.tick(1.0, 1.0)
        assert rate.per_s is None, second
    for _ in range(60):
        rate.units += 900.0
        rate.tick(1.0, 0.4)  # demand, not capacity
        rate.units += 5.0
        rate.tick(1.0, 0.6)
    assert rate.per_s == pytest.approx(5.0)
    for _ in range(60):
        rate.units += 10.0
        rate.tick(1.0, 1.0)
    assert rate.per_s == pytest.approx(10.0, rel=0.05)


def test_eligible_time_is_what_the_limit_is_told() -> None:
    lanes = group([station("u0", None)], 0.0)[0]
    lanes[0].mark(True, 1.0)
    lanes[0].mark(True, 2.0)
    lanes[0].mark(False, 3.0)
    assert (lanes[0].take_eligible_s(9.0), lanes[0].take_eligible_s(10.0)) == (2.0, 0.0)
    assert repr(Pool(CLASSES, lanes)) == "Pool(u0: 0 waiting)"


def test_a_tenant_alone_may_use_every_seat() -> None:
    world = World(config(upstream(seats=8)))
    hogs = [world.arrive("hog") for _ in range(12)]
    assert len(world.running) == 8
    late = world.arrive("late")
    world.finish(hogs[0])
    assert world.outcome(late) == "running"
    world.finish(hogs[1])
    world.finish(late)
    assert [one.tenant for one in world.running.values()] == ["hog"] * 8, "nobody else waits"
    world.empty()


def test_the_cap_is_one_and_a_half_times_the_fair_share() -> None:
    world = World(config(upstream(seats=8), tenants=(TenantConfig("heavy", 3.0),)))
    for tenant in ("heavy", "light"):
        for _ in range(30):
            world.arrive(tenant, prompt=1, cap=1) if tenant == "light" else world.arrive(tenant)
    for _ in range(40):
        world.finish(next(iter(world.running.values())))
        light = sum(one.tenant == "light" for one in world.running.values())
        if sum(one.tenant == "light" for one in world.waiting.values()) and light > 3:
            pytest.fail(f"1.5 x 8 / 4 = 3 seats, not {light}")
        if not any(one.tenant == "heavy" for one in world.waiting.values()):
            break
    world.empty()


def test_a_new_weight_counts_at_the_next_request() -> None:
    world = World(config(upstream(seats=4)))
    for tenant in "ab":
        for _ in range(20):
            world.arrive(tenant)
    weights = (TenantConfig("a", 9.0),)
    world.apply(world.dispatcher.reconfigure(config(upstream(seats=4), tenants=weights), world.now))
    for tenant in "ab":
        world.arrive(tenant)
    for _ in range(10):
        world.finish(next(iter(world.running.values())), usage=Usage(100, 100))
    assert world.dispatched["a"] - world.dispatched["b"] >= 10
    world.empty()


def test_debts_and_rates_survive_a_reload() -> None:
    world = World(config(upstream(seats=1)))
    for _ in range(6):
        world.arrive("a")
    for _ in range(4):
        world.finish(next(iter(world.running.values())), usage=Usage(100, 100))
    for ticket in list(world.waiting.values()):
        world.cancel(ticket)
    world.apply(world.dispatcher.reconfigure(config(upstream(seats=1), classes=CLASSES[1:]), world.now))
    for tenant in "babab":
        world.arrive(tenant, 1)
    before = world.dispatched["b"]
    for _ in range(2):
        world.finish(next(iter(world.running.values())), usage=Usage(100, 100))
    assert world.dispatched["b"] - before == 1, "both stand at the same point, the older ticket first"
    world.empty()
