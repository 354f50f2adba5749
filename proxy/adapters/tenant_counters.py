"""Counters by tenant: the N tenants with most requests have their own series, all others share `other`.

No series falls or jumps, so rates stay true: a tenant that rises into the top N starts its own series at zero and what
it counted before stays in `other`; the one it displaces loses its series and counts in `other` from then on. Ranks are
judged only when the metrics are copied, so that counting costs two dictionary look-ups.
"""

from __future__ import annotations

from typing import Final

from proxy.adapters.histograms import Exposed, Family, label_text
from proxy.types import Outcome

OTHER: Final = "other"
TENANTS_MAX: Final = 10_000  # ranked; as many as a trusted proxy may introduce


class _Tally:
    """What one series set has counted."""

    __slots__ = ("input_tokens", "outcomes", "output_tokens", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.outcomes: dict[Outcome, int] = {}
        self.input_tokens = 0
        self.output_tokens = 0

    def add(self, outcome: Outcome, requests: int, input_tokens: int, output_tokens: int) -> None:
        self.requests += requests
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + requests
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens


class TenantCounters:
    """Two families by tenant: requests by outcome, tokens by direction."""

    def __init__(self, requests: Family, tokens: Family, top: int) -> None:
        self._requests = requests
        self._tokens = tokens
        self._top = top
        self._named: dict[str, _Tally] = {}  # at most `top`
        self._other = _Tally()
        self._waiting: dict[str, int] = {}  # requests of those in `other`
        self._earlier: dict[str, int] = {}  # requests that a named tenant had before it was named

    def count(self, tenant: str, outcome: Outcome, requests: int, input_tokens: int, output_tokens: int) -> None:
        tally = self._named.get(tenant)
        if tally is None:
            tally = self._admit(tenant, requests)
        tally.add(outcome, requests, input_tokens, output_tokens)

    def _admit(self, tenant: str, requests: int) -> _Tally:
        """A tenant without its own series: gives it one while there is room, otherwise ranks it."""
        tenant = label_text(tenant)
        tally = self._named.get(tenant)
        if tally is not None:
            return tally
        if len(self._named) < self._top and tenant != OTHER:
            return self._named.setdefault(tenant, _Tally())
        if tenant != OTHER and (tenant in self._waiting or len(self._waiting) < TENANTS_MAX):
            self._waiting[tenant] = self._waiting.get(tenant, 0) + requests
        return self._other

    def _rank(self) -> None:
        """Give the series to those with most requests; each step changes the best waiting and the least named."""
        if not self._named:
            return
        least = min(map(self._total, self._named))
        risen = sorted((tenant for tenant, n in self._waiting.items() if n > least), key=lambda t: -self._waiting[t])
        for tenant in risen[: self._top]:
            loser = min(self._named, key=self._total)
            if self._waiting[tenant] <= self._total(loser):
                return
            self._waiting[loser] = self._total(loser)
            self._earlier.pop(loser, None)
            del self._named[loser]
            self._named[tenant] = _Tally()
            self._earlier[tenant] = self._waiting.pop(tenant)

    def _total(self, tenant: str) -> int:
        return self._named[tenant].requests + self._earlier.get(tenant, 0)

    def copy(self) -> list[Exposed]:
        self._rank()
        tallies = list(self._named.items())
        if self._other.outcomes:
            tallies.append((OTHER, self._other))
        requests = Exposed(self._requests, [])
        tokens = Exposed(self._tokens, [])
        for tenant, tally in tallies:
            requests.values.extend(((tenant, outcome.value), float(n)) for outcome, n in tally.outcomes.items())
            tokens.values.append(((tenant, "input"), float(tally.input_tokens)))
            tokens.values.append(((tenant, "output"), float(tally.output_tokens)))
        return [requests, tokens]
