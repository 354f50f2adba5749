"""Circuit breaker of one upstream, a table of transitions (Nygard, Release It!, 2007).

    state      event      next       when
    closed     bad        open       >= min_requests in window_s and bad / all >= failure_ratio
    open       time       half_open  the pause is over; pause = open_s * 2^(openings in a row - 1), at most 60 s
    half_open  good       closed     the one request let through came back
    half_open  bad        open       it did not

In `half_open` one request is in flight at a time; one that tells nothing (its client left) makes room for the next.
The pause doubles, so an upstream that comes and goes each second is seen by few requests. Openings are in a row unless
it was closed for `CALM_S` in between.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

PAUSE_MAX_S: Final = 60.0
CALM_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """Opens when `failure_ratio` of at least `min_requests` in `window_s` failed, for `open_s`."""

    window_s: float = 10.0
    min_requests: int = 10
    failure_ratio: float = 0.5
    open_s: float = 5.0


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(StrEnum):
    TRIPPED = "tripped"  # a bad result that brings the window over its ratio
    PAUSED = "paused"  # the pause is over
    GOOD = "good"
    BAD = "bad"


TRANSITIONS: Final[dict[tuple[BreakerState, Event], BreakerState]] = {
    (BreakerState.CLOSED, Event.TRIPPED): BreakerState.OPEN,
    (BreakerState.OPEN, Event.PAUSED): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, Event.GOOD): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Event.BAD): BreakerState.OPEN,
}


class Breaker:
    """Judges one upstream by the results of its requests."""

    def __init__(self, config: BreakerConfig) -> None:
        self.config = config
        self.state = BreakerState.CLOSED
        self.reopens_s = 0.0  # when the pause ends, while open
        self._slices: deque[tuple[int, list[int]]] = deque()  # (slice number, [all, bad])
        self._slice_ends_s = -inf  # of the newest slice
        self._openings = 0
        self._closed_s = 0.0  # when it closed last

    @property
    def passes(self) -> int | None:
        """How many requests may be in flight: 0 open, 1 half-open, None (no bound) closed."""
        return {BreakerState.CLOSED: None, BreakerState.OPEN: 0, BreakerState.HALF_OPEN: 1}[self.state]

    def result(self, ok: bool, now: float) -> bool:
        """One judged result. True when the state changed."""
        if self.state is BreakerState.CLOSED:
            if ok and self.good(now):
                return False
            return self._count(ok, now) and self._move(Event.TRIPPED, now)
        return self._move(Event.GOOD if ok else Event.BAD, now)

    def good(self, now: float) -> bool:
        """Count a good result where that takes no more than adding one. False: `result` has to."""
        if now >= self._slice_ends_s:  # never reached while open or half open
            return False
        self._slices[-1][1][0] += 1
        return True

    def advance(self, now: float) -> bool:
        """Time passed. True when the state changed."""
        return self.state is BreakerState.OPEN and now >= self.reopens_s and self._move(Event.PAUSED, now)

    def reset(self) -> None:
        """Forget everything: the prober says that the upstream has recovered."""
        self.state = BreakerState.CLOSED
        self._forget()
        self._openings = 0

    def _count(self, ok: bool, now: float) -> bool:
        width_s = self.config.window_s / 10
        number = int(now // width_s)
        while self._slices and self._slices[0][0] <= number - 10:
            self._slices.popleft()
        if not self._slices or self._slices[-1][0] < number:
            self._slices.append((number, [0, 0]))
            self._slice_ends_s = (number + 1) * width_s
        counts = self._slices[-1][1]
        counts[0] += 1
        counts[1] += not ok
        if ok:
            return False
        total = sum(slice_counts[0] for _, slice_counts in self._slices)
        bad = sum(slice_counts[1] for _, slice_counts in self._slices)
        return total >= self.config.min_requests and bad >= self.config.failure_ratio * total

    def _forget(self) -> None:
        self._slices.clear()
        self._slice_ends_s = -inf

    def _move(self, event: Event, now: float) -> bool:
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            return False
        before, self.state = self.state, after
        if after is BreakerState.OPEN:
            if before is BreakerState.CLOSED and now - self._closed_s > CALM_S:
                self._openings = 0
            self._openings += 1
            self.reopens_s = now + min(PAUSE_MAX_S, self.config.open_s * 2.0 ** min(self._openings - 1, 10))
            self._forget()
        elif after is BreakerState.CLOSED:
            self._forget()
            self._closed_s = now
        return True

    def __repr__(self) -> str:
        return f"Breaker({self.state.value}, openings={self._openings})"
