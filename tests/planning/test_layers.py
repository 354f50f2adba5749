"""Every way in which a config says what its layers keep, and the refusals."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.planning.fields import Fields, PlanError
from proxy.planning.layers import layer_kinds

LETTERS = {"full": "F", "sliding": "s", "chunked": "c", "recurrent": "r", "cross": "x", "none": "-"}


def kinds(layers: int, **config: Any) -> str:
    return "".join(LETTERS[kind] for kind in layer_kinds(Fields(config), layers))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "FFFF"),
        ({"sliding_window": 64}, "ssss"),
        ({"sliding_window": 64, "use_sliding_window": False}, "FFFF"),
        ({"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 3}, "FFFs"),
        ({"sliding_window": 64, "sliding_window_pattern": 2}, "sFsF"),
        ({"sliding_window": 64, "model_type": "gemma3_text"}, "ssss"),
        ({"sliding_window": 64, "model_type": "gemma2"}, "sFsF"),
        ({"sliding_window": 64, "global_attn_every_n_layers": 2}, "sFsF"),
        ({"sliding_window": 64, "sliding_window_pattern": "LLG"}, "ssFs"),
        ({"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8}, "sFsF"),
        ({"layers_block_type": ["mamba", "moe", "attention", "mlp"]}, "r-F-"),
        ({"hybrid_override_pattern": "M*-E"}, "rF--"),
        ({"hybrid_layer_pattern": [0, 1, 1, 0]}, "FssF"),
        ({"attn_type_list": [0, 1, 0, 0]}, "rFrr"),
        ({"linear_attn_config": {"full_attn_layers": [2, 4]}}, "rFrF"),
        ({"linear_attn_config": {"num_heads": 2}}, "FFFF"),
        ({"full_attention_interval": 4}, "rrrF"),
        ({"attn_layer_period": 2, "attn_layer_offset": 1}, "rFrF"),
        ({"attn_layer_indices": [0, 3]}, "FrrF"),
        ({"attention_chunk_size": 8}, "cccF"),
        ({"attention_chunk_size": 8, "no_rope_layers": [1, 0, 1, 0]}, "cFcF"),
        ({"attention_chunk_size": 8, "sliding_window": 8}, "ssss"),
        ({"block_configs": [{"attention": {"no_op": True}}] + [{"attention": {"n_heads_in_group": 4}}] * 3}, "-FFF"),
        ({"block_configs": [{"attention": {"replace_with_linear": True}}] * 4}, "----"),
        ({"cross_attention_layers": [1]}, "FxFF"),
        ({"num_kv_shared_layers": 3}, "F---"),
        ({"use_cla": True, "cla_share_factor": 2}, "F-F-"),
    ],
)
def test_kinds(config: dict[str, Any], expected: str) -> None:
    assert kinds(4, **config) == expected


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries"),
        ({"layer_types": ["strange"] * 4}, "layer_types holds 'strange'"),
        ({"layer_types": [["full"]] * 4}, "layer_types holds"),
        ({"hybrid_override_pattern": "M*"}, "hybrid_override_pattern"),
        ({"hybrid_override_pattern": "M*x-"}, "hybrid_override_pattern"),
        ({"hybrid_layer_pattern": [0, 1, 2, 0]}, "hybrid_layer_pattern"),
        ({"block_configs": [{}] * 4}, r"block_configs\[0\].attention"),
        ({"compress_ratios": [4, 128]}, "compress_ratios"),
        ({"sparse_attention_config": {"x": 1}}, "sparse_attention_config"),
        ({"attn_layer_indices": [4]}, "attn_layer_indices"),
        ({"num_kv_shared_layers": 5}, "num_kv_shared_layers"),
        ({"use_cla": True}, "cla_share_factor"),
        ({"sliding_window": 8, "sliding_window_pattern": "LLXG"}, "sliding_window_pattern must be a word"),
        ({"sliding_window": 8, "sliding_window_pattern": "LLLLG"}, "sliding_window_pattern must be a word"),
    ],
)
def test_refusals_name_the_key(config: dict[str, Any], key: str) -> None:
    with pytest.raises(PlanError, match=key):
        kinds(4, **config)
