"""What engine, proxy and GPU told during a run, condensed to its time of full load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

KEPT = 600  # points of the series in the results


@dataclass(slots=True)
class Observation:
    """One look; None where nobody told. `preemptions` counts since the engine started, shares are 0 to 1."""

    at_s: float
    engine: str = ""
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    preemptions: int | None = None
    kv_tokens: int | None = None
    running_cap: int | None = None
    limit: float | None = None
    queued: int | None = None
    gpu_utilization: float | None = None
    gpu_memory_bytes: int | None = None


GAUGES = ("running", "waiting", "kv_usage", "limit", "queued", "gpu_utilization", "gpu_memory_bytes")


def condensed(seen: Sequence[Observation], from_s: float, until_s: float) -> dict[str, object] | None:
    """Mean and peak of each gauge under full load, preemptions in the run, and the series. None: nobody told."""
    inside = [one for one in seen if from_s <= one.at_s <= until_s] or list(seen)
    found: dict[str, object] = {}
    for name in GAUGES:
        values = [value for one in inside if (value := getattr(one, name)) is not None]
        if values:
            found[name] = {"mean": round(sum(values) / len(values), 5), "peak": max(values)}
    counts = [one.preemptions for one in seen if one.preemptions is not None]
    if counts:
        found["preemptions"] = max(0, counts[-1] - counts[0])
    for name in ("kv_tokens", "running_cap"):
        told = [value for one in seen if (value := getattr(one, name)) is not None]
        if told:
            found[name] = told[-1]
    if not found:
        return None
    names = [one.engine for one in seen if one.engine]
    step = -(-len(seen) // KEPT)
    series = [{key: value for key, value in asdict(one).items() if value not in (None, "")} for one in seen[::step]]
    return {"engine": names[-1] if names else "", **found, "series": series}
