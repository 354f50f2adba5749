"""Runs a search: one closed-loop load test for each of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from proxy.loadtest.client.endpoint import Endpoint
from proxy.loadtest.client.measure import Options, measure
from proxy.loadtest.client.sweep import loaded
from proxy.loadtest.curve import point_of
from proxy.loadtest.search import Search, Step, Trial
from proxy.loadtest.text import failures
from proxy.loadtest.workload import Workload

CONFIRM_FACTOR = 2.0  # a confirmation takes so many times as long


@dataclass(slots=True)
class Found:
    """What the runs told beside their figures: the engine's name; failures and warnings with their concurrency."""

    engine: str = ""
    warnings: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        return [f"{line} (at {concurrency})" for line, concurrency in self.warnings.items()]


Told = Callable[[Step, Trial | None], None]


async def tune(endpoint: Endpoint, workload: Workload, search: Search, options: Options, told: Told) -> Found:
    """Until the search ends or `options.stop` is set. `told` hears before and after each step. EndpointError."""
    stop = options.stop or asyncio.Event()
    found = Found()
    while (step := search.next()) is not None and not stop.is_set():
        told(step, None)
        load = loaded(workload, "concurrency", step.concurrency)
        if step.phase == "confirm":
            load = replace(load, duration_s=load.duration_s * CONFIRM_FACTOR)
        results = await measure(endpoint, load, replace(options, stop=stop))
        if stop.is_set():
            break
        found.engine = (results.document["engine"] or {}).get("engine") or found.engine
        warnings = [note for note in results.document["notes"] if note.startswith("WARNING")]
        for line in (*failures(results.document), *warnings):
            found.warnings.setdefault(line, step.concurrency)
        told(step, search.heard(point_of(step.concurrency, results.document)))
    return found
