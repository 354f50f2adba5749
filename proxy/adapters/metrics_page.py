"""Text of all metrics in Prometheus or OpenMetrics form, without stalling the event loop.

The loop only copies the numbers; prometheus_client makes the text in a worker thread. A text is good for one second
and one text per form is made at a time, so a hundred scrapers cost what one costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest as prometheus_text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from proxy.adapters.histograms import Distribution, Exposed, Family, Labels, Mark

CACHED_S = 1.0


@dataclass(slots=True)
class Copies(Collector):
    """Copied numbers as prometheus_client's families, then those of the process itself."""

    exposed: Iterable[Exposed]
    process: Collector

    def collect(self) -> Iterator[Metric]:
        for one in self.exposed:
            yield _family(one.family, one.values)
        yield from self.process.collect()


def _family(family: Family, values: Iterable[tuple[Labels, float | Distribution]]) -> Metric:
    if family.kind == "histogram":
        return _histogram_family(family, values)
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in values:
        assert isinstance(value, float)
        metric.add_metric(labels, value)
    return metric


def _histogram_family(family: Family, values: Iterable[tuple[Labels, float | Distribution]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    edges = [*(_number(edge) for edge in family.edges), "+Inf"]
    for labels, value in values:
        assert isinstance(value, Distribution)
        buckets = list(_marked(edges, value, value.marks) if value.marks else _buckets(edges, value))
        metric.add_metric(labels, buckets, value.total)
    return metric


Bucket = tuple[str, float] | tuple[str, float, Exemplar]


def _buckets(edges: list[str], value: Distribution) -> Iterator[Bucket]:
    """Edge and cumulative count."""
    return zip(edges, accumulate(value.counts), strict=True)


def _marked(edges: list[str], value: Distribution, marks: dict[int, Mark]) -> Iterator[Bucket]:
    """The same with exemplars, which only the OpenMetrics form shows."""
    for place, (edge, count) in enumerate(zip(edges, accumulate(value.counts), strict=True)):
        mark = marks.get(place)
        if mark is None:
            yield edge, count
        else:
            yield edge, count, Exemplar({"trace_id": mark.trace_id}, mark.value, mark.wall_s)


def _number(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]  # the library has no types here
    return text


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
        copies = Copies(exposed, self._process)
        if openmetrics:
            text: bytes = openmetrics_text(copies)  # type: ignore[no-untyped-call]  # the library has no types here
            return text
        return prometheus_text(copies)
