"""One record per request that has ended: what the log line and the metrics are made of. No keys, no prompts."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.types import Outcome, Phase
from proxy.wire.trace_context import TraceContext


@dataclass(slots=True)
class RequestRecord:
    """Times in seconds. Strings are printable ASCII: the edge refuses anything else before a record exists."""

    request_id: str
    path: str
    outcome: Outcome
    status: int  # what the client was sent; 499 when it had left
    duration_s: float  # receipt to end
    tenant: str = ""
    class_name: str = ""
    model: str = ""
    upstream: str = ""
    streaming: bool = False
    queue_s: float | None = None  # None: never queued nor dispatched
    ttft_s: float | None = None  # receipt to first body byte sent: the client's view
    engine_ttft_s: float | None = None  # dispatch to first token
    tpot_s: float | None = None  # mean time per output token after the first
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    good: bool = False  # success, with TTFT and time per output token within target
    retries: int = 0  # our own further tries
    client_attempt: int = 0  # x-stainless-retry-count
    gone_phase: Phase | None = None  # where the client left
    abort_s: float | None = None  # client gone to upstream closed
    clamped: bool = False
    unknown_priority: bool = False
    usage_problem: str = ""  # why the engine's usage was not taken
    trace: TraceContext | None = None  # None: tracing is off
