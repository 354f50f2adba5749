"""ModelShape: the facts about a model that a plan uses, read from a parsed config.json.

Bytes per token of a plain model = 2 * layers * kv_heads * head_dim * bytes per element; every other variant is a
`LayerGroup` or `StateGroup` of `geometry`, chosen per layer by `layers`. A variant that is not modelled is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from proxy.planning.families import first_architecture, standing
from proxy.planning.fields import Fields, PlanError, shown
from proxy.planning.geometry import (
    DIM_MAX,
    HEAD_KEYS,
    HIDDEN_KEYS,
    LayerGroup,
    StateGroup,
    head_count,
    hidden_width,
    read_groups,
    read_state,
)
from proxy.planning.layers import Kind, layer_kinds
from proxy.planning.parameters import ParameterCount, count_parameters
from proxy.planning.precision import WeightFormat, read_weight_format
from proxy.planning.vision import Tower, read_tower

LAYERS_MAX, NAME_MAX = 1000, 200
LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "num_transformer_layers")
TEXT_KEYS = ("text_config", "llm_config", "language_config", "thinker_config")
PARALLEL_HYBRIDS = frozenset({"falcon_h1"})  # attention and a Mamba state side by side in every layer
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
FEED_KEYS = ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "d_ff", "ffn_hidden_size")
PARTS = ("attn_config", "ffn_config")
PART_KEYS = frozenset({"kv_n_heads", "ffn_hidden_size", "moe_num_experts", "moe_top_k"})
ENCODER_TOKENS_DEFAULT = 512  # T5's training length; its relative positions set no bound of their own


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Counts are of the whole model, not of one rank; 0 where the config does not tell and the cache needs it not.

    `draft_layers`: multi-token-prediction layers on offer. `parameters`: None without hidden and head counts.
    """

    name: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    context_tokens: int | None
    groups: tuple[LayerGroup, ...]
    state: StateGroup | None
    dtype: str
    weights: WeightFormat
    parameters: ParameterCount | None
    draft_layers: int = 0
    tower: Tower | None = None
    notes: tuple[str, ...] = ()

    @property
    def latent(self) -> bool:
        return any(group.latent_dim for group in self.groups)

    @property
    def uniform(self) -> bool:
        """Every layer that keeps anything keeps the same, for every token."""
        return self.state is None and len(self.groups) == 1 and self.groups[0].kind is Kind.FULL

    @property
    def kv_heads(self) -> int:
        """The fewest KV heads of any layer: how far tensor parallelism can split the cache. 0: latent attention."""
        return min((group.kv_heads for group in self.groups if group.kv_heads), default=0)

    @property
    def counted(self) -> ParameterCount:
        """The parameters. Raises PlanError when the config does not tell enough to count them."""
        if self.parameters is None:
            raise PlanError(
                "config.json: hidden_size, num_attention_heads or vocab_size is missing, so weights cannot be counted;"
                " add it, or give --weights-gib and no latency target"
            )
        return self.parameters

    def with_draft(self, layers: int) -> ModelShape:
        """The shape with `layers` further full layers, as a multi-token-prediction draft adds them."""
        full = next((group for group in self.groups if group.kind is Kind.FULL), None)
        if not layers or full is None:
            return self
        grown = replace(full, layers=full.layers + layers)
        return replace(self, groups=tuple(grown if group is full else group for group in self.groups))


def read_shape(
    config: Mapping[str, Any], sidecar: Mapping[str, Any] | None = None, name: str = "", cache_given: bool = False
) -> ModelShape:
    """ModelShape from a parsed config.json and the optional hf_quant_config.json.

    `cache_given`: the bytes per token come from elsewhere, so that a cache which is not modelled is no obstacle.
    Raises PlanError when a count is missing, out of range or of the wrong type, or when the variant is not modelled.
    """
    if not isinstance(config, Mapping):
        raise PlanError(f"config.json must hold a JSON object, found {shown(config)}")
    top = Fields(config)
    model = _text_part(top)
    layers = _layer_count(model)
    nested = any(top.has(key) for key in TEXT_KEYS)
    notes = [] if cache_given else [standing(top, model, nested).note]
    kinds = [Kind.FULL] * layers if cache_given else layer_kinds(model, layers)
    weights, dtype = read_weight_format(model, Fields(sidecar, "hf_quant_config.json") if sidecar else None)
    groups = _placeholder(model, layers) if cache_given else read_groups(model, kinds) + _encoder_groups(model, kinds)
    recurrent = layers if model.text("model_type") in PARALLEL_HYBRIDS else kinds.count(Kind.RECURRENT)
    state = None if cache_given else read_state(model, recurrent)
    if not groups and state is None:
        raise PlanError(f"{model.source}: no layer keeps a cache; is this a generative decoder?")
    hidden = hidden_width(model) if model.has(*HIDDEN_KEYS) else 0
    vocabulary = model.integer("vocab_size", "padded_vocab_size", low=0, high=2**26, default=0)
    countable = hidden and vocabulary and (model.has(*HEAD_KEYS) or not groups)
    tower, uncounted = read_tower(model)
    if uncounted:
        notes.append("the vision tower's size is not told in a way that is read here: give --weights-gib")
    return ModelShape(
        name=_printable(name or top.text("_name_or_path", "model_type", default="model")),
        architecture=first_architecture(top),
        layers=layers,
        hidden=hidden,
        heads=head_count(model) if model.has(*HEAD_KEYS) else 0,
        intermediate=model.integer(*FEED_KEYS, low=0, high=DIM_MAX, default=4 * hidden),
        vocabulary=vocabulary,
        context_tokens=model.optional_integer(*CONTEXT_KEYS),
        groups=groups,
        state=state,
        dtype=dtype,
        weights=weights,
        parameters=count_parameters(model, groups, state, layers, vocabulary) if countable else None,
        draft_layers=model.integer("num_nextn_predict_layers", "mtp_num_hidden_layers", low=0, high=64, default=0),
        tower=tower,
        notes=tuple(note for note in notes if note),
    )


def _printable(name: str) -> str:
    """A name from a file, fit for a terminal and a command line."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:NAME_MAX])


def _layer_count(model: Fields) -> int:
    """Decoder layers; a per-layer list of block types may stand in for the number."""
    if model.has("num_decoder_layers"):
        return model.integer("num_decoder_layers", high=LAYERS_MAX)
    listed = model.items("layers_block_type")
    if listed and not model.has(*LAYER_KEYS):
        return model.checked_integer("layers_block_type", len(listed), 1, LAYERS_MAX)
    return model.integer(*LAYER_KEYS, high=LAYERS_MAX)


def _placeholder(model: Fields, layers: int) -> tuple[LayerGroup, ...]:
    """One group whose geometry serves the parameter count alone, where the cache's bytes are given."""
    try:
        return read_groups(model, [Kind.FULL] * layers)
    except PlanError:
        return (LayerGroup(Kind.FULL, layers),)


def _text_part(top: Fields) -> Fields:
    """The language model's own mapping; keys that only the top level carries (dtype, quantization) stay visible."""
    part = top
    for _ in range(2):  # thinker_config.text_config is the deepest nesting in use
        inner = part.child(*TEXT_KEYS)
        if inner is None:
            break
        values = {key: value for key, value in inner.values.items() if value is not None}
        part = Fields({**part.values, **dict.fromkeys(TEXT_KEYS), **values}, inner.source)
    return _with_parts(part)


def _with_parts(model: Fields) -> Fields:
    """DBRX and MPT keep the facts of attention and feed-forward in mappings of their own."""
    values: dict[str, Any] = {}
    for key in PARTS:
        if isinstance(model.values.get(key), Mapping):
            values |= {name: value for name, value in model.values[key].items() if name in PART_KEYS}
    return Fields({**values, **model.values}, model.source) if values else model


def _encoder_groups(model: Fields, kinds: list[Kind]) -> tuple[LayerGroup, ...]:
    """Cross attention of an encoder-decoder: every decoder layer also keeps K and V of the encoder's tokens."""
    if not model.flag("is_encoder_decoder"):
        return ()
    own = read_groups(model, [Kind.FULL])[0]
    tokens = model.integer("max_source_positions", *CONTEXT_KEYS, default=ENCODER_TOKENS_DEFAULT)
    return (replace(own, kind=Kind.CROSS, layers=len(kinds), window_tokens=tokens),)
