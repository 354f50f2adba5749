"""Ollama: no metrics, and OLLAMA_NUM_PARALLEL is not told. `/api/ps` tells the context of each loaded model."""

from __future__ import annotations

from proxy.adapters.engines.base import Engine, at, items, largest, size
from proxy.types import Telemetry


class Ollama(Engine):
    name = "ollama"
    metrics_paths = ()
    info_paths = ("/api/ps",)
    slow_abort = False

    def parse_metrics(self, text: str, at_s: float) -> Telemetry:
        return Telemetry(at_s=at_s)

    def parse_info(self, document: object, at_s: float) -> Telemetry:
        contexts = (size(at(model, "context_length")) for model in items(document, "models"))
        return Telemetry(at_s=at_s, context_tokens=largest(contexts))
