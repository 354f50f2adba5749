"""Bytes and blocks against what engines printed, and the properties of any cache."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.planning.kv_cache import Cache, CacheOptions, build_cache, state_bytes, token_bytes, without_windows
from proxy.planning.layers import Kind
from proxy.planning.shapes import read_shape
from tests.planning.support import bundled, config

GIB = 2**30


@pytest.mark.parametrize(
    ("model", "kv_dtype", "tp", "expected"),
    [
        ("llama-2-7b", "fp16", 1, 524288),
        ("llama-3.1-8b", "bf16", 1, 131072),
        ("qwen3-0.6b", "bf16", 1, 114688),  # head_dim 128, not hidden / heads = 64
        ("llama-3.3-70b-fp8", "fp8", 4, 40960),
        ("qwen3-235b-a22b", "bf16", 8, 48128),  # 4 KV heads: beyond tp 4 they replicate
        ("kimi-k2.5", "bf16", 8, 70272),  # latent: whole on every rank
        ("deepseek-v3", "fp8", 8, 35136),
        ("deepseek-v3.2", "fp8", 1, 61 * (656 + 132)),
        ("deepseek-v3.2", "bf16", 1, 61 * (1152 + 132)),
        ("mimo-v2-flash", "bf16", 4, 55680),  # K and V of different width, two geometries
        ("qwen3.5-27b", "fp8", 2, 16384),  # recurrent layers do not grow
        ("gpt-oss-20b", "bf16", 1, 49152),
        ("nemotron-super-49b", "bf16", 1, 49 * 4096),
        ("llama-3.1-8b", "nvfp4", 1, 36864),  # 0.5625 B per element
    ],
)
def test_token_bytes(model: str, kv_dtype: str, tp: int, expected: int) -> None:
    assert token_bytes(bundled(model), kv_dtype, tp) == expected


def test_pipeline_stages_split_layers_and_drafts_add_them() -> None:
    shape = bundled("llama-3.1-8b")
    assert token_bytes(shape, "bf16", 1, pp=4) * 4 == token_bytes(shape, "bf16", 1)
    assert token_bytes(shape.with_draft(1), "bf16", 1) == 33 * 4096


def hybrid(model: str, kv_dtype: str, states: int, label: str = "lengths", **more: Any) -> Cache:
    return build_cache(bundled(model), CacheOptions(kv_dtype, state_blocks=states, label=label, **more))


def test_hybrid_pool_gives_the_tokens_that_engines_print() -> None:
    printed = hybrid("qwen3.5-35b-a3b", "fp8", 2)  # vLLM 0.24: block 2096, 69 blocks a request, 4.35x
    assert printed.entries[0].block_tokens == 2096
    assert printed.tokens(int(6.01 * GIB), 131072) == 569878
    older = hybrid("qwen3.5-27b", "bf16", 1, "groups")  # vLLM 0.19: 33.04x at 32,768, 371 x 784 tokens printed
    page = int(older.entries[0].block_bytes)
    assert round(older.seats(1487 * page, 32768), 2) == 33.04
    assert older.tokens(1487 * page, 32768) == 290864
    newer = hybrid("qwen3.5-27b", "fp8", 2)  # vLLM 0.26: 112 blocks of 1568 tokens, 27 a request
    assert newer.tokens(112 * int(newer.entries[0].block_bytes), 32768) == 135926


def test_groups_of_a_pool_have_equal_pages() -> None:
    cache = hybrid("gemma-4-26b-a4b", "bf16", 1)  # 25 sliding (8 x 256), 5 full (2 x 512)
    assert len(cache.entries) == 6
    assert {entry.block_bytes for entry in cache.entries} == {5 * 16 * 8192}
    assert sorted(entry.block_tokens for entry in cache.entries) == [16] * 5 + [32]
    mixed = config(layer_types=["full_attention"] * 5 + ["sliding_attention"] * 3, sliding_window=64)
    near = build_cache(read_shape(mixed), CacheOptions("bf16"))
    assert len(near.entries) == 3  # groups of 3: two of full layers (one padded), one of sliding


def test_a_windowed_layer_stops_growing() -> None:
    cache = build_cache(bundled("mistral-7b-v0.1"), CacheOptions("bf16", batched_tokens=2048))
    assert cache.entries[0].blocks(10**6) == -(-(4096 - 1 + 2048) // 16) + 1
    assert cache.entries[0].blocks(16) == 2
    whole = build_cache(without_windows(bundled("mistral-7b-v0.1")), CacheOptions("bf16"))
    assert whole.request_bytes(16384) == 16384 * 131072


def test_chunked_layers_keep_a_chunk_and_cross_layers_the_encoder() -> None:
    options = CacheOptions("bf16", unified=False, block_tokens=1, batched_tokens=0)
    shape = read_shape(config(attention_chunk_size=100, num_hidden_layers=4))
    assert [(group.kind, group.layers) for group in shape.groups] == [(Kind.CHUNKED, 3), (Kind.FULL, 1)]
    layer = 4 * 128 * 2
    assert build_cache(shape, options).request_bytes(1000) == layer * (3 * 100 + 1000)
    coder = read_shape(config(is_encoder_decoder=True, max_source_positions=1500))
    assert build_cache(coder, options).request_bytes(10) == 8 * layer * (10 + 1500)
    assert token_bytes(coder, "bf16", 1) == 8 * layer
    assert build_cache(coder, CacheOptions("bf16")).entries[1].fixed_blocks == -(-1500 // 16)


def test_states_are_bytes_of_a_sequence() -> None:
    shape = bundled("qwen3.5-27b")
    assert shape.state is not None
    assert state_bytes(shape.state, 1) == 48 * 128 * 128 * 4 + 10240 * 3 * 2
    linear = CacheOptions("bf16", unified=False, block_tokens=1, label="lengths")
    cache = build_cache(shape, linear)
    assert cache.request_bytes(0) == 48 * state_bytes(shape.state, 1)
    assert cache.tokens(10 * GIB, 1000) == int(cache.seats(10 * GIB, 1000) * 1000)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["llama-3.1-8b", "gpt-oss-20b", "qwen3.5-35b-a3b", "kimi-k2.5", "mistral-7b-v0.1"]),
    st.integers(0, 10**11),
    st.integers(1, 10**6),
    st.integers(1, 10**5),
)
def test_more_memory_never_seats_fewer_and_longer_requests_never_more(
    model: str, pool: int, length: int, more: int
) -> None:
    cache = CACHES.setdefault(model, build_cache(bundled(model), CacheOptions("bf16")))
    assert cache.seats(pool, length) <= cache.seats(pool + more, length)
    assert cache.seats(pool, length + more) <= cache.seats(pool, length)
    assert cache.request_bytes(length) <= cache.request_bytes(length + more)
    assert int(cache.seats(pool, length)) * cache.request_bytes(length) <= pool
    assert cache.tokens(0, length) == cache.seats(-1, length) == 0


CACHES: dict[str, Cache] = {}
