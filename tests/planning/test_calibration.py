"""Start-up logs and scrapes of each engine, and the overhead solved from them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.planning.accelerators import GIB
from proxy.planning.calibration import (
    Observation,
    calibrated_request,
    observe,
    observe_engine,
    read_log,
    read_metrics,
)
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


# (engine, version, model, card, flags, log lines, KV tokens that a calibrated plan must then give)
LOGS_BY_VERSION: list[tuple[str, str, str, str, dict[str, Any], str, int]] = [
    (
        "vllm", "0.7.2", "qwen2.5-1.5b", "l40", {"max_model_len": 4096},
        "can use total_gpu_memory (44.39GiB) x gpu_memory_utilization (0.85) = 37.73GiB\n"
        "model weights take 2.88GiB; the rest of the memory reserved for KV Cache is 33.37GiB.\n"
        "Loading model weights took 2.8797 GB\n# CUDA blocks: 78115, # CPU blocks: 9362\n",
        1249840,
    ),
    (
        "vllm", "0.10.2", "llava-1.6-mistral-7b", "h100", {"max_model_len": 4096},
        "Model loading took 14.0786 GiB and 10.24 seconds\nAvailable KV cache memory: 55.15 GiB\n"
        "GPU KV cache size: 451,744 tokens\nMaximum concurrency for 4,096 tokens per request: 110.29x\n"
        "Free memory on device (78.66/79.19 GiB) on startup. Desired GPU memory utilization is (0.9, 71.27 GiB).\n",
        451744,
    ),
    (
        "vllm", "0.31.0", "llama-3.1-8b", "a100", {},
        "Model loading took 15.0 GiB memory and 5.4 seconds\nAvailable KV cache memory: 56.21 GiB\n"
        "GPU KV cache size: 460,496 tokens, Maximum concurrency for 131,072 tokens per request: 3.51x\n"
        "Free memory on device (78.84/79.25 GiB) on startup. Desired GPU memory utilization is (0.92, 72.91 GiB).\n",
        460496,
    ),
    (
        "sglang", "0.4.1", "llama-3.1-8b", "h100", {},
        "server_args=ServerArgs(mem_fraction_static=0.88)\nLoad weight begin. avail mem=78.81 GB\n"
        "Load weight end. type=LlamaForCausalLM, avail mem=63.72 GB, mem usage=15.09 GB.\n"
        "KV Cache is allocated. K size: 27.13 GB, V size: 27.13 GB.\nmax_total_num_tokens=444500, x=1\n",
        444500,
    ),
    (
        "sglang", "0.5.8", "kimi-k2.5", "mi355x", {"count": 8, "tp": 8, "fraction": 0.826},
        "Load weight begin. avail mem=283.56 GB\nLoad weight end. avail mem=209.98 GB, mem usage=73.58 GB.\n"
        "KV Cache is allocated. #tokens: 2454421, KV size: 160.63 GB\n",
        2454421,
    ),
    (
        "tensorrt-llm", "1.2", "gpt-oss-120b", "gb10", {},
        "available KV cache memory when calculating max tokens: 5.95 GiB, fraction is set 0.9, kv size is 73728."
        " device total memory 119.70 GiB, tmp kv_mem 0.56 GiB\n",
        86711,
    ),
    (
        "tgi", "3.0", "llama-3.1-8b", "l4", {"max_model_len": 4096},
        "KV-cache blocks: 19056, size: 1\nSetting max batch total tokens to 19056\n",
        19056,
    ),
    (
        "llama.cpp", "b8247", "qwen3-8b", "rtx-3090", {"kv_dtype": "fp16", "max_model_len": 40960},
        "load_tensors: CUDA0 model buffer size =  4717.38 MiB\n"
        "llama_kv_cache: size = 5760.00 MiB ( 40960 cells,  36 layers,  1/1 seqs), K (f16): 2880.00 MiB\n",
        40960,
    ),
    (
        "llama.cpp", "b3000", "llama-2-7b", "rtx-3090", {"kv_dtype": "fp16", "max_model_len": 2048},
        "KV self size  = 1024.00 MiB, K (f16):  512.00 MiB, V (f16):  512.00 MiB\n",
        2048,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "version", "model", "card", "flags", "log", "tokens"),
    LOGS_BY_VERSION,
    ids=[f"{row[0]} {row[1]}" for row in LOGS_BY_VERSION],
)
def test_a_plan_calibrated_by_a_log_gives_what_the_log_printed(
    engine: str, version: str, model: str, card: str, flags: dict[str, Any], log: str, tokens: int
) -> None:
    first = planned(model, card, engine=engine, engine_version=version, **flags)
    again = plan_capacity(first.shape, first.card, calibrated_request(first, observe(log)))
    assert again.kv_tokens == pytest.approx(tokens, rel=0.005)
    assert (again.budget.low, again.budget.high) == (again.kv_bytes, again.kv_bytes)


def test_state_pools_and_windowed_pools_are_part_of_the_cache() -> None:
    mamba = "Mamba Cache is allocated. max_mamba_cache_size: 38, conv_state size: 0.03GB, ssm_state size: 2.74GB \n"
    pool = "KV Cache is allocated. #tokens: 399740, K size: 1.52 GB, V size: 1.52 GB\n"
    assert observe(mamba + pool).kv_gib == pytest.approx(5.81)
    swa = "KV Cache is allocated. #tokens: 5, K size: 1.0 GB, V size: 1.0 GB\n"
    seen = observe(swa + "SWAKVPool mem usage: 79.94 GB, swa size: 798276, full size: 997846\n")
    assert (seen.kv_gib, seen.kv_tokens) == (79.94, 997846)


def test_an_engine_that_tells_elsewhere() -> None:
    assert observe_engine("", 444500, 8192) == Observation(kv_tokens=444500, context_tokens=8192)
    scrape = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0'
    assert observe_engine(scrape, 7, None).tokens == 1600
    with pytest.raises(PlanError, match="no KV cache size found"):
        observe_engine("", None, 4096)


HOSTILE = ["KV Cache is allocated. ", "Load weight end. ", "SWAKVPool ", "Mamba Cache is allocated. ", "llama_kv_cache"]


@pytest.mark.parametrize("piece", [*HOSTILE, "trtllm_kv_cache_max_blocks{\n", "KV self size  ", "9,", "\n"])
def test_a_log_that_repeats_half_a_line_is_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    with pytest.raises(PlanError, match="no KV cache size found"):
        observe(piece * (2**20 // len(piece)))
    assert time.process_time() - started < 5  # 0.3 s; hours when a pattern looks ahead without bound
