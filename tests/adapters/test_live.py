"""What a running engine tells, from a scripted server on loopback, and what cannot be asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.adapters.live import BODY_MAX_BYTES, LiveEngine, ask_engine, get
from proxy.planning.fields import PlanError
from tests.adapters.scripted_engine import RESET, reply, scripted_engine, unused_port

VLLM = {
    "/v1/models": reply('{"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 8192}]}'),
    "/metrics": reply(
        'vllm:num_requests_running{engine="0"} 3\nvllm:kv_cache_usage_perc{engine="0"} 0.5\n'
        'vllm:cache_config_info{engine="0",num_gpu_blocks="652",block_size="16",kv_cache_size_tokens="314187"} 1\n'
    ),
}
SGLANG = {
    "/get_server_info": reply('{"max_total_num_tokens": 38141, "max_running_requests": 64, "context_length": 4096}'),
    "/v1/models": reply('{"data": [{"id": "s", "max_model_len": "no"}]}'),
}


def asked(pages: dict[str, bytes]) -> LiveEngine:
    async def run() -> LiveEngine:
        async with scripted_engine(pages) as engine:
            return await asyncio.to_thread(ask_engine, engine.url)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("pages", "engine", "told"),
    [
        (VLLM, "vllm", {"kv_tokens": 314187, "context_tokens": 8192, "running": 3, "kv_usage": 0.5, "models": ("m",)}),
        (SGLANG, "sglang", {"kv_tokens": 38141, "running_cap": 64, "context_tokens": 4096, "models": ("s",)}),
        ({"/props": reply('{"total_slots": 4}')}, "llamacpp", {"running_cap": 4}),
        ({}, "openai", {"kv_tokens": None, "models": ()}),
    ],
)
def test_engines_tell_their_ceiling(pages: dict[str, bytes], engine: str, told: dict[str, Any]) -> None:
    found = asked(pages)
    assert found.engine == engine
    assert {name: getattr(found.telemetry, name) for name in told} == told


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("ftp://x", "take an http"),
        ("file:///etc/passwd", "take an http"),
        ("http://", "take an http"),
        ("http://127.0.0.1:99999", "port of the URL"),
        ("http://127.0.0.1:{port}", r"the engine at 127\.0\.0\.1 does not answer \(Connection refused\)"),
    ],
)
def test_what_cannot_be_asked(url: str, line: str) -> None:
    with pytest.raises(PlanError, match=line):
        get(url.format(port=asyncio.run(unused_port())))


@pytest.mark.parametrize(
    ("answer", "line"),
    [(reply("x" * (BODY_MAX_BYTES + 1)), "is larger than 4 MiB"), (RESET, "does not answer")],
)
def test_odd_answers(answer: bytes, line: str) -> None:
    async def run() -> None:
        async with scripted_engine({"/v1/models": answer}) as engine:
            await asyncio.to_thread(get, engine.url, "/v1/models")

    with pytest.raises(PlanError, match=line):
        asyncio.run(run())
