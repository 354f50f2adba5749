"""Hugging Face Text Generation Inference: the token pool is `tgi_batch_max_total_tokens`, inferred at its warm-up.

`/info` of 2.2 and older told `max_batch_total_tokens` and `max_batch_size` too. `max_concurrent_requests` is where
its router begins to answer 429.
"""

from __future__ import annotations

from proxy.adapters.engines.base import Engine, at, count, ratio, size
from proxy.adapters.engines.exposition import Exposition
from proxy.types import Telemetry

RUNNING = ("tgi_batch_current_size",)
WAITING = ("tgi_queue_size",)
POOL = ("tgi_batch_max_total_tokens",)
TAKEN = ("tgi_batch_current_max_tokens",)


class Tgi(Engine):
    name = "tgi"
    metrics_paths = ("/metrics",)
    info_paths = ("/info",)
    slow_abort = False

    def parse_metrics(self, text: str, at_s: float) -> Telemetry:
        metrics = Exposition(text, RUNNING + WAITING + POOL + TAKEN)
        pool, taken = metrics.total(*POOL), metrics.total(*TAKEN)
        return Telemetry(
            at_s=at_s,
            running=count(metrics.total(*RUNNING)),
            waiting=count(metrics.total(*WAITING)),
            kv_usage=ratio(taken / pool) if pool and taken is not None else None,
            kv_tokens=size(pool),
        )

    def parse_info(self, document: object, at_s: float) -> Telemetry:
        return Telemetry(
            at_s=at_s,
            kv_tokens=size(at(document, "max_batch_total_tokens")),
            running_cap=size(at(document, "max_batch_size")) or size(at(document, "max_concurrent_requests")),
            context_tokens=size(at(document, "max_total_tokens")),
        )
