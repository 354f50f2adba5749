from __future__ import annotations

import pytest

from proxy.adapters.engines.dynamo import Dynamo
from proxy.types import Telemetry

ONE_MODEL = """dynamo_frontend_inflight_requests{model="m"} 10
dynamo_frontend_queued_requests{model="m"} 4
dynamo_frontend_model_total_kv_blocks{model="m"} 16384
dynamo_frontend_model_kv_cache_block_size{model="m"} 16
dynamo_frontend_model_max_num_seqs{model="m"} 64
dynamo_frontend_model_context_length{model="m"} 40960
dynamo_frontend_model_workers{model="m"} 2
"""
TWO_MODELS = """dynamo_frontend_model_total_kv_blocks{model="a"} 100
dynamo_frontend_model_total_kv_blocks{model="b"} 10
dynamo_frontend_model_kv_cache_block_size{model="a"} 16
dynamo_frontend_model_kv_cache_block_size{model="b"} 64
"""
NOT_AT_ONCE = "dynamo_frontend_inflight_requests 0\ndynamo_frontend_queued_requests 1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ONE_MODEL,
            Telemetry(1.0, running=6, waiting=4, kv_tokens=524288, running_cap=128, context_tokens=40960),
        ),
        (TWO_MODELS, Telemetry(1.0, kv_tokens=2240)),
        (NOT_AT_ONCE, Telemetry(1.0, running=0, waiting=1)),
        ("dynamo_frontend_requests_total 5\n", Telemetry(1.0)),
    ],
)
def test_gauges_are_per_worker_and_per_model(text: str, expected: Telemetry) -> None:
    assert Dynamo().parse_metrics(text, 1.0) == expected
