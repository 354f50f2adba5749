from __future__ import annotations

from proxy.adapters.engines.openai import OpenAi
from proxy.types import Telemetry


def test_nothing_is_asked_and_nothing_told() -> None:
    engine = OpenAi()
    assert engine.metrics_paths == engine.info_paths == ()
    assert engine.parse_metrics("vllm:num_requests_running 1\n", 1.0) == Telemetry(1.0)
    assert engine.parse_info({"max_model_len": 5}, 1.0) == Telemetry(1.0)
