"""Parameter counts against the published sizes of the models."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.planning.precision import weight_format_named
from proxy.planning.shapes import read_shape
from tests.planning.support import bundled, config

BILLION = 10**9


@pytest.mark.parametrize(
    ("model", "total", "active"),
    [
        ("llama-3.1-8b", 8.03, 7.5),
        ("llama-3.1-405b", 405.9, 403.8),
        ("qwen3-0.6b", 0.596, 0.596),
        ("qwen3-32b", 32.76, 32.0),
        ("qwen3-235b-a22b", 235.1, 22.0),
        ("mixtral-8x7b", 46.7, 12.9),
        ("deepseek-v3", 671.0, 37.0),
        ("kimi-k2-instruct", 1026.0, 32.0),
        ("gpt-oss-20b", 20.9, 3.6),
        ("gpt-oss-120b", 116.8, 5.1),
        ("llama-4-scout", 107.8, 17.0),
        ("llama-4-maverick", 400.7, 17.0),
        ("nemotron-3-nano-30b-a3b", 31.6, 3.2),
        ("nemotron-h-56b", 56.3, 55.2),
        ("nemotron-super-49b", 49.9, 48.8),
        ("mimo-v2-flash", 309.0, 15.0),
        ("glm-5", 744.0, 40.0),
        ("minimax-m2.5", 229.0, 10.0),
        ("gemma-4-26b-a4b", 25.25, 3.8),
        ("qwen3.5-397b-a17b", 397.0, 17.0),
    ],
)
def test_published_sizes(model: str, total: float, active: float) -> None:
    counted = bundled(model).counted
    assert counted.total / BILLION == pytest.approx(total, rel=0.01)
    assert counted.active / BILLION == pytest.approx(active, rel=0.06)


def test_weight_bytes_keep_embeddings_at_16_bit() -> None:
    shape = bundled("llama-3.3-70b-fp8")
    assert shape.counted.weight_bytes(shape.weights) / 2**30 / 2 == pytest.approx(33.88, rel=0.003)  # printed, tp 2
    assert shape.counted.weight_bytes(weight_format_named("bf16")) == 2 * shape.counted.total


def test_a_decode_step_reads_more_experts_with_every_sequence() -> None:
    shape = bundled("qwen3-30b-a3b")
    counted, form = shape.counted, shape.weights
    read = [counted.step_bytes(form, batch) for batch in (1, 8, 64, 4096)]
    assert read == sorted(read)
    assert read[0] == pytest.approx(2 * counted.active, rel=0.01)
    assert read[-1] == pytest.approx(2 * (counted.total - counted.embedding + counted.head), rel=0.01)
    dense = bundled("llama-3.1-8b")
    assert dense.counted.step_bytes(dense.weights, 1) == dense.counted.step_bytes(dense.weights, 99)


MLP = 1024 * 4096


@pytest.mark.parametrize(
    ("changes", "feed"),
    [
        ({}, 8 * 3 * MLP),
        ({"hidden_act": "relu2"}, 8 * 2 * MLP),
        ({"num_experts": 4, "mlp_only_layers": [0], "moe_intermediate_size": 8}, 3 * MLP + 7 * (4 * 3 * 8 + 4) * 1024),
        ({"num_experts": 4, "moe_layer_freq": [0] * 7 + [1], "moe_intermediate_size": 8}, 21 * MLP + 100 * 1024),
        ({"num_experts": 4, "expert_layer_period": 4, "expert_layer_offset": 1, "moe_intermediate_size": 8},
         18 * MLP + 200 * 1024),
        ({"num_experts": 4, "first_k_dense_replace": 7, "moe_intermediate_size": 8, "n_shared_experts": 2},
         21 * MLP + (4 * 3 * 8 + 4 + 2 * 3 * 8) * 1024),
        ({"num_experts": 4, "first_k_dense_replace": 7, "moe_intermediate_size": 8, "moe_latent_size": 512},
         21 * MLP + 4 * 3 * 8 * 512 + (4 + 2 * 512) * 1024),
    ],
)  # fmt: skip
def test_feed_forward(changes: dict[str, Any], feed: int) -> None:
    counted = read_shape(config(**changes)).counted
    assert counted.dense + counted.experts == feed


def test_tied_embeddings_count_once() -> None:
    assert read_shape(config(tie_word_embeddings=True)).counted.embedding == 32000 * 1024
    assert read_shape(config(model_type="gemma2")).counted.embedding == 32000 * 1024
    assert read_shape(config()).counted.embedding == 2 * 32000 * 1024
