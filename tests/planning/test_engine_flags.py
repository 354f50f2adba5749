"""Command lines and files of each engine, and the conflicts that are named."""

from __future__ import annotations

from shlex import split
from typing import Any

import pytest
import yaml

from proxy.planning.engine_flags import ALL_TARGETS, flags_for, paired_tokens
from proxy.planning.fields import PlanError
from proxy.planning.shapes import read_shape
from tests.planning.support import config, planned


def command(target: str, model: str = "llama-3.1-8b", card: str = "h100", **request: Any) -> str:
    request.setdefault("max_model_len", 8192)
    return flags_for(planned(model, card, **request), target).command


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (
            "vllm",
            ["--max-num-seqs 205", "--gpu-memory-utilization 0.9", "--kv-cache-dtype auto", "--max-model-len 8192"],
        ),
        ("sglang", ["--mem-fraction-static 0.88", "--max-running-requests 205", "--context-length 8192"]),
        ("tensorrt-llm", ["--max_batch_size 205", "--kv_cache_free_gpu_memory_fraction 0.9", "--max_num_tokens 8192"]),
        ("dynamo", ["--max-batch-size 205", "--free-gpu-memory-fraction 0.9", "dynamo.trtllm"]),
        ("tgi", ["--max-concurrent-requests 205", "--cuda-memory-fraction 1", "--max-total-tokens 8192"]),
        ("llama.cpp", ["-np 51", f"-c {51 * 8192}", "-ctk bf16 -ctv bf16"]),
        ("penstock", ["penstock serve --config penstock.yaml"]),
    ],
)
def test_commands(target: str, parts: list[str]) -> None:
    line = command(target)
    assert [part for part in parts if part not in line] == []
    assert target in ALL_TARGETS


def test_flags_that_depend_on_the_request() -> None:
    assert "--data-parallel-size 2" in command("vllm", dp=2)
    assert "--pipeline-parallel-size 2" in command("vllm", pp=2)
    assert "--enforce-eager" in command("vllm", eager=True)
    assert "--kv-cache-dtype fp8_e5m2" in command("vllm", card="a100", kv_dtype="fp8")
    assert "--kv-cache-dtype fp8 " in command("vllm", kv_dtype="fp8")
    assert "--kv-cache-dtype fp8_e4m3" in command("sglang", kv_dtype="fp8")
    assert "--dp 2" in command("sglang", dp=2)
    assert "--kv-cache-dtype fp8_e4m3fn" in command("tgi", kv_dtype="fp8")
    assert "--mem-fraction-static 0.7" in command("sglang", engine="sglang", fraction=0.7)


def test_files_parse_and_pair_tokens_with_the_batch() -> None:
    plan = planned("qwen3-0.6b", max_model_len=1024, kv_dtype="fp8", max_num_batched_tokens=512, utilization=0.1)
    assert plan.recommended > 8192
    assert paired_tokens(plan) % 1024 == 0
    assert paired_tokens(plan) >= plan.recommended
    recipe = yaml.safe_load(flags_for(plan, "trtllm").file_text)
    assert recipe["max_num_tokens"] == paired_tokens(plan) >= recipe["max_batch_size"]
    assert recipe["kv_cache_config"]["dtype"] == "fp8"
    ours = yaml.safe_load(flags_for(plan, "penstock", "http://gpu:1").file_text)["upstreams"][0]
    assert ours["memory"] == {"source": "tokens", "tokens": plan.kv_tokens}
    assert ours["limit"]["max"] == plan.recommended
    assert ours["url"] == "http://gpu:1"


@pytest.mark.parametrize(
    ("target", "request_", "conflict"),
    [
        ("vllm", {"max_num_seqs": 9999}, "max_num_seqs 9999 exceeds the"),
        ("vllm", {"max_num_batched_tokens": 8}, "max_num_batched_tokens 8 is below one token"),
        ("vllm", {"model": "qwen3-32b", "max_model_len": 100_000}, "does not fit: the engine will refuse"),
        ("vllm", {"model": "llama-2-7b-awq", "card": "t4", "kv_dtype": "fp8"}, "an fp8 KV cache on t4"),
        ("vllm", {"engine_version": "0.7", "max_num_batched_tokens": 4096}, "needs chunked prefill"),
        ("tgi", {"pp": 2}, "TGI has no pipeline parallelism"),
        ("trtllm", {"dp": 2}, "dp 2: start 2 of these"),
        ("dynamo", {"dp": 2}, "dp 2: start 2 of these"),
        ("llama.cpp", {"kv_dtype": "fp8"}, "llama.cpp has no fp8 cache"),
    ],
)
def test_conflicts_are_named(target: str, request_: dict[str, Any], conflict: str) -> None:
    request_ = {"max_model_len": 8192} | request_
    assert any(conflict in line for line in flags_for(planned(**request_), target).conflicts)
    assert flags_for(planned(max_model_len=8192), target).conflicts == ()


@pytest.mark.parametrize(
    ("target", "request_", "flag"),
    [
        ("vllm", {"context_parallel": 4}, "--decode-context-parallel-size 4"),
        ("vllm", {"block_tokens": 32}, "--block-size 32"),
        ("vllm", {"uniform_windows": True}, "--disable-hybrid-kv-cache-manager"),
        ("vllm", {"language_only": True}, "--language-model-only"),
        ("sglang", {"pp": 2}, "--pp-size 2"),
        ("dynamo", {"pp": 2}, "--pipeline-parallel-size 2"),
        ("tgi", {"max_num_batched_tokens": 512}, "--max-input-tokens 8191 --max-batch-prefill-tokens 8192"),
        ("llama.cpp", {"engine": "llama.cpp", "engine_version": "b6000"}, "-fa --n-gpu-layers"),
        ("llama.cpp", {"engine": "llama.cpp", "engine_version": "b8247"}, "-fa on --n-gpu-layers"),
    ],
)
def test_what_is_asked_for_becomes_a_flag(target: str, request_: dict[str, Any], flag: str) -> None:
    assert flag in flags_for(planned(max_model_len=8192, **request_), target).command
    if "engine" not in request_:
        assert flag not in flags_for(planned(max_model_len=4096), target).command


@pytest.mark.parametrize("target", [target for target in ALL_TARGETS if target != "penstock"])
def test_a_name_from_a_file_cannot_end_the_command(target: str) -> None:
    shape = read_shape(config(), name="x; touch y \x1b[2J\n$(z)" + "n" * 300)
    words = split(flags_for(planned(shape, max_model_len=4096), target).command)
    assert any(word.startswith("x; touch y ?[2J?$(z)n") for word in words)
    assert max(map(len, words)) < 210


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(PlanError, match="--engine 'x' is unknown"):
        flags_for(planned(), "x")
