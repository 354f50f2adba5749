"""State of one upstream as routing sees it.

usable = healthy, not draining, not cut off by its breaker; available = usable with a seat free. An exchange that was
cancelled at an engine which stops late leaves `in_flight` but keeps its seats as `aborting`. In half-open state the one
request let through is the trial: only its result moves the breaker, exchanges from before the opening tell nothing new.
"""

from __future__ import annotations

from proxy.routing.breaker import Breaker, BreakerConfig, BreakerState


class Upstream:
    """One inference server: who it serves, whether it may be used, what it holds."""

    def __init__(self, name: str, models: tuple[str, ...] | None, weight: float, breaker: BreakerConfig) -> None:
        self.name = name
        self.models = models
        self.weight = weight
        self.breaker = Breaker(breaker)
        self.healthy = True
        self.draining = False
        self.in_flight = 0
        self.aborting = 0
        self.seats_taken = 0
        self._trial: int | None = None

    @property
    def usable(self) -> bool:
        return self.healthy and not self.draining and self.breaker.state is not BreakerState.OPEN

    def serves(self, model: str) -> bool:
        """An upstream whose models are not known yet may serve any."""
        return self.models is None or model in self.models

    def free_seats(self, limit: int) -> int:
        """Seats that new work may take now; never negative."""
        state = self.breaker.state
        if state is not BreakerState.CLOSED and (state is BreakerState.OPEN or self._trial is not None):
            return 0
        free = limit - self.seats_taken
        return free if free > 0 and self.healthy and not self.draining else 0

    def take(self, ticket_id: int, seats: int) -> None:
        """An exchange starts."""
        self.in_flight += 1
        self.seats_taken += seats
        if self.breaker.state is BreakerState.HALF_OPEN:
            self._trial = ticket_id

    def give(self, seats: int) -> None:
        """An exchange is over and its seats are free."""
        self.in_flight -= 1
        self.seats_taken -= seats

    def linger(self) -> None:
        """An exchange is cancelled but the engine may still work on it."""
        self.in_flight -= 1
        self.aborting += 1

    def aborted(self, seats: int) -> None:
        """The engine has stopped work on a cancelled exchange."""
        self.aborting -= 1
        self.seats_taken -= seats

    def good(self, now: float) -> bool:
        """A success while nothing is on trial: `judge` without a question. False: `judge` it."""
        return self._trial is None and self.breaker.good(now)

    def judge(self, ticket_id: int, ok: bool | None, now: float) -> bool:
        """An exchange told whether the upstream works (None: it cannot tell). True when the breaker moved."""
        trial = self._trial is not None and ticket_id == self._trial
        if trial:
            self._trial = None
        breaker = self.breaker
        if ok is None or (breaker.state is not BreakerState.CLOSED and not trial):
            return False
        return breaker.result(ok, now)

    def __repr__(self) -> str:
        state = "usable" if self.usable else "unusable"
        return f"Upstream({self.name}, {state}, in_flight={self.in_flight}, aborting={self.aborting})"
