from __future__ import annotations

from proxy.adapters.engines.ollama import Ollama
from proxy.types import Telemetry


def test_the_longest_context_of_the_loaded_models() -> None:
    page = {"models": [{"name": "a", "context_length": 4096}, {"name": "b", "context_length": 8192}, {"name": "c"}]}
    assert Ollama().parse_info(page, 1.0) == Telemetry(1.0, context_tokens=8192)
    assert Ollama().parse_info({"models": []}, 1.0) == Telemetry(1.0)
