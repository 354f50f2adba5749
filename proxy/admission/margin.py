"""The margin m of the latency target: what the limit aims at is m times the target.

    m = f + (1 - f) u        f = kappa a / T, the part of the target that a step takes with nothing in it

A limit decides about the rest, N = (m T/kappa - a)/s, and u is the share of the rest that is aimed at. So a given u
costs the same share of the seats at a loose target as at a tight one, where 6 % of T are half of them, and m moves
with the floor when an engine slows down.

u = 1 / (1.05 Q): Q is the 1 - 0.8 (1 - attainment) quantile of (latency / T - f) / ((1 - f) u at dispatch) over the
last 20 s, or 100 requests; 5 % are left for the level itself, which wanders with the prompts: all requests of a batch
are late together, and a quantile of theirs says nothing of the next minute. u goes half of the way (in the logarithm)
at a time, by 1.5 % up and 7 % down at most; more late ones than 100 may have are judged at once. 20 s hold one to four
batches that are late or early as a whole, so u rests once it is within 2 % of what is asked and within 3 % of where it
stood 20 s ago: from then on it is moved by what exceeds 2 % down or 4 % up, until conditions change. Before the first
judgement, and when other requests come, u = 1 / (1.05 (1 + 1.5 s)), with s = sqrt(n) kappa d rho / (T - kappa a): the
relative standard deviation of what the n prompts that come while a request runs add to its time; at most what leaves
6 % of T or 12 % of the rest, whichever is less.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import exp, inf, log, sqrt
from typing import Final

from proxy.admission.step_model import Coefficients

SAMPLES: Final = 100
SPREADS_MAX: Final = 1000


class MarginLoop:
    """Trims the target so that the wanted share of requests meets it."""

    START_ROOM = 0.06  # of the target
    START_ROOM_MOST = 0.12  # of its rest
    LEAST = 0.5
    MOST = 1.08
    LEVEL = 0.8  # of the share that may be late
    WANDER = 1.05
    TAIL = 1.5
    SPAN_S = 20.0
    EVERY = 25
    CUT = 0.93
    RISE = 1.015
    HOME = 0.02
    STILL = 0.03
    REST_DOWN = 0.02
    REST_UP = 0.04
    FLOOR_MOST = 0.95

    def __init__(self, attainment: float) -> None:
        self._floor = 0.0
        self._fill = 1 - self.START_ROOM
        self._quantile = 1 - self.LEVEL * (1 - attainment)
        self._allowed = SAMPLES * (1 - attainment)  # late ones of a batch
        self._spreads: deque[tuple[float, float]] = deque()  # end, latency / what was aimed at, both above the floor
        self._ranked: list[float] = []  # the latter, sorted: to sort them for a judgement would hold a decision up
        self._fills: deque[tuple[float, float]] = deque([(-inf, self._fill)], maxlen=64)  # since when, which
        self._late = self._count = 0
        self._told = False
        self._rests = False

    @property
    def margin(self) -> float:
        """What to aim at, as a share of the target."""
        return self._floor + (1 - self._floor) * self._fill

    def observe(self, ratio: float, dispatched_s: float, now: float) -> None:
        """One finished request: latency / target, and when it was dispatched."""
        spread = max((ratio - self._floor) / (1 - self._floor), 0.01) / self._fill_at(dispatched_s)
        spreads, ranked = self._spreads, self._ranked
        spreads.append((now, spread))
        insort(ranked, spread)
        while len(spreads) > SPREADS_MAX or (len(spreads) > SAMPLES and now - spreads[0][0] > self.SPAN_S):
            del ranked[bisect_left(ranked, spreads.popleft()[1])]
        self._count += 1
        self._late += ratio > 1
        if (len(spreads) < SAMPLES or self._count < self.EVERY) and self._late <= self._allowed:
            return
        self._judge(now)

    def _judge(self, now: float) -> None:
        """The tail of what has been seen, beside what is asked."""
        urgent, ranked = self._late > self._allowed, self._ranked
        self._count, self._late, self._told = 0, 0, True
        tail = ranked[min(int(self._quantile * len(ranked)), len(ranked) - 1)]
        off = log(self.WANDER * tail * self._fill)
        if not self._rests:
            still = abs(log(self._fill / self._fill_at(now - self.SPAN_S))) < self.STILL
            self._rests = still and abs(off) < self.HOME
        elif not urgent:
            off -= min(max(off, -self.REST_UP), self.REST_DOWN)
        if off:
            self._aim(self._fill * min(max(exp(-off / 2), self.CUT), self.RISE), now)

    def expect(self, fit: Coefficients, target_s: float, rho: float, seats: float, now: float) -> None:
        """The fit is known, and rho prompt tokens per output token at so many seats: the margin follows the floor,
        and until requests have told it stands where the prefill of others would leave it."""
        self._stand(fit, target_s)
        if self._told:
            return
        rest = 1 - self._floor
        spread = sqrt(max(seats, 1.0)) * fit.kappa * fit.d * rho / (target_s * rest)
        most = 1 - min(self.START_ROOM / rest, self.START_ROOM_MOST)
        self._aim(min(1 / (self.WANDER * (1 + self.TAIL * spread)), most), now)

    def resume(self, margin: float, fit: Coefficients, target_s: float, now: float) -> None:
        """Go on from what an earlier run was told."""
        self._told = True
        self._stand(fit, target_s)
        self._aim((margin - self._floor) / (1 - self._floor), now)

    def shifted(self) -> None:
        """Other requests come, whose latencies spread in another way."""
        self._told = False
        self.restart()

    def restart(self) -> None:
        """Forget requests that ran before the conditions changed."""
        self._spreads.clear()
        self._ranked.clear()
        self._late = self._count = 0
        self._rests = False

    def _stand(self, fit: Coefficients, target_s: float) -> None:
        self._floor = min(fit.kappa * fit.a / target_s, self.FLOOR_MOST)

    def _fill_at(self, at_s: float) -> float:
        return next((fill for since_s, fill in reversed(self._fills) if since_s <= at_s), self._fills[0][1])

    def _aim(self, fill: float, now: float) -> None:
        self._fill = min(max(fill, self.LEAST), self.MOST)
        self._fills.append((now, self._fill))
