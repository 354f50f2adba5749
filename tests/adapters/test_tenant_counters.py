from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters import tenant_counters
from proxy.adapters.histograms import Family
from proxy.adapters.tenant_counters import OTHER, TenantCounters
from proxy.types import Outcome

REQUESTS = Family("requests_total", "counter", ("tenant", "outcome"), "")
TOKENS = Family("tokens_total", "counter", ("tenant", "direction"), "")


def counters(top: int) -> TenantCounters:
    return TenantCounters(REQUESTS, TOKENS, top)


def requests_of(counted: TenantCounters) -> dict[str, float]:
    totals: Counter[str] = Counter()
    for (tenant, _), value in counted.copy()[0].values:
        assert isinstance(value, float)
        totals[tenant] += value  # type: ignore[assignment]  # a Counter of floats
    return dict(totals)


def send(counted: TenantCounters, tenant: str, times: int) -> None:
    counted.count(tenant, Outcome.SUCCESS, times, 10 * times, 2 * times)


def test_the_first_have_their_own_series_and_the_rest_share_one() -> None:
    counted = counters(2)
    for tenant, times in (("a", 3), ("b", 2), ("c", 2), ("d", 1)):
        send(counted, tenant, times)
    requests, tokens = counted.copy()
    assert requests.values == [(("a", "success"), 3.0), (("b", "success"), 2.0), ((OTHER, "success"), 3.0)]
    assert dict(tokens.values)["a", "input"] == 30.0
    assert dict(tokens.values)[OTHER, "output"] == 6.0


def test_who_rises_starts_at_zero_and_who_falls_counts_in_other() -> None:
    counted = counters(1)
    send(counted, "early", 2)
    send(counted, "heavy", 5)
    assert requests_of(counted) == {OTHER: 5.0}  # heavy has the series now, with nothing in it yet
    send(counted, "heavy", 4)
    send(counted, "early", 1)
    assert requests_of(counted) == {"heavy": 4.0, OTHER: 6.0}
    send(counted, "early", 6)  # 9 against 9: no change without need
    assert requests_of(counted) == {"heavy": 4.0, OTHER: 12.0}
    send(counted, "early", 1)
    send(counted, "none", 1)
    assert requests_of(counted) == {OTHER: 14.0}


def test_a_tenant_called_other_and_unclean_names_never_double_a_series() -> None:
    counted = counters(3)
    for tenant in (OTHER, "é", "ü", "a"):
        send(counted, tenant, 1)
    assert requests_of(counted) == {"?": 2.0, "a": 1.0, OTHER: 1.0}


def test_no_place_at_all_puts_all_into_other() -> None:
    counted = counters(0)
    send(counted, "a", 2)
    assert requests_of(counted) == {OTHER: 2.0}


def test_memory_is_bounded() -> None:
    counted = counters(1)
    for number in range(tenant_counters.TENANTS_MAX + 50):
        send(counted, f"tenant-{number}", 1)
    assert len(counted._waiting) == tenant_counters.TENANTS_MAX


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 4), st.lists(st.lists(st.sampled_from("abcdefg"), max_size=20), max_size=12))
def test_no_series_ever_falls_while_it_lives(top: int, rounds: list[list[str]]) -> None:
    counted = counters(top)
    before: dict[str, float] = {}
    for tenants in rounds:
        for tenant in tenants:
            send(counted, tenant, 1)
        now = requests_of(counted)
        gone = before.keys() - now.keys()
        assert all(now[name] >= value for name, value in before.items() if name not in gone)
        assert len(now) <= top + 1
        before = now
