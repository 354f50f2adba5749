"""Figures from records: percentiles, rates, goodput.

Percentiles of requests are exact, by linear interpolation between closest ranks (Hyndman and Fan 1996, type 7, as
numpy). Gaps between tokens are too many to keep: a sketch counts them in buckets of ratio G, so that a percentile is at
most a factor sqrt(G) off (DDSketch; Masson, Rim, Lee, VLDB 2019): G = 1.005 gives 0.25 %.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.loadtest.records import Ending, Record
from proxy.loadtest.slo import Slo

PERCENTILES = (50, 90, 95, 99)
RATIO = 1.005
_LOG_RATIO = math.log(RATIO)
SMALLEST_S = 1e-6
_SMALLEST = math.floor(math.log(SMALLEST_S) / _LOG_RATIO)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in rising order, at least one."""
    position = (len(ordered) - 1) * percent / 100
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


class Sketch:
    """Counts of durations in logarithmic buckets, and their exact sum and maximum."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0
        self.sum_s = 0.0
        self.max_s = 0.0

    def add(self, seconds: float, weight: int = 1) -> None:
        bucket = math.floor(math.log(seconds) / _LOG_RATIO) if seconds > SMALLEST_S else _SMALLEST
        self.counts[bucket] = self.counts.get(bucket, 0) + weight
        self.total += weight
        self.sum_s += seconds * weight
        if seconds > self.max_s:
            self.max_s = seconds

    def merge(self, other: Sketch) -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.sum_s += other.sum_s
        self.max_s = max(self.max_s, other.max_s)

    def percentile(self, percent: float) -> float:
        """Geometric middle of the bucket that holds the rank."""
        rank, seen = (self.total - 1) * percent / 100, 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen > rank:
                return math.exp((bucket + 0.5) * _LOG_RATIO)
        return self.max_s


def gaps(stamps: Sequence[float], tokens_per_event: float, sketch: Sketch) -> float:
    """Adds the time per output token of one stream to `sketch`; answers with its longest wait.

    Events that came in one read share a stamp: the wait before them is shared by all their tokens.
    """
    longest, before, together = 0.0, stamps[0] if stamps else 0.0, 0
    for position in range(1, len(stamps)):
        together += 1
        if position + 1 < len(stamps) and stamps[position + 1] == stamps[position]:
            continue
        wait_s = stamps[position] - before
        if wait_s > 0:
            tokens = max(1, round(together * tokens_per_event))
            sketch.add(wait_s / tokens, tokens)
            longest = max(longest, wait_s)
        before, together = stamps[position], 0
    return longest


@dataclass(slots=True)
class FlowTally:
    """What one flow has shown so far. `carried` is work of the warm-up that came in the measured time: the endpoint did
    it then, so rates count it, and nothing else does."""

    records: list[Record] = field(default_factory=list)
    itl: Sketch = field(default_factory=Sketch)
    carried_requests: int = 0
    carried_tokens: float = 0.0
    carried_prompts: int = 0
    steady_requests: int = 0
    steady_tokens: float = 0.0


class Tally:
    """Collects the records of a run as they end. `from_s`..`until_s` is the time of full load."""

    def __init__(self, from_s: float, until_s: float) -> None:
        self.from_s, self.until_s = from_s, until_s
        self.flows: dict[str, FlowTally] = {}

    def add(self, record: Record, stamps: array[float]) -> None:
        """`stamps` holds the time of each output event."""
        flow = self.flows.setdefault(record.flow, FlowTally())
        ratio = record.output_tokens / len(stamps) if stamps else 0.0
        sketch = Sketch() if record.warmup else flow.itl
        record.gap_max_s = gaps(stamps, max(1.0, (record.output_tokens - 1) / max(1, len(stamps) - 1)), sketch)
        inside = bisect_left(stamps, self.until_s) - bisect_left(stamps, self.from_s)
        flow.steady_tokens += inside * ratio
        if record.ok and self.from_s <= record.ended_s < self.until_s:
            flow.steady_requests += 1
            flow.steady_tokens += 0 if stamps else record.output_tokens
        if not record.warmup:
            flow.records.append(record)
        elif record.ok and record.ended_s >= self.from_s:
            flow.carried_requests += 1
            late = len(stamps) - bisect_left(stamps, self.from_s)
            flow.carried_tokens += late * ratio if stamps else record.output_tokens
            flow.carried_prompts += record.prompt_tokens

    def whole(self) -> FlowTally:
        """All flows as one."""
        every = FlowTally()
        for flow in self.flows.values():
            every.records += flow.records
            every.itl.merge(flow.itl)
            every.carried_requests += flow.carried_requests
            every.carried_tokens += flow.carried_tokens
            every.carried_prompts += flow.carried_prompts
            every.steady_requests += flow.steady_requests
            every.steady_tokens += flow.steady_tokens
        return every


def summary(values: Iterable[float]) -> dict[str, float] | None:
    """Milliseconds from seconds: count, mean, percentiles, max. None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    shown = {f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES}
    return _milliseconds(len(ordered), sum(ordered) / len(ordered), shown, ordered[-1])


def sketch_summary(sketch: Sketch) -> dict[str, float] | None:
    if not sketch.total:
        return None
    shown = {f"p{percent}": min(sketch.percentile(percent), sketch.max_s) for percent in PERCENTILES}
    return _milliseconds(sketch.total, sketch.sum_s / sketch.total, shown, sketch.max_s)


def _milliseconds(count: int, mean_s: float, shown: Mapping[str, float], max_s: float) -> dict[str, float]:
    values = {"mean": mean_s, **shown, "max": max_s}
    return {"count": count} | {name: round(value * 1e3, 4) for name, value in values.items()}


def metrics(flow: FlowTally, slo: Slo, from_s: float, steady_s: float) -> dict[str, object]:
    """The figures of one flow, or of all. `window_s` runs from the end of the warm-up to the last request's end."""
    records = [record for record in flow.records if record.ending is not Ending.INTERRUPTED]
    good = [record for record in records if record.ok]
    window_s = max(0.0, max((one.ended_s for one in records), default=from_s) - from_s)
    outputs, prompts = sum(one.output_tokens for one in good), sum(one.prompt_tokens for one in good)
    events = sum(one.events for one in good if one.tokens_from == "usage")
    told = sum(one.output_tokens for one in good if one.tokens_from == "usage" and one.events)

    def per_s(amount: float) -> float:
        return round(amount / window_s, 4) if window_s > 0 else 0.0

    return {
        "requests": len(records),
        "successes": len(good),
        "success_rate": round(len(good) / len(records), 6) if records else 0.0,
        "interrupted": len(flow.records) - len(records),
        "endings": dict(Counter(str(one.ending) for one in records).most_common()),
        "statuses": {
            str(code): count for code, count in sorted(Counter(one.status for one in records).items()) if code
        },
        "window_s": round(window_s, 4),
        "requests_per_s": per_s(len(good) + flow.carried_requests),
        "output_tokens": outputs,
        "prompt_tokens": prompts,
        "output_tokens_per_s": per_s(outputs + flow.carried_tokens),
        "total_tokens_per_s": per_s(outputs + flow.carried_tokens + prompts + flow.carried_prompts),
        "steady": {
            "seconds": round(steady_s, 4),
            "requests_per_s": round(flow.steady_requests / steady_s, 4) if steady_s > 0 else 0.0,
            "output_tokens_per_s": round(flow.steady_tokens / steady_s, 4) if steady_s > 0 else 0.0,
        },
        "tokens_per_event": round(told / events, 4) if events else None,
        "usage_problems": dict(Counter(one.usage_problem for one in good if one.usage_problem).most_common()),
        "reconnects": sum(one.reconnects for one in records),
        "ttft_ms": summary(one.ttft_s for one in good if one.ttft_s is not None),
        "tpot_ms": summary(one.tpot_s for one in good if one.tpot_s is not None),
        "itl_ms": sketch_summary(flow.itl),
        "e2e_ms": summary(one.e2e_s for one in good),
        "queue_ms": summary(one.queue_s for one in records if one.queue_s is not None),
        "gap_max_ms": summary(one.gap_max_s for one in good if one.gap_max_s),
        "goodput": _goodput(records, slo, per_s(1.0)) if slo else None,
    }


def _goodput(records: Sequence[Record], slo: Slo, per_s: float) -> dict[str, object]:
    met = [record for record in records if slo.met(record)]
    return {
        "slo": str(slo),
        "ratio": round(len(met) / len(records), 6) if records else 0.0,
        "requests_per_s": round(len(met) * per_s, 4),
        "output_tokens_per_s": round(sum(record.output_tokens for record in met) * per_s, 4),
    }


def examples(records: Iterable[Record]) -> dict[str, str]:
    """One telling detail for each kind of failure."""
    found: dict[str, str] = {}
    for record in records:
        if record.detail and not record.ok:
            found.setdefault(str(record.ending), record.detail)
    return found
