"""The engine's own bound on what it runs at once, learnt from its gauges.

Waiting requests show that an engine is full only where they are more than those that came since its last step: a gauge
may count these at once (TGI, llama.cpp). Of n running with O tokens each, n / O end per step and as many come; three
standard deviations above that is no accident.

cap      waiting >= max(2, 5 % of running, n / O + 3 sqrt(n / O)), yet not twice of running (embeddings wait for the
         next step by the dozen, and run none), in two fresh scrapes with running at rest: cap = running for 30 s, then
         +5 % per 30 s, and from then on two that wait are enough, or what comes in a step: a probe ends after two
         scrapes
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Final

from proxy.types import Telemetry

FRESH_S: Final = 2.0
GROWTH: Final = 1.02
CROWD_MIN: Final = 1 / 3
SPREAD: Final = 3.0  # standard deviations of the number that comes in a step


class EngineCap:
    """Learns how many sequences the engine runs at once: more only feed its queue, where order is not ours."""

    HOLD_S = 30.0

    def __init__(self) -> None:
        self.seats = inf
        self._raised_at_s = 0.0
        self._scrape_s = -inf
        self._strikes = 0
        self._running = 0

    def tick(self, engine: Telemetry | None, now: float, limit_raised_s: float, output_tokens: float) -> None:
        """One scrape counts once, if fresh and read after the limit's last raise. `output_tokens`: of a mean request.

        While `running` still grows, what waits is a burst of prompts on its way in, not an engine that is full.
        """
        if self.seats < inf and now - self._raised_at_s >= self.HOLD_S:
            self.seats, self._raised_at_s = 1.05 * self.seats, now
        if engine is None or engine.running is None or engine.waiting is None or engine.at_s <= self._scrape_s:
            return
        self._scrape_s = engine.at_s
        if engine.running < CROWD_MIN * (engine.running + engine.waiting):
            return  # one pass each, or a burst that has just come: no number of sequences is what they wait for
        grew, self._running = engine.running > GROWTH * self._running, engine.running
        if now - engine.at_s > FRESH_S or engine.at_s < limit_raised_s:
            self._strikes = 0
            return
        coming = engine.running / max(output_tokens, 1.0)
        many = max(2.0, 0.0 if self.seats < inf else 0.05 * engine.running, coming + SPREAD * sqrt(coming))
        self._strikes = (1 if grew else self._strikes + 1) if engine.waiting >= many else 0
        if self._strikes >= 2:
            self.seats, self._raised_at_s, self._strikes = max(float(engine.running), 1.0), now, 0

    def refused(self, running: float, now: float) -> None:
        """The engine shed a request while `running` were in flight."""
        self.seats, self._raised_at_s = max(0.9 * running, 1.0), now
