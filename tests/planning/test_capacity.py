"""From budget to seats: which bound holds, what a deployment multiplies, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.planning.accelerators import GIB
from proxy.planning.capacity import CapacityPlan
from proxy.planning.fields import PlanError
from proxy.planning.shapes import read_shape
from tests.planning.support import bundled, config, planned


def test_seats_follow_from_the_pool() -> None:
    plan = planned("llama-3.1-8b", max_model_len=8192, max_num_seqs=1024)
    tokens, seats = plan.kv_tokens, plan.seats
    assert tokens == plan.kv_bytes // (131072 * 16) * 16
    assert seats.worst_case == tokens // 8192
    assert seats.typical == tokens // 2048
    assert seats.latency_adjusted == int(tokens / 2048 * 0.6)
    assert seats.conservative == int(tokens / 16 / -(-int(8192 * 0.35) // 16) * 0.5)
    assert plan.seats.slo is None
    changed = planned("llama-3.1-8b", max_model_len=8192, max_num_seqs=1024, utilization=0.5, latency_factor=0.5).seats
    assert (changed.typical, changed.latency_adjusted) == (tokens // 4096, int(tokens / 4096 * 0.5))


@pytest.mark.parametrize(
    ("request_", "bound"),
    [
        ({}, "memory"),
        ({"itl_ms": 8.0}, "latency"),
        ({"itl_ms": 1000.0}, "memory"),
        ({"max_num_seqs": 16}, "max_num_seqs"),
        ({"max_num_seqs": 16, "itl_ms": 5.8}, "latency"),
    ],
)
def test_the_smallest_bound_holds(request_: dict[str, Any], bound: str) -> None:
    plan = planned("llama-3.1-8b", max_model_len=8192, **request_)
    assert plan.bound == bound
    known = [plan.seats.typical, plan.seats.slo, plan.request.max_num_seqs]
    assert plan.recommended == min(value for value in known if value is not None)


def test_data_parallel_replicas_multiply_and_context_parallel_spreads() -> None:
    one = planned("llama-3.1-8b", max_model_len=8192, itl_ms=20.0)
    two = planned("llama-3.1-8b", max_model_len=8192, itl_ms=20.0, dp=2)
    assert two.kv_tokens == 2 * one.kv_tokens
    assert two.seats.worst_case == int(2 * one.seats.worst_case_ratio)
    assert (two.seats.slo, two.kv_bytes) == (2 * (one.seats.slo or 0), one.kv_bytes)
    whole = planned("kimi-k2.5", "h200", tp=8)
    assert planned("kimi-k2.5", "h200", tp=8, context_parallel=8).kv_tokens == 8 * whole.kv_tokens


def test_tensor_parallelism_defaults_to_the_count() -> None:
    assert planned("llama-3.1-70b", count=8).tp == 8
    assert planned("llama-3.1-70b", count=8, pp=2).tp == 4


@pytest.mark.parametrize(
    ("model", "request_", "line"),
    [
        ("llama-3.1-8b", {"count": 4, "tp": 2}, "tp 2 x pp 1 x dp 1 = 2, but --count is 4"),
        ("llama-3.1-8b", {"tp": 5}, "--tp 5 does not divide the 32 attention heads"),
        ("llama-3.1-8b", {"pp": 64}, "--pp 64 exceeds the 32 layers"),
        ("llama-3.1-8b", {"kv_dtype": "x"}, "--kv-dtype"),
        ("llama-3.1-8b", {"weight_dtype": "x"}, "--weight-dtype"),
        ("llama-3.1-8b", {"engine": "x"}, "--engine"),
    ],
)
def test_impossible_requests(model: str, request_: dict[str, Any], line: str) -> None:
    with pytest.raises(PlanError, match=line):
        planned(model, **request_)


def test_kv_heads_that_tensor_parallelism_cannot_split() -> None:
    shape = read_shape(config(num_attention_heads=24, num_key_value_heads=8, head_dim=64))
    with pytest.raises(PlanError, match="neither divides nor is a multiple of the 8 KV heads"):
        planned(shape, tp=12)


@pytest.mark.parametrize(
    ("given", "used"),
    [(None, 79.2), (80.0, 79.2), (79.18, 79.18), (64.0, 64.0), (79.9, 79.9)],
)
def test_the_marketing_number_means_the_usable_memory(given: float | None, used: float) -> None:
    assert planned(gpu_memory_gib=given).budget.lines[0].bytes == pytest.approx(used * GIB, abs=2)


def test_weights_come_from_the_flag_the_files_or_the_count() -> None:
    from proxy.adapters.files import load_accelerator
    from proxy.planning.capacity import PlanRequest, plan_capacity

    shape, card = bundled("llama-3.1-8b"), load_accelerator("h100")

    def weights(disk: int | None, **more: Any) -> tuple[int, str]:
        plan = plan_capacity(shape, card, PlanRequest(count=2, **more), disk)
        line = next(line for line in plan.budget.lines if line.name == "weights")
        return plan.weights_bytes, str(line.provenance)

    assert weights(2**34, weights_gib=3.0) == (3 * GIB, "exact")
    assert weights(2**34) == (2**33, "from-file")
    assert weights(2**34, weight_dtype="fp8")[1] == "estimated"
    assert weights(None) == (shape.counted.total, "estimated")
    unknown = read_shape(config(quantization_config={"quant_method": "aqlm"}))
    with pytest.raises(PlanError, match="'aqlm' names no bit width; give --weights-gib"):
        planned(unknown)


def test_the_cache_type_is_the_flag_the_checkpoint_or_the_model() -> None:
    scheme = {"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8}}
    shape = read_shape(config(quantization_config=scheme))
    assert planned(shape).kv_dtype == "fp8"
    assert planned(shape, weight_dtype="bf16").kv_dtype == "fp8"
    assert planned(shape, kv_dtype="bf16").kv_dtype == "bf16"
    assert planned("llama-2-7b").kv_dtype == "fp16"


def test_given_bytes_per_token_replace_the_layout() -> None:
    plan = planned("gpt-oss-20b", kv_bytes_per_token=1000, max_model_len=1600)
    assert (plan.token_bytes, plan.kv_tokens) == (1000, plan.kv_bytes // 16000 * 16)


def test_windows_cost_as_much_as_full_layers_where_the_engine_keeps_everything() -> None:
    def seats(**request: Any) -> float:
        return planned("mistral-7b-v0.1", max_num_seqs=8, **request).seats.worst_case_ratio

    assert seats(engine_version="0.11") > 2 * seats(uniform_windows=True)
    assert seats(engine_version="0.8", max_num_batched_tokens=8192) == pytest.approx(
        seats(uniform_windows=True), rel=0.02
    )


def test_sglang_lays_hybrids_out_in_pools_and_tensorrt_keeps_a_share_back() -> None:
    plan = planned("gpt-oss-20b", engine="sglang", max_model_len=8192)
    full, sliding = 12 * 2048, 12 * 2048
    assert plan.kv_tokens == int(plan.kv_bytes / (full + 0.8 * sliding))
    one = planned("llama-3.1-8b", engine="tensorrt-llm", max_model_len=8192)
    assert one.seats.worst_case_ratio == pytest.approx(one.kv_tokens / 8192 * 0.985, rel=1e-3)


@pytest.mark.parametrize(
    ("plan", "note"),
    [
        (lambda: planned("qwen3-32b"), "does not fit: lower --max-model-len"),
        (lambda: planned("qwen3-235b-a22b", tp=8), "tp 8 exceeds the 4 KV heads"),
        (lambda: planned("deepseek-v3", tp=8), "latent attention"),
        (lambda: planned("llama-2-7b", max_model_len=9999), "exceeds the model's 4096"),
        (lambda: planned("llama-2-7b-awq", "t4", kv_dtype="fp8"), "no fp8 cache kernels"),
        (lambda: planned("gpt-oss-20b"), "set --engine-version"),
    ],
)
def test_notes_say_what_to_distrust(plan: Any, note: str) -> None:
    found: CapacityPlan = plan()
    assert any(note in line for line in found.notes)
    assert not planned("llama-3.1-8b", max_model_len=8192).notes
