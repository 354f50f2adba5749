from __future__ import annotations

import pytest

from proxy.adapters.engines.vllm import Vllm
from proxy.types import Telemetry

V1 = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 7.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.62
vllm:num_preemptions_total{engine="0",model_name="m"} 4.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.76e+09
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",mamba_block_size="None",num_gpu_blocks="652",\
num_gpu_blocks_override="None",sliding_window="None"} 1.0
"""
V0 = """vllm:num_requests_running{model_name="m"} 1.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.1
vllm:cache_config_info{block_size="16",num_gpu_blocks="573",num_cpu_blocks="1024"} 1.0
"""
TWO_RANKS = """vllm:num_requests_running{engine="0"} 7.0
vllm:num_requests_running{engine="1"} 5.0
vllm:num_requests_waiting{engine="0"} 0
vllm:num_requests_waiting{engine="1"} 3
vllm:kv_cache_usage_perc{engine="0"} 0.2
vllm:kv_cache_usage_perc{engine="1"} 0.9
vllm:num_preemptions_total{engine="0"} 1
vllm:num_preemptions_total{engine="1"} 1
vllm:cache_config_info{engine="0",kv_cache_size_tokens="1000"} 1.0
vllm:cache_config_info{engine="1",kv_cache_size_tokens="1100"} 1.0
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (V1, Telemetry(1.0, running=7, waiting=2, kv_usage=0.62, preemptions=4, kv_tokens=652 * 16)),
        (V0, Telemetry(1.0, running=1, kv_usage=0.1, kv_tokens=573 * 16)),
        (TWO_RANKS, Telemetry(1.0, running=12, waiting=3, kv_usage=0.9, preemptions=2, kv_tokens=2100)),
    ],
)
def test_each_generation_tells_its_load_and_capacity(text: str, expected: Telemetry) -> None:
    assert Vllm().parse_metrics(text, 1.0) == expected


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ('kv_cache_size_tokens="314187",num_gpu_blocks="652",block_size="2096",mamba_block_size="2096"', 314187),
        ('kv_cache_size_tokens="None",num_gpu_blocks="652",block_size="1104",mamba_block_size="1104"', None),
        ('num_gpu_blocks="652",block_size="16",sliding_window="4096"', None),
        ('num_gpu_blocks="None",block_size="16"', None),
        ('enable_prefix_caching="True"', None),
    ],
)
def test_a_capacity_that_would_be_wrong_for_a_hybrid_model_is_not_told(labels: str, tokens: int | None) -> None:
    assert Vllm().parse_metrics(f"vllm:cache_config_info{{{labels}}} 1.0", 1.0).kv_tokens == tokens


def test_one_unreadable_rank_leaves_the_sum_unknown() -> None:
    text = 'vllm:cache_config_info{engine="0",kv_cache_size_tokens="9"} 1\nvllm:cache_config_info{engine="1"} 1\n'
    assert Vllm().parse_metrics(text, 1.0).kv_tokens is None


def test_the_capacity_page_of_some_builds() -> None:
    page = {
        "schema_version": 1,
        "engines": [
            {"dp_rank": 0, "max_model_len": 8192, "max_num_seqs": 256, "kv_cache_capacity_tokens": 314187},
            {"dp_rank": 1, "max_model_len": 8192, "max_num_seqs": 256, "kv_cache_capacity_tokens": 314187},
        ],
    }
    expected = Telemetry(2.0, kv_tokens=628374, running_cap=512, context_tokens=8192)
    assert Vllm().parse_info(page, 2.0) == expected
