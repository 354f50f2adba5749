"""Parameters of a model, counted from its geometry: the weight bytes when no file gives them, and the decode traffic.

Per layer: GQA projections `hidden*(heads*d + kv_heads*(dk+dv)) + heads*dv*hidden`; MLA by its low-rank factors
(arXiv:2405.04434); a feed-forward of 3 matrices when gated, else 2; a mixture of experts has `experts` of them, of
which `experts_per_token` and the shared ones work on a token. Norms and biases are left out (below 0.1 %).
Memory holds all experts, a decode step of B tokens reads `1 - (1 - k/E)^B` of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from proxy.planning.fields import Fields
from proxy.planning.geometry import DIM_MAX, LayerGroup, StateGroup, head_count, hidden_width
from proxy.planning.layers import STATE_ONLY
from proxy.planning.precision import WeightFormat

EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
CHOSEN_KEYS = (
    "num_experts_per_tok",
    "experts_per_token",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "top_k",
)
PLAIN_ACTIVATIONS = frozenset({"relu", "relu2", "gelu", "gelu_new", "gelu_fast"})
PLAIN_FAMILIES = frozenset({"starcoder2", "gpt2", "opt", "falcon", "phi", "bloom", "t5", "whisper", "bart"})
TIED_FAMILIES = ("gemma", "cohere", "gpt2", "t5", "bart", "whisper", "bloom", "opt")  # where the key defaults to true
SHARED_KEYS = (
    "moe_shared_expert_intermediate_size",
    "shared_expert_intermediate_size",
    "share_expert_dim",
    "shared_intermediate_size",
)
HALF_BYTES = Fraction(2)


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Elements of the whole model. Embeddings stay at 16 bit in every weight format that engines serve."""

    embedding: int
    attention: int
    dense: int
    experts: int
    chosen_share: Fraction  # part of `experts` that one token uses
    head: int  # the output matrix, read once per step, also when tied to the embedding
    expert_count: int = 0  # experts of one layer

    @property
    def total(self) -> int:
        return self.embedding + self.attention + self.dense + self.experts

    @property
    def active(self) -> int:
        """Parameters that work on one token (the embedding is a look-up, the head a product)."""
        return self.attention + self.dense + int(self.experts * self.chosen_share) + self.head

    def weight_bytes(self, weights: WeightFormat) -> int:
        """Bytes of all weights in that format."""
        return int(self.embedding * HALF_BYTES + self._matrix_bytes(weights) + self.experts * weights.matrix_bytes)

    def step_bytes(self, weights: WeightFormat, batch: int) -> int:
        """Weight bytes that one decode step of `batch` sequences reads."""
        touched = 1 - (1 - float(self.chosen_share)) ** batch if self.experts else 0.0
        experts = float(self.experts * weights.matrix_bytes) * touched
        return int(self.head * HALF_BYTES + self._matrix_bytes(weights) + experts)

    def _matrix_bytes(self, weights: WeightFormat) -> Fraction:
        return (self.attention + self.dense) * (HALF_BYTES if weights.experts_only else weights.matrix_bytes)


def count_parameters(
    model: Fields, groups: tuple[LayerGroup, ...], state: StateGroup | None, layers: int, vocabulary: int
) -> ParameterCount:
    """Counts from the keys of a decoder; keys that are absent count as the family's default."""
    hidden = hidden_width(model)
    attention = sum(group.layers * _attention(model, group, hidden) for group in groups)
    attention += state.layers * state.parameters if state else 0
    table = vocabulary * hidden
    feeds = _feed_kinds(model, layers)
    dense, experts, share = _feed_forward(model, hidden, feeds)
    tied = model.flag("tie_word_embeddings", default=model.text("model_type").startswith(TIED_FAMILIES))
    count = model.integer(*EXPERT_KEYS, high=2**16, default=1) if experts else 0
    return ParameterCount(table if tied else 2 * table, attention, dense, experts, share, table, count)


def _attention(model: Fields, group: LayerGroup, hidden: int) -> int:
    heads = head_count(model)
    if group.latent_dim:
        return _latent_attention(model, group, hidden, heads)
    gate = 2 if model.flag("attn_output_gate") else 1
    queries = hidden * heads * group.k_dim * gate
    return queries + hidden * group.kv_heads * (group.k_dim + group.v_dim) + heads * group.v_dim * hidden


def _latent_attention(model: Fields, group: LayerGroup, hidden: int, heads: int) -> int:
    rank = group.latent_dim - group.rope_dim
    nope = model.integer("qk_nope_head_dim", high=DIM_MAX, default=128)
    value = model.integer("v_head_dim", high=DIM_MAX, default=128)
    query_rank = model.optional_integer("q_lora_rank", high=DIM_MAX)
    query_width = heads * (nope + group.rope_dim)
    queries = hidden * query_rank + query_rank * query_width if query_rank else hidden * query_width
    keys = hidden * group.latent_dim + rank * heads * (nope + value)
    index = model.integer("index_n_heads", high=DIM_MAX, default=64) * group.index_dim * (query_rank or hidden)
    return queries + keys + heads * value * hidden + index


def _feed_kinds(model: Fields, layers: int) -> list[str]:
    """`dense`, `moe` or `none` for each layer."""
    if model.text("model_type") in STATE_ONLY:
        return ["none"] * layers
    pattern = model.text("hybrid_override_pattern") or _block_letters(model)
    if pattern:
        return [{"-": "dense", "E": "moe"}.get(letter, "none") for letter in pattern]
    if not model.has(*EXPERT_KEYS):
        return ["dense"] * layers
    return ["moe" if _is_sparse(model, index) else "dense" for index in range(layers)]


def _block_letters(model: Fields) -> str:
    names = model.items("layers_block_type") or ()
    table = {"mlp": "-", "moe": "E"}
    return "".join(table.get(str(name), "*") for name in names) if set(map(str, names)) & set(table) else ""


def _is_sparse(model: Fields, index: int) -> bool:
    """Whether layer `index` is a mixture of experts: dense head, explicit list, or every N-th."""
    if index < model.integer("first_k_dense_replace", low=0, default=0):
        return False
    listed = model.items("mlp_only_layers") or ()
    if index in listed:
        return False
    frequency = model.find("moe_layer_freq")[1]
    if isinstance(frequency, list):
        return bool(index < len(frequency) and frequency[index])
    period = model.optional_integer("expert_layer_period")
    if period:
        return index % period == model.integer("expert_layer_offset", low=0, default=0)
    every = model.integer("interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq", default=1)
    return (index + 1) % every == 0


def _matrices(model: Fields) -> int:
    """3 for a gated feed-forward, 2 for a plain one."""
    activation = model.text("hidden_act", "mlp_hidden_act", "activation_function", "hidden_activation", default="silu")
    plain = activation in PLAIN_ACTIVATIONS and not model.flag("is_gated_act")
    return 2 if plain or model.text("model_type") in PLAIN_FAMILIES else 3


def _feed_forward(model: Fields, hidden: int, kinds: list[str]) -> tuple[int, int, Fraction]:
    """(dense elements, expert elements, share of the experts that a token uses)."""
    matrices = _matrices(model)
    width = model.integer("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size", default=4 * hidden)
    dense_width = model.integer("intermediate_size_mlp", "dense_intermediate_size", default=width, high=DIM_MAX)
    dense = matrices * hidden * (_searched_width(model, hidden) or kinds.count("dense") * dense_width)
    sparse = kinds.count("moe")
    if not sparse:
        return dense, 0, Fraction(0)
    count = model.integer(*EXPERT_KEYS, high=2**16)
    chosen = min(count, model.integer(*CHOSEN_KEYS, high=2**16, default=1))
    expert_width = model.integer("moe_intermediate_size", "expert_intermediate_size", default=width, high=DIM_MAX)
    inner = model.integer("moe_latent_size", "routed_expert_hidden_size", default=hidden, high=DIM_MAX)
    shared = matrices * hidden * _shared_width(model, expert_width)
    latent = 2 * hidden * inner if inner != hidden else 0
    if model.flag("enable_moe_block"):  # Gemma-4 runs its dense feed-forward beside the experts
        shared += matrices * hidden * dense_width
    dense += sparse * (shared + latent + hidden * count)
    return dense, sparse * count * matrices * inner * expert_width, Fraction(chosen, count)


def _shared_width(model: Fields, expert_width: int) -> int:
    explicit = model.optional_integer(*SHARED_KEYS, low=0)
    if explicit is not None:
        return explicit
    if model.text("model_type").startswith("llama4"):
        return expert_width
    return expert_width * model.integer("n_shared_experts", "num_shared_experts", low=0, default=0)


def _searched_width(model: Fields, hidden: int) -> int:
    """Sum over layers of DeciLM's `ffn_mult`: 2/3 of the multiple, rounded up to 256."""
    total = 0
    for block in model.items("block_configs") or ():
        feed = Fields(block if isinstance(block, dict) else {}, model.source).child("ffn")
        multiple = feed.number("ffn_mult", low=0, high=64, default=0) if feed else 0.0
        total += -(-int(2 * multiple * hidden / 3) // 256) * 256
    return total
