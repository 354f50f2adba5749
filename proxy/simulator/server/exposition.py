"""The engine's state under vLLM's metric names, in the Prometheus text format 0.0.4."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.simulator.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(engine: Engine, ended: Mapping[str, int]) -> str:
    """`ended` counts finished sequences by finish reason."""
    profile, counters = engine.profile, engine.counters
    own = f'engine="0",model_name="{profile.model}"'
    cache = (
        f'block_size="{profile.block_tokens}",cache_dtype="auto",enable_prefix_caching="False",engine="0",'
        f'gpu_memory_utilization="0.9",num_gpu_blocks="{profile.kv_blocks}"'
    )
    success: list[tuple[str, float]] = [(f'{own},finished_reason="{reason}"', count) for reason, count in ended.items()]
    families: list[tuple[str, str, str, list[tuple[str, float]]]] = [
        ("vllm:num_requests_running", "gauge", "Sequences in the batch.", [(own, engine.running)]),
        ("vllm:num_requests_waiting", "gauge", "Sequences that wait for a place.", [(own, engine.waiting)]),
        ("vllm:kv_cache_usage_perc", "gauge", "Share of KV blocks in use, 0 to 1.", [(own, engine.kv_usage)]),
        ("vllm:cache_config_info", "gauge", "Information on the KV cache.", [(cache, 1)]),
        ("vllm:num_preemptions_total", "counter", "Evictions by recompute.", [(own, counters.preemptions)]),
        ("vllm:prompt_tokens_total", "counter", "Prompt tokens computed.", [(own, counters.prompt_tokens)]),
        ("vllm:generation_tokens_total", "counter", "Output tokens.", [(own, counters.generation_tokens)]),
        ("vllm:request_success_total", "counter", "Finished sequences.", success),
        ("simulated_requests_aborted_total", "counter", "Aborted sequences.", [(own, counters.aborted)]),
        ("simulated_recomputed_tokens_total", "counter", "Lost to eviction.", [(own, counters.recomputed_tokens)]),
        ("simulated_queue_seconds_total", "counter", "Time to first admission.", [(own, counters.queue_s)]),
        ("simulated_steps_total", "counter", "Engine steps.", [(own, counters.steps)]),
    ]
    lines: list[str] = []
    for name, kind, text, samples in families:
        lines += [f"# HELP {name} {text} Simulated.", f"# TYPE {name} {kind}"]
        lines += [f"{name}{{{labels}}} {float(value)!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"
