"""llama.cpp's server: as many sequences as it has slots. `/props` tells them; `/metrics` needs `--metrics`.

The context of a slot is the longest request. Older builds nest it under `params`.
"""

from __future__ import annotations

from proxy.adapters.engines.base import Engine, at, count, ratio, size
from proxy.adapters.engines.exposition import Exposition
from proxy.types import Telemetry

RUNNING = ("llamacpp:requests_processing",)
WAITING = ("llamacpp:requests_deferred",)
USAGE = ("llamacpp:kv_cache_usage_ratio",)


class Llamacpp(Engine):
    name = "llamacpp"
    metrics_paths = ("/metrics",)
    info_paths = ("/props",)
    slow_abort = False

    def parse_metrics(self, text: str, at_s: float) -> Telemetry:
        metrics = Exposition(text, RUNNING + WAITING + USAGE)
        return Telemetry(
            at_s=at_s,
            running=count(metrics.total(*RUNNING)),
            waiting=count(metrics.total(*WAITING)),
            kv_usage=ratio(metrics.highest(*USAGE)),
        )

    def parse_info(self, document: object, at_s: float) -> Telemetry:
        settings = at(document, "default_generation_settings")
        return Telemetry(
            at_s=at_s,
            running_cap=size(at(document, "total_slots")),
            context_tokens=size(at(settings, "n_ctx")) or size(at(settings, "params", "n_ctx")),
        )
