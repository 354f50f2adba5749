"""Groups per layer and recurrent states by family."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.planning.fields import PlanError
from proxy.planning.layers import Kind
from proxy.planning.shapes import read_shape
from tests.planning.support import bundled, config

RECURRENT = ["linear_attention"] * 7 + ["full_attention"]
MAMBA2 = {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2, "conv_kernel": 4}


@pytest.mark.parametrize(
    ("changes", "conv", "ssm"),
    [
        (MAMBA2, (32 + 2 * 2 * 16) * 3, 4 * 8 * 16),
        ({"mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2}, 2048 * 3, 2048 * 16),
        (
            {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8}
            | {"linear_value_head_dim": 16, "linear_conv_kernel_dim": 4},
            (2 * 16 + 64) * 3,
            4 * 8 * 16,
        ),
    ],
)
def test_states(changes: dict[str, Any], conv: int, ssm: int) -> None:
    state = read_shape(config(layer_types=RECURRENT, **changes)).state
    assert state is not None
    assert (state.layers, state.conv_elements, state.ssm_elements, int(state.ssm_bytes)) == (7, conv, ssm, 4)


@pytest.mark.parametrize(
    ("changes", "kinds", "conv", "ssm"),
    [
        ({"conv_L_cache": 3, "layer_types": ["conv"] * 6 + ["full_attention"] * 2}, {Kind.FULL: 2}, 1024 * 2, 0),
        ({"conv_L_cache": 3, "full_attn_idxs": [2, 5]}, {Kind.FULL: 2}, 1024 * 2, 0),
        ({"model_type": "falcon_mamba", "state_size": 16}, {}, 2048 * 3, 2048 * 16),
        ({"model_type": "mamba", "expand": 4, "time_step_rank": "auto"}, {}, 4096 * 3, 4096 * 16),
        (
            {"model_type": "mamba2", "num_heads": 32, "head_dim": 64, "state_size": 128, "n_groups": 1},
            {},
            (2048 + 256) * 3,
            32 * 64 * 128,
        ),
        (
            {"model_type": "falcon_h1", "mamba_n_heads": 32, "mamba_d_head": 64, "mamba_d_state": 256},
            {Kind.FULL: 8},
            (2048 + 512) * 3,
            32 * 64 * 256,
        ),
    ],
)
def test_other_hybrids(changes: dict[str, Any], kinds: dict[Kind, int], conv: int, ssm: int) -> None:
    shape = read_shape(config(**changes))
    assert {group.kind: group.layers for group in shape.groups} == kinds
    assert shape.state is not None
    assert (shape.state.conv_elements, shape.state.ssm_elements) == (conv, ssm)
    assert shape.state.layers == (8 if changes.get("model_type") else 6)
    assert shape.counted.total > 0


@pytest.mark.parametrize(
    ("changes", "heads"),
    [
        ({"model_type": "dbrx", "attn_config": {"kv_n_heads": 8}, "ffn_config": {"moe_num_experts": 4}}, 8),
        ({"model_type": "mpt", "attn_config": {"alibi": True}}, 16),
        ({"model_type": "gpt_bigcode"}, 1),
        ({"model_type": "gpt_bigcode", "multi_query": False}, 16),
        ({"num_attention_groups": 1}, 1),
    ],
)
def test_kv_heads_named_otherwise(changes: dict[str, Any], heads: int) -> None:
    shape = read_shape(config(num_key_value_heads=None, **changes))
    assert shape.kv_heads == heads
    assert (shape.counted.expert_count == 4) == ("ffn_config" in changes)


def test_states_of_kda_and_lightning_attention() -> None:
    linear = {"full_attn_layers": [8], "num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4}
    kda = read_shape(config(linear_attn_config=linear)).state
    assert kda is not None
    assert (kda.conv_elements, kda.ssm_elements) == (3 * 64 * 3, 64 * 16)
    lightning = read_shape(config(attn_type_list=[0] * 7 + [1], head_dim=64)).state
    assert lightning is not None
    assert (lightning.conv_elements, lightning.ssm_elements) == (0, 16 * 64 * 64)


def test_state_type_and_missing_state_keys() -> None:
    half = read_shape(config(layer_types=RECURRENT, mamba_ssm_cache_dtype="bfloat16", **MAMBA2)).state
    assert half is not None
    assert half.ssm_bytes == 2
    with pytest.raises(PlanError, match="mamba_ssm_cache_dtype"):
        read_shape(config(layer_types=RECURRENT, mamba_ssm_cache_dtype="int7", **MAMBA2))
    with pytest.raises(PlanError, match="mamba_num_heads or linear_num_value_heads"):
        read_shape(config(layer_types=RECURRENT))


def test_heads_per_layer() -> None:
    listed = read_shape(config(num_key_value_heads=[4, 4, 2, 2, 2, 2, 1, 1]))
    assert [(group.layers, group.kv_heads) for group in listed.groups] == [(2, 4), (4, 2), (2, 1)]
    assert read_shape(config(num_attention_heads=None, num_query_heads=[8, 16] * 4)).heads == 16
    blocks = [{"attention": {"n_heads_in_group": 8}}, {"attention": {"no_op": True}}] * 4
    searched = read_shape(config(block_configs=blocks)).groups
    assert [(group.layers, group.kv_heads) for group in searched] == [(4, 2)]
    with pytest.raises(PlanError, match="num_key_value_heads"):
        read_shape(config(num_key_value_heads=["4"] * 8))


def test_geometry_by_kind() -> None:
    types = ["sliding_attention"] * 6 + ["full_attention"] * 2
    wide = read_shape(config(layer_types=types, sliding_window=128, num_global_key_value_heads=2, global_head_dim=512))
    assert [(g.kind, g.layers, g.kv_heads, g.k_dim, g.window_tokens) for g in wide.groups] == [
        (Kind.SLIDING, 6, 4, 64, 128),
        (Kind.FULL, 2, 2, 512, None),
    ]
    narrow = read_shape(
        config(layer_types=types, sliding_window=128, swa_num_key_value_heads=8, swa_head_dim=96, v_head_dim=32)
    )
    assert [(g.kv_heads, g.k_dim, g.v_dim) for g in narrow.groups] == [(8, 96, 96), (4, 64, 32)]
    with pytest.raises(PlanError, match="sliding_window is missing"):
        read_shape(config(layer_types=types))


def test_shared_indexers_keep_no_key_of_their_own() -> None:
    assert [(group.layers, group.index_dim) for group in bundled("glm-5.2").groups] == [(21, 128), (57, 0)]


def test_vision_cross_attention_keeps_the_tiles() -> None:
    vision = {"image_size": 560, "patch_size": 14, "max_num_tiles": 4}
    shape = read_shape(config(cross_attention_layers=[3, 7], vision_config=vision))
    assert [(group.kind, group.layers, group.window_tokens) for group in shape.groups] == [
        (Kind.FULL, 6, None),
        (Kind.CROSS, 2, 4 * 1601),
    ]
    with pytest.raises(PlanError, match="max_source_positions is missing"):
        read_shape(config(cross_attention_layers=[3]))
