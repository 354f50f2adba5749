from __future__ import annotations

import asyncio
import json

from proxy.adapters.session import client_session
from proxy.loadtest.client.clock import TurnClock
from proxy.loadtest.client.endpoint import Endpoint, read_endpoint
from proxy.loadtest.client.watch import Sources, Watch
from proxy.loadtest.observations import Observation
from tests.loadtest.support import MODELS, scripted, whole

VLLM = """vllm:num_requests_running{engine="0"} 3
vllm:num_requests_waiting{engine="0"} 1
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:num_preemptions_total{engine="0"} 4
vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1
"""
DCGM = """DCGM_FI_DEV_GPU_UTIL{gpu="0"} 80
DCGM_FI_DEV_GPU_UTIL{gpu="1"} 60
DCGM_FI_DEV_FB_USED{gpu="0"} 1024
DCGM_FI_DEV_FB_USED{gpu="1"} 512
"""
UPSTREAMS = [
    {"engine": "vllm", "engine_running": 2, "engine_waiting": 0, "engine_kv_usage": 0.3, "engine_preemptions": 1,
     "limit": 7.5},
    {"engine": "vllm", "engine_running": 3, "engine_waiting": None, "engine_kv_usage": None, "limit": 2},
]  # fmt: skip
STATE = {"upstreams": UPSTREAMS, "classes": [{"queued": 2}, {"queued": 5}]}


def looked(pages: dict[str, bytes], *sources: str, models: bool = False) -> tuple[Observation, Watch]:
    async def scenario() -> tuple[Observation, Watch]:
        async with scripted(pages={"/v1/models": MODELS} | pages) as endpoint, client_session() as session:
            named = Sources(**dict.fromkeys(sources, endpoint.url))
            watch = Watch(session, read_endpoint(endpoint.url, key="k"), named)
            await watch.list_models()
            return await watch.look(1.5), watch

    return asyncio.run(scenario())


def test_an_engine_s_metrics() -> None:
    seen, watch = looked({"/metrics": whole(VLLM.encode())}, "engine")
    assert (seen.engine, seen.running, seen.waiting, seen.kv_usage) == ("vllm", 3, 1, 0.25)
    assert (seen.preemptions, seen.kv_tokens, seen.at_s) == (4, 1600, 1.5)
    assert watch.models == ("m",)


def test_a_penstock_s_state() -> None:
    seen, _ = looked({"/admin/state": whole(json.dumps(STATE).encode())}, "admin")
    assert (seen.engine, seen.running, seen.waiting, seen.kv_usage) == ("vllm", 5, 0, 0.3)
    assert (seen.preemptions, seen.limit, seen.queued) == (1, 9.5, 7)


def test_a_dcgm_exporter() -> None:
    seen, _ = looked({"/metrics": whole(DCGM.encode())}, "dcgm")
    assert (seen.gpu_utilization, seen.gpu_memory_bytes) == (0.7, 1536 << 20)


def test_pages_that_tell_nothing_leave_their_fields_out() -> None:
    nothing = {"/metrics": whole(b"<html>"), "/admin/state": whole(b"["), "/v1/models": whole(b"?")}
    seen, watch = looked(nothing, "engine", "admin", "dcgm")
    assert seen == Observation(1.5)
    assert watch.models == ()


def test_nobody_there_is_no_error() -> None:
    async def scenario() -> tuple[Observation, Watch]:
        async with client_session() as session:
            nowhere = "http://127.0.0.1:9"
            watch = Watch(session, Endpoint("127.0.0.1", 9), Sources(nowhere, nowhere, nowhere, "token"))
            await watch.list_models()
            return await watch.look(0.0), watch

    seen, watch = asyncio.run(scenario())
    assert (seen, watch.models) == (Observation(0.0), ())


def test_it_looks_until_it_is_cancelled() -> None:
    async def scenario() -> list[Observation]:
        async with scripted(pages={"/metrics": whole(VLLM.encode())}) as endpoint, client_session() as session:
            watch = Watch(session, read_endpoint(endpoint.url), Sources(endpoint.url))
            task = asyncio.get_running_loop().create_task(watch.run(TurnClock(asyncio.get_running_loop().call_soon)))
            while not watch.observations:
                await watch.list_models()
            task.cancel()
            return watch.observations

    assert asyncio.run(scenario())[0].running == 3
