"""How many requests may run at one upstream at once.

Once per tick: measure the latency x at n running requests, fit the step time (`step_model`), let the law move the
limit L (`limits`), then bound it by what the outer loops learnt (`outer_loops`). Every change is a `Step` with its
reason. The clock of every sample starts at dispatch, only successes count, and a tick in which demand rather than L
held requests back never raises L. Above L stand the memory ceiling and the configured maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Final

from proxy.admission import outer_loops as outer
from proxy.admission.engine_cap import EngineCap
from proxy.admission.limits import (
    FAILURE_REASONS,
    AimdLaw,
    Change,
    LimitConfig,
    ModelLaw,
    Reason,
    Signal,
    Target,
    law_of,
)
from proxy.admission.margin import MarginLoop
from proxy.admission.measure import Measure, Meter
from proxy.admission.sizer_state import SizerMemory, SizerState, TickInput
from proxy.admission.step_model import StepModel
from proxy.types import Direction, Failure, Sample, Step, Work

__all__ = ["AdaptiveBatchSizer", "SizerMemory", "SizerState", "TickInput"]

BINDING_SHARE: Final = 0.3  # of the tick with a request waiting for a seat
BINDING_USE: Final = 0.85  # of the limit in flight
DRAIN_S: Final = 10.0  # a cut relative to L waits for the last one to drain, at most this long
OUTPUT_MIN: Final = 2  # tokens of a request whose TPOT may judge the margin: one has none
RESTORE_SHARE: Final = 0.7
SHARED_WEIGHT: Final = 0.3
TRUST_TICKS: Final = 8  # a young fit is trusted to twice the largest n seen, an older one to four times


class AdaptiveBatchSizer:
    """The limit of one upstream. Times are seconds of one monotonic clock, handed in as `now`."""

    def __init__(
        self, upstream: str, config: LimitConfig, target: Target, now: float, shared_by: int | None = 1
    ) -> None:
        self.upstream = upstream
        self._epoch = outer.Epoch(now)
        self._config = config
        self._target = target
        self._law = law_of(config)
        self._fallback = AimdLaw()
        self._streams = StepModel()
        self._service = StepModel()
        self._meter = Meter(now)
        self._margin = MarginLoop(target.attainment)
        self._prefill = outer.PrefillLoop()
        self._cap = EngineCap()
        self._memory = outer.MemoryFactor()
        self._peak = outer.Peak()
        self._sharing = outer.Sharing(shared_by)
        self._fraction = outer.FractionalSeat()
        self._ceiling: int | None = None
        self._limit = float(max(config.initial, config.minimum))
        self._held = False
        self._last: TickInput | None = None
        self._binding = False
        self._rho = 2.0
        self._drag = outer.Drag()
        self._price = outer.Price()
        self._itl_s: float | None = None
        self._ttft_s: float | None = None
        self._reason: Reason | None = None
        self._raised_at_s = now
        self._rest = outer.Rest(now)
        self._cut_at_s = -inf
        self._hot_ticks = 0
        self._mix: int | None = None

    def __repr__(self) -> str:
        return f"AdaptiveBatchSizer({self.upstream!r}, limit={self.limit:.1f}, epoch={self.epoch}, {self._reason})"

    # -- What the dispatcher asks --

    @property
    def epoch(self) -> int:
        """Number of the present conditions; a ticket keeps the one it was dispatched under."""
        return self._epoch.number

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch.number = number

    @property
    def limit(self) -> float:
        """The limit that holds now, the memory ceiling included."""
        return max(float(self._config.minimum), min(self._limit, self._hard_bound()))

    @property
    def seats(self) -> int:
        """Requests that may run at once: the limit rounded down, or up while its fraction is owed."""
        return max(int(self.limit + 1e-9), 1) + self._fraction.extra

    @property
    def prefill_tokens_max(self) -> float:
        """Prompt tokens that may wait for their first token inside the engine."""
        return self._prefill.tokens_max

    @property
    def kv_factor(self) -> float:
        """Share phi of the KV capacity that admission may promise."""
        return self._memory.factor

    def prefill_rate(self) -> float | None:
        """Prompt tokens per second at the present load; None before the first fit."""
        return self._streams.prefill_rate(self._price.running)

    def service_cost(self, prompt_tokens: float, output_tokens: float) -> float:
        """Engine-seconds that a request takes (see `Price`)."""
        return self._price.cost(self._streams.coefficients, prompt_tokens, output_tokens)

    def state(self) -> SizerState:
        """A frozen view for operators."""
        fit = self._streams.coefficients
        now = (self.limit, self._held, self.epoch, self._margin.margin, self._itl_s, self._ttft_s)
        fitted = (self._streams.fit_ratio, self._reason)
        if fit is None:
            return SizerState(*now, None, None, None, None, *fitted)
        return SizerState(*now, fit.kappa, fit.a, fit.b, fit.d, *fitted)

    # -- What the dispatcher tells --

    def set_ceiling(self, seats: int | None) -> None:
        """The hard bound from memory; the next tick reports it as a step if it lowers the limit."""
        self._ceiling = seats

    def observe(self, sample: Sample, now: float) -> Step | None:
        """One finished success. Only the seed law moves here; the others learn for their next tick."""
        prompt_tokens = max(sample.prompt_tokens - sample.cached_tokens, 0)
        pressure = self._meter.sample(sample, self._target, self._streams.prefill_s(prompt_tokens), now)
        if sample.ttft_s is not None and sample.work is Work.GENERATE:
            self._ttft_s = sample.ttft_s if self._ttft_s is None else 0.9 * self._ttft_s + 0.1 * sample.ttft_s
            self._prefill.observe(sample.ttft_s, sample.prefill_out_tokens + prompt_tokens, self._itl_s or 0.0)
        if pressure is None:
            return None
        judges = sample.output_tokens >= OUTPUT_MIN or sample.work is Work.EMBED
        begun_s = now - sample.duration_s
        if judges and self._binding and sample.epoch >= self.epoch and not self._epoch.slower(begun_s):
            self._margin.observe(pressure, begun_s, now)
        if self._held:
            return None
        return self._apply(self._law.sampled(self._limit, pressure, self._binding), now)

    def tick(self, given: TickInput) -> list[Step]:
        """Once per 0.5-1 s: learn, then move the limit. The steps, in the order they were taken."""
        now = given.now
        self._last = given
        self._rho = given.mean_prompt_tokens / max(given.mean_output_tokens, 1.0)
        wanted = given.queue_share >= BINDING_SHARE
        self._binding = wanted and given.in_flight >= BINDING_USE * self.seats
        peak = self._peak.tick(given.in_flight, now)
        self._sharing.tick(given.engine_total_running, given.in_flight, now)
        self._cap.tick(given.engine, now, self._raised_at_s, given.mean_output_tokens)
        preempted = self._memory.tick(given.engine, now, wanted)
        measure = self._measure(given)
        if self._mix is not None and given.mix != self._mix:
            self._shift(now)
        self._mix = given.mix
        if measure is not None:
            self._learn(measure, given, preempted)
        waiting = 0 if given.engine is None else given.engine.waiting or 0
        room, prompt = self._streams.prefill_room(self._target.itl_s), given.mean_prompt_tokens
        if measure is not None and self._paced(measure, given, wanted):
            self._prefill.alone(measure.latency_s / (self._target.itl_s * self._margin.margin))
        self._prefill.tick(self.prefill_rate(), self._target.ttft_s, wanted, waiting, room, prompt)
        if self._held or self._config.mode == "fixed":
            self._fraction.restart()
            return []
        rules: tuple[Callable[[], Change | None], ...] = (
            self._bound,
            lambda: self._preempted(given) if preempted else None,
            lambda: self._emergency(measure, given),
            lambda: self._decide(measure, given),
            lambda: self._decay(peak),
        )
        steps = [self._apply(rule(), now) for rule in rules]
        self._fraction.tick(self.limit, given.in_flight, wanted)
        return [step for step in steps if step is not None]

    def overloaded(self, now: float, failure: Failure) -> Step | None:
        """The engine refused, timed out or reset: cut by a quarter, once until the cut has drained.

        A refused connection or a stale one says nothing about load.
        """
        reason = FAILURE_REASONS.get(failure)
        if reason is None or self._held or self._config.mode == "fixed" or now - self._cut_at_s < DRAIN_S:
            return None
        in_use = self._limit if self._last is None else max(float(self._last.in_flight), 1.0)
        if reason is Reason.SHED:
            self._cap.refused(in_use, now)
        self._cut_at_s = now
        return self._apply(Change(0.75 * min(self._limit, in_use), reason), now)

    def hold(self, seats: int | None, now: float) -> Step | None:
        """Pin the limit; None lets it go again from where it stands, or back to where a fixed one belongs."""
        self._held = seats is not None
        if seats is not None:
            return self._apply(Change(float(seats), Reason.HELD), now)
        if self._config.mode == "fixed":
            return self._apply(Change(float(self._config.initial), Reason.RECONFIGURED), now)
        return None

    def reconfigure(self, config: LimitConfig, target: Target, now: float) -> Step | None:
        """Take new settings; what was learnt about the engine stays."""
        if config != self._config:
            self._law = law_of(config)
        if target != self._target:
            self._margin = MarginLoop(target.attainment)
        self._config, self._target = config, target
        self._open_epoch(now)
        start = float(config.initial) if config.mode == "fixed" else self._limit
        return self._apply(Change(start, Reason.RECONFIGURED), now)

    def memory(self) -> SizerMemory:
        """What a restarted process may start from."""
        return SizerMemory(self.limit, self._margin.margin, self._streams.coefficients)

    def restore(self, memory: SizerMemory, now: float) -> Step | None:
        """Start from an earlier run, at 0.7 of its limit."""
        fit = memory.coefficients
        if fit is not None:
            self._streams.restore(fit)
            self._margin.resume(memory.margin, fit, self._target.itl_s, now)
        restored = Change(RESTORE_SHARE * memory.limit, Reason.RESTORED)
        return None if self._config.mode == "fixed" else self._apply(restored, now)

    # -- Signals --

    def _measure(self, given: TickInput) -> Measure | None:
        """The signal of the tick, on the engine's total where others share it: their prefill is not seen."""
        it = given
        sums = (it.duration_s, it.gap_s, it.tokens, it.running, it.prefill_tokens)
        measure = self._meter.tick(it.now, *sums, it.in_flight, it.prefill_out_tokens, it.mean_prompt_tokens)
        if measure is None or self._shares(given) == 1:
            return measure
        ratio = max((given.engine_total_running or 0.0) / max(measure.running, 1.0), 1.0)
        return replace(measure, running=measure.running * ratio, weight=SHARED_WEIGHT * measure.weight)

    def _learn(self, measure: Measure, given: TickInput, preempted: bool) -> None:
        self._price.running += 0.2 * (measure.running - self._price.running)
        if not measure.service:
            self._itl_s = measure.latency_s if self._itl_s is None else 0.5 * (self._itl_s + measure.latency_s)
        if preempted or measure.running < 1:
            return
        model = self._service if measure.service else self._streams
        seen = measure.service or measure.weight == 1
        prefill = measure.prefill_per_step if seen else self._rho * measure.running
        rests = self._rest.tick(given.in_flight, self.seats, self._binding, given.now)
        if not measure.service and measure.weight == 1 and rests:
            self._drag.tick(self._rho, measure, given.mean_prompt_tokens)
        model.learn(measure.latency_s, measure.running, prefill, given.duration_s, measure.weight)
        fit = model.coefficients
        if fit is not None:
            target_s, rho = (self._target.ttft_s, 0.0) if measure.service else (self._target.itl_s, self._rho)
            self._margin.expect(fit, target_s, rho, min(self._limit, 2 * measure.running), given.now)
        if self._epoch.follow(model.kappa_log, given.now):
            self._margin.restart()

    def _open_epoch(self, now: float) -> None:
        self._epoch.open(now)
        self._margin.restart()

    def _shift(self, now: float) -> None:
        """Other requests come: nothing that the earlier ones met judges them, and the limit ramps to their level."""
        self._epoch.open(now)
        self._margin.shifted()
        if isinstance(self._law, ModelLaw):
            self._law.restart()

    # -- Rules, in the order of a tick --

    def _bound(self) -> Change | None:
        if self._limit > self._hard_bound():
            return Change(self._hard_bound(), Reason.CEILING)
        return Change(self._cap.seats, Reason.ENGINE_CAP) if self._limit > self._cap.seats else None

    def _preempted(self, given: TickInput) -> Change | None:
        goal = 0.85 * max(given.running, 1.0)
        self._cut_at_s = given.now
        return Change(goal, Reason.PREEMPTION) if goal < self._limit else None

    def _emergency(self, measure: Measure | None, given: TickInput) -> Change | None:
        """x above 1.6 T for three ticks, the part that prefill explains taken out; once per drained cut."""
        if measure is None:
            return None
        prefill_s = self._streams.prefill_s(measure.prefill_per_step)
        target_s = self._target.ttft_s if measure.service else self._target.itl_s
        self._hot_ticks = self._hot_ticks + 1 if measure.latency_s - prefill_s > 1.6 * target_s else 0
        if self._hot_ticks < 3 or self._draining(given):
            return None
        self._hot_ticks, self._cut_at_s = 0, given.now
        self._open_epoch(given.now)
        return Change(0.75 * min(self._limit, max(given.running, 1.0)), Reason.EMERGENCY)

    def _decide(self, measure: Measure | None, given: TickInput) -> Change | None:
        if measure is None:
            return self._recover(given)
        blind = self._sharing.active and self._shares(given) == 1
        steering = not isinstance(self._law, ModelLaw) or not (blind or self._streams.poor)
        law = self._law if steering else self._fallback
        ramping = not (isinstance(law, ModelLaw) and law.arrived)
        change = law.ticked(self._limit, self._signal(measure, given))
        if ramping and isinstance(law, ModelLaw) and law.arrived:
            self._open_epoch(given.now)  # requests of the ramp ran amid a burst of prefill: they judge no margin
        if change is not None and change.limit > self._limit and self._draining(given):
            return None
        return change

    def _recover(self, given: TickInput) -> Change | None:
        """No latency steers this work (audio): climb back to the start value, a seat per drained cut."""
        if self._streams.ticks or self._service.ticks or not self._binding or self._limit >= self._config.initial:
            return None
        if given.now - max(self._cut_at_s, self._raised_at_s) < DRAIN_S:
            return None
        return Change(min(self._limit + 1, self._config.initial), Reason.RECOVERY)

    def _decay(self, peak: int) -> Change | None:
        most = 2.0 * peak + 8
        if self._limit <= most:
            return None
        if isinstance(self._law, ModelLaw):
            self._law.restart()
        return Change(max(most, 0.9 * self._limit), Reason.IDLE)

    # -- Parts of the rules --

    def _paced(self, measure: Measure, given: TickInput, wanted: bool) -> bool:
        """Requests wait beside free seats and memory: the bound on outstanding prefill holds them."""
        most = self.seats if given.kv_limit_seats is None else min(self.seats, given.kv_limit_seats)
        full = given.prefill_out_tokens + given.mean_prompt_tokens > self.prefill_tokens_max
        return wanted and full and given.in_flight < 0.95 * most - 1 and not measure.service

    def _signal(self, measure: Measure, given: TickInput) -> Signal:
        model = self._service if measure.service else self._streams
        target_s = self._target.ttft_s if measure.service else self._target.itl_s
        rho = 0.0 if measure.service else self._rho * self._drag.factor
        shares = self._shares(given)
        blind = self._sharing.active and shares == 1
        predicted = model.seats_at(target_s * self._margin.margin, rho)
        trust = 2.0 if model.ticks < TRUST_TICKS else 4.0
        memory_seats = inf if given.kv_limit_seats is None else given.kv_limit_seats
        self._price.full = min(predicted or 1.0, memory_seats)
        return Signal(
            now=given.now,
            latency_s=measure.latency_s,
            target_s=target_s,
            aim_s=target_s * (1.0 if blind else self._margin.margin),  # margins of their own would part the shares
            running=measure.running / shares,
            in_flight=given.in_flight,
            binding=self._binding,
            bound=min(self._cap.seats, self._hard_bound(), memory_seats),
            predicted=None if predicted is None else predicted / shares,
            trusted=(trust * model.running_max + 2) / shares,
            marginal_gain=model.marginal_gain(self._limit * shares, rho),
            token_rate=given.tokens / given.duration_s,
            gain_up=0.2 if shares > 1 else None,
            total=given.engine_total_running if blind else None,
        )

    def _shares(self, given: TickInput) -> int:
        """How many proxies the fitted total is split among: 1 while their number or that total is unknown."""
        return self._sharing.shares if given.engine_total_running else 1

    def _hard_bound(self) -> float:
        ceiling, maximum = self._ceiling, self._config.maximum
        bound = inf if ceiling is None else float(ceiling)
        return bound if maximum is None or bound < maximum else float(maximum)

    def _draining(self, given: TickInput) -> bool:
        """The last relative cut still shows: more run than the limit allows."""
        return given.now - self._cut_at_s < DRAIN_S and given.in_flight > self._limit

    def _apply(self, change: Change | None, now: float) -> Step | None:
        """Move the limit, within its bounds; None when that changes nothing."""
        if change is None:
            return None
        before = self._limit
        after = max(min(change.limit, self._hard_bound()), float(self._config.minimum))
        if after == before:
            return None
        self._rest.stepped(before, after, now)
        self._limit, self._reason = after, change.reason
        direction = Direction.UP if after > before else Direction.DOWN
        self._raised_at_s = now if after > before else self._raised_at_s
        return Step(self.upstream, before, after, direction, change.reason, now)
