"""Advice by model size, card and layout, each with a reason and a basis."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.planning.advice import COMPUTED, RULE, Advice, advise, use_case_batch
from proxy.planning.fields import PlanError
from tests.planning.support import planned


def topics(model: str, card: str = "h100", use_case: str | None = None, **request: Any) -> dict[str, list[Advice]]:
    found: dict[str, list[Advice]] = {}
    for item in advise(planned(model, card, **request), use_case):
        assert item.reason
        assert item.basis in (RULE, COMPUTED)
        found.setdefault(item.topic, []).append(item)
    return found


@pytest.mark.parametrize(
    ("name", "gpu_gb", "batch"),
    [
        ("interactive", 40, 2), ("interactive", 16, 1), ("interactive", 80, 4),
        ("mixed", 40, 16), ("mixed", 16, 8), ("mixed", 80, 32),
        ("batch", 40, 64), ("batch", 16, 32), ("batch", 180, 128),
        ("longform", 40, 8), ("longform", 16, 4), ("longform", 80, 16),
    ],
)  # fmt: skip
def test_use_cases_by_gpu(name: str, gpu_gb: float, batch: int) -> None:
    case, found = use_case_batch(name, gpu_gb)
    assert found == batch
    assert case.low <= found <= case.high


def test_an_unknown_use_case_lists_the_known() -> None:
    with pytest.raises(PlanError, match="use one of: interactive, mixed, batch, longform"):
        use_case_batch("x", 80)


@pytest.mark.parametrize(
    ("model", "card", "text"),
    [
        ("llama-3.1-8b", "h100", "fp8 or 16 bit"),
        ("qwen3-32b", "h100", "fp8 weights"),
        ("llama-3.1-70b", "h100", "fp8 weights and fp8 KV cache"),
        ("llama-3.1-405b", "h100", "int4 (AWQ, GPTQ) weights"),
        ("llama-3.1-405b", "b200", "nvfp4 weights"),
        ("qwen3-32b", "a100", "int8, or 4-bit weights where memory binds"),
        ("llama-2-7b", "t4", "fp16 with AWQ or GPTQ 4-bit weights"),
        ("qwen3-32b", "mi300x", "fp8 weights"),
    ],
)
def test_quantization(model: str, card: str, text: str) -> None:
    assert topics(model, card)["quantization"][0].text == text


@pytest.mark.parametrize(
    ("model", "card", "text"),
    [
        ("llama-3.1-8b", "h100", "fp8_e4m3 KV cache: about 2x"),
        ("llama-3.1-8b", "a100", "fp8_e5m2 KV cache"),
        ("llama-3.1-8b", "mi300x", "fp8_e4m3"),
        ("llama-2-7b", "t4", "keep the 16-bit"),
        ("qwen3.5-27b", "h200", "gains little here"),
    ],
)
def test_kv_cache(model: str, card: str, text: str) -> None:
    assert text in topics(model, card)["kv cache"][0].text


def test_kv_advice_needs_a_16_bit_cache() -> None:
    assert "kv cache" not in topics("llama-3.1-8b", kv_dtype="fp8")


def test_parallelism() -> None:
    plain = topics("llama-3.1-8b", count=4)["parallelism"]
    assert [item.text for item in plain] == ["tp x pp x dp = 4 x 1 x 1 = 4 GPUs; tp may be [1, 2, 4]"]
    assert "prefer tp 4" in topics("qwen3-235b-a22b", count=8)["parallelism"][1].text
    assert "data-parallel attention" in topics("deepseek-v3", count=8)["parallelism"][1].text
    assert "pp across nodes" in topics("llama-3.1-405b", count=16)["parallelism"][2].text


def test_graphs_and_speculation_follow_the_batch() -> None:
    assert "keep CUDA graphs on" in topics("qwen3-32b")["cuda graphs"][0].text
    assert "matter less" in topics("qwen3-0.6b", max_model_len=2048)["cuda graphs"][0].text
    assert "1 draft layers" in topics("deepseek-v3", "h200", count=8)["speculation"][0].text
    assert "needs a draft" in topics("llama-3.1-8b")["speculation"][0].text
    assert "speculation" not in topics("llama-2-7b", "t4", max_model_len=1, weight_dtype="int4")


def test_use_case_and_fit_lead() -> None:
    first = advise(planned("qwen3-32b"), "batch")
    assert [item.topic for item in first[:2]] == ["use case", "memory"]
    assert "max_num_seqs 256, max_model_len 2048, max_num_batched_tokens 65536" in first[0].text
    assert "chunked prefill on" in advise(planned(), "longform")[0].text
    assert "memory" not in topics("llama-3.1-8b", max_model_len=8192)
