from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from proxy.adapters.records import RequestRecord
from proxy.adapters.spans import SpanMaker
from proxy.types import Outcome
from proxy.wire.trace_context import TraceContext
from tests.adapters.ended import GOOD

NOW_NS = 1_700_000_000_000_000_000
TRACE = TraceContext(trace_id=0xABC, parent_id=0x11, span_id=0x22, upstream_id=0x33, sampled=True)
RECORD = replace(GOOD, queue_s=1.0, ttft_s=1.75, engine_ttft_s=0.5, retries=1, trace=TRACE)


def spans(record: RequestRecord) -> list[ReadableSpan]:
    """Spans in the order of their start, and what they say of time in seconds before the end."""
    kept = InMemorySpanExporter()
    maker = SpanMaker(SimpleSpanProcessor(kept), {"vllm-0": "vllm"}.get, lambda: NOW_NS)  # type: ignore[arg-type]
    maker.ended(record)
    maker.close()
    return sorted(kept.get_finished_spans(), key=lambda span: span.start_time or 0)


def before_end_s(time_ns: int | None) -> float:
    assert time_ns is not None
    return (NOW_NS - time_ns) / 1e9


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_two_spans_with_the_ids_that_the_engine_was_told() -> None:
    own, call = spans(RECORD)
    assert own.context is not None
    assert call.context is not None
    assert own.parent is not None
    assert call.parent is not None
    assert {own.context.trace_id, call.context.trace_id} == {0xABC}
    assert (own.parent.span_id, own.parent.is_remote, own.context.span_id) == (0x11, True, 0x22)
    assert (call.parent.span_id, call.parent.is_remote, call.context.span_id) == (0x22, False, 0x33)
    assert (own.kind, call.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert (own.name, call.name) == ("POST /v1/chat/completions", "chat llama")
    assert own.resource.attributes["service.name"] == "penstock"


def test_times_events_and_attributes() -> None:
    own, call = spans(RECORD)
    assert (before_end_s(own.start_time), before_end_s(own.end_time)) == (4.0, 0.0)
    assert (before_end_s(call.start_time), before_end_s(call.end_time)) == (2.75, 0.0)  # body read, then the queue
    assert [(event.name, before_end_s(event.timestamp)) for event in own.events] == [
        ("penstock.queue", 2.75),
        ("penstock.first_byte", 2.25),
    ]
    assert dict(own.events[0].attributes or {}) == {"penstock.queue.wait": 1.0, "penstock.class": "high"}
    assert attributes(own) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": "llama",
        "penstock.request_id": "r-1",
        "penstock.outcome": "success",
        "penstock.tenant": "acme",
        "penstock.class": "high",
        "penstock.good": True,
    }
    assert attributes(call) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.response.time_to_first_chunk": 0.5,
        "penstock.upstream": "vllm-0",
        "penstock.retries": 1,
    }
    assert own.status.status_code is call.status.status_code is StatusCode.UNSET


def test_a_refusal_has_no_call_and_is_an_error() -> None:
    trace = replace(TRACE, parent_id=None)
    refused = RequestRecord(
        "r-2", "/v1/embeddings", Outcome.QUEUE_TIMEOUT, 503, 2.0, queue_s=1.5, model="m", trace=trace
    )
    [own] = spans(refused)
    assert own.parent is None
    assert own.status.status_code is StatusCode.ERROR
    assert attributes(own)["error.type"] == "queue_timeout"
    assert "penstock.tenant" not in attributes(own)
    assert [event.name for event in own.events] == ["penstock.queue"]


@pytest.mark.parametrize(
    ("path", "name", "upstream", "provider"),
    [
        ("/v1/embeddings", "embeddings llama", "vllm-0", "vllm"),
        ("/v1/rerank", "rerank llama", "other", "openai"),
    ],
)
def test_names_of_other_work_and_of_unknown_engines(path: str, name: str, upstream: str, provider: str) -> None:
    plain = replace(RECORD, path=path, upstream=upstream, streaming=False, engine_ttft_s=None, ttft_s=None)
    own, call = spans(plain)
    assert call.name == name
    assert attributes(call)["gen_ai.provider.name"] == provider
    assert "gen_ai.response.time_to_first_chunk" not in attributes(call)
    assert before_end_s(call.start_time) == 3.0
    assert own.status.status_code is StatusCode.UNSET


def test_a_local_answer_is_a_get_of_one_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway")
    [own] = spans(RequestRecord("r-3", "/v1/models", Outcome.SUCCESS, 200, 0.1, trace=TRACE))
    assert own.name == "GET /v1/models"
    assert own.resource.attributes["service.name"] == "gateway"
