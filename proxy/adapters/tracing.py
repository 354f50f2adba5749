"""The way to OpenTelemetry, which is an extra: nothing of it is imported unless tracing is on.

Where and how spans are sent is set by OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT and others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from proxy.adapters.records import RequestRecord

EXTRA = "tracing.enabled: needs OpenTelemetry; install it with: pip install 'penstock[otel]'"


class Tracer(Protocol):
    """Hears of every sampled request that has ended."""

    def ended(self, record: RequestRecord) -> None: ...
    def close(self) -> None: ...


def open_tracer(engine_of: Callable[[str], str]) -> Tracer:
    """A tracer that exports in batches from a thread. ValueError, naming the remedy, where the extra is missing."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from proxy.adapters.spans import SpanMaker
    except ImportError:
        raise ValueError(EXTRA) from None
    return SpanMaker(BatchSpanProcessor(OTLPSpanExporter()), engine_of)
