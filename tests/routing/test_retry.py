"""Which failures may run again, and how often."""

from __future__ import annotations

import pytest

from proxy.routing.retry import RESERVE, RetryBudget, RetryConfig, may_retry
from proxy.types import Failure, Ticket, Work, WorkEstimate


def ticket(work: Work = Work.GENERATE, retryable: bool = True) -> Ticket:
    return Ticket(1, "a", 0, "m", work, True, WorkEstimate(), 0, 0.0, retryable=retryable)


@pytest.mark.parametrize(
    ("failure", "work", "retryable", "tries", "same", "expected"),
    [
        (Failure.CONNECT, Work.GENERATE, True, 1, 1, True),
        (Failure.CONNECT, Work.GENERATE, True, 2, 2, True),
        (Failure.CONNECT, Work.GENERATE, True, 3, 3, False),
        (Failure.CONNECT, Work.AUDIO, False, 1, 1, True),
        (Failure.LOCAL, Work.GENERATE, True, 1, 1, False),
        (Failure.SHED, Work.EMBED, False, 1, 1, True),
        (Failure.STALE, Work.GENERATE, True, 1, 1, True),
        (Failure.STALE, Work.GENERATE, True, 2, 2, False),
        (Failure.STALE, Work.GENERATE, False, 1, 1, False),
        (Failure.STALE, Work.EMBED, True, 1, 1, False),
        (Failure.RESET, Work.GENERATE, True, 1, 1, False),
        (Failure.TIMEOUT, Work.GENERATE, True, 1, 1, False),
    ],
)
def test_rules(failure: Failure, work: Work, retryable: bool, tries: int, same: int, expected: bool) -> None:
    everything = RetryConfig(retries=2, retry_on=frozenset(Failure))
    assert may_retry(everything, ticket(work, retryable), failure, tries, same) is expected
    assert not may_retry(RetryConfig(retry_on=frozenset()), ticket(), failure, tries, same)


def test_budget_is_a_reserve_a_share_of_traffic_and_one_per_second() -> None:
    budget = RetryBudget(0.25, 0.0)
    assert [budget.take(0.0) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(4):
        budget.deposit()
    assert [budget.take(0.0), budget.take(0.0), budget.take(1.0), budget.take(0.5)] == [True, False, True, False]
    for _ in range(1000):
        budget.deposit()
    assert sum(budget.take(1.0) for _ in range(100)) == RESERVE
    assert sum(budget.take(1e6) for _ in range(100)) == RESERVE
    assert repr(budget) == "RetryBudget(0.0 of 10)"
    assert not RetryBudget(0.0, 0.0).take(100.0)
