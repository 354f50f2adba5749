"""The laws that move an upstream's limit L (a float; it is floored only where a request is admitted).

    fixed   L stays at `initial`.
    seed    every `interval` samples: mean pressure < deadband: L *= increase; mean pressure > 1: L *= decrease.
            The names of the original guide: min_batch_size = minimum, max_batch_size = maximum, target_latency_ms =
            1000 * target, adjustment_interval = interval. L is never truncated: int(1 * 1.5) = 1 would freeze it.
    aimd    per tick on x smoothed with gain 0.5: x < 0.93 Tm and binding: L += max(1, sqrt(L)/4);
            x > 0.97 Tm: L = 0.9 min(L, n), one cut per 3 s. Between proxies that share an engine the step is 1/64 of
            what it runs for all of them, the same for each: then differences shrink with every cut (Chiu, Jain 1989).
    model   L follows N = (Tm/kappa - a)/(b + d rho), the inverse of the fitted step time (see `step_model`).

x = measured latency, T = target, Tm = T * margin, pressure = x / T, n = running requests, binding = the limit and not
demand holds requests back. A raise needs a binding tick (RFC 7661: an unused window proves nothing); cuts relative to
L wait until the last one has drained or 10 s have passed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from math import isinf, sqrt
from typing import Final, Literal, NamedTuple, Protocol

from proxy.types import Failure

SHARED_STEPS: Final = 64


class Reason(StrEnum):
    """Why a limit changed: the closed label set of limit changes."""

    HEADROOM = "headroom"  # latency leaves room below the target
    OVER_TARGET = "over_target"  # latency is, or is predicted to be, above the target
    EMERGENCY = "emergency"  # latency far above the target for three ticks
    IDLE = "idle"  # the limit was far above what has been used
    RECOVERY = "recovery"  # back towards the start value after a cut, where no latency signal exists
    PREEMPTION = "preemption"  # the engine recomputes work: its memory is overcommitted
    ENGINE_CAP = "engine_cap"  # requests wait inside the engine
    CEILING = "ceiling"  # memory or configured maximum
    SHED = "shed"  # the engine refused work
    TIMEOUT = "timeout"
    RESET = "reset"
    HELD = "held"  # pinned by the operator
    RESTORED = "restored"  # resumed from the last run
    RECONFIGURED = "reconfigured"


FAILURE_REASONS: Final = {
    Failure.SHED: Reason.SHED,
    Failure.TIMEOUT: Reason.TIMEOUT,
    Failure.RESET: Reason.RESET,
}


@dataclass(frozen=True, slots=True)
class SeedLawConfig:
    """`interval` in samples; `increase` and `decrease` are factors; `deadband` a share of the target."""

    interval: int = 10
    increase: float = 1.5
    decrease: float = 0.7
    deadband: float = 0.8


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """Seats at one upstream: start, floor and highest value (None: memory alone bounds it)."""

    mode: Literal["adaptive", "fixed"] = "adaptive"
    law: Literal["model", "aimd", "seed"] = "model"
    initial: int = 8
    minimum: int = 1
    maximum: int | None = None
    seed_law: SeedLawConfig = field(default_factory=SeedLawConfig)


@dataclass(frozen=True, slots=True)
class Target:
    """Seconds per output token, seconds from dispatch to first token, share of requests that must meet them."""

    itl_s: float = 0.05
    ttft_s: float = 0.5
    attainment: float = 0.95


@dataclass(frozen=True, slots=True)
class Signal:
    """What a law sees once per tick.

    `latency_s` is x, `target_s` T and `aim_s` Tm. `running` is n. `bound` is the lowest of
    the engine's cap, the memory ceiling and the configured maximum. `predicted` is the inverse of the fit at Tm (None:
    no fit), `trusted` how far the data reach, `marginal_gain` the fitted d(ln throughput)/d(ln n) at L.
    """

    now: float
    latency_s: float
    target_s: float
    aim_s: float
    running: float
    in_flight: int
    binding: bool
    bound: float
    predicted: float | None = None
    trusted: float = 0.0
    marginal_gain: float = 1.0
    token_rate: float = 0.0
    gain_up: float | None = None  # shared upstream: at most this relative step per tick
    total: float | None = None  # what the engine runs for all proxies, where their number is unknown


class Change(NamedTuple):
    limit: float
    reason: Reason


class Law(Protocol):
    def sampled(self, limit: float, pressure: float, binding: bool) -> Change | None:
        """One finished success with pressure = latency / target."""

    def ticked(self, limit: float, signal: Signal) -> Change | None:
        """One tick."""


class FixedLaw:
    """Holds the limit."""

    def sampled(self, limit: float, pressure: float, binding: bool) -> Change | None:
        return None

    def ticked(self, limit: float, signal: Signal) -> Change | None:
        return None


class SeedLaw:
    """Multiplicative steps on the mean of the last `interval` samples."""

    def __init__(self, config: SeedLawConfig) -> None:
        self._config = config
        self._total = 0.0
        self._count = 0

    def sampled(self, limit: float, pressure: float, binding: bool) -> Change | None:
        self._total += pressure
        self._count += 1
        if self._count < self._config.interval:
            return None
        mean = self._total / self._count
        self._total, self._count = 0.0, 0
        if mean > 1.0:
            return Change(limit * self._config.decrease, Reason.OVER_TARGET)
        if mean < self._config.deadband and binding:
            return Change(limit * self._config.increase, Reason.HEADROOM)
        return None

    def ticked(self, limit: float, signal: Signal) -> Change | None:
        return None


class AimdLaw:
    """Additive raise, multiplicative cut, on the smoothed latency of ticks."""

    CUT_PAUSE_S = 3.0

    def __init__(self) -> None:
        self._smooth_s: float | None = None
        self._cut_at_s = float("-inf")

    def sampled(self, limit: float, pressure: float, binding: bool) -> Change | None:
        return None

    def ticked(self, limit: float, signal: Signal) -> Change | None:
        last_s = signal.latency_s if self._smooth_s is None else self._smooth_s
        self._smooth_s = 0.5 * last_s + 0.5 * signal.latency_s
        if self._smooth_s > 0.97 * signal.aim_s:
            if signal.now - self._cut_at_s < self.CUT_PAUSE_S:
                return None
            self._cut_at_s = signal.now
            return Change(0.9 * min(limit, max(signal.running, 1.0)), Reason.OVER_TARGET)
        if self._smooth_s < 0.93 * signal.aim_s and signal.binding:
            step = sqrt(limit) / 4 if signal.total is None else signal.total / SHARED_STEPS
            return Change(limit + max(1.0, step), Reason.HEADROOM)
        return None


class ModelLaw:
    """Follows the predicted seats: doubling until the first arrival, then +25 % per tick; -30 % per tick at most.

    Two vetoes stop a raise where the target is loose: the fitted marginal gain is below 0.15 (elasticity above 0.85
    buys latency and no throughput), or measured token rate falls while n rises over the last 30 binding ticks. Neither
    is asked while a token takes less than a fiftieth of the target: no engine that batches is at its end there, what
    limits is the way to it, and a queue costs more than it saves.
    """

    DEAD_BAND = 0.03
    AT_ONCE = 0.02  # of the target
    PLATEAU_TICKS = 30

    def __init__(self) -> None:
        self.arrived = False
        self._history: deque[tuple[float, float]] = deque(maxlen=self.PLATEAU_TICKS)

    def restart(self) -> None:
        """Ramp quickly again: the limit has decayed while idle, the fit has not."""
        self.arrived = False

    def sampled(self, limit: float, pressure: float, binding: bool) -> Change | None:
        return None

    def ticked(self, limit: float, signal: Signal) -> Change | None:
        if signal.predicted is None:
            self._history.clear()  # another engine answers
            return None
        if signal.binding:
            self._history.append((signal.running, signal.token_rate))
        goal = max(1.0, min(signal.predicted, signal.trusted))
        if goal < (1 - self.DEAD_BAND) * limit:
            self.arrived = True
            return Change(max(goal, 0.7 * limit), Reason.OVER_TARGET)
        goal = min(goal, signal.bound)
        if goal <= (1 + self.DEAD_BAND) * limit:
            self.arrived = self.arrived or signal.predicted <= signal.trusted
            return None
        if not signal.binding or self._plateau(limit, signal):
            return None
        ramp = 0.25 if self.arrived else 1.0
        step = max(2.0, ramp * limit) if signal.gain_up is None else max(1.0, signal.gain_up * limit)
        return Change(min(goal, limit + step), Reason.HEADROOM)

    def _plateau(self, limit: float, signal: Signal) -> bool:
        loose = isinf(signal.target_s) or (
            (signal.predicted or 0.0) > 2 * limit and signal.latency_s > self.AT_ONCE * signal.target_s
        )
        return loose and (signal.marginal_gain < 0.15 or self._throughput_falls())

    def _throughput_falls(self) -> bool:
        if len(self._history) < self.PLATEAU_TICKS:
            return False
        mean_n = sum([n for n, _ in self._history]) / self.PLATEAU_TICKS
        return sum([(n - mean_n) * rate for n, rate in self._history]) < 0


def law_of(config: LimitConfig) -> Law:
    """The law that a configuration names."""
    if config.mode == "fixed":
        return FixedLaw()
    if config.law == "seed":
        return SeedLaw(config.seed_law)
    return AimdLaw() if config.law == "aimd" else ModelLaw()
