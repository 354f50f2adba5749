from __future__ import annotations

import asyncio
import threading
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from proxy.adapters.gauges import Scrape
from proxy.adapters.histograms import Exposed
from proxy.adapters.metrics import FAMILIES, Metrics, MetricsConfig
from proxy.adapters.metrics_page import MetricsPage
from proxy.adapters.records import RequestRecord
from proxy.types import Outcome
from proxy.wire.trace_context import TraceContext
from tests.snapshots import TARGETS, snapshot, upstream


def counted(models: int = 1) -> Metrics:
    metrics = Metrics(MetricsConfig(("high", "low"), version="1"))
    for number in range(models):
        for class_name in ("high", "low"):
            record = RequestRecord(
                'id', "/v1", Outcome.SUCCESS, 200, 1.0, 'a"\\b', class_name, f"model-{number}", "u", ttft_s=0.02
            )  # fmt: skip
            metrics.request_ended(record)
    return metrics


def scrape(metrics: Metrics) -> list[Exposed]:
    return Scrape(metrics, lambda: snapshot(upstream()), lambda: TARGETS)()


def test_sampled_requests_become_exemplars_of_their_buckets_in_openmetrics_only() -> None:
    metrics = counted()
    for duration_s in (0.7, 0.75, 9000.0):
        trace = TraceContext(int(duration_s * 1000), None, 1, 2, True)
        record = RequestRecord(
            "id", "/v1", Outcome.SUCCESS, 200, duration_s, "a", "high", "model-0", "u", ttft_s=0.02, engine_ttft_s=0.01,
            trace=trace,
        )  # fmt: skip
        metrics.request_ended(record)
        metrics.point_to_trace(record, 1_700_000_000.5)
    page = MetricsPage(lambda: scrape(metrics))
    text = asyncio.run(page.render(openmetrics=True)).decode()
    found = {
        (sample.name, sample.labels["le"]): sample.exemplar
        for family in parse_openmetrics(text)  # type: ignore[no-untyped-call]  # the library has no types here
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert found.keys() == {
        ("penstock_request_duration_seconds_bucket", "0.8"),
        ("penstock_request_duration_seconds_bucket", "+Inf"),
        ("penstock_time_to_first_token_seconds_bucket", "0.02"),
        ("penstock_upstream_time_to_first_token_seconds_bucket", "0.01"),
    }
    newest = found["penstock_request_duration_seconds_bucket", "0.8"]
    assert newest is not None
    assert (newest.labels, newest.value) == ({"trace_id": f"{750:032x}"}, 0.75)
    assert float(str(newest.timestamp)) == 1_700_000_000.5
    assert b"trace_id" not in asyncio.run(page.render(openmetrics=False))


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_text_parses_and_holds_what_was_counted(openmetrics: bool) -> None:
    metrics = counted()
    text = asyncio.run(MetricsPage(lambda: scrape(metrics)).render(openmetrics)).decode()
    parsed = {family.name: family for family in (parse_openmetrics if openmetrics else parse_prometheus)(text)}
    assert {family.name.removesuffix("_total") for family in FAMILIES} <= parsed.keys()
    buckets = {
        sample.labels["le"]: sample.value
        for sample in parsed["penstock_time_to_first_token_seconds"].samples
        if sample.name.endswith("_bucket") and sample.labels["class"] == "high"
    }
    assert (buckets["0.01"], buckets["0.02"], buckets["0.04"], buckets["+Inf"]) == (0.0, 1.0, 1.0, 1.0)
    [tenant] = [s for s in parsed["penstock_tenant_requests"].samples if s.name.endswith("_total")]
    assert (tenant.labels, tenant.value) == ({"tenant": 'a"\\b', "outcome": "success"}, 2.0)
    assert "process_resident_memory_bytes" in parsed


class Slow:
    """A copy whose rendering waits until it is let go."""

    def __init__(self) -> None:
        self.copies = 0
        self.go = threading.Event()
        self.now_s = 0.0

    def copy(self) -> list[Exposed]:
        self.copies += 1
        return _Waiting(self.go)


class _Waiting(list[Exposed]):
    def __init__(self, go: threading.Event) -> None:
        super().__init__()
        self._go = go

    def __iter__(self):  # type: ignore[no-untyped-def]  # runs in the rendering thread
        assert self._go.wait(5)
        return super().__iter__()


def test_one_rendering_serves_all_who_ask_and_a_leaver_does_not_end_it() -> None:
    slow = Slow()
    page = MetricsPage(slow.copy, lambda: slow.now_s)

    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(page.render(False)) for _ in range(5)]
            await asyncio.sleep(0)
            asked[0].cancel()
            await asyncio.sleep(0)
            slow.go.set()
        assert slow.copies == 1
        await page.render(False)
        assert slow.copies == 1  # less than a second old
        slow.now_s = 1.5
        await page.render(False)
        assert slow.copies == 2

    asyncio.run(scene())


def test_a_failed_rendering_is_told_and_tried_again() -> None:
    answers: list[list[Exposed]] = [[Exposed(FAMILIES[0], [(("a", "b"), "no number")])], []]  # type: ignore[list-item]
    page = MetricsPage(lambda: answers.pop(0))

    async def scene() -> None:
        with pytest.raises((AssertionError, TypeError)):  # the latter from compiled code
            await page.render(False)
        assert b"process_" in await page.render(False)

    asyncio.run(scene())


def test_rendering_two_hundred_label_sets_leaves_the_loop_free() -> None:
    metrics = counted(models=100)

    async def scene() -> float:
        page = MetricsPage(lambda: scrape(metrics))
        page_text = asyncio.ensure_future(page.render(False))
        worst_s = 0.0
        while not page_text.done():
            started_s = time.perf_counter()
            await asyncio.sleep(0)
            worst_s = max(worst_s, time.perf_counter() - started_s)
        return worst_s

    assert min(asyncio.run(scene()) for _ in range(3)) < 0.05
