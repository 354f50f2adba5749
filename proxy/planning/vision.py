"""The vision tower of a multimodal model: its weights, and what vLLM's profiling run of it takes.

    parameters   layers * (4 h^2 + m h i)  +  merger (h s^2)^2 + h s^2 out        m = 3 when gated, else 2
    peak         patches * 2 B * (3 h + 2 h + 2 i + 3 x)                          x pixels of a patch, in 16 and 32 bit

with width h, feed-forward i, merge size s. `patches` are those of the largest picture, or of as many as a step's token
budget holds: vLLM's V1 engine encodes that many before it profiles the language model, and its own peak is the larger
of the two. Towers without a fixed picture size take up to 16,384 tokens of s^2 patches (Qwen-VL's `max_pixels`).
Source: vllm/v1/worker/gpu_model_runner.py (profile_run), vllm/multimodal/encoder_budget.py; the named models' configs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.planning.fields import Fields, PlanError

TOWER_KEYS = ("vision_config", "vision_tower_config", "visual")
WIDTH_KEYS = ("vt_hidden_size", "embed_dim", "hidden_size", "width")
LAYER_KEYS = ("vt_num_hidden_layers", "depth", "num_hidden_layers", "layers", "num_layers")
FEED_KEYS = ("vt_intermediate_size", "intermediate_size", "mlp_dim")
GATED = frozenset({"silu", "swiglu"})
FREE_SIZE_TOKENS = 16384
WIDTH_MAX, LAYERS_MAX, SIDE_MAX = 65536, 1000, 65536
HALF_BYTES = 2


@dataclass(frozen=True, slots=True)
class Tower:
    """`picture_patches` of the largest picture, `patches_per_token` after merging, bytes that one patch takes."""

    parameters: int
    picture_patches: int
    patches_per_token: int
    patch_bytes: int

    def peak_bytes(self, batched_tokens: int) -> int:
        """Activations while as many pictures are encoded as a step of that many tokens holds, one at least."""
        return max(self.picture_patches, batched_tokens * self.patches_per_token) * self.patch_bytes


def read_tower(model: Fields) -> tuple[Tower | None, bool]:
    """(tower, whether there is one that could not be counted)."""
    found = next((model.values[key] for key in TOWER_KEYS if model.has(key)), None)
    if not found:
        return None, False
    if not isinstance(found, Mapping):
        return None, True
    try:
        return _tower(Fields(found, f"{model.source}: vision_config")), False
    except PlanError:
        return None, True


def _tower(tower: Fields) -> Tower:
    width = tower.integer(*WIDTH_KEYS, high=WIDTH_MAX)
    layers = tower.integer(*LAYER_KEYS, high=LAYERS_MAX)
    ratio = tower.number("mlp_ratio", low=0.5, high=16, default=4.0)
    feed = tower.integer(*FEED_KEYS, high=8 * WIDTH_MAX, default=int(ratio * width))
    merge = tower.integer("spatial_merge_size", high=16, default=1)
    gated = tower.text("hidden_act", "hidden_activation").lower() in GATED
    matrices = layers * (4 * width * width + (3 if gated else 2) * width * feed)
    merged = width * merge * merge
    out = tower.optional_integer("out_hidden_size", high=WIDTH_MAX)
    matrices += merged * merged + merged * out if out else 0
    patch = tower.integer("patch_size", high=1024, default=14)
    pixels = 3 * patch * patch * tower.integer("temporal_patch_size", high=16, default=1)
    side = tower.optional_integer("image_size", high=SIDE_MAX)
    patches = (max(1, side // patch)) ** 2 if side else FREE_SIZE_TOKENS * merge * merge
    size = HALF_BYTES * (5 * width + 2 * feed + 3 * pixels)
    return Tower(matrices, patches, merge * merge, size)
