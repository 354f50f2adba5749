from __future__ import annotations

import pytest

from proxy.adapters.engines.llamacpp import Llamacpp
from proxy.types import Telemetry


def test_metrics() -> None:
    text = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 1\nllamacpp:kv_cache_usage_ratio 0.2\n"
    assert Llamacpp().parse_metrics(text, 1.0) == Telemetry(1.0, running=3, waiting=1, kv_usage=0.2)


@pytest.mark.parametrize("settings", [{"n_ctx": 4096}, {"params": {"n_ctx": 4096}}])
def test_slots_and_the_context_of_one(settings: object) -> None:
    page = {"total_slots": 4, "default_generation_settings": settings, "model_path": "m.gguf"}
    assert Llamacpp().parse_info(page, 1.0) == Telemetry(1.0, running_cap=4, context_tokens=4096)
