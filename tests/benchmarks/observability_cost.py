"""What watching costs: python -m tests.benchmarks.observability_cost

Microseconds per request of counting, logging and tracing (off, on, sampled), and milliseconds of the page of metrics
with 200 label sets, of the state document and of one row of the status page's history. Figures are medians of 5 runs.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable
from dataclasses import fields, make_dataclass, replace
from random import Random
from time import perf_counter, thread_time

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from proxy.adapters.gauges import Scrape
from proxy.adapters.logs import LogConfig, configure
from proxy.adapters.metrics import Metrics, MetricsConfig
from proxy.adapters.metrics_page import MetricsPage
from proxy.adapters.metrics_text import text_of
from proxy.adapters.records import RequestRecord
from proxy.adapters.spans import SpanMaker
from proxy.server.history import History
from proxy.server.state import state_document
from proxy.types import Outcome
from proxy.wire.headers import HeadFacts, HeadReader
from proxy.wire.trace_context import TraceContext
from proxy.wire.traced_heads import TracedHeads
from tests.snapshots import TARGETS, snapshot, upstream

REPEATS = 5
MODELS, CLASSES = 100, ("high", "low")  # 200 label sets
HEAD = [
    (b"host", b"proxy"), (b"authorization", b"Bearer key"), (b"content-type", b"application/json"),
    (b"content-length", b"300"), (b"accept", b"*/*"), (b"user-agent", b"client/1.0"), (b"accept-encoding", b"gzip"),
    (b"x-stainless-lang", b"python"), (b"x-stainless-retry-count", b"0"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]  # fmt: skip
RECORD = RequestRecord(
    "r-1", "/v1/chat/completions", Outcome.SUCCESS, 200, 4.0, "acme", "high", "model-0", "vllm-0", True, 1.0, 1.7, 0.6,
    0.02, 100, 20, 64, True,
)  # fmt: skip


class Nowhere(SpanExporter):
    """Spans end here."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(REPEATS))


def per_call_us(call: Callable[[], object], count: int = 20_000) -> float:
    def run() -> float:
        started = thread_time()
        for _ in range(count):
            call()
        return (thread_time() - started) / count * 1e6

    return median(run)


def show(what: str, value: float, unit: str) -> None:
    print(f"{what:<58}{value:>9.3f} {unit}")


def off(record: RequestRecord) -> None:
    """All that is done for tracing at the end of a request while it is off."""
    if record.trace is not None:
        raise AssertionError


def nothing(record: RequestRecord) -> None:
    """The cost of measuring."""


def field_us() -> float:
    """One more field, with its default, in an object of the size of a head's facts."""
    size = len(fields(HeadFacts))
    with_it, without = (
        make_dataclass("Facts", [(f"field_{n}", object, None) for n in range(count)], slots=True)
        for count in (size, size - 1)
    )
    return max(0.0, per_call_us(with_it, 100_000) - per_call_us(without, 100_000))


def requests() -> None:
    metrics = Metrics(MetricsConfig(CLASSES, version="1"))
    show("count a request in all metrics", per_call_us(lambda: metrics.request_ended(RECORD)), "us")
    sink = os.open(os.devnull, os.O_WRONLY)
    log = configure(LogConfig(format="json"), sink)
    show("make its log line and hand it over", per_call_us(lambda: log.request(RECORD), 5_000), "us")
    log.close()
    os.close(sink)
    idle = per_call_us(lambda: nothing(RECORD), 200_000)
    check_us = max(0.0, per_call_us(lambda: off(RECORD), 200_000) - idle)
    show("tracing off: a field in two objects, a check at the end", check_us + 2 * field_us(), "us")
    plain, traced = HeadReader(), TracedHeads(b"x-tenant-id", (b"x-priority", b"x-request-priority"), 0.01, Random(1))
    untraced_us = per_call_us(lambda: plain.read(HEAD))
    show("tracing on: read and write traceparent", per_call_us(lambda: traced.read(HEAD)) - untraced_us, "us")
    maker = SpanMaker(BatchSpanProcessor(Nowhere()), lambda name: "vllm")
    sampled = replace(RECORD, trace=TraceContext(1, 2, 3, 4, True))
    show("tracing on, sampled: two spans", per_call_us(lambda: maker.ended(sampled), 2_000), "us")
    maker.close()


async def pause(page: MetricsPage) -> float:
    """The longest that a busy task had to wait while the page was made, in milliseconds."""
    rendering = asyncio.ensure_future(page.render(openmetrics=False))
    worst, last = 0.0, perf_counter()
    while not rendering.done():
        await asyncio.sleep(0)
        now = perf_counter()
        worst, last = max(worst, now - last), now
    return worst * 1e3


def pages() -> None:
    metrics = Metrics(MetricsConfig(CLASSES, version="1"))
    for number in range(MODELS):
        for class_name in CLASSES:
            metrics.request_ended(replace(RECORD, model=f"model-{number}", class_name=class_name))
    ones = [upstream(f"vllm-{number}") for number in range(8)]
    scrape = Scrape(metrics, lambda: snapshot(*ones), lambda: TARGETS)
    show("copy 200 label sets, on the loop", per_call_us(scrape, 50) / 1e3, "ms")
    copied = scrape()
    show("make their text, in a thread", per_call_us(lambda: text_of(copied, openmetrics=False), 20) / 1e3, "ms")
    show("longest pause of a busy loop meanwhile", median(lambda: asyncio.run(pause(MetricsPage(scrape)))), "ms")
    now = snapshot(*ones)
    document = per_call_us(lambda: state_document(now, TARGETS, {}, metrics.outcomes(), metrics.totals()), 200)
    show("state document of 8 upstreams", document / 1e3, "ms")
    history = History()
    show("a row of the history, once a second", per_call_us(lambda: history.note(now, TARGETS, {}), 1_000) / 1e3, "ms")


if __name__ == "__main__":
    requests()
    pages()
