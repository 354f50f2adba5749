from __future__ import annotations

import pytest

from proxy.adapters.engines.sglang import Sglang
from proxy.types import Telemetry

LABELS = 'engine_type="unified",model_name="m"'
RANKS = f"""# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{{{LABELS},tp_rank="0",dp_rank="0"}} 4.0
sglang:num_running_reqs{{{LABELS},tp_rank="1",dp_rank="0"}} 4.0
sglang:num_running_reqs{{{LABELS},tp_rank="0",dp_rank="1"}} 3.0
sglang:num_queue_reqs{{{LABELS},tp_rank="0"}} 2.0
sglang:token_usage{{{LABELS},tp_rank="0"}} 0.4
sglang:num_retracted_reqs{{{LABELS},tp_rank="0"}} 1.0
sglang:num_retracted_requests_total{{{LABELS},tp_rank="0"}} 48.0
sglang:max_total_num_tokens{{{LABELS},tp_rank="0",dp_rank="0"}} 20480.0
sglang:max_total_num_tokens{{{LABELS},tp_rank="0",dp_rank="1"}} 20480.0
"""
UNDERSCORE = 'sglang_num_running_reqs{model_name="m"} 1\nsglang_num_pages 200000\nsglang_page_size 1\n'
INFO_LABELS = 'sglang:cache_config_info{page_size="16",num_pages="100"} 1.0\nsglang:token_usage NaN\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RANKS, Telemetry(1.0, running=7, waiting=2, kv_usage=0.4, preemptions=48, kv_tokens=40960)),
        (UNDERSCORE, Telemetry(1.0, running=1, kv_tokens=200000)),
        (INFO_LABELS, Telemetry(1.0, kv_tokens=1600)),
    ],
)
def test_metrics_of_each_build(text: str, expected: Telemetry) -> None:
    assert Sglang().parse_metrics(text, 1.0) == expected


STATE = {"memory_usage": {"token_capacity": 20480}, "effective_max_running_requests_per_dp": 128}
LOAD = {"num_running_reqs": 3, "num_waiting_reqs": 1, "token_usage": 0.5, "max_total_num_tokens": 900}
LOAD["max_running_requests"] = 64


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            {"internal_states": [STATE, STATE], "max_running_requests": None, "context_length": 32768, "dp_size": 2},
            Telemetry(1.0, kv_tokens=40960, running_cap=256, context_tokens=32768),
        ),
        (
            {"max_total_num_tokens": 500, "max_running_requests": 32, "context_length": None, "dp_size": 2},
            Telemetry(1.0, kv_tokens=1000, running_cap=32),
        ),
        (
            {"loads": [LOAD, {**LOAD, "token_usage": 0.7}]},
            Telemetry(1.0, running=6, waiting=2, kv_usage=0.7, kv_tokens=1800, running_cap=128),
        ),
    ],
)
def test_server_info_and_loads(page: object, expected: Telemetry) -> None:
    assert Sglang().parse_info(page, 1.0) == expected
