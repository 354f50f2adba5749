"""Text of all metrics in Prometheus or OpenMetrics form, without stalling the event loop.

The loop only copies the numbers; a worker thread makes the text of them. A text is good for one second
and one text per form is made at a time, so a hundred scrapers cost what one costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest as prometheus_text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text

from proxy.adapters.histograms import Exposed
from proxy.adapters.metrics_text import text_of

CACHED_S = 1.0


class MetricsPage:
    """Renders what `copy` returns; `copy` is called on the loop, at most once a second and form."""

    def __init__(self, copy: Callable[[], list[Exposed]], clock: Callable[[], float] = time.monotonic) -> None:
        self._copy = copy
        self._clock = clock
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)  # CPU, memory, file descriptors, under their usual names
        self._made: dict[bool, tuple[float, bytes]] = {}
        self._making: dict[bool, asyncio.Future[bytes]] = {}

    async def render(self, openmetrics: bool) -> bytes:
        """The text, at most one second old."""
        made_s, text = self._made.get(openmetrics, (float("-inf"), b""))
        if self._clock() - made_s < CACHED_S:
            return text
        making = self._making.get(openmetrics)
        if making is None:
            loop = asyncio.get_running_loop()
            copied_s = self._clock()
            making = loop.run_in_executor(None, self._text, self._copy(), openmetrics)
            self._making[openmetrics] = making
            making.add_done_callback(lambda done: self._keep(openmetrics, copied_s, done))
        return await asyncio.shield(making)  # a scraper that leaves must not end the work that others wait for

    def _keep(self, openmetrics: bool, copied_s: float, done: asyncio.Future[bytes]) -> None:
        del self._making[openmetrics]
        if not done.cancelled() and done.exception() is None:
            self._made[openmetrics] = (copied_s, done.result())

    def _text(self, exposed: list[Exposed], openmetrics: bool) -> bytes:
        """Ours, then the families of the process itself, which end an OpenMetrics text."""
        ours = text_of(exposed, openmetrics).encode("ascii")
        if openmetrics:
            process: bytes = openmetrics_text(self._process)  # type: ignore[no-untyped-call]  # the library has none
            return ours + process
        return ours + prometheus_text(self._process)
