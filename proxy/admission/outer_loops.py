"""The slow loops around the limit: prefill tokens, memory factor, peak of use, and what they go by.

prefill  Pmax = scale * TTFT target * R, scale <= 0.8 (the step that runs at dispatch has to end first), R the
         fitted prefill rate within 0.5..1.5 of its mean; and at most two steps' worth of what a step takes beside
         decoding within the target, (T/kappa - a) / d, or two prompts: a ramp that is paced so keeps the target
         of those who run (flow control on activations, arXiv 2604.11001). Where this bound alone keeps seats empty
         below 0.9 of the aim it grows, up to eight times: a step may bring several tokens (speculative decoding).
         The residual r = TTFT - (outstanding + own prompt) / R - x shows waiting that the model does not explain
phi      share of KV memory that the future-peak test may promise: * 0.88 on a preemption (recomputed work);
         else per 5 s with requests waiting, 20 s after usage was last 0.92 or more, +2 % below 0.80, else +0.8 %
         (a usage of 0 is a gauge that tells nothing yet); within 0.5..1.3, above 1
         it discounts expected growth (see `ledger`): not all live requests last as long as expected at once
"""

from __future__ import annotations

from collections import deque
from math import exp, inf, sqrt
from typing import Final

from proxy.admission.measure import Measure
from proxy.admission.step_model import CHUNK_TOKENS, Coefficients
from proxy.types import Telemetry

SCALE_MAX: Final = 0.8
STEPS_AHEAD, PROMPTS_AHEAD = 2.0, 2.0


class PrefillLoop:
    """Bounds the prompt tokens that wait for their first token inside the engine."""

    SLACK = 0.9
    PACE_MAX = 8.0

    def __init__(self) -> None:
        self.tokens_max = 2.0 * CHUNK_TOKENS
        self._scale = SCALE_MAX
        self._pace = 1.0
        self._rate: float | None = None
        self._residuals: list[float] = []
        self._late_ticks = 0

    def observe(self, ttft_s: float, ahead_tokens: float, itl_s: float) -> None:
        """One first token: its TTFT, prompt tokens outstanding at dispatch (own included), present ITL."""
        if self._rate is not None:
            self._residuals.append(ttft_s - ahead_tokens / self._rate - itl_s)

    def tick(
        self, rate: float | None, ttft_target_s: float, binding: bool, waiting: int, room: float, prompt: float
    ) -> None:
        """`rate` is the fitted prefill rate in tokens/s, `waiting` the engine's own queue (0: none or unknown),
        `room` the prompt tokens that one step takes within the target, `prompt` the mean prompt."""
        if rate is None:
            return
        mean = rate if self._rate is None else self._rate
        gain = 0.1 if rate > mean else 0.5  # an early fit may promise too much; a lower rate is learnt at once
        self._rate = mean + gain * (min(max(rate, 0.5 * mean), 1.5 * mean) - mean)
        late = sorted(self._residuals)[int(0.9 * len(self._residuals))] if self._residuals else None
        self._residuals.clear()
        if late is not None:
            self._late_ticks = self._late_ticks + 1 if late > 0.3 * ttft_target_s and waiting == 0 else 0
        if self._late_ticks >= 3:
            self._scale, self._late_ticks = max(0.8 * self._scale, 0.1), 0
        elif binding:
            self._scale = min(1.02 * self._scale, SCALE_MAX)
        paced = self._pace * max(STEPS_AHEAD * room, PROMPTS_AHEAD * prompt)
        self.tokens_max = min(max(self._scale * ttft_target_s * self._rate, CHUNK_TOKENS), paced)

    def alone(self, pressure: float) -> None:
        """Requests wait beside free seats and memory, held by nothing but this bound; `pressure`: latency / aim."""
        if pressure < self.SLACK:
            self._pace = min(1.1 * self._pace, self.PACE_MAX)
        elif pressure > 1:
            self._pace = max(0.8 * self._pace, 1.0)


class Price:
    """What a request costs, in engine-seconds: kappa (d P + (a/n + b) O), and P : 2 O before the first fit.

    n is what runs once the limit has arrived: priced at the few that run during a ramp, the first requests would seem
    to have had many times the service of later ones.
    """

    PREFILL_TOKEN_S = 4e-5  # before the first fit

    def __init__(self) -> None:
        self.running = 1.0  # lately
        self.full = 1.0  # what the fit and memory let run

    def cost(self, fit: Coefficients | None, prompt_tokens: float, output_tokens: float) -> float:
        if fit is None:
            return self.PREFILL_TOKEN_S * (prompt_tokens + 2 * output_tokens)
        output_s = fit.a / max(self.running, self.full, 1.0) + fit.b
        return fit.kappa * (fit.d * prompt_tokens + output_s * output_tokens)


class Rest:
    """Has the limit been full and still for two seconds? Then what is admitted makes up for what ends."""

    SPAN_S = 2.0

    def __init__(self, now: float) -> None:
        self._moved_s = now

    def stepped(self, before: float, after: float, now: float) -> None:
        """The limit has changed."""
        if abs(after - before) > 0.1 * before:
            self._moved_s = now

    def tick(self, in_flight: int, seats: int, binding: bool, now: float) -> bool:
        if not binding or in_flight > 1.05 * seats + 1:
            self._moved_s = now
        return now - self._moved_s >= self.SPAN_S


class Drag:
    """Prefill tokens per output token, rho, where the lengths of finished requests mislead.

    rho = P / O lags when the mix shifts: those who end first are the old ones, and of these the long ones last. At rest
    the engine itself shows rho = p / n. Both are counted in tokens over the last 8 s at rest: an average over time
    would overrate the steps with much prefill, which are long. The ratio of the two corrects P / O by what exceeds
    15 %, or the standard error of a sum of so few prompts, if that is more: less is noise of the arrivals. The sum of
    k = expected / P prompts has a relative error of sqrt((1 + v^2) / k); their variation v is taken for 1.
    """

    SPAN_S = 8.0
    UNEVEN = 2.0  # 1 + v^2
    DEAD_BAND = 0.15
    DEAD_BAND_MOST = 0.9

    def __init__(self) -> None:
        self._seen = self._expected = 0.0  # prefill tokens
        self._band = self.DEAD_BAND

    def tick(self, rho: float, measure: Measure, prompt: float) -> None:
        """One measure at rest: n and p, beside rho = P / O; `prompt` is P."""
        steps = measure.span_s / measure.latency_s
        expected = rho * measure.running * steps
        if not self._expected:
            self._seen = self._expected = expected / measure.span_s * self.SPAN_S
        keep = exp(-measure.span_s / self.SPAN_S)
        self._seen = keep * self._seen + measure.prefill_per_step * steps
        self._expected = keep * self._expected + expected
        error = sqrt(self.UNEVEN * prompt / self._expected) if self._expected else 0.0
        self._band = min(max(self.DEAD_BAND, error), self.DEAD_BAND_MOST)

    @property
    def factor(self) -> float:
        if self._expected <= 0:
            return 1.0
        ratio = min(max(self._seen / self._expected, 0.25), 4.0)
        return ratio / (1 + self._band) if ratio > 1 + self._band else min(1.0, ratio / (1 - self._band))


class MemoryFactor:
    """phi, the share of KV capacity that admission may promise."""

    PAUSE_S = 5.0
    FULL = 0.92
    CALM_S = 20.0

    def __init__(self) -> None:
        self.factor = 0.90
        self._full_at_s = -inf
        self._preemptions: int | None = None
        self._changed_at_s = -inf

    def tick(self, engine: Telemetry | None, now: float, wanted: bool) -> bool:
        """True when the engine preempted since the last scrape and the limit must follow the cut.

        `wanted`: requests wait for admission, for whatever reason.
        """
        if engine is None or engine.preemptions is None:
            return False
        before, self._preemptions = self._preemptions, engine.preemptions
        if now - self._changed_at_s < self.PAUSE_S:
            return False
        if before is not None and engine.preemptions > before:
            self.factor, self._changed_at_s = max(0.88 * self.factor, 0.5), now
            return True
        usage = engine.kv_usage
        if usage is not None and usage >= self.FULL:
            self._full_at_s = now
        if wanted and usage and now - self._full_at_s > self.CALM_S:
            growth = 1.02 if usage < 0.80 else 1.008
            self.factor, self._changed_at_s = min(growth * self.factor, 1.3), now
        return False


class FractionalSeat:
    """Keeps a small limit on time average: rounded down, 5.7 would waste an eighth of the engine.

    A sigma-delta modulator: debt += L - in flight per tick; one more seat while debt > 0. Only a limit at rest is
    rounded this way: a ramp has its own next step.
    """

    SMALL = 32.0  # above it, rounding costs less than the noise of the limit
    AT_REST = 0.1
    DEBT_MAX = 2.0

    def __init__(self) -> None:
        self.extra = 0
        self._debt = 0.0
        self._limit = 0.0

    def tick(self, limit: float, in_flight: int, wanted: bool) -> None:
        """`wanted`: requests wait. A limit without a fraction lends nothing."""
        moved, self._limit = abs(limit - self._limit), limit
        small = 1 <= limit < self.SMALL and limit % 1 >= 0.05
        if not wanted or not small or moved > self.AT_REST * limit:
            self.restart()
            return
        self._debt = min(max(self._debt + limit - in_flight, -self.DEBT_MAX), self.DEBT_MAX)
        self.extra = int(self._debt > 0)

    def restart(self) -> None:
        self.extra, self._debt = 0, 0.0


class Peak:
    """Largest value of the last 60 s, in amortised constant time."""

    SPAN_S = 60.0

    def __init__(self) -> None:
        self._falling: deque[tuple[float, int]] = deque()

    def tick(self, value: int, now: float) -> int:
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((now, value))
        while now - self._falling[0][0] > self.SPAN_S:
            self._falling.popleft()
        return self._falling[0][1]


class Sharing:
    """Do other proxies use the same upstream? Yes after its running total exceeded ours by 8 % for 10 s, no after it
    did not by 4 %. The one that holds nearly all of an engine has to see the others too, or it would take the rest."""

    CONFIRM_S = 10.0
    SHARED = 1.08
    ALONE = 1.04

    def __init__(self, shared_by: int | None) -> None:
        self.shares = shared_by or 1  # 1: alone, or in unknown company
        self.active = self.shares > 1
        self._since_s: float | None = None

    def tick(self, total: float | None, own: int, now: float) -> None:
        """`total` None or 0 with work of our own in flight means that the gauge is missing, not that it is alone."""
        if not total or own == 0 or self.shares > 1:
            return
        if (total > (self.ALONE if self.active else self.SHARED) * own) == self.active:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now
        elif now - self._since_s >= self.CONFIRM_S:
            self.active, self._since_s = not self.active, None


class Epoch:
    """Number of the present conditions; a request dispatched under an earlier one judges nothing that came after.

    One opens when ln kappa has moved by 0.15, at most every 20 s, and again with every further 0.05 within 10 s, when
    kappa has arrived: who was dispatched on its way judges nothing either. Where nothing but the pause keeps one from
    opening, who was dispatched while ln kappa was lower by 0.1 judges no margin.
    """

    PAUSE_S = 20.0
    MOVE_S = 10.0
    KAPPA = 0.15
    FURTHER = 0.05
    SLOWER = 0.1
    TICKS_KNOWN = 128

    def __init__(self, now: float) -> None:
        self.number = 0
        self._since_s = now
        self._moving_s = -inf  # since when kappa has moved
        self._kappa_log = 0.0
        self._paces: deque[tuple[float, float]] = deque(maxlen=self.TICKS_KNOWN)  # when, ln kappa

    def slower(self, since_s: float) -> bool:
        """Has the engine become slower since, and no epoch has opened? What was longer ago than is known is compared
        with the earliest known."""
        if not self._paces or abs(self._paces[-1][1] - self._kappa_log) <= self.KAPPA:
            return False
        before = next((kappa_log for at_s, kappa_log in reversed(self._paces) if at_s <= since_s), self._paces[0][1])
        return self._paces[-1][1] - before > self.SLOWER

    def open(self, now: float) -> None:
        self.number += 1
        self._since_s = now

    def follow(self, kappa_log: float, now: float) -> bool:
        """One tick; true when a new epoch has opened."""
        self._paces.append((now, kappa_log))
        moved, moving = abs(kappa_log - self._kappa_log), now - self._moving_s <= self.MOVE_S
        if moved <= (self.FURTHER if moving else self.KAPPA) or not (moving or now - self._since_s >= self.PAUSE_S):
            return False
        if not moving:
            self._moving_s = now
        self._kappa_log = kappa_log
        self.open(now)
        return True
