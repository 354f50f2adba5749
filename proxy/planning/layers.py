"""What each decoder layer keeps per sequence: a table of the ways in which config.json files say it.

Kind          keeps                                   grows with the sequence
full          K and V of every token                  always
sliding       K and V of the last `window` tokens     up to the window
chunked       K and V of the current chunk            up to the chunk
recurrent     one state of fixed size                 never (Mamba, gated delta net, KDA)
cross         K and V of the encoder's tokens         never
none          nothing (plain MLP, no-op, shared)      never

Sources: Hugging Face Transformers configuration classes of the named models; vLLM and SGLang model files.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from proxy.planning.fields import Fields, PlanError, shown


class Kind(StrEnum):
    FULL = "full"
    SLIDING = "sliding"
    CHUNKED = "chunked"
    RECURRENT = "recurrent"
    CROSS = "cross"
    NONE = "none"


NAMED_KINDS: dict[str, Kind] = {
    "full_attention": Kind.FULL,
    "attention": Kind.FULL,
    "global": Kind.FULL,
    "sliding_attention": Kind.SLIDING,
    "local": Kind.SLIDING,
    "chunked_attention": Kind.CHUNKED,
    "linear_attention": Kind.RECURRENT,
    "mamba": Kind.RECURRENT,
    "mamba2": Kind.RECURRENT,
    "kda": Kind.RECURRENT,
    "conv": Kind.RECURRENT,
    "deepseek_sparse_attention": Kind.FULL,
    "moe": Kind.NONE,
    "mlp": Kind.NONE,
}
GLOBAL_EVERY = {"gemma2": 2, "gpt_oss": 2, "gemma3": 6, "cohere2": 4, "exaone4": 4, "olmo3": 4}  # where no key says it
EVERY_KEYS = ("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers")
STATE_ONLY = frozenset({"mamba", "mamba2", "falcon_mamba"})
PATTERN_LETTERS: dict[str, Kind] = {"*": Kind.FULL, "M": Kind.RECURRENT, "-": Kind.NONE, "E": Kind.NONE}
# Keys that change what a layer keeps in a way that is not modelled here: refusing beats guessing.
UNSUPPORTED_KEYS: dict[str, str] = {
    "compress_ratios": "compressed sparse attention",
    "sparse_attention_config": "block-sparse attention",
}


def layer_kinds(model: Fields, layers: int) -> list[Kind]:
    """One kind per decoder layer, in order. Raises PlanError for a variant that is not modelled."""
    for key, what in UNSUPPORTED_KEYS.items():
        if model.has(key):
            raise PlanError(
                f"{model.source}: {key} ({what}) is not modelled; give --kv-bytes-per-token from the engine's log"
            )
    for reader in READERS:
        kinds = reader(model, layers)
        if kinds is not None:
            return _with_cross_layers(model, kinds)
    return _with_cross_layers(model, _by_window(model, layers))


def _by_block_configs(model: Fields, layers: int) -> list[Kind] | None:
    """Architecture search (DeciLM, Nemotron): attention may be a no-op or replaced by a linear map."""
    blocks = model.items("block_configs", length=layers)
    if blocks is None:
        return None
    kinds = []
    for index, block in enumerate(blocks):
        attention = Fields(block if isinstance(block, dict) else {}, f"{model.source}: block_configs[{index}]").child(
            "attention"
        )
        if attention is None:
            raise PlanError(f"{model.source}: block_configs[{index}].attention is missing; add it")
        kept = not (attention.flag("no_op") or attention.flag("replace_with_linear"))
        kinds.append(Kind.FULL if kept else Kind.NONE)
    return kinds


def _by_override_pattern(model: Fields, layers: int) -> list[Kind] | None:
    """Nemotron-H: one letter per layer, `*` attention, `M` Mamba, `-` and `E` feed-forward."""
    pattern = model.text("hybrid_override_pattern")
    if not pattern:
        return None
    unknown = set(pattern) - set(PATTERN_LETTERS)
    if unknown or len(pattern) != layers:
        raise PlanError(
            f"{model.source}: hybrid_override_pattern needs {layers} letters of {''.join(PATTERN_LETTERS)},"
            f" found {shown(pattern)}"
        )
    return [PATTERN_LETTERS[letter] for letter in pattern]


def _by_names(model: Fields, layers: int) -> list[Kind] | None:
    name, names = model.find("layer_types", "layers_block_type")
    if names is None:
        return None
    kinds = []
    for value in model.items(name, length=layers) or ():
        kind = NAMED_KINDS.get(value) if isinstance(value, str) else None
        if kind is None:
            raise PlanError(f"{model.source}: {name} holds {shown(value)}; known: {', '.join(NAMED_KINDS)}")
        kinds.append(kind)
    return kinds


def _by_numbers(key: str, table: dict[int, Kind]) -> Callable[[Fields, int], list[Kind] | None]:
    def read(model: Fields, layers: int) -> list[Kind] | None:
        values = model.items(key, length=layers)
        if values is None:
            return None
        kinds = [table.get(model.checked_integer(key, value, 0)) for value in values]
        if None in kinds:
            raise PlanError(f"{model.source}: {key} holds a value other than {sorted(table)}")
        return [kind for kind in kinds if kind is not None]

    return read


def _by_linear_config(model: Fields, layers: int) -> list[Kind] | None:
    """Kimi-Linear: 1-based lists of full-attention and delta-attention layers."""
    linear = model.child("linear_attn_config")
    full = linear.items("full_attn_layers") if linear else None
    if linear is None or full is None:
        return None
    chosen = {linear.checked_integer("full_attn_layers", value, 1, layers) for value in full}
    return [Kind.FULL if index + 1 in chosen else Kind.RECURRENT for index in range(layers)]


def _by_interval(model: Fields, layers: int) -> list[Kind] | None:
    """Qwen3-Next: every N-th layer is full attention, the rest a gated delta net."""
    every = model.optional_integer("full_attention_interval")
    if every is None:
        return None
    return [Kind.FULL if (index + 1) % every == 0 else Kind.RECURRENT for index in range(layers)]


def _by_period(model: Fields, layers: int) -> list[Kind] | None:
    """Jamba: attention where index % period == offset, Mamba elsewhere."""
    period = model.optional_integer("attn_layer_period")
    if period is None:
        return None
    offset = model.integer("attn_layer_offset", low=0, default=0)
    return [Kind.FULL if index % period == offset else Kind.RECURRENT for index in range(layers)]


def _by_indices(model: Fields, layers: int) -> list[Kind] | None:
    """Bamba and the first LFM2: 0-based indices of the attention layers."""
    name, values = model.find("attn_layer_indices", "full_attn_idxs")
    if values is None:
        return None
    chosen = {model.checked_integer(name, value, 0, layers - 1) for value in model.items(name) or ()}
    return [Kind.FULL if index in chosen else Kind.RECURRENT for index in range(layers)]


def _by_family(model: Fields, layers: int) -> list[Kind] | None:
    """Mamba models without any attention."""
    return [Kind.RECURRENT] * layers if model.text("model_type") in STATE_ONLY else None


def _by_chunk(model: Fields, layers: int) -> list[Kind] | None:
    """Llama-4: chunked local attention, a global layer (no rotary embedding) every fourth."""
    if not model.has("attention_chunk_size") or model.has("sliding_window"):
        return None
    rotary = model.items("no_rope_layers")
    if not rotary:
        every = model.integer("no_rope_layer_interval", default=4)
        return [Kind.FULL if (index + 1) % every == 0 else Kind.CHUNKED for index in range(layers)]
    marks = model.items("no_rope_layers", length=layers) or ()
    return [Kind.CHUNKED if model.checked_integer("no_rope_layers", mark, 0, 1) else Kind.FULL for mark in marks]


def _by_window(model: Fields, layers: int) -> list[Kind]:
    """A window without a list: none, uniform, one global layer per P, or alternate, by model type."""
    window = model.optional_integer("sliding_window", low=0)
    if not window or not model.flag("use_sliding_window", default=True):
        return [Kind.FULL] * layers
    family = model.text("model_type")
    pattern = model.find("sliding_window_pattern")[1]
    if isinstance(pattern, str):
        return _by_letters(model, pattern, layers)
    every = model.optional_integer(*EVERY_KEYS)
    if every is None:
        every = GLOBAL_EVERY.get(family.removesuffix("_text"))
    if every is not None:
        return [Kind.FULL if (index + 1) % every == 0 else Kind.SLIDING for index in range(layers)]
    full_below = model.integer("max_window_layers", low=0, default=0) if model.has("use_sliding_window") else 0
    return [Kind.FULL if index < full_below else Kind.SLIDING for index in range(layers)]


def _by_letters(model: Fields, pattern: str, layers: int) -> list[Kind]:
    """EXAONE 4: a word such as LLLG, repeated: L local, G global."""
    if not pattern or set(pattern) - {"L", "G"} or len(pattern) > layers:
        raise PlanError(f"{model.source}: sliding_window_pattern must be a word of L and G, found {shown(pattern)}")
    return [Kind.FULL if pattern[index % len(pattern)] == "G" else Kind.SLIDING for index in range(layers)]


def _with_cross_layers(model: Fields, kinds: list[Kind]) -> list[Kind]:
    """Mllama's `cross_attention_layers`, then layers that reuse an earlier layer's cache (Gemma 3n, Hunyuan)."""
    crossing = model.items("cross_attention_layers") or ()
    for value in crossing:
        kinds[model.checked_integer("cross_attention_layers", value, 0, len(kinds) - 1)] = Kind.CROSS
    shared = model.integer("num_kv_shared_layers", low=0, high=len(kinds), default=0)
    if shared:
        kinds[len(kinds) - shared :] = [Kind.NONE] * shared
    if model.flag("use_cla"):
        factor = model.integer("cla_share_factor", high=len(kinds))
        kinds = [kind if index % factor == 0 else Kind.NONE for index, kind in enumerate(kinds)]
    return kinds


READERS: tuple[Callable[[Fields, int], list[Kind] | None], ...] = (
    _by_block_configs,
    _by_override_pattern,
    _by_numbers("hybrid_layer_pattern", {0: Kind.FULL, 1: Kind.SLIDING}),  # MiMo
    _by_numbers("attn_type_list", {0: Kind.RECURRENT, 1: Kind.FULL}),  # MiniMax
    _by_linear_config,
    _by_names,
    _by_interval,
    _by_period,
    _by_indices,
    _by_family,
    _by_chunk,
)
