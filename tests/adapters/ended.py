"""A request that went well."""

from __future__ import annotations

from proxy.adapters.records import RequestRecord
from proxy.types import Outcome

GOOD = RequestRecord(
    request_id="r-1",
    path="/v1/chat/completions",
    outcome=Outcome.SUCCESS,
    status=200,
    duration_s=4.0,
    tenant="acme",
    class_name="high",
    model="llama",
    upstream="vllm-0",
    streaming=True,
    ttft_s=0.65,
    engine_ttft_s=0.6,
    prompt_tokens=100,
    output_tokens=20,
    cached_tokens=64,
    good=True,
)
