"""The search for the highest concurrency that keeps a latency target: grow until it breaks, back off, confirm.

Concurrency doubles while the target holds and throughput still grows; where it breaks, the middle of the last step is
tried once to place the break. The candidate is a quarter below the break (20-30 % of headroom for bursts), and a longer
run must confirm it; each failure takes another quarter off. A cache that is full, or evicts, breaks the target too:
its next burst would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.loadtest.curve import Point

GROWTH = 2.0
BACK_OFF = 0.75
STILL_GROWS = 1.05  # less than this for twice the load is saturation
KV_LOW, KV_HIGH = 0.40, 0.70  # of the cache at steady peak
KV_FULL = 0.95


@dataclass(frozen=True, slots=True)
class Aim:
    """The target. `attainment` is the share of requests that must meet it."""

    itl_ms: float
    ttft_ms: float
    attainment: float = 0.95
    concurrency_max: int = 1024


@dataclass(frozen=True, slots=True)
class Step:
    """The next run."""

    concurrency: int
    phase: str  # grow, narrow, confirm


@dataclass(frozen=True, slots=True)
class Trial:
    """A run and what is wrong with it; nothing: the target holds."""

    step: Step
    point: Point
    problems: tuple[str, ...]

    @property
    def held(self) -> bool:
        return not self.problems


def judge(point: Point, aim: Aim, confirming: bool) -> tuple[str, ...]:
    """Why this point does not keep the target. Memory above its range fails a confirmation only."""
    failed = f"{1 - point.success_rate:.1%} of requests failed"
    if point.tokens_per_s <= 0:
        return (failed,)
    found = [failed] if point.success_rate < 1 else []
    if point.good_ratio is not None and point.good_ratio < aim.attainment:
        found.append(f"only {point.good_ratio:.1%} of requests within the target ({_against(point, aim)})")
    if point.preemptions:
        found.append(f"the engine evicted {point.preemptions:,} sequences")
    if point.kv_peak is not None and point.kv_peak >= KV_FULL:
        found.append(f"the KV cache was {point.kv_peak:.0%} full")
    elif confirming and point.kv_mean is not None and point.kv_mean > KV_HIGH:
        found.append(f"{point.kv_mean:.0%} of the KV cache in use, above {KV_HIGH:.0%}")
    return tuple(found)


def _against(point: Point, aim: Aim) -> str:
    pairs = (("TTFT p99", point.ttft_p99_ms, aim.ttft_ms), ("ITL p99", point.tpot_p99_ms, aim.itl_ms))
    return ", ".join(f"{name} {value:.0f} of {bound:g} ms" for name, value, bound in pairs if value is not None)


class Search:
    """Ask `next()`, measure it, `heard(point)`; None ends it. `confirmed` is the answer, if there is one."""

    def __init__(self, aim: Aim, start: int = 1) -> None:
        self.aim = aim
        self.trials: list[Trial] = []
        self.confirmed: Trial | None = None
        self.saturated = False
        self._held = 0
        self._pending: Step | None = Step(start, "grow")

    def next(self) -> Step | None:
        return self._pending

    def heard(self, point: Point) -> Trial:
        """The figures of the run that `next` named."""
        step = self._pending
        assert step is not None
        trial = Trial(step, point, judge(point, self.aim, step.phase == "confirm"))
        self.trials.append(trial)
        if trial.held:
            self._held = max(self._held, step.concurrency)
        self._pending = self._after(trial)
        return trial

    def _after(self, trial: Trial) -> Step | None:
        step = trial.step
        if step.phase == "confirm":
            if trial.held:
                self.confirmed = trial
                return None
            return self._confirm(step.concurrency)
        if step.phase == "narrow":
            return self._confirm(step.concurrency if not trial.held else self._broken())
        if not trial.held:
            middle = (self._held + step.concurrency) // 2
            return Step(middle, "narrow") if self._held < middle else self._confirm(step.concurrency)
        if self._flat() or step.concurrency >= self.aim.concurrency_max:
            self.saturated = self._flat()
            best = self.trials[-2] if self.saturated else trial
            return Step(best.step.concurrency, "confirm")
        return Step(min(int(step.concurrency * GROWTH), self.aim.concurrency_max), "grow")

    def _broken(self) -> int:
        """The lowest concurrency that broke."""
        return min(trial.step.concurrency for trial in self.trials if not trial.held)

    def _flat(self) -> bool:
        """Twice the load gave hardly more throughput: the engine is full, and only the queue grows."""
        grown = [trial.point.tokens_per_s for trial in self.trials if trial.step.phase == "grow"]
        return len(grown) > 1 and grown[-1] < STILL_GROWS * grown[-2]

    def _confirm(self, broken: int) -> Step | None:
        """A quarter below `broken`; None when there is nothing below one."""
        candidate = min(int(broken * BACK_OFF), broken - 1)
        return Step(candidate, "confirm") if candidate >= 1 else None


@dataclass(frozen=True, slots=True)
class UseCase:
    """A setting for one purpose, and why."""

    name: str
    concurrency: int
    reason: str


NEAR_SINGLE = 1.10
NEAR_TOP = 0.90


def use_cases(trials: Sequence[Trial], confirmed: Trial | None) -> list[UseCase]:
    """The best setting for latency, throughput, balance and cost, among those that were measured without failures."""
    ran = sorted(
        (one for one in trials if one.point.success_rate >= 1 and one.point.tokens_per_s > 0),
        key=lambda one: one.step.concurrency,
    )
    if not ran:
        return []
    first = ran[0].point
    top = max(one.point.tokens_per_s for one in ran)
    quick = [one for one in ran if (one.point.e2e_p50_ms or 0.0) <= NEAR_SINGLE * (first.e2e_p50_ms or 0.0)]
    fast = next(one for one in ran if one.point.tokens_per_s >= 0.97 * top)
    cheap = next(one for one in ran if one.point.tokens_per_s >= NEAR_TOP * top)
    most = f"{fast.point.tokens_per_s:,.0f} tokens/s, however long requests wait"
    found = [
        UseCase("latency", quick[-1].step.concurrency, "a request takes at most 10 % longer than alone"),
        UseCase("throughput", fast.step.concurrency, most),
        UseCase("cost", cheap.step.concurrency, "tokens at most 10 % dearer than the cheapest, at the least latency"),
    ]
    if confirmed is not None:
        reason = f"{confirmed.point.tokens_per_s:,.0f} tokens/s within the target, with headroom"
        found.insert(1, UseCase("balanced", confirmed.step.concurrency, reason))
    return found
