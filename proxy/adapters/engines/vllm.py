"""vLLM, all of its generations: V0 without engine labels, V1, data-parallel ranks as label `engine`.

Capacity comes from the labels of `vllm:cache_config_info`, which are strings. `kv_cache_size_tokens` (0.20 on) counts
hybrid models rightly; blocks * block size is right only where all layers share one block table, so a build that tells
neither is asked nothing when it runs sliding-window or state-space layers. Renamed: gpu_cache_usage_perc became
kv_cache_usage_perc in 0.9 (vLLM PR 18354). `/v1/capacity` exists in some builds of its lineage.
"""

from __future__ import annotations

from proxy.adapters.engines.base import Engine, at, count, items, largest, ratio, size, summed
from proxy.adapters.engines.exposition import Exposition, Labels
from proxy.types import Telemetry

RUNNING = ("vllm:num_requests_running",)
WAITING = ("vllm:num_requests_waiting",)
USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
PREEMPTIONS = ("vllm:num_preemptions_total", "vllm:num_preemptions")
CONFIG = ("vllm:cache_config_info",)


class Vllm(Engine):
    name = "vllm"
    metrics_paths = ("/metrics",)
    info_paths = ("/v1/capacity",)
    slow_abort = False

    def parse_metrics(self, text: str, at_s: float) -> Telemetry:
        metrics = Exposition(text, RUNNING + WAITING + USAGE + PREEMPTIONS + CONFIG)
        return Telemetry(
            at_s=at_s,
            running=count(metrics.total(*RUNNING)),
            waiting=count(metrics.total(*WAITING)),
            kv_usage=ratio(metrics.highest(*USAGE)),
            preemptions=count(metrics.total(*PREEMPTIONS)),
            kv_tokens=_capacity([labels for labels, _ in metrics.rows(*CONFIG)]),
        )

    def parse_info(self, document: object, at_s: float) -> Telemetry:
        engines = list(items(document, "engines"))
        return Telemetry(
            at_s=at_s,
            kv_tokens=summed(size(at(engine, "kv_cache_capacity_tokens")) for engine in engines),
            running_cap=summed(size(at(engine, "max_num_seqs")) for engine in engines),
            context_tokens=largest(size(at(engine, "max_model_len")) for engine in engines),
        )


def _capacity(configs: list[Labels]) -> int | None:
    """Sum over ranks; one rank that cannot be read makes the sum unknown rather than too small."""
    ranks = {labels.get("engine", ""): _rank_tokens(labels) for labels in configs}
    return summed(ranks.values()) if None not in ranks.values() else None


def _rank_tokens(labels: Labels) -> int | None:
    told = size(labels.get("kv_cache_size_tokens"))
    hybrid = any(size(labels.get(key)) for key in ("sliding_window", "mamba_block_size"))
    return told if told or hybrid else size(labels.get("num_gpu_blocks"), labels.get("block_size"))
