"""Shapes, cards and plans for the tests, from the bundled tables."""

from __future__ import annotations

from typing import Any

from proxy.adapters.files import load_accelerator, load_model
from proxy.planning.capacity import CapacityPlan, PlanRequest, plan_capacity
from proxy.planning.shapes import ModelShape, read_shape

PLAIN: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 8,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}


def config(**changes: Any) -> dict[str, Any]:
    """A small plain model with some keys changed; None removes a key."""
    return {key: value for key, value in (PLAIN | changes).items() if value is not None}


def bundled(name: str) -> ModelShape:
    files = load_model(name)
    return read_shape(files.config, files.sidecar, files.name)


def planned(model: str | ModelShape = "llama-3.1-8b", card: str = "h100", **request: Any) -> CapacityPlan:
    shape = bundled(model) if isinstance(model, str) else model
    request.setdefault("count", request.get("tp", 1) * request.get("pp", 1) * request.get("dp", 1))
    return plan_capacity(shape, load_accelerator(card), PlanRequest(**request))
