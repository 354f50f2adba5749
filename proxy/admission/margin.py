"""The margin m of the latency target: what the limit aims at is m times the target.

m = 1 / (w Q): Q is the 1 - 0.8 (1 - attainment) quantile of latency / (target m at dispatch) over the last
20 s, or 100 requests; w = 1 + 0.05 (1 - kappa a / T) leaves room for the level itself, which wanders with
the prompts: all requests of a batch are late together, and a quantile of theirs says nothing of the next
minute. m goes half of the way (in the logarithm) at a time, by 1 % up and 5 % down at most; more late ones
than 100 may have are judged at once. Before the first judgement, and when other requests come,
m = 1 / (w (1 + 1.5 s)), at most 0.94, with s = sqrt(n) kappa d rho / T: the relative standard deviation of
what the n prompts that come while a request runs add to its time
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import inf, sqrt
from typing import Final

from proxy.admission.step_model import Coefficients

SAMPLES: Final = 100
SPREADS_MAX: Final = 1000


class MarginLoop:
    """Trims the target so that the wanted share of requests meets it."""

    START = 0.94
    LEAST = 0.7
    MOST = 1.05
    LEVEL = 0.8  # of the share that may be late
    WANDER = 0.05
    TAIL = 1.5
    SPAN_S = 20.0
    EVERY = 25
    CUT = 0.95
    RISE = 1.01

    def __init__(self, attainment: float) -> None:
        self.margin = self.START
        self._quantile = 1 - self.LEVEL * (1 - attainment)
        self._allowed = SAMPLES * (1 - attainment)  # late ones of a batch
        self._wander = 1 + self.WANDER
        self._spreads: deque[tuple[float, float]] = deque()  # end, latency / what was aimed at
        self._ranked: list[float] = []  # the latter, sorted: to sort them for a judgement would hold a decision up
        self._aims: deque[tuple[float, float]] = deque([(-inf, self.START)], maxlen=64)  # since when, which margin
        self._late = self._count = 0
        self._told = False

    def observe(self, ratio: float, dispatched_s: float, now: float) -> None:
        """One finished request: latency / target, and when it was dispatched."""
        aim = next((margin for since_s, margin in reversed(self._aims) if since_s <= dispatched_s), self._aims[0][1])
        spreads, ranked = self._spreads, self._ranked
        spreads.append((now, ratio / aim))
        insort(ranked, ratio / aim)
        while len(spreads) > SPREADS_MAX or (len(spreads) > SAMPLES and now - spreads[0][0] > self.SPAN_S):
            del ranked[bisect_left(ranked, spreads.popleft()[1])]
        self._count += 1
        self._late += ratio > 1
        if (len(spreads) < SAMPLES or self._count < self.EVERY) and self._late <= self._allowed:
            return
        self._count, self._late, self._told = 0, 0, True
        tail = ranked[min(int(self._quantile * len(ranked)), len(ranked) - 1)]
        off = self._wander * max(tail, 0.01) * self.margin
        self._aim(self.margin * min(max(off**-0.5, self.CUT), self.RISE), now)

    def expect(self, fit: Coefficients, target_s: float, rho: float, seats: float, now: float) -> None:
        """The fit is known, and rho prompt tokens per output token at so many seats: until requests have told, the
        margin stands where the prefill of others would leave it."""
        self._wander = 1 + self.WANDER * min(max(1 - fit.kappa * fit.a / target_s, 0.2), 1.0)
        if not self._told:
            spread = sqrt(max(seats, 1.0)) * fit.kappa * fit.d * rho / target_s
            self._aim(min(1 / (self._wander * (1 + self.TAIL * spread)), self.START), now)

    def resume(self, margin: float, now: float) -> None:
        """Go on from what an earlier run was told, if anything."""
        self._told = margin != self.START
        self._aim(margin, now)

    def shifted(self) -> None:
        """Other requests come, whose latencies spread in another way."""
        self._told = False
        self.restart()

    def restart(self) -> None:
        """Forget requests that ran before the conditions changed."""
        self._spreads.clear()
        self._ranked.clear()
        self._late = self._count = 0

    def _aim(self, margin: float, now: float) -> None:
        self.margin = min(max(margin, self.LEAST), self.MOST)
        self._aims.append((now, self.margin))
