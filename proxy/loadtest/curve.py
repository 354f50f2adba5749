"""What a sweep shows: the throughput-latency curve, its knee, its Pareto set, its best points, and what memory does.

Knee: the point farthest above the chord of the curve, both axes scaled to 0..1 (Kneedle; Satopaa et al., ICDCS
workshops 2011). Pareto: no other point has both more throughput and less latency. Memory: least squares of KV cache in
use over sequences running, u = u0 + s * n, so that the cache is full at n = (1 - u0) / s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SATURATED = 0.97  # this share of the highest throughput counts as all of it


@dataclass(frozen=True, slots=True)
class Point:
    """One setting and what it gave. Throughput is that of full load; latencies in ms, None where nothing was shown."""

    setting: float
    tokens_per_s: float
    requests_per_s: float
    success_rate: float
    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p50_ms: float | None = None
    tpot_p99_ms: float | None = None
    e2e_p50_ms: float | None = None
    e2e_p99_ms: float | None = None
    good_ratio: float | None = None
    running: float | None = None
    waiting: float | None = None
    kv_mean: float | None = None
    kv_peak: float | None = None
    kv_tokens: int | None = None
    preemptions: int | None = None
    gpu_utilization: float | None = None
    gpu_memory_bytes: float | None = None


def point_of(setting: float, results: Mapping[str, Any]) -> Point:
    """The point of one run's results."""
    total, engine = results["total"], results.get("engine") or {}

    def latency(key: str, column: str) -> float | None:
        return total[key][column] if total.get(key) else None

    def gauge(name: str, fold: str = "mean") -> float | None:
        return engine[name][fold] if name in engine else None

    return Point(
        setting=setting,
        tokens_per_s=total["steady"]["output_tokens_per_s"] or total["output_tokens_per_s"],
        requests_per_s=total["steady"]["requests_per_s"] or total["requests_per_s"],
        success_rate=total["success_rate"],
        ttft_p50_ms=latency("ttft_ms", "p50"),
        ttft_p99_ms=latency("ttft_ms", "p99"),
        tpot_p50_ms=latency("tpot_ms", "p50"),
        tpot_p99_ms=latency("tpot_ms", "p99"),
        e2e_p50_ms=latency("e2e_ms", "p50"),
        e2e_p99_ms=latency("e2e_ms", "p99"),
        good_ratio=total["goodput"]["ratio"] if total.get("goodput") else None,
        running=gauge("running"),
        waiting=gauge("waiting"),
        kv_mean=gauge("kv_usage"),
        kv_peak=gauge("kv_usage", "peak"),
        kv_tokens=engine.get("kv_tokens"),
        preemptions=engine.get("preemptions"),
        gpu_utilization=gauge("gpu_utilization"),
        gpu_memory_bytes=gauge("gpu_memory_bytes", "peak"),
    )


def usable(points: Iterable[Point]) -> list[Point]:
    """Points that have both throughput and latency, in the order of their settings."""
    found = (point for point in points if point.e2e_p50_ms is not None and point.tokens_per_s > 0)
    return sorted(found, key=lambda point: point.setting)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both throughput and time per request."""
    return [one for one in points if not any(_dominates(other, one) for other in points)]


def _dominates(one: Point, other: Point) -> bool:
    pairs = (one.tokens_per_s, -(one.e2e_p50_ms or 0.0)), (other.tokens_per_s, -(other.e2e_p50_ms or 0.0))
    return pairs[0] != pairs[1] and all(mine >= theirs for mine, theirs in zip(*pairs, strict=True))


def knee(points: Sequence[Point]) -> Point | None:
    """Where more load begins to cost more than it gives; None for fewer than three points or a straight line."""
    if len(points) < 3:
        return None
    rates, waits = [point.tokens_per_s for point in points], [point.e2e_p50_ms or 0.0 for point in points]
    spans = max(rates) - min(rates), max(waits) - min(waits)
    if min(spans) <= 0:
        return None

    def above_chord(point: Point) -> float:
        across = ((point.e2e_p50_ms or 0.0) - min(waits)) / spans[1]
        return (point.tokens_per_s - min(rates)) / spans[0] - across

    best = max(points, key=above_chord)
    return best if above_chord(best) > 0 else None


def best_within(points: Sequence[Point], attainment: float) -> Point | None:
    """Most tokens per second among those where at least this share of requests was good. None: none was."""
    good = [point for point in points if point.good_ratio is not None and point.good_ratio >= attainment]
    return max(good, key=lambda point: point.tokens_per_s, default=None)


def saturation(points: Sequence[Point]) -> Point:
    """The lowest setting that reaches nearly the highest throughput."""
    top = max(point.tokens_per_s for point in points)
    return next(point for point in points if point.tokens_per_s >= SATURATED * top)


@dataclass(frozen=True, slots=True)
class MemoryScaling:
    """Share of the KV cache per running sequence, tokens per sequence where capacity is known, sequences to fill it."""

    share_per_sequence: float
    base_share: float
    sequences_when_full: float
    tokens_per_sequence: float | None


def memory_scaling(points: Sequence[Point]) -> MemoryScaling | None:
    """None where the engine does not tell, or all points run alike."""
    pairs = [(p.running, p.kv_mean) for p in points if p.running is not None and p.kv_mean is not None]
    if len(pairs) < 2:
        return None
    mean_n = sum(n for n, _ in pairs) / len(pairs)
    mean_u = sum(u for _, u in pairs) / len(pairs)
    spread = sum((n - mean_n) ** 2 for n, _ in pairs)
    if spread <= 0:
        return None
    slope = sum((n - mean_n) * (u - mean_u) for n, u in pairs) / spread
    if slope <= 0:
        return None
    base = mean_u - slope * mean_n
    capacity = next((point.kv_tokens for point in points if point.kv_tokens), None)
    return MemoryScaling(slope, base, (1 - base) / slope, slope * capacity if capacity else None)


def findings(points: Sequence[Point], attainment: float) -> dict[str, object]:
    """Everything above, for the sweep's JSON."""
    found = usable(points)
    if not found:
        return {}
    bend, within, memory = knee(found), best_within(found, attainment), memory_scaling(found)
    top = max(found, key=lambda point: point.tokens_per_s)
    return {
        "max_throughput": {"setting": top.setting, "output_tokens_per_s": top.tokens_per_s},
        "saturated_from": saturation(found).setting,
        "min_latency": min(found, key=lambda point: point.e2e_p50_ms or 0.0).setting,
        "knee": bend.setting if bend else None,
        "best_within_slo": within.setting if within else None,
        "attainment": attainment,
        "pareto": [point.setting for point in pareto(found)],
        "memory": asdict(memory) if memory else None,
    }
