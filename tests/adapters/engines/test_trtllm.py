from __future__ import annotations

import pytest

from proxy.adapters.engines.trtllm import Trtllm
from proxy.types import Telemetry

SERVE = """trtllm_num_requests_running{model_name="m"} 12
trtllm_num_requests_waiting{model_name="m"} 3
trtllm_kv_cache_utilization{model_name="m"} 0.31
trtllm_kv_cache_max_blocks{model_name="m"} 19960
trtllm_kv_cache_tokens_per_block{model_name="m"} 32
trtllm_max_batch_size_static{model_name="m"} 2048
trtllm_max_batch_size_runtime{model_name="m"} 256
"""
TRITON = """nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m",version="1"} 630
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="m",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.5
nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 8
nv_trt_llm_request_metrics{model="m",request_type="max",version="1"} 512
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SERVE, Telemetry(1.0, running=12, waiting=3, kv_usage=0.31, kv_tokens=19960 * 32, running_cap=256)),
        (TRITON, Telemetry(1.0, running=8, waiting=1, kv_usage=0.5, kv_tokens=630 * 64, running_cap=512)),
        ("request_success_total 5\n", Telemetry(1.0)),
        ("trtllm_num_requests_running 0\n", Telemetry(1.0, running=0)),
    ],
)
def test_metrics_of_serve_and_of_triton(text: str, expected: Telemetry) -> None:
    assert Trtllm().parse_metrics(text, 1.0) == expected
