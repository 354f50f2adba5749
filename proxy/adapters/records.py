"""One record per request that has ended: what the log line and the metrics are made of. No keys, no prompts."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.types import Outcome, Phase
from proxy.wire.trace_context import TraceContext


@dataclass(slots=True, init=False)
class RequestRecord:
    """Times in seconds. Strings are printable ASCII: the edge refuses anything else before a record exists."""

    request_id: str
    path: str
    outcome: Outcome
    status: int  # what the client was sent; 499 when it had left
    duration_s: float  # receipt to end
    tenant: str
    class_name: str
    model: str
    upstream: str
    streaming: bool
    queue_s: float | None  # None: never queued nor dispatched
    ttft_s: float | None  # receipt to first body byte sent: the client's view
    engine_ttft_s: float | None  # dispatch to first token
    tpot_s: float | None  # mean time per output token after the first
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    good: bool  # success, with TTFT and time per output token within target
    retries: int  # our own further tries
    client_attempt: int  # x-stainless-retry-count
    gone_phase: Phase | None  # where the client left
    abort_s: float | None  # client gone to upstream closed
    clamped: bool
    unknown_priority: bool
    usage_problem: str  # why the engine's usage was not taken
    trace: TraceContext | None  # None: tracing is off

    def __init__(
        self,
        request_id: str,
        path: str,
        outcome: Outcome,
        status: int,
        duration_s: float,
        tenant: str = "",
        class_name: str = "",
        model: str = "",
        upstream: str = "",
        streaming: bool = False,
        queue_s: float | None = None,
        ttft_s: float | None = None,
        engine_ttft_s: float | None = None,
        tpot_s: float | None = None,
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        good: bool = False,
        retries: int = 0,
        client_attempt: int = 0,
        gone_phase: Phase | None = None,
        abort_s: float | None = None,
        clamped: bool = False,
        unknown_priority: bool = False,
        usage_problem: str = "",
        trace: TraceContext | None = None,
    ) -> None:
        self.request_id = request_id
        self.path = path
        self.outcome = outcome
        self.status = status
        self.duration_s = duration_s
        self.tenant = tenant
        self.class_name = class_name
        self.model = model
        self.upstream = upstream
        self.streaming = streaming
        self.queue_s = queue_s
        self.ttft_s = ttft_s
        self.engine_ttft_s = engine_ttft_s
        self.tpot_s = tpot_s
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.cached_tokens = cached_tokens
        self.good = good
        self.retries = retries
        self.client_attempt = client_attempt
        self.gone_phase = gone_phase
        self.abort_s = abort_s
        self.clamped = clamped
        self.unknown_priority = unknown_priority
        self.usage_problem = usage_problem
        self.trace = trace
