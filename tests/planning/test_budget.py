"""Each engine's subtraction, line by line."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.planning.accelerators import GIB
from proxy.planning.budget import Line, Provenance
from proxy.planning.capacity import CapacityPlan
from tests.planning.support import planned


def lines(plan: CapacityPlan) -> dict[str, float]:
    return {line.name: round(line.bytes / GIB, 2) for line in plan.budget.lines}


def given(engine: str, **more: Any) -> CapacityPlan:
    return planned(engine=engine, gpu_memory_gib=79.18, weights_gib=15.0, **more)


def test_vllm_is_of_total_and_counts_graphs_from_0_21_on() -> None:
    printed = lines(given("vllm", engine_version="0.11", fraction=0.9, max_num_seqs=1024))
    assert printed == {
        "gpu memory": 79.18, "outside the fraction": -7.92, "weights": -15.0, "activations": -4.76, "non-torch": -0.13,
    }  # fmt: skip
    assert lines(given("vllm", engine_version="0.21"))["cuda graphs"] == -0.44
    assert "cuda graphs" not in lines(given("vllm", engine_version="0.21", eager=True))
    assert lines(given("vllm"))["cuda graphs"] == 0
    assert "cuda graphs" not in lines(given("vllm", eager=True))
    assert lines(given("vllm", engine_version="0.19", max_num_seqs=1024))["activations"] == -2.57


def test_vllm_activation_is_the_sampler_or_the_prefill_step() -> None:
    small = lines(given("vllm", max_num_seqs=1, max_num_batched_tokens=20000))
    assert small["activations"] == pytest.approx(-2.06, abs=0.01)  # printed 2.07 on an unchunked 0.6
    assert lines(given("vllm", max_num_seqs=256, max_num_batched_tokens=16))["activations"] == -1.19


def test_sglang_is_of_free_memory_before_load() -> None:
    plan = planned(engine="sglang", gpu_memory_gib=22.39, weights_gib=15.02, fraction=0.88)
    assert plan.kv_bytes / GIB == pytest.approx(22.39 * 0.88 - 15.02, abs=0.001)
    assert lines(planned(engine="sglang"))["context before load"] == -0.5
    assert lines(planned(engine="sglang", tp=2))["context before load"] == -0.95
    assert lines(planned(engine="sglang", tp=4))["context before load"] == -2.2
    assert lines(planned(card="l40s", engine="sglang", tp=4))["context before load"] == -0.6


def test_tensorrt_is_of_free_memory_after_load() -> None:
    plan = given("tensorrt-llm", fraction=0.8, max_num_batched_tokens=4096)
    assert lines(plan)["activations"] == round(-2 * 4096 * 4096 * 11 / GIB, 2)
    assert plan.kv_bytes / GIB == pytest.approx((79.18 - 15 - 0.344 - 2.7) * 0.8, abs=0.01)
    assert lines(given("tensorrt-llm", max_num_batched_tokens=1))["activations"] == -0.07
    expert = planned("mixtral-8x7b", "h200", engine="tensorrt-llm", max_num_batched_tokens=8192)
    dense = 2 * 8192 * 4096 * 22
    assert lines(expert)["activations"] == round(-(dense + 8192 * 4096 * 8 * 2 / 128 * 4) / GIB, 2)
    other = planned("qwen3-0.6b", engine="tensorrt-llm", tp=4, max_num_batched_tokens=8192)
    assert lines(other)["activations"] == round(-2 * 8192 * 16 * 128 * 5 / GIB, 2)
    free = given("tensorrt-llm", fraction=0.5, free_memory_gib=10)
    assert free.kv_bytes == 5 * GIB


def test_tgi_and_llamacpp() -> None:
    assert lines(given("tgi", fraction=1.0))["outside the fraction"] == round(-0.1 * 79.18, 2)
    assert set(lines(given("tgi"))) > {"activations", "non-torch"}
    assert "outside the fraction" not in lines(given("llama.cpp"))
    assert lines(given("llama.cpp", fraction=0.9))["outside the fraction"] == -7.92
    assert lines(given("llama.cpp"))["compute buffer"] == -0.6


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm", "tgi", "llama.cpp"])
def test_a_calibrated_overhead_replaces_every_estimate(engine: str) -> None:
    overhead = Line("overhead", -3 * GIB, Provenance.LIVE, -3 * GIB, -3 * GIB)
    plan = given(engine, overhead=overhead)
    assert {line.name for line in plan.budget.lines} <= {
        "gpu memory", "weights", "overhead",
        "outside the fraction", "outside the static fraction", "outside the free fraction",
    }  # fmt: skip
    assert plan.budget.low == plan.budget.high == plan.kv_bytes


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm", "tgi", "llama.cpp"])
@pytest.mark.parametrize("card", ["h100", "t4", "mi300x"])
def test_the_band_holds_the_figure_and_the_lines_add_up(engine: str, card: str) -> None:
    plan = planned("qwen3-0.6b", card, engine=engine)
    budget = plan.budget
    assert 0 < budget.low < budget.kv_bytes < budget.high
    assert budget.kv_bytes == sum(line.bytes for line in budget.lines)
    assert all(line.low <= line.bytes <= line.high for line in budget.lines)


def test_what_does_not_fit_leaves_nothing() -> None:
    plan = planned("llama-3.1-405b")
    assert (plan.kv_bytes, plan.kv_tokens, plan.budget.low, plan.seats.worst_case) == (0, 0, 0, 0)
