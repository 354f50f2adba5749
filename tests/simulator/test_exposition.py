from __future__ import annotations

import random

from prometheus_client.parser import text_string_to_metric_families

from proxy.simulator.engine import Engine
from proxy.simulator.server.exposition import exposition
from tests.simulator.serving import PROFILE


def test_the_page_parses_and_tells_the_engine_s_state() -> None:
    engine = Engine(PROFILE, random.Random(1))
    for number in range(3):
        engine.submit(number, 160, 9, now=0.0)
    engine.step(0.0)
    engine.abort(2)
    samples = {
        sample.name: sample
        for family in text_string_to_metric_families(exposition(engine, {"stop": 4}))
        for sample in family.samples
    }
    values = {name: sample.value for name, sample in samples.items()}
    assert values["vllm:num_requests_running"] == 2 and values["vllm:num_requests_waiting"] == 0
    assert values["vllm:kv_cache_usage_perc"] == 20 / 1000
    assert values["vllm:generation_tokens_total"] == 3 and values["vllm:prompt_tokens_total"] == 480
    assert values["vllm:request_success_total"] == 4 and values["simulated_requests_aborted_total"] == 1
    assert samples["vllm:num_requests_running"].labels == {"engine": "0", "model_name": "m"}
    cache = samples["vllm:cache_config_info"].labels
    assert (cache["block_size"], cache["num_gpu_blocks"]) == ("16", "1000")
