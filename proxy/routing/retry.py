"""Which failed tries may run again, and how many of them.

A retry never follows a response byte. What each failure allows (RFC 9110 9.2.2: never repeat what may have run):

    connect     nothing was sent             any request, another upstream
    local       no file or port here     never: the next try would lack it, too
    shed        refused before work          any request, another upstream
    stale       reset on a reused connection once, generation without side effects, the same upstream on a fresh one
                (not where its kernel had acknowledged the whole request before it closed);
                only soon after it was sent: what is lost later was at work
    reset       reset on a fresh connection  never: it may have run
    timeout     silent past its cap          never: it is running

Budget: each request deposits `budget` tokens, each retry takes one (Finagle RetryBudget: a balance bounds retries to a
share of traffic, so that an outage is not multiplied), plus one per second so that thin traffic keeps its retries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from proxy.types import Failure, Outcome, Ticket, Work

RESERVE: Final = 10.0  # retries in the bucket when full, as Finagle's 10 s of its minimum rate
MINIMUM_PER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """`retries` per request; `retry_on` the failures that may be retried; `budget` retries per request, on average."""

    retries: int = 2
    retry_on: frozenset[Failure] = frozenset({Failure.CONNECT, Failure.SHED, Failure.STALE})
    budget: float = 0.1


class Rule(NamedTuple):
    """`elsewhere`: the failed upstream is left out; `executed`: the engine may have started; `most`: per request."""

    elsewhere: bool
    executed: bool
    most: int


RULES: Final[dict[Failure, Rule]] = {
    Failure.CONNECT: Rule(elsewhere=True, executed=False, most=99),
    Failure.LOCAL: Rule(elsewhere=False, executed=False, most=0),
    Failure.SHED: Rule(elsewhere=True, executed=False, most=99),
    Failure.STALE: Rule(elsewhere=False, executed=True, most=1),
    Failure.RESET: Rule(elsewhere=True, executed=True, most=0),
    Failure.TIMEOUT: Rule(elsewhere=True, executed=True, most=0),
}

FINAL_OUTCOME: Final[dict[Failure, Outcome]] = {
    Failure.CONNECT: Outcome.UPSTREAM_ERROR,
    Failure.LOCAL: Outcome.NO_UPSTREAM,
    Failure.SHED: Outcome.UPSTREAM_STATUS,
    Failure.STALE: Outcome.UPSTREAM_ERROR,
    Failure.RESET: Outcome.UPSTREAM_ERROR,
    Failure.TIMEOUT: Outcome.UPSTREAM_TIMEOUT,
}


def may_retry(config: RetryConfig, ticket: Ticket, failure: Failure, tries: int, same: int) -> bool:
    """True where the request may run again: `tries` failed so far, this one included; `same` of them this way."""
    rule = RULES[failure]
    if failure not in config.retry_on or tries > config.retries or same > rule.most:
        return False
    return not rule.executed or (ticket.retryable and ticket.work is Work.GENERATE)


class RetryBudget:
    """Balance of allowed retries; starts full."""

    def __init__(self, budget: float, now: float) -> None:
        self.budget = budget
        self._tokens = RESERVE
        self._at_s = now

    def deposit(self) -> None:
        """One request arrived."""
        if self._tokens < RESERVE:
            self._tokens = min(RESERVE, self._tokens + self.budget)

    def take(self, now: float) -> bool:
        """One retry, if the balance allows it."""
        if self.budget <= 0:
            return False
        self._tokens = min(RESERVE, self._tokens + max(0.0, now - self._at_s) * MINIMUM_PER_S)
        self._at_s = max(self._at_s, now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def __repr__(self) -> str:
        return f"RetryBudget({self._tokens:.1f} of {RESERVE:.0f})"
