"""TensorRT-LLM (trtllm-serve): `/prometheus/metrics`, where a front end may also put Triton's names.

Tokens = blocks * tokens per block; the legacy cache manager counts blocks offloaded to the host among them. The JSON
list at `/metrics` is drained by whoever reads it, so it is left to the operator's own tools.
"""

from __future__ import annotations

from proxy.adapters.engines.base import Engine, count, ratio, size
from proxy.adapters.engines.exposition import Exposition
from proxy.types import Telemetry

RUNNING = ("trtllm_num_requests_running",)
WAITING = ("trtllm_num_requests_waiting",)
USAGE = ("trtllm_kv_cache_utilization",)
BLOCKS = ("trtllm_kv_cache_max_blocks",)
BLOCK_SIZE = ("trtllm_kv_cache_tokens_per_block",)
BATCH = ("trtllm_max_batch_size_runtime", "trtllm_max_batch_size_static")
TRITON_BLOCKS = ("nv_trt_llm_kv_cache_block_metrics",)
TRITON_REQUESTS = ("nv_trt_llm_request_metrics",)


class Trtllm(Engine):
    name = "trtllm"
    metrics_paths = ("/prometheus/metrics",)
    info_paths = ()
    slow_abort = False

    def parse_metrics(self, text: str, at_s: float) -> Telemetry:
        names = RUNNING + WAITING + USAGE + BLOCKS + BLOCK_SIZE + BATCH + TRITON_BLOCKS + TRITON_REQUESTS
        metrics = Exposition(text, names)
        requests = _by_label(metrics, TRITON_REQUESTS, "request_type")
        blocks = _by_label(metrics, TRITON_BLOCKS, "kv_cache_block_type")
        usage = ratio(metrics.highest(*USAGE))
        return Telemetry(
            at_s=at_s,
            running=count(metrics.total(*RUNNING) if metrics.rows(*RUNNING) else requests.get("scheduled")),
            waiting=count(metrics.total(*WAITING) if metrics.rows(*WAITING) else requests.get("waiting")),
            kv_usage=ratio(blocks.get("fraction")) if usage is None else usage,
            kv_tokens=size(metrics.total(*BLOCKS), metrics.highest(*BLOCK_SIZE))
            or size(blocks.get("max"), blocks.get("tokens_per")),
            running_cap=size(metrics.total(*BATCH) or requests.get("max")),
        )

    def parse_info(self, document: object, at_s: float) -> Telemetry:
        return Telemetry(at_s=at_s)


def _by_label(metrics: Exposition, names: tuple[str, ...], label: str) -> dict[str, float]:
    return {labels.get(label, ""): value for labels, value in metrics.rows(*names)}
