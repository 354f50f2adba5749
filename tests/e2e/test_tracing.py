"""Spans as a collector receives them, and the header that the engine receives, from the real process."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, running
from tests.e2e.raw_client import RawClient, chat, post
from tests.e2e.scripted_upstream import HOST, ScriptedUpstream, wait_for, whole_stream

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    """An OTLP collector: its address, and the spans that it was sent."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            sent = ExportTraceServiceRequest.FromString(body)
            spans.extend(span for one in sent.resource_spans for scope in one.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Quiet."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()


def openmetrics_of(proxy: ProxyProcess) -> str:
    address = f"http://{HOST}:{proxy.admin_port}/metrics"
    asked = urllib.request.Request(address, headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        return str(answer.read(), "utf-8")


def sent_traceparents(engine: ScriptedUpstream) -> list[str]:
    lines = [line.split(": ", 1) for call in engine.calls for line in call.head.split("\r\n")[1:]]
    return [value for name, value in lines if name.lower() == "traceparent"]


def test_a_callers_trace_reaches_engine_collector_log_and_exemplars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector() as (url, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        engine = ScriptedUpstream(script=(whole_stream(),))
        config = settings(upstream("main", engine.url, "m"), tracing={"enabled": True, "sample_ratio": 0})
        with running(tmp_path, config) as proxy:
            with RawClient(proxy.port) as client:
                header = f"traceparent: 00-{TRACE}-{PARENT}-01"
                for headers in ([header, "x-request-id: traced"], [header[:-1] + "0"], []):
                    assert client.send(post(chat(stream=True), headers=headers)).answer().status == 200
            wait_for(lambda: len(spans) >= 2, "two spans at the collector", 5)
            assert proxy.record("traced")["trace_id"] == TRACE
            openmetrics = openmetrics_of(proxy)
        own, call = sorted(spans, key=lambda span: span.kind == Span.SPAN_KIND_CLIENT)
        assert [own.trace_id.hex(), own.parent_span_id.hex(), own.name] == [TRACE, PARENT, "POST /v1/chat/completions"]
        assert [call.trace_id.hex(), call.parent_span_id, call.name] == [TRACE, own.span_id, "chat m"]
        assert [event.name for event in own.events] == ["penstock.queue", "penstock.first_byte"]
        first, second, third = sent_traceparents(engine)
        assert first == f"00-{TRACE}-{call.span_id.hex()}-01"
        assert second.startswith(f"00-{TRACE}-")
        assert second.endswith("-00")
        assert third.endswith("-00")
        assert TRACE not in third
        assert len(spans) == 2  # only what is sampled
        assert f'# {{trace_id="{TRACE}"}}' in openmetrics


def test_without_tracing_the_header_passes_as_it_came_and_no_log_line_names_it(tmp_path: Path) -> None:
    engine = ScriptedUpstream()
    with running(tmp_path, settings(upstream("main", engine.url, "m"))) as proxy:
        with RawClient(proxy.port) as client:
            headers = [f"TraceParent: 00-{TRACE}-{PARENT}-01", "tracestate: vendor=1", "x-request-id: plain"]
            assert client.send(post(chat(), headers=headers)).answer().status == 200
        assert sent_traceparents(engine) == [f"00-{TRACE}-{PARENT}-01"]
        assert "tracestate: vendor=1" in engine.calls[0].head
        assert "trace_id" not in json.dumps(proxy.record("plain"))


def test_a_collector_that_is_away_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{HOST}:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    engine = ScriptedUpstream()
    config = settings(upstream("main", engine.url, "m"), tracing={"enabled": True, "sample_ratio": 1})
    with running(tmp_path, config) as proxy, RawClient(proxy.port) as client:
        for _ in range(20):
            assert client.send(post(chat())).answer().status == 200
