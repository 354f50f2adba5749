"""OpenTelemetry spans of requests that have ended, made of their records: nothing of it runs while a request does.

Two spans per sampled request: the proxy's own (SERVER, receipt to end) with the wait in the queue as an event, and the
call of the engine (CLIENT, dispatch to end) with the attributes of the GenAI semantic conventions
(https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md). No prompt, answer or key.
Imported by `proxy.adapters.tracing` alone, and only where tracing is on: it needs the extra `otel`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from proxy import __version__
from proxy.adapters.records import RequestRecord
from proxy.types import Outcome
from proxy.wire.trace_context import TraceContext

CLOSE_S = 3.0
NANO = 1_000_000_000
WELL = frozenset({Outcome.SUCCESS, Outcome.CLIENT_GONE})
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/embeddings": "embeddings",
    "/v2/embed": "embeddings",
}

Attributes = dict[str, str | int | float | bool]


class SpanMaker:
    """Makes spans of records. `engine_of` names the engine behind an upstream; `wall_ns` is the time of day."""

    def __init__(
        self, processor: SpanProcessor, engine_of: Callable[[str], str], wall_ns: Callable[[], int] = time.time_ns
    ) -> None:
        resource = Resource({"service.name": "penstock", "service.version": __version__})
        told = Resource.create()  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come before ours
        if str(told.attributes["service.name"]).startswith("unknown_service"):
            told = told.merge(resource)
        self._ids = _GivenIds()
        # The decision to sample was made when the request came in.
        self._provider = TracerProvider(ALWAYS_ON, told, shutdown_on_exit=False, id_generator=self._ids)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("penstock", __version__)
        self._engine_of = engine_of
        self._wall_ns = wall_ns

    def ended(self, record: RequestRecord) -> None:
        """Hand over the two spans of a request that has just ended."""
        trace = record.trace
        assert trace is not None
        end_ns = self._wall_ns()
        start_ns = end_ns - round(record.duration_s * NANO)
        dispatched_ns = None if record.queue_s is None else start_ns + round(_dispatched_s(record) * NANO)
        method = "GET" if record.path.startswith("/v1/models") else "POST"
        name, attributes = f"{method} {record.path}".rstrip(), _own_attributes(record, method)
        own = self._start(trace, trace.parent_id, trace.span_id, SpanKind.SERVER, name, attributes, start_ns)
        if dispatched_ns is not None and record.queue_s is not None:
            wait: Attributes = {"penstock.queue.wait": record.queue_s, "penstock.class": record.class_name}
            own.add_event("penstock.queue", wait, timestamp=dispatched_ns)
        if record.ttft_s is not None:
            own.add_event("penstock.first_byte", timestamp=start_ns + round(record.ttft_s * NANO))
        if dispatched_ns is not None and record.upstream:
            operation = OPERATIONS.get(record.path, record.path.rsplit("/", 1)[-1])
            name, attributes = f"{operation} {record.model}", self._call_attributes(record, operation)
            call = self._start(
                trace, trace.span_id, trace.upstream_id, SpanKind.CLIENT, name, attributes, dispatched_ns
            )
            _finish(call, record, end_ns)
        _finish(own, record, end_ns)

    def _call_attributes(self, record: RequestRecord, operation: str) -> Attributes:
        """What the GenAI conventions ask of the engine's span, as far as a proxy knows it."""
        attributes: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": self._engine_of(record.upstream) or "openai",
            "gen_ai.request.model": record.model,
            "gen_ai.request.stream": record.streaming,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
            "penstock.upstream": record.upstream,
            "penstock.retries": record.retries,
        }
        if record.streaming and record.engine_ttft_s is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = record.engine_ttft_s
        return attributes

    def _start(
        self,
        trace: TraceContext,
        parent_id: int | None,
        span_id: int,
        kind: SpanKind,
        name: str,
        attributes: Attributes,
        start_ns: int,
    ) -> Span:
        context = Context()
        if parent_id is not None:
            remote = parent_id == trace.parent_id
            parent = SpanContext(trace.trace_id, parent_id, remote, TraceFlags(TraceFlags.SAMPLED))
            context = set_span_in_context(NonRecordingSpan(parent), context)
        self._ids.trace_id, self._ids.span_id = trace.trace_id, span_id
        return self._tracer.start_span(name, context, kind, attributes, start_time=start_ns)

    def close(self) -> None:
        """Send what waits, for at most `CLOSE_S` seconds: a collector that is away must not hold up the end."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_S)


class _GivenIds(IdGenerator):
    """Ids were drawn when the request came in: the engine has been told them."""

    trace_id = 0
    span_id = 0

    def generate_span_id(self) -> int:
        return self.span_id

    def generate_trace_id(self) -> int:
        return self.trace_id


def _dispatched_s(record: RequestRecord) -> float:
    """Receipt to dispatch: where the first token is known, its two times differ by exactly that."""
    if record.ttft_s is not None and record.engine_ttft_s is not None:
        return max(record.queue_s or 0.0, record.ttft_s - record.engine_ttft_s)
    return record.queue_s or 0.0


def _own_attributes(record: RequestRecord, method: str) -> Attributes:
    attributes: Attributes = {
        "http.request.method": method,
        "http.route": record.path,
        "http.response.status_code": record.status,
        "gen_ai.request.model": record.model,
        "penstock.request_id": record.request_id,
        "penstock.outcome": record.outcome.value,
        "penstock.tenant": record.tenant,
        "penstock.class": record.class_name,
        "penstock.good": record.good,
    }
    return {name: value for name, value in attributes.items() if value != ""}


def _finish(span: Span, record: RequestRecord, end_ns: int) -> None:
    if record.outcome not in WELL:
        span.set_attribute("error.type", record.outcome.value)
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_ns)
