"""The fitted step time: x = kappa (a + b n + d p).

x: seconds per output token (mean over a tick), n: running requests, p: prefill tokens per step. One decode step reads
the weights once (a) and works for each sequence (b, which also absorbs its KV reads) and each prefill token (d);
coefficients of this form fit vLLM and SGLang within a few per cent (inference-sim; Sarathi-Serve, OSDI 2024).

Two time scales. Slow: ridge least squares of x/kappa on (1, n, p), weights exp(-age / 45 s) / x^2, toward the previous
fit, with 0.2 x5 <= a <= x5 and b, d > 0; x5 is the 5 % quantile of x/kappa over the last 120 ticks, as the least may
be a tick whose tokens came late together. Fast: e = ln(x / model) - ln kappa moves ln kappa by 0.35 e if
|e| > 0.10, else by 0.08 e, |e| clipped at 0.7. So a uniform slowdown (throttling, a noisy neighbour) is followed in a
few ticks and does not bend the slopes. Sums decay with the time measured, not with the clock: an idle hour forgets
nothing. A kappa beyond e^1.5 moves into the coefficients.

A tick beyond e^1.5 of what the fit of four ticks ago says of it, up or down, may be a stall; the third in a row tells
of another engine, model or kind of answer. Nothing that was learnt holds for that, least of all the split into a and b,
and the fit starts anew. The present fit is no judge of it: answers change over within some ticks, the fit follows half
of the way with each, and takes for the price of n what n has nothing to do with.

    seats at a target T with rho prefill tokens per output token:  N = (T/kappa - a) / (b + d rho)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp, inf, log
from typing import Final

WINDOW: Final = 120
MEMORY_S: Final = 45.0
RIDGE: Final = 2e-3
KAPPA_LOG_MAX: Final = 1.5
FOREIGN_TICKS: Final = 3
YOUNG_TICKS: Final = 8  # until then a fit may change as much while others join a shared engine
CHUNK_TOKENS: Final = 2048  # prefill tokens per step, the usual default of engines with chunked prefill
NOISE: Final = 0.2  # relative; the fit is judged against at least this much spread
FLOOR_PART: Final = 20
TICKS_MIN: Final = 3
FIT_POOR, FIT_GOOD, FIT_TICKS = 0.3, 0.5, 30
Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Coefficients:
    """a in s, b in s per request, d in s per prefill token, kappa without unit."""

    a: float
    b: float
    d: float
    kappa: float = 1.0

    def step_s(self, running: float, prefill_per_step: float) -> float:
        """x at n and p."""
        return self.kappa * (self.a + self.b * running + self.d * prefill_per_step)


class StepModel:
    """Learns from ticks; answers with seconds and seats. Unfitted until `TICKS_MIN` ticks."""

    def __init__(self) -> None:
        self._fit: Coefficients | None = None
        self._told: Coefficients | None = None
        self._kappa_log = 0.0
        self._ticks = 0
        self._sums = [0.0] * 9  # w, wn, wp, wnn, wnp, wpp, wy, wny, wpy
        self._window: deque[tuple[float, float]] = deque(maxlen=WINDOW)  # n, x/kappa
        self._error = 0.0
        self._spread = 0.0
        self._mean_log = 0.0
        self._poor_ticks = 0
        self._poor = False
        self._foreign_ticks = 0
        self._earlier: deque[Coefficients] = deque(maxlen=FOREIGN_TICKS + 1)

    def __repr__(self) -> str:
        return f"StepModel({self.coefficients}, fit {self.fit_ratio:.2f}, {self._ticks} ticks)"

    @property
    def coefficients(self) -> Coefficients | None:
        """The fit with its present kappa, None before `TICKS_MIN` ticks."""
        return self._told

    @property
    def kappa(self) -> float:
        return exp(self._kappa_log)

    @property
    def kappa_log(self) -> float:
        return self._kappa_log

    @property
    def ticks(self) -> int:
        """Ticks that the present fit is learned from, `TICKS_MIN` at least where it was restored."""
        return self._ticks

    @property
    def fit_ratio(self) -> float:
        """Explained share of the relative spread of x, 0..1; a steady x counts as spread `NOISE`, so that holding
        one operating point is no proof against the fit."""
        return max(0.0, 1 - self._error / (self._spread + NOISE**2))

    @property
    def poor(self) -> bool:
        """The fit explains too little to steer by: below 0.3 for 30 ticks, until it is back above 0.5."""
        return self._poor

    @property
    def running_max(self) -> float:
        """Largest n within the window: the fit is not to be trusted far beyond."""
        return max((running for running, _ in self._window), default=0.0)

    def learn(
        self, latency_s: float, running: float, prefill_per_step: float, duration_s: float, weight: float = 1.0
    ) -> None:
        """One tick: x, n, p, its length, and how much it counts (1: a tick of visible streams)."""
        if self._fit is None:
            self._start(latency_s, running)
        error = log(latency_s / self.step_s(running, prefill_per_step))
        self._judge(error, latency_s)
        self._compare(latency_s, running, prefill_per_step)
        if self._foreign_ticks >= FOREIGN_TICKS:
            self._start(latency_s, running)
        elif self._ticks >= TICKS_MIN:
            self._follow(error, weight)
        level_s = latency_s / self.kappa
        self._window.append((running, level_s))
        self._add(level_s, running, prefill_per_step, exp(-duration_s / MEMORY_S), weight)
        self._ticks += 1
        fit = self._fit = self._solve(self._known())
        if self._ticks >= TICKS_MIN:
            self._told = Coefficients(fit.a, fit.b, fit.d, self.kappa)
            if self._ticks >= YOUNG_TICKS:
                self._earlier.append(self._told)

    def step_s(self, running: float, prefill_per_step: float) -> float:
        """Predicted x at n and p."""
        fit = self._known()
        return self.kappa * (fit.a + fit.b * running + fit.d * prefill_per_step)

    def seats_at(self, target_s: float, rho: float) -> float | None:
        """N with x(N) = `target_s`, at least 1; None before the first fit."""
        fit = self.coefficients
        if fit is None:
            return None
        return max(1.0, (target_s / fit.kappa - fit.a) / (fit.b + fit.d * rho))

    def marginal_gain(self, running: float, rho: float) -> float:
        """d ln(throughput) / d ln(n) = a / (a + s n); 1 before the first fit."""
        fit = self.coefficients
        return 1.0 if fit is None else fit.a / (fit.a + (fit.b + fit.d * rho) * running)

    def prefill_s(self, prompt_tokens: float) -> float:
        """Engine time of so many prompt tokens; 0 before the first fit."""
        fit = self.coefficients
        return 0.0 if fit is None else fit.kappa * fit.d * prompt_tokens

    def prefill_room(self, target_s: float) -> float:
        """Prompt tokens that one step takes within `target_s`: (T/kappa - a) / d; infinite before the first fit."""
        fit = self.coefficients
        return inf if fit is None else max(0.0, (target_s / fit.kappa - fit.a) / fit.d)

    def prefill_rate(self, running: float) -> float | None:
        """Prompt tokens per second while `running` requests decode: R = B / (kappa (a + b n + d B)), B = chunk - n."""
        fit = self.coefficients
        if fit is None:
            return None
        budget = max(CHUNK_TOKENS - running, CHUNK_TOKENS / 4)
        return budget / (fit.kappa * (fit.a + fit.b * running + fit.d * budget))

    def restore(self, coefficients: Coefficients) -> None:
        """Start from the fit of an earlier run; the first ticks may still move it."""
        self._fit = coefficients
        self._kappa_log = log(coefficients.kappa)
        self._ticks = TICKS_MIN
        self._told = coefficients

    def _known(self) -> Coefficients:
        assert self._fit is not None
        return self._fit

    def _start(self, latency_s: float, running: float) -> None:
        """Anew, from one tick: four fifths of it for an empty step, a fifth for those who run."""
        self._fit = Coefficients(0.8 * latency_s, 0.2 * latency_s / max(running, 1.0), latency_s / 400)
        self._told = None
        self._kappa_log, self._ticks, self._foreign_ticks = 0.0, 0, 0
        self._sums = [0.0] * len(self._sums)
        self._window.clear()
        self._earlier.clear()
        self._error, self._spread, self._mean_log = 0.0, 0.0, log(latency_s)

    def _judge(self, error: float, latency_s: float) -> None:
        """The running error of the prediction, before it learns from the tick."""
        self._mean_log += 0.05 * (log(latency_s) - self._mean_log)
        self._error += 0.05 * (error**2 - self._error)
        self._spread += 0.05 * ((log(latency_s) - self._mean_log) ** 2 - self._spread)
        self._poor_ticks = self._poor_ticks + 1 if self.fit_ratio < FIT_POOR else 0
        self._poor = self._poor_ticks >= FIT_TICKS or (self._poor and self.fit_ratio < FIT_GOOD)

    def _compare(self, latency_s: float, running: float, prefill_per_step: float) -> None:
        """With what the fit of some ticks ago would have said: the present one has begun to learn what is foreign."""
        fit, error = self._earlier[0] if self._earlier else self._told, 0.0
        if fit is not None:
            error = log(latency_s / fit.step_s(running, prefill_per_step))
        self._foreign_ticks = self._foreign_ticks + 1 if abs(error) > KAPPA_LOG_MAX else 0

    def _follow(self, error: float, weight: float) -> None:
        """Fast scale."""
        self._kappa_log += (0.35 if abs(error) > 0.10 else 0.08) * weight * min(max(error, -0.7), 0.7)
        if abs(self._kappa_log) > KAPPA_LOG_MAX:
            self._fold()

    def _fold(self) -> None:
        """Move kappa into the coefficients: what it drifts by over days says nothing about the present pace."""
        kappa, fit = self.kappa, self._known()
        self._fit = Coefficients(kappa * fit.a, kappa * fit.b, kappa * fit.d)
        self._kappa_log = 0.0
        self._window = deque(((running, kappa * level) for running, level in self._window), maxlen=WINDOW)
        self._sums = [value / kappa**2 for value in self._sums[:6]] + [value / kappa for value in self._sums[6:]]

    def _add(self, level_s: float, running: float, prefill: float, decay: float, weight: float) -> None:
        share = weight / level_s**2
        squares = (1.0, running, prefill, running**2, running * prefill, prefill**2)
        terms = (*squares, level_s, running * level_s, prefill * level_s)
        self._sums = [decay * value + share * term for value, term in zip(self._sums, terms, strict=True)]

    def _solve(self, prior: Coefficients) -> Coefficients:
        """Slow scale: box-constrained ridge in columns scaled to mean square 1."""
        total, w_n, w_p, w_nn, w_np, w_pp, w_y, w_ny, w_py = self._sums
        n_scale = max((w_nn / total) ** 0.5, 1e-9)
        p_scale = max((w_pp / total) ** 0.5, 1e-9)
        matrix = [
            [1 + RIDGE, w_n / total / n_scale, w_p / total / p_scale],
            [w_n / total / n_scale, 1 + RIDGE, w_np / total / (n_scale * p_scale)],
            [w_p / total / p_scale, w_np / total / (n_scale * p_scale), (w_pp / total) / p_scale**2 + RIDGE],
        ]
        before = (prior.a, prior.b * n_scale, prior.d * p_scale)
        right = [w_y / total, w_ny / total / n_scale, w_py / total / p_scale]
        right = [value + RIDGE * start for value, start in zip(right, before, strict=True)]
        levels = sorted([level for _, level in self._window])
        floor_s = levels[len(levels) // FLOOR_PART]
        least_b = 1e-3 * floor_s / max(self.running_max, 1.0)
        lowest = (0.2 * floor_s, least_b * n_scale, 1e-6 * floor_s * p_scale)
        a, b, d = solve_bounded(matrix, right, lowest, (floor_s, inf, inf))
        return Coefficients(a, b / n_scale, d / p_scale)


def solve_bounded(matrix: list[list[float]], right: list[float], lowest: Vector, highest: Vector) -> Vector:
    """Solve the 3x3 symmetric positive system; a component outside its bounds is fixed there and the rest re-solved."""
    fixed: dict[int, float] = {}
    while True:
        free = [i for i in range(3) if i not in fixed]
        rows = [
            [matrix[i][j] for j in free] + [right[i] - sum([matrix[i][j] * value for j, value in fixed.items()])]
            for i in free
        ]
        found = dict(zip(free, _eliminate(rows), strict=True))
        outside = {i: min(max(value, lowest[i]), highest[i]) for i, value in found.items()}
        outside = {i: value for i, value in outside.items() if value != found[i]}
        if not outside:
            found |= fixed
            return found[0], found[1], found[2]
        fixed |= outside


def _eliminate(rows: list[list[float]]) -> list[float]:
    """Gaussian elimination of an augmented symmetric positive definite system (no pivoting needed)."""
    size = len(rows)
    for i in range(size):
        for j in range(i + 1, size):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [low - factor * high for low, high in zip(rows[j], rows[i], strict=True)]
    result = [0.0] * size
    for i in reversed(range(size)):
        known = sum([rows[i][j] * result[j] for j in range(i + 1, size)])
        result[i] = (rows[i][size] - known) / rows[i][i]
    return result
