"""Each policy picks as its formula says."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from proxy.routing.balance import Balancer, Candidate, Policy

LOADS = [Candidate("a", 0.5), Candidate("b", 0.2), Candidate("c", 0.2), Candidate("d", 0.9)]


def first(balancer: Balancer, candidates: list[Candidate], prefix_hash: int = 0) -> str:
    name = balancer.order(candidates, prefix_hash)[0].name
    balancer.took(name)
    return name


@pytest.mark.parametrize("policy", ["least_loaded", "power_of_two", "round_robin", "prefix_affinity"])
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_order_is_a_permutation(policy: Policy, count: int) -> None:
    ordered = Balancer(policy, Random(1)).order(LOADS[:count], 7)
    assert sorted(ordered) == sorted(LOADS[:count])


def test_least_loaded_takes_the_first_of_the_least() -> None:
    assert first(Balancer("least_loaded", Random(1)), LOADS) == "b"


def test_power_of_two_never_takes_the_worst_and_spreads() -> None:
    balancer = Balancer("power_of_two", Random(1))
    taken = Counter(first(balancer, LOADS) for _ in range(600))
    assert taken["d"] == 0 and 0 < taken["a"] < taken["b"] and taken["c"] > 150


def test_round_robin_goes_in_turn_whoever_is_missing() -> None:
    balancer = Balancer("round_robin", Random(1))
    assert [first(balancer, LOADS) for _ in range(5)] == ["a", "b", "c", "d", "a"]
    assert first(balancer, LOADS[2:]) == "c"


def test_prefix_affinity_keeps_a_prefix_together_moves_few_and_respects_load() -> None:
    balancer = Balancer("prefix_affinity", Random(1))
    even = [Candidate(name, 0.5) for name in "abcd"]
    homes = {prefix: first(balancer, even, prefix) for prefix in range(1, 200)}
    assert {first(balancer, even[::-1], prefix) == home for prefix, home in homes.items()} == {True}
    assert min(Counter(homes.values()).values()) > 20
    moved = [prefix for prefix, home in homes.items() if first(balancer, even[:3], prefix) != home]
    assert moved == [prefix for prefix, home in homes.items() if home == "d"]
    loaded = [Candidate(name, 2.0 if name == "a" else 0.5) for name in "abcd"]
    assert all(first(balancer, loaded, prefix) != "a" for prefix in homes)
    assert first(balancer, LOADS, 0) == "b", "no prefix known: least loaded"
