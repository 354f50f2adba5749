"""From config.json to a shape: bundled models, variants, and hostile input."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.files import bundled_models, load_accelerator
from proxy.planning.capacity import PlanRequest, plan_capacity
from proxy.planning.engine_flags import ALL_TARGETS, flags_for
from proxy.planning.fields import PlanError
from proxy.planning.report import as_json, explain_lines
from proxy.planning.shapes import read_shape
from tests.planning.support import PLAIN, bundled, config

CARD = load_accelerator("h100")


def test_every_bundled_model_is_read() -> None:
    names = bundled_models()
    assert len(names) >= 25
    assert all(bundled(name).counted.total > 10**8 for name in names)


def test_nested_text_config_keeps_what_only_the_top_carries() -> None:
    inner = config(torch_dtype=None)
    for nested in ({"text_config": inner}, {"thinker_config": {"text_config": inner}}, {"llm_config": inner}):
        top = {"architectures": ["Vision"], "dtype": "float16", "quantization_config": {"quant_method": "fp8"}}
        shape = read_shape(top | nested)
        assert (shape.layers, shape.dtype, shape.weights.name, shape.architecture) == (8, "fp16", "fp8", "Vision")


@pytest.mark.parametrize(
    ("changes", "heads", "width"),
    [
        ({}, 4, 64),
        ({"num_key_value_heads": None}, 16, 64),
        ({"num_key_value_heads": None, "multi_query_group_num": 2}, 2, 64),
        ({"num_key_value_heads": None, "multi_query": True}, 1, 64),
        ({"multi_query": True, "new_decoder_architecture": True}, 4, 64),
        ({"num_key_value_heads": None, "multi_query_group_num": 2, "multi_query_attention": False}, 16, 64),
        ({"head_dim": 128}, 4, 128),
        ({"kv_channels": 32}, 4, 32),
        ({"head_dim": 128, "hidden_size": None, "num_attention_heads": None}, 4, 128),
    ],
)
def test_heads_and_widths(changes: dict[str, Any], heads: int, width: int) -> None:
    shape = read_shape(config(**changes))
    assert (shape.groups[0].kv_heads, shape.groups[0].k_dim, shape.uniform) == (heads, width, True)


def test_a_shape_without_widths_serves_the_cache_but_not_the_weights() -> None:
    shape = read_shape(config(head_dim=64, hidden_size=None, num_attention_heads=None))
    with pytest.raises(PlanError, match="hidden_size"):
        _ = shape.counted


def test_layer_count_may_be_a_list_or_the_decoders() -> None:
    assert read_shape(config(num_hidden_layers=None, layers_block_type=["attention"] * 5)).layers == 5
    assert read_shape(config(num_layers=6, num_decoder_layers=3)).layers == 3


def test_a_draft_adds_full_layers_where_there_are_any() -> None:
    assert bundled("llama-3.1-8b").with_draft(2).groups[0].layers == 34
    windowed = bundled("mistral-7b-v0.1")
    assert windowed.with_draft(2) == windowed


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": "8"}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": 1e30}, "num_hidden_layers must be a whole number from 1 to 1000"),
        ({"num_hidden_layers": 10**400}, "num_hidden_layers must be"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be"),
        ({"num_hidden_layers": float("nan")}, "num_hidden_layers must be"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be"),
        ({"num_attention_heads": None, "num_key_value_heads": None}, "num_attention_heads is missing"),
        ({"hidden_size": 1000}, "head_dim is missing"),
        ({"kv_lora_rank": 512}, "qk_rope_head_dim is missing"),
        ({"torch_dtype": "int3"}, "dtype 'int3'"),
        ({"text_config": 3}, "text_config must be a mapping"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"architectures": "X"}, "architectures must be a list"),
        ({"hybrid_override_pattern": "-" * 8}, "no layer keeps a cache"),
        ({"num_key_value_heads": 3}, "3 KV heads do not divide 16 heads"),
        ({"num_key_value_heads": 32}, "32 KV heads do not divide 16 heads"),
    ],
)
def test_wrong_configs_get_one_line_that_names_the_key(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(PlanError, match=line) as caught:
        read_shape(config(**changes))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_config_that_is_no_mapping() -> None:
    with pytest.raises(PlanError, match="JSON object"):
        read_shape([1, 2])  # type: ignore[arg-type]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    *PLAIN, "head_dim", "v_head_dim", "kv_lora_rank", "layer_types", "layers_block_type", "block_configs",
    "text_config", "quantization_config", "sliding_window", "num_experts", "moe_layer_freq", "linear_attn_config",
    "hybrid_override_pattern", "mamba_num_heads", "attn_type_list", "indexer_types", "cross_attention_layers",
    "vision_config", "use_cla",
]  # fmt: skip


NAMES = st.sampled_from([*KEYS, "kv_new", "window", "architectures", "model_type", "vision_config", "attn_config"])
TREE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=4) | st.just("Llama"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=250, deadline=None)
@given(TREE, st.sampled_from(["vllm", "sglang", "tgi", "tensorrt-llm", "llama.cpp"]), st.booleans())
def test_any_tree_gives_a_plan_or_one_clear_line(tree: Any, engine: str, over_plain: bool) -> None:
    """Sizes that a file claims never become work: the limits on layers and widths stand before any loop."""
    document = PLAIN | tree if over_plain and isinstance(tree, dict) else tree
    started = time.process_time()
    try:
        shape = read_shape(document)
        plan = plan_capacity(shape, CARD, PlanRequest(engine=engine, weights_gib=10, itl_ms=50))
        assert as_json(plan)["kv_tokens"] >= 0
        assert [flags_for(plan, target).command for target in ALL_TARGETS]
        assert explain_lines(plan, [])
    except PlanError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 700
    assert time.process_time() - started < 2


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4), JSON)
def test_any_config_gives_a_shape_or_one_clear_line(changes: dict[str, Any], sidecar: Any) -> None:
    try:
        read_shape(PLAIN | changes, sidecar if isinstance(sidecar, dict) else None)
    except PlanError as error:
        assert "\n" not in str(error)
