"""Start-up logs and scrapes of each engine, and the overhead solved from them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.planning.accelerators import GIB
from proxy.planning.calibration import calibrated_request, observe, read_log, read_metrics
from proxy.planning.capacity import CapacityPlan, plan_capacity
from proxy.planning.fields import PlanError
from tests.planning.support import planned

VLLM_LOG = """
INFO model_runner.py:1115] Loading model weights took 14.9888 GB
INFO worker.py:267] vLLM can use total_gpu_memory (23.58GiB) x gpu_memory_utilization (0.90) = 21.22GiB
INFO gpu_model_runner.py] Model loading took 15.0 GiB and 3.2 seconds
INFO gpu_worker.py] Available KV cache memory: 3.81 GiB
INFO kv_cache_utils.py] GPU KV cache size: 31,232 tokens
INFO kv_cache_utils.py] Maximum concurrency for 20,000 tokens per request: 1.56x
"""
SCRAPE = """# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="652",kv_cache_size_tokens="314187",\
kv_cache_max_concurrency="38.35",gpu_memory_utilization="0.9",sliding_window="None"} 1.0
"""


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        (
            VLLM_LOG,
            {"weights_gib": 15.0, "total_gib": 23.58, "fraction": 0.9, "kv_gib": 3.81, "kv_tokens": 31232}
            | {"max_concurrency": 1.56, "context_tokens": 20000},
        ),
        ("# cuda blocks: 5691, # CPU blocks: 2048", {"blocks": 5691}),
        ("# rocm blocks: 6495, # CPU blocks: 2340", {"blocks": 6495}),
        (
            "KV Cache is allocated. #tokens: 367404, K size: 8.23 GB, V size: 8.23 GB",
            {"kv_tokens": 367404, "kv_gib": 16.46},
        ),
        ("KV Cache is allocated. dtype: bf16, #tokens: 5, KV size: 2.50 GB", {"kv_gib": 2.5, "kv_tokens": 5}),
        ("max_total_num_tokens=38141, chunked_prefill_size=2048", {"kv_tokens": 38141}),
        (
            "[MemUsageChange] Allocated 16.05 GiB for max tokens in paged KV cache (263008).\n"
            "total: 31.84 GiB, available: 17.83 GiB",
            {"kv_gib": 16.05, "kv_tokens": 263008, "total_gib": 31.84, "free_gib": 17.83},
        ),
        ("Setting max batch total tokens to 16000", {"kv_tokens": 16000}),
        ("nothing", {}),
    ],
)
def test_logs(text: str, figures: dict[str, float]) -> None:
    assert read_log(text).known() == pytest.approx(figures)


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        (
            SCRAPE,
            {"kv_tokens": 314187, "max_concurrency": 38.35, "blocks": 652, "block_tokens": 16, "fraction": 0.9},
        ),
        ('sglang:max_total_num_tokens{model="m"} 38141.0', {"kv_tokens": 38141}),
        ('sglang:cache_config_info{page_size="64",num_pages="10"} 1', {"blocks": 10, "block_tokens": 64}),
        ("trtllm_kv_cache_max_blocks 100\ntrtllm_kv_cache_tokens_per_block 32", {"blocks": 100, "block_tokens": 32}),
        ("tgi_batch_max_total_tokens 16000", {"kv_tokens": 16000}),
        ('vllm:cache_config_info{num_gpu_blocks="None"} 1', {}),
    ],
)
def test_scrapes(text: str, figures: dict[str, float]) -> None:
    assert read_metrics(text).known() == pytest.approx(figures)


def test_tokens_from_blocks() -> None:
    assert observe("# GPU blocks: 10, # CPU blocks: 1").tokens == 160
    assert observe("trtllm: # TYPE\ntrtllm_kv_cache_max_blocks 10\ntrtllm_kv_cache_tokens_per_block 32").tokens == 320
    with pytest.raises(PlanError, match="no KV cache size found"):
        observe("ready")


def recalibrated(plan: CapacityPlan, text: str) -> CapacityPlan:
    return plan_capacity(plan.shape, plan.card, calibrated_request(plan, observe(text)))


def test_the_plan_after_calibration_gives_what_the_engine_printed() -> None:
    plan = recalibrated(planned("llama-3.1-8b", "rtx-3090", max_model_len=20000), VLLM_LOG)
    assert plan.kv_bytes / GIB == pytest.approx(3.81, abs=1e-6)
    assert plan.kv_tokens == pytest.approx(31232, rel=0.002)  # the log rounds to 0.01 GiB
    overhead = plan.budget.lines[-1]
    assert (overhead.name, str(overhead.provenance)) == ("overhead", "live")
    assert overhead.bytes / GIB == pytest.approx(-(23.58 * 0.9 - 15.0 - 3.81), abs=1e-6)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm", "tgi", "llama.cpp"])
def test_calibration_closes_for_every_engine(engine: str) -> None:
    plan = planned("llama-3.1-8b", engine=engine)
    truth = plan.kv_tokens // 2
    assert recalibrated(plan, f"max_total_num_tokens={truth}").kv_tokens == pytest.approx(truth, rel=0.001)


def test_hybrids_calibrate_on_concurrency_and_tensorrt_on_free_memory() -> None:
    plan = planned("qwen3.5-35b-a3b", "h200", engine_version="0.24", max_model_len=131072)
    text = "GPU KV cache size: 569,878 tokens\nMaximum concurrency for 131,072 tokens per request: 4.348x"
    assert recalibrated(plan, text).kv_tokens == pytest.approx(569878, rel=0.01)
    free = recalibrated(planned(engine="tensorrt-llm", card="rtx-5090", kv_dtype="fp8"), "available: 17.83 GiB")
    assert free.kv_bytes / GIB == pytest.approx(16.05, rel=0.001)


def test_more_cache_than_there_is_memory_is_refused() -> None:
    with pytest.raises(PlanError, match="exceed what total x fraction - weights leaves"):
        recalibrated(planned(), "Available KV cache memory: 100.0 GiB")


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="# GPUblocks:0123456789.,xKVcachesize tokens\n", max_size=200), st.booleans())
def test_any_text_is_read_or_refused(text: str, scraped: bool) -> None:
    reader: Any = read_metrics if scraped else read_log
    assert all(value >= 0 for value in reader(text).known().values())
