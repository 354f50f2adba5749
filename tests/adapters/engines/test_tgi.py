from __future__ import annotations

import pytest

from proxy.adapters.engines.tgi import Tgi
from proxy.types import Telemetry

METRICS = """tgi_batch_current_size 5
tgi_queue_size 1
tgi_batch_max_total_tokens 80000
tgi_batch_current_max_tokens 20000
"""
NEW = {"version": "3.3.5", "max_concurrent_requests": 128, "max_input_tokens": 4095, "max_total_tokens": 4096}
OLD = NEW | {"version": "2.2.0", "max_batch_total_tokens": 16000, "max_batch_size": 64}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (METRICS, Telemetry(1.0, running=5, waiting=1, kv_usage=0.25, kv_tokens=80000)),
        ("tgi_batch_max_total_tokens 0\ntgi_batch_current_max_tokens 1\n", Telemetry(1.0)),
        ("tgi_batch_max_total_tokens 9\n", Telemetry(1.0, kv_tokens=9)),
    ],
)
def test_metrics(text: str, expected: Telemetry) -> None:
    assert Tgi().parse_metrics(text, 1.0) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (NEW, Telemetry(1.0, running_cap=128, context_tokens=4096)),
        (OLD, Telemetry(1.0, kv_tokens=16000, running_cap=64, context_tokens=4096)),
    ],
)
def test_info_of_both_generations(page: object, expected: Telemetry) -> None:
    assert Tgi().parse_info(page, 1.0) == expected
