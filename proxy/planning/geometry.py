"""What the layers of a model keep, counted in elements.

A `LayerGroup` is a set of layers that keep the same thing: `kv_heads x (k_dim + v_dim)` elements per token and layer,
or, for multi-head latent attention (DeepSeek-V2, arXiv:2405.04434), one vector of `kv_lora_rank + qk_rope_head_dim`
that all heads share, plus the key of the sparse-attention indexer (`index_dim`). A `StateGroup` keeps a fixed number
of elements per sequence and layer:

    Mamba-2 (arXiv:2405.21060)      conv (H*P + 2*G*N) * (k-1)            ssm H * P * N
    gated delta net (2412.06464)    conv (2*Hk*Dk + Hv*Dv) * (k-1)        ssm Hv * Dk * Dv
    KDA (Kimi Linear, 2510.26692)   conv 3 * H*D * (k-1)                  ssm H * D * D
    Mamba-1 (2312.00752)            conv E*hidden * (k-1)                 ssm E*hidden * N
    short convolution (LFM2)        conv hidden * (k-1)                   none

with H heads of width P, G groups, N state size, k convolution width.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction

from proxy.planning.fields import Fields, PlanError
from proxy.planning.layers import STATE_ONLY, Kind
from proxy.planning.precision import DTYPE_NAMES, KV_BYTES

HEADS_MAX, DIM_MAX = 65536, 2**20
KV_HEAD_KEYS = (
    "num_key_value_heads",
    "num_key_value_heads_per_layer",
    "num_kv_heads",
    "n_head_kv",
    "multi_query_group_num",
    "attention_num_kv_heads",
    "num_attention_groups",
    "kv_n_heads",
)
HEAD_KEYS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads", "num_query_heads")
HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model", "model_dim")
INDEX_TYPES_SHARED = "shared"


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers of one kind and geometry. `window_tokens`: the most that a sliding, chunked or cross layer keeps."""

    kind: Kind
    layers: int
    kv_heads: int = 0
    k_dim: int = 0
    v_dim: int = 0
    window_tokens: int | None = None
    latent_dim: int = 0
    rope_dim: int = 0
    index_dim: int = 0


@dataclass(frozen=True, slots=True)
class StateGroup:
    """Recurrent layers: elements per sequence and layer, and the bytes of one element of the large part."""

    layers: int
    conv_elements: int
    ssm_elements: int
    ssm_bytes: Fraction
    parameters: int  # matrix elements of one such layer


def head_count(model: Fields) -> int:
    """Query heads; the most of any layer where they are listed per layer."""
    name, value = model.find(*HEAD_KEYS)
    if isinstance(value, list):
        return max((model.checked_integer(name, entry, 1, HEADS_MAX) for entry in value), default=1)
    return model.integer(*HEAD_KEYS, high=HEADS_MAX)


def hidden_width(model: Fields) -> int:
    return model.integer(*HIDDEN_KEYS, high=DIM_MAX)


def read_groups(model: Fields, kinds: list[Kind]) -> tuple[LayerGroup, ...]:
    """The groups of a decoder, in the order of their first layer."""
    heads = _kv_heads_by_layer(model, kinds)
    index_types = model.items("indexer_types", length=len(kinds))
    counted: Counter[LayerGroup] = Counter()
    for position, kind in enumerate(kinds):
        if kind in (Kind.NONE, Kind.RECURRENT):
            continue
        group = _layer(model, kind, heads[position])
        if index_types is not None and index_types[position] == INDEX_TYPES_SHARED:
            group = replace(group, index_dim=0)
        counted[group] += 1
    return tuple(replace(group, layers=count) for group, count in counted.items())


def _layer(model: Fields, kind: Kind, kv_heads: int) -> LayerGroup:
    window = _window(model, kind)
    if model.has("kv_lora_rank"):
        rank = model.integer("kv_lora_rank", high=DIM_MAX)
        rope = model.integer("qk_rope_head_dim", high=DIM_MAX)
        index = model.integer("index_head_dim", high=DIM_MAX, default=128) if model.has("index_topk") else 0
        return LayerGroup(kind, 1, 0, 0, 0, window, rank + rope, rope, index)
    k_dim, v_dim = _head_dims(model, kind)
    return LayerGroup(kind, 1, kv_heads, k_dim, v_dim, window)


def _head_dims(model: Fields, kind: Kind) -> tuple[int, int]:
    """Width of a K and of a V head. An explicit key wins over hidden / heads, which is wrong for many models."""
    if kind is Kind.SLIDING and model.has("swa_head_dim"):
        k_dim = model.integer("swa_head_dim", high=DIM_MAX)
        return k_dim, model.integer("swa_v_head_dim", high=DIM_MAX, default=k_dim)
    if kind is Kind.FULL and model.has("global_head_dim"):
        k_dim = model.integer("global_head_dim", high=DIM_MAX)
        return k_dim, k_dim
    k_dim = model.optional_integer(
        "head_dim", "attention_head_dim", "kv_channels", "d_kv", high=DIM_MAX
    ) or _derived_dim(model)
    return k_dim, model.integer("v_head_dim", high=DIM_MAX, default=k_dim)


def _derived_dim(model: Fields) -> int:
    hidden, heads = hidden_width(model), head_count(model)
    if hidden % heads:
        raise PlanError(
            f"{model.source}: head_dim is missing and {hidden} does not divide by {heads} heads; add head_dim"
        )
    return hidden // heads


def _window(model: Fields, kind: Kind) -> int | None:
    if kind is Kind.SLIDING:
        return model.integer("sliding_window", "sliding_window_size")
    if kind is Kind.CHUNKED:
        return model.integer("attention_chunk_size")
    if kind is Kind.CROSS:
        return model.integer(
            "max_source_positions", "max_encoder_tokens", "vision_tokens", default=_image_tokens(model)
        )
    return None


def _image_tokens(model: Fields) -> int | None:
    """Encoder tokens of a vision cross-attention model: tiles x (patches + class token), as Mllama lays them out."""
    vision = model.child("vision_config")
    if vision is None:
        return None
    side = vision.integer("image_size") // vision.integer("patch_size")
    return vision.integer("max_num_tiles", high=1024, default=1) * (side * side + 1)


def _kv_heads_by_layer(model: Fields, kinds: list[Kind]) -> list[int]:
    """KV heads of each layer, from a list, a per-kind key, a per-block divisor, or one number for all."""
    name, value = model.find(*KV_HEAD_KEYS)
    if isinstance(value, list):
        entries = model.items(name, length=len(kinds)) or ()
        return [model.checked_integer(name, entry, 1, HEADS_MAX) for entry in entries]
    blocks = model.items("block_configs", length=len(kinds))
    if blocks is not None:
        return [_block_heads(model, block) for block in blocks]
    usual = _usual_kv_heads(model)
    sliding = model.integer("swa_num_key_value_heads", high=HEADS_MAX, default=usual)
    full = model.integer("num_global_key_value_heads", high=HEADS_MAX, default=usual)
    table = {Kind.SLIDING: sliding, Kind.FULL: full}
    return [table.get(kind, usual) for kind in kinds]


def _usual_kv_heads(model: Fields) -> int:
    single = model.flag("multi_query", default=model.text("model_type") == "gpt_bigcode")
    if single and not model.flag("new_decoder_architecture"):  # Falcon before its second layout
        return 1
    if not model.flag("multi_query_attention", default=True):  # ChatGLM names a group count even when it has none
        return head_count(model)
    kv_heads = model.optional_integer(*KV_HEAD_KEYS, high=HEADS_MAX)
    if kv_heads is None:
        return head_count(model)
    listed = isinstance(model.find(*HEAD_KEYS)[1], list)
    if model.has(*HEAD_KEYS) and not listed and not model.has("kv_lora_rank") and head_count(model) % kv_heads:
        raise PlanError(f"{model.source}: {kv_heads} KV heads do not divide {head_count(model)} heads; correct one")
    return kv_heads


def _block_heads(model: Fields, block: object) -> int:
    """DeciLM names how many query heads share one KV head."""
    attention = Fields(block if isinstance(block, dict) else {}, f"{model.source}: block_configs").child("attention")
    per_group = attention.optional_integer("n_heads_in_group") if attention else None
    return max(1, head_count(model) // per_group) if per_group else 1


def read_state(model: Fields, layers: int) -> StateGroup | None:
    """The recurrent state of `layers` layers, or None. Raises PlanError when its geometry is not given."""
    if not layers:
        return None
    name = model.text("mamba_ssm_cache_dtype", "mamba_ssm_dtype", default="float32")
    size = KV_BYTES.get(DTYPE_NAMES.get(name, name))
    if size is None:
        raise PlanError(f"{model.source}: mamba_ssm_cache_dtype {name!r} is unknown; use float32 or bfloat16")
    conv, ssm, parameters = _recurrent_elements(model)
    return StateGroup(layers, conv, ssm, size, parameters)


def _recurrent_elements(model: Fields) -> tuple[int, int, int]:
    """(conv, ssm, matrix) elements of one recurrent layer, by the keys that are present."""
    linear = model.child("linear_attn_config")
    if linear is not None:
        return _kda(linear, hidden_width(model))
    if model.has("linear_num_value_heads"):
        return _delta_net(model)
    if model.has("conv_L_cache"):  # LFM2: a short convolution and nothing else
        hidden = hidden_width(model)
        return hidden * (model.integer("conv_L_cache", high=64) - 1), 0, 4 * hidden * hidden
    family = model.text("model_type")
    if model.has("mamba_num_heads", "mamba_n_heads") or family == "mamba2":
        return _mamba2(model)
    if model.has("mamba_d_state", "mamba_expand") or family in STATE_ONLY:
        return _mamba1(model)
    if model.has("attn_type_list") or family.startswith("minimax"):  # lightning: one head_dim^2 matrix per head
        width = model.integer("head_dim", high=DIM_MAX)
        heads = head_count(model)
        return 0, heads * width * width, 5 * heads * width * hidden_width(model)
    raise PlanError(
        f"{model.source}: recurrent layers without mamba_num_heads or linear_num_value_heads; add their keys"
    )


def _delta_net(model: Fields) -> tuple[int, int, int]:
    key_heads = model.integer("linear_num_key_heads", high=HEADS_MAX)
    value_heads = model.integer("linear_num_value_heads", high=HEADS_MAX)
    key_dim = model.integer("linear_key_head_dim", high=DIM_MAX)
    value_dim = model.integer("linear_value_head_dim", high=DIM_MAX)
    kernel = model.integer("linear_conv_kernel_dim", high=64)
    keys, values, hidden = key_heads * key_dim, value_heads * value_dim, hidden_width(model)
    matrices = hidden * (2 * keys + 2 * values + 2 * value_heads) + values * hidden
    return (2 * keys + values) * (kernel - 1), value_heads * key_dim * value_dim, matrices


def _mamba2(model: Fields) -> tuple[int, int, int]:
    heads = model.integer("mamba_num_heads", "mamba_n_heads", "num_heads", high=HEADS_MAX)
    width = model.integer("mamba_head_dim", "mamba_d_head", "head_dim", high=DIM_MAX)
    state = model.integer("ssm_state_size", "mamba_d_state", "state_size", high=DIM_MAX)
    groups = model.integer("n_groups", "mamba_n_groups", high=HEADS_MAX, default=1)
    kernel = model.integer("conv_kernel", "mamba_d_conv", high=64, default=4)
    inner, hidden = heads * width, hidden_width(model)
    matrices = hidden * (2 * inner + 2 * groups * state + heads) + inner * hidden
    return (inner + 2 * groups * state) * (kernel - 1), heads * width * state, matrices


def _mamba1(model: Fields) -> tuple[int, int, int]:
    hidden = hidden_width(model)
    inner = model.integer("mamba_expand", "expand", high=64, default=2) * hidden
    state = model.integer("mamba_d_state", "state_size", high=DIM_MAX, default=16)
    kernel = model.integer("mamba_d_conv", "conv_kernel", high=64, default=4)
    name, given = model.find("mamba_dt_rank", "time_step_rank")
    usual = -(-hidden // 16)
    rank = usual if given in (None, "auto") else model.checked_integer(name, given, 1, DIM_MAX)
    return inner * (kernel - 1), inner * state, 3 * hidden * inner + inner * (2 * rank + 2 * state)


def _kda(linear: Fields, hidden: int) -> tuple[int, int, int]:
    inner = linear.integer("num_heads", high=HEADS_MAX) * linear.integer("head_dim", high=DIM_MAX)
    kernel = linear.integer("short_conv_kernel_size", high=64, default=4)
    return 3 * inner * (kernel - 1), inner * linear.integer("head_dim", high=DIM_MAX), 5 * hidden * inner
