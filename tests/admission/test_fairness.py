"""Virtual time: order, lift, decay, weights, caps, and what is remembered."""

from __future__ import annotations

from collections import Counter
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission.entries import Entry
from proxy.admission.fairness import FairQueue, Flow, Line, Ranking
from proxy.types import Ticket, Work, WorkEstimate

LANE = "u0"
_next = iter(range(1, 1 << 60))


def entry(tenant: str, arrived_s: float = 0.0, lane: str = LANE, cost: float = 1.0, expires_s: float = 99.0) -> Entry:
    ticket = Ticket(next(_next), tenant, 0, "m", Work.GENERATE, True, WorkEstimate(), 0, arrived_s)
    ticket.expires_s = expires_s
    return Entry(ticket, lane, cost)


def never(tenant: str) -> bool:
    return False


def leave(queue: FairQueue, one: Entry) -> None:
    one.live = False
    queue.left(one)


def serve(queue: FairQueue, now: float, cost: float = 1.0, lane: str = LANE) -> str:
    """Take the head out at this cost; its tenant."""
    one = queue.head(lane, never)
    assert one is not None
    queue.charge(one.ticket.tenant, cost, now)
    leave(queue, one)
    return one.ticket.tenant


def fill(queue: FairQueue, count: int, **weights: float) -> None:
    for tenant, weight in weights.items():
        for _ in range(count):
            queue.push(entry(tenant), weight)


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0, "c": 3.0}])
def test_service_is_shared_by_weight(weights: dict[str, float]) -> None:
    queue = FairQueue()
    fill(queue, 300, **weights)
    served = Counter(serve(queue, now=index / 10) for index in range(300))
    for tenant, weight in weights.items():
        assert served[tenant] == pytest.approx(300 * weight / sum(weights.values()), abs=2)
    assert queue.backlogged_weight == sum(weights.values())


def test_costly_requests_count_for_more() -> None:
    queue = FairQueue()
    fill(queue, 200, a=1.0, b=1.0)
    served = Counter[str]()
    for index in range(200):
        head = queue.head(LANE, never)
        assert head is not None
        served[serve(queue, index / 10, cost=4.0 if head.ticket.tenant == "a" else 1.0)] += 1
    assert served["b"] == pytest.approx(4 * served["a"], rel=0.05)


def test_ties_go_to_the_oldest_head_and_a_tenant_to_its_earliest_expiry() -> None:
    queue = FairQueue()
    queue.push(entry("b", 2.0), 1.0)
    calm = entry("a", 1.0, expires_s=50.0)
    queue.push(calm, 1.0)
    assert queue.head(LANE, never) is calm
    urgent = entry("a", 3.0, expires_s=20.0)
    queue.push(urgent, 1.0)
    assert [serve(queue, 0.0), serve(queue, 0.0)] == ["b", "a"] and not urgent.live and calm.live
    leave(queue, calm)
    assert queue.head(LANE, never) is None and queue.head("nowhere", never) is None


def test_idle_time_is_not_saved_up() -> None:
    queue = FairQueue()
    fill(queue, 60, a=1.0)
    for _ in range(50):
        serve(queue, 1.0)
    fill(queue, 60, b=1.0)
    assert Counter(serve(queue, 1.0) for _ in range(20))["b"] == pytest.approx(10, abs=1)


def test_the_first_to_wait_again_stands_where_the_last_served_stands() -> None:
    queue = FairQueue()
    fill(queue, 50, a=1.0)
    for _ in range(50):
        serve(queue, 1.0)
    fill(queue, 30, b=1.0)
    fill(queue, 30, a=1.0)
    assert Counter(serve(queue, 1.0) for _ in range(20))["b"] == pytest.approx(10, abs=1)


@pytest.mark.parametrize(("gap_s", "catch_up"), [(0.0, 16), (60.0, 8), (600.0, 0)])
def test_debt_halves_every_minute(gap_s: float, catch_up: int) -> None:
    queue = FairQueue()
    fill(queue, 40, a=1.0, b=1.0)
    queue.charge("a", 16.0, 0.0)
    run = 0
    while serve(queue, gap_s) == "b":
        run += 1
    assert run == pytest.approx(catch_up, abs=1.1)


def test_a_correction_is_as_old_as_the_charge_it_corrects() -> None:
    queue = FairQueue()
    fill(queue, 5, a=1.0, b=1.0)
    queue.charge("a", 8.0, 0.0)
    queue.correct("a", -8.0, 0.0)
    flow = queue.flow("a")
    assert flow is not None and flow.debt == -inf
    assert serve(queue, 30.0) == "a", "and it counts at once, for a flow that has been ranked already"
    queue.correct("a", 3.0, 0.0)
    queue.correct("nobody", 3.0, 0.0)
    assert [serve(queue, 30.0) for _ in range(2)] == ["b", "b"]
    assert "Flow(a, weight=1" in repr(flow)


def test_a_tenant_over_its_cap_goes_when_nobody_else_is_ready() -> None:
    queue = FairQueue()
    fill(queue, 2, a=1.0, b=1.0)
    queue.charge("b", 5.0, 0.0)
    head = queue.head(LANE, {"a"}.__contains__)
    assert head is not None and head.ticket.tenant == "b"
    queue.park(head)
    assert not queue.eligible(head)
    capped = queue.head(LANE, {"a"}.__contains__)
    assert capped is not None and capped.ticket.tenant == "a" and queue.has_ready(LANE)
    queue.park(capped)
    assert queue.head(LANE, never) is None and not queue.has_ready(LANE) and not queue.has_ready("nowhere")
    queue.wake("b")
    queue.wake("nobody")
    assert queue.head(LANE, never) is head
    queue.wake_lane(LANE)
    queue.wake_lane("nowhere")
    assert queue.head(LANE, never) is capped


def test_uncap_judges_capped_tenants_again() -> None:
    queue = FairQueue()
    fill(queue, 2, a=1.0, b=1.0)
    queue.charge("b", 5.0, 0.0)
    queue.head(LANE, {"a"}.__contains__)
    assert serve(queue, 0.0) == "b", "capped until told otherwise"
    queue.uncap()
    assert serve(queue, 0.0) == "a"


def test_lanes_share_one_virtual_time() -> None:
    queue = FairQueue()
    for lane in ("u0", "u1"):
        for tenant in "ab":
            for _ in range(9):
                queue.push(entry(tenant, lane=lane), 1.0)
    queue.charge("a", 4.0, 0.0)
    assert [serve(queue, 0.0, lane=lane) for lane in ("u0", "u1", "u0", "u1")] == ["b"] * 4


def test_only_flows_without_debt_are_forgotten() -> None:
    queue = FairQueue(flows_max=4)
    for index in range(40):
        fill(queue, 1, **{f"t{index}": 1.0})
        serve(queue, float(index))
    assert len(queue) == 4
    rich = FairQueue(flows_max=4)
    for index in range(12):
        rich.push(entry(f"t{index}"), 1.0)
        rich.charge(f"t{index}", 12.0 - index, 0.0)
    assert len(rich) == 12, "what waits stays"


def test_debts_move_to_another_queue() -> None:
    old, new = FairQueue(), FairQueue()
    fill(old, 1, a=1.0)
    serve(old, 0.0, cost=5.0)
    new.adopt(old)
    fill(new, 9, b=1.0)
    new.charge("a", 4.0, 0.0)
    fill(new, 9, a=1.0)
    assert Counter(serve(new, 0.0) for _ in range(4)) == {"b": 4}


def test_a_changed_weight_counts_from_now_on() -> None:
    queue = FairQueue()
    fill(queue, 1, a=1.0)
    fill(queue, 1, a=3.0)
    assert queue.backlogged_weight == 3.0


def test_orders_do_not_grow_with_flows_that_come_and_go() -> None:
    queue = FairQueue()
    fill(queue, 1, a=1.0)
    for _ in range(3000):
        one = entry("b")
        queue.push(one, 1.0)
        queue.charge("b", 0.001, 0.0)
        leave(queue, one)
    assert len(queue._lanes[LANE].ready) == 1
    assert len(queue._lanes[LANE].ready._lines) < 100


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_any_order_of_events_serves_everyone_once(seed: int) -> None:
    rng, queue = Random(seed), FairQueue(flows_max=6)
    waiting: dict[int, Entry] = {}
    now = 0.0
    for _ in range(120):
        now += rng.random() * 30
        match rng.randrange(6):
            case 0 | 1:
                one = entry(rng.choice("abcdefgh"), now, rng.choice(["u0", "u1"]), rng.random())
                queue.push(one, rng.choice([1.0, 2.0]))
                waiting[one.ticket.id] = one
            case 2 if waiting:
                leave(queue, waiting.pop(rng.choice(sorted(waiting))))
            case 3 if waiting:
                queue.park(waiting[rng.choice(sorted(waiting))])
            case 4:
                queue.wake(rng.choice("abcdefgh"))
                queue.correct(rng.choice("abcdefgh"), rng.random() - 0.5, now - 1)
            case _:
                head = queue.head("u0", lambda tenant: tenant in "ab")
                if head is not None:
                    ready = [one for one in waiting.values() if one.lane == "u0" and queue.eligible(one)]
                    others = [one for one in ready if one.ticket.tenant not in "ab"]
                    assert head in (others or ready)
                    queue.charge(head.ticket.tenant, rng.random(), now)
                    leave(queue, waiting.pop(head.ticket.id))
        assert queue.waiting == len(waiting)
        assert queue.cost == pytest.approx(sum(one.cost for one in waiting.values()))
    queue.wake_lane("u0")
    while (head := queue.head("u0", never)) is not None:
        leave(queue, waiting.pop(head.ticket.id))
    assert not [one for one in waiting.values() if one.lane == "u0"]


@given(
    st.lists(st.tuples(st.sampled_from((-inf, 0.0, 1.5)), st.integers(0, 2)), min_size=1, max_size=200), st.randoms()
)
def test_a_ranking_keeps_its_order_whatever_comes_and_goes(kinds: list[tuple[float, int]], rng: Random) -> None:
    ranking, model = Ranking(), []
    for debt, arrived_s in kinds:
        flow = Flow("a", 1.0)
        flow.debt = debt
        line = Line(flow)
        line.heap.push(0.0, entry("a", float(arrived_s)))
        ranking.add(line)
        model.append(line)
        model.sort(key=lambda one: (one.debt, one.arrived_s, one.number))
        if rng.random() < 0.3:
            ranking.remove(model.pop(rng.randrange(len(model))))
    for line in model:
        assert ranking.least() is line
        ranking.remove(line)
    assert ranking.least() is None
    assert len(ranking) == 0
