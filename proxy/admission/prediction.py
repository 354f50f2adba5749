"""What is not known when a request starts: how long its output will be, and how many tokens its prompt really has.

Remaining output of a request that has generated g tokens, from the last `WINDOW` outputs O_i of its tenant:

    R(g) = mean(O_i - g | O_i > g)      none longer seen: R = max(PRIOR / 8, g / 2), a Pareto tail of index 3

A tenant with fewer than `ENOUGH` outputs uses the history of all tenants. Until as many have ended as run (`ENOUGH` at
least, `FEW` at most) R is at least `PRIOR` - g: those that ended first were the short ones, and memory promised on
their word is recomputed later. The client's max_tokens caps every prediction.

The mean output counts unfinished requests: short ones end first, and the mean of those that ended reads half of the
truth during the first generation, while tokens / endings reads several times the truth. The area under the
Kaplan-Meier curve up to the longest output seen (restricted mean, 1958) is consistent and errs on the low side, which
is the safe one: it overstates the prefill that each output token drags along. Once three times as many have ended as
run, a running mean of gain 0.01 takes over, which starts anew when lengths have changed (`DriftingMean`). Outputs that
end while fewer or more run than before prove no change: after a cut those that end are the long ones, since the short
ones that would have ended beside them were never started, and during a ramp the short ones end first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from itertools import accumulate
from math import exp, log, sqrt
from typing import Final

PRIOR: Final = 1024
WINDOW: Final = 128
ENOUGH: Final = 8
FEW: Final = 100
TENANTS_MAX: Final = 1024
COHORT_MAX: Final = 1024
OUTPUT_MIN: Final = 16.0
GENERATIONS: Final = 2.0  # of requests until what ends is a fair sample again: those of the cut and those after it
UNEVEN: Final = 0.15  # of what runs; and twice the standard deviation of chance arrivals


class _History:
    """The last outputs. Adding one is cheap; they are sorted when somebody asks for more than a mean."""

    __slots__ = ("_has_empty", "_order", "_ranked", "_total")

    def __init__(self) -> None:
        self._order: deque[int] = deque(maxlen=WINDOW)
        self._total = 0
        self._has_empty = False  # perhaps: an output of no token was added
        self._ranked: tuple[list[int], list[int]] | None = None  # sorted; and the sums of the i longest

    def __len__(self) -> int:
        return len(self._order)

    def add(self, output_tokens: int) -> None:
        order = self._order
        if len(order) == WINDOW:
            self._total -= order[0]
        order.append(output_tokens)
        self._total += output_tokens
        self._ranked = None
        if not output_tokens:
            self._has_empty = True

    def copy(self) -> _History:
        found = _History()
        for output_tokens in self._order:
            found.add(output_tokens)
        return found

    def remaining(self, generated: int) -> float | None:
        order = self._order
        if self._has_empty:
            self._has_empty = 0 in order
        if not generated and not self._has_empty:
            return self._total / len(order) if order else None
        ranked, sums = self._ranked or self._rank()
        low, high = 0, len(ranked)
        while low < high:  # `bisect_right`, which costs four times as much compiled, for each that runs at each tick
            middle = (low + high) >> 1
            if generated < ranked[middle]:
                high = middle
            else:
                low = middle + 1
        longer = len(ranked) - low
        return sums[longer] / longer - generated if longer else None

    def variation(self) -> float:
        ranked, sums = self._ranked or self._rank()
        mean = sums[-1] / len(ranked)
        if mean == 0:
            return 0.0
        return sqrt(sum([(value - mean) ** 2 for value in ranked]) / len(ranked)) / mean

    def _rank(self) -> tuple[list[int], list[int]]:
        ranked = sorted(self._order)
        self._ranked = ranked, list(accumulate(reversed(ranked), initial=0))
        return self._ranked


class DriftingMean:
    """A mean of small gain that starts anew when its subject has changed.

    With y = ln(value), its slow mean and deviation s: z = clip((y - mean) / s, -2, 2) is averaged with gain 0.1. That
    average has a standard error of s sqrt(0.1 / 1.9), and beyond 3.5 of these the last values are all that counts: an
    exponential control chart (Roberts 1959). A shift of one s is believed after a dozen values and one of two s after
    five, a single outlier of any size never. Values are taken in when the mean is asked for, twice a second; of more
    than `NEW_MAX` in between the last ones speak for all.
    """

    __slots__ = ("_chart", "_count", "_gain", "_last", "_log", "_mean", "_new", "_square", "add", "even", "shifts")
    CHART_GAIN = 0.1
    CHART_MAX = 0.8
    YOUNG = 20
    LAST = 5
    MATERIAL = log(1.5)
    NEW_MAX = 256
    SPREAD_MIN = 0.1  # of the logarithm: constant lengths have some, too

    def __init__(self, mean: float, gain: float, count: int = 0) -> None:
        self._mean = mean
        self._gain = gain
        self._count = count
        self._log = log(max(mean, 1.0))
        self._square = 0.5  # of the logarithm, until it has been seen
        self._chart = 0.0
        self._last: deque[float] = deque(maxlen=self.LAST)
        self.shifts = 0  # how often the values have changed by half or more
        self._new: deque[float] = deque(maxlen=self.NEW_MAX)
        self.add = self._new.append
        self.even = True  # the values are a fair sample: others move the mean, but prove no change

    @property
    def mean(self) -> float:
        if self._new:
            self._take_in()
        return self._mean

    def _take_in(self) -> None:
        """All new values in one go, in local names: at thousands of requests a second this loop is felt."""
        new, even = tuple(self._new), self.even
        self._new.clear()
        count, mean, middle, square, chart, last = (
            self._count, self._mean, self._log, self._square, self._chart, self._last,
        )  # fmt: skip
        steady, least, most = 1 / self._gain, self.SPREAD_MIN**2, self.CHART_MAX
        for value in new:
            count += 1
            gain = self._gain if count >= steady else 1 / count
            off = (log(value) if value > 1.0 else 0.0) - middle
            mean += gain * (value - mean)
            middle += gain * off
            square += gain * (off * off - square)
            last.append(value)
            score = off / sqrt(square if square > least else least)
            if not even:
                chart = 0.0
                continue
            chart += self.CHART_GAIN * ((score if -2.0 < score < 2.0 else 2.0 if score > 0.0 else -2.0) - chart)
            if (chart > most or chart < -most) and count >= self.YOUNG:
                before, middle = middle, sum([log(max(one, 1.0)) for one in last]) / len(last)
                mean, count, chart = sum(last) / len(last), self.LAST, 0.0
                self.shifts += abs(middle - before) > self.MATERIAL
        self._count, self._mean, self._log, self._square, self._chart = count, mean, middle, square, chart


class LengthPredictor:
    """Output lengths by tenant, the least recently used of `TENANTS_MAX` forgotten."""

    def __init__(self) -> None:
        self._all = _History()
        self._tenants: OrderedDict[str, _History] = OrderedDict()
        self._mean = DriftingMean(OUTPUT_MIN, 0.01)
        self._cohort: list[int] | None = []  # every output since the start, until the first generation is over
        self._before: _History | None = None  # outputs of the mix before this one
        self._crowd = 0.0  # how many run, averaged over generations; 0: not known yet
        self._ends = 0  # since it was last asked
        self._few = ENOUGH  # outputs of a start that are too few to go by
        self.mix = 0  # number of the present mix of requests; each is told of with the one it started under

    def remaining(self, tenant: str, generated: int, cap: int | None) -> int:
        """Expected further output tokens of a live request, >= 0 and within the client's cap."""
        history = self._tenants.get(tenant)
        if history is None or len(history) < ENOUGH:
            history = self._all
        expected = history.remaining(generated)
        if expected is None:
            expected = max(PRIOR / 8, generated / 2)
        if self._cohort is not None and self._before is None and len(self._cohort) < self._few:
            expected = max(expected, PRIOR - generated)
        tokens = int(expected)
        if cap is None or tokens <= cap - generated:
            return tokens
        return cap - generated if cap > generated else 0

    def shifted(self) -> None:
        """Other requests come from now on: their outputs are counted apart from those of the ones still running."""
        self.mix += 1
        self._cohort = []
        self._crowd = 0.0
        self._before = self._all.copy()

    def ended(self, tenant: str, output_tokens: int, mix: int) -> None:
        """A request that started under `mix` ended by itself after `output_tokens`."""
        history = self._tenants.get(tenant)
        if history is None:
            history = self._tenants[tenant] = _History()
            if len(self._tenants) > TENANTS_MAX:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        history.add(output_tokens)
        self._all.add(output_tokens)
        if self._cohort is not None:
            if mix == self.mix:
                insort(self._cohort, output_tokens)
        else:
            self._mean.add(output_tokens)
            self._ends += 1

    def mean_tokens(self, live: Collection[int]) -> float:
        """Mean output; `live` are the tokens that unfinished requests of this mix have generated so far."""
        if self._cohort is not None:
            count = len(self._cohort)
            self._few = min(max(len(live), ENOUGH), FEW)
            area, survival, last = restricted_mean(self._cohort, sorted(live))
            tail = 0.0 if self._before is None else self._before.remaining(last) or 0.0
            mean = max(area + survival * tail, OUTPUT_MIN)
            self._mean = DriftingMean(mean, 0.01, count)
            if count >= min(100 + 3 * len(live), COHORT_MAX):
                self._cohort = None
        else:
            self._mean.even = self._is_even(max(float(len(live)), 1.0))
        return self._mean.mean

    def _is_even(self, running: float) -> bool:
        """Have as many run for the last generations, so that what ends is a fair sample?"""
        crowd = self._crowd or running
        crowd = self._crowd = running + (crowd - running) * exp(-self._ends / (GENERATIONS * running))
        self._ends = 0
        return abs(crowd - running) <= max(UNEVEN * crowd, 2 * sqrt(crowd))

    @property
    def variation(self) -> float:
        """Coefficient of variation of the output length; 1 (exponential) until `ENOUGH` are known."""
        return self._all.variation() if len(self._all) >= ENOUGH else 1.0


def restricted_mean(ended: Sequence[int], live: Sequence[int]) -> tuple[float, float, int]:
    """Area under the Kaplan-Meier curve up to the largest value seen, its height there, that value; both ascend."""
    survival, area, last = 1.0, 0.0, 0
    for index, value in enumerate(ended):
        area += survival * (value - last)
        survival *= 1 - 1 / (len(ended) - index + len(live) - bisect_left(live, value))
        last = value
    if live and live[-1] > last:
        area += survival * (live[-1] - last)
        last = live[-1]
    return area, survival, last


class PromptCorrection:
    """Ratio of the engine's prompt count to our estimate, and the share that came from its prefix cache."""

    GAIN = 0.05

    def __init__(self) -> None:
        self.ratio = 1.0  # engine tokens per estimated token, within 0.25..4
        self._ratio = 1.0
        self._cached = 0.0
        self._seen = self._finished = 0

    def learn(self, estimate: int, actual: int, cached: int) -> None:
        """One finished request; an estimate or a count of zero teaches nothing."""
        if estimate <= 0 or actual <= 0:
            return
        self._learn_ratio(estimate, actual)
        self._finished = finished = self._finished + 1
        if cached or self._cached:
            gain = self.GAIN if finished * self.GAIN >= 1.0 else 1 / finished
            self._cached += gain * (min(cached / actual, 1.0) - self._cached)

    def counted(self, estimate: int, actual: int, at_least: bool) -> None:
        """One prompt that the engine counted and refused. `at_least`: it has more, which may only raise the ratio."""
        if estimate > 0 and actual > (self.tokens(estimate) if at_least else 0):
            self._learn_ratio(estimate, actual)

    def _learn_ratio(self, estimate: int, actual: int) -> None:
        """Without `min` and `max`: each request learns, and a call costs as much as the rest."""
        self._seen = seen = self._seen + 1
        found = actual / estimate
        if not 0.1 <= found <= 10.0:
            found = 0.1 if found < 0.1 else 10.0
        ratio = self._ratio
        ratio += (self.GAIN if seen * self.GAIN >= 1.0 else 1 / seen) * (found - ratio)
        self._ratio = ratio
        self.ratio = ratio if 0.25 <= ratio <= 4.0 else 0.25 if ratio < 0.25 else 4.0

    @property
    def cached_share(self) -> float:
        """Share of prompt tokens that need no prefill, 0..1."""
        return self._cached

    def tokens(self, estimate: int) -> int:
        """The corrected estimate."""
        return round(estimate * self.ratio)
