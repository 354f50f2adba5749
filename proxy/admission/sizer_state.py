"""What a sizer is told each tick, what it shows to operators, and what of it survives a restart."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.admission.step_model import Coefficients
from proxy.types import Telemetry


@dataclass(frozen=True, slots=True)
class SizerState:
    """For the admin page and gauges; seconds, tokens; None: not measured yet."""

    limit: float
    held: bool
    epoch: int
    margin: float
    itl_s: float | None
    ttft_s: float | None
    kappa: float | None
    a: float | None
    b: float | None
    d: float | None
    fit_ratio: float
    reason: str | None


@dataclass(frozen=True, slots=True)
class SizerMemory:
    """What survives a restart."""

    limit: float
    margin: float
    coefficients: Coefficients | None


@dataclass(frozen=True, slots=True)
class TickInput:
    """What happened at one upstream since the last tick.

    `gap_s`, `tokens`: as in `types.Reading`. `running`: time average of requests past their first token (a request
    that is not streamed counts from its dispatch). `prefill_tokens`: uncached prompt tokens whose first token came in
    this tick; `prefill_out_tokens`: those still outstanding. `queue_share`: 0..1 share of the tick with an eligible
    request waiting. `mean_prompt_tokens` is the uncached part. `mix`: number of the present mix of requests, as the
    ledger counts them. `kv_limit_seats`: seats that memory holds at the measured sizes. `engine_total_running`: what
    the engine says it runs, all proxies together.
    """

    now: float
    duration_s: float
    gap_s: float
    tokens: float
    running: float
    prefill_tokens: float
    in_flight: int
    prefill_out_tokens: float
    queue_share: float
    mean_prompt_tokens: float
    mean_output_tokens: float
    mix: int = 0
    kv_limit_seats: float | None = None
    engine: Telemetry | None = None
    engine_total_running: float | None = None
