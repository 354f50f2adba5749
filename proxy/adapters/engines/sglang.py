"""SGLang. Metrics need `--enable-metrics`; builds differ in the prefix (`sglang:` or `sglang_`).

Tensor- and pipeline-parallel ranks may each report the same load, data-parallel ranks report their own: the highest
within a data-parallel rank, summed over them. The pool of tokens is a gauge, or pages * page size (labels in 0.5.9,
gauges in 0.5.16). `num_retracted_reqs` is a momentary gauge; the counter is `num_retracted_requests_total`.

Priority is *higher* first here, and `--schedule-low-priority-values-first` turns it round. A stream whose client has
left is aborted only after a further 2 s.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.adapters.engines.base import Engine, at, count, items, largest, ratio, size, summed
from proxy.adapters.engines.exposition import Exposition
from proxy.types import Telemetry


def both(metric: str) -> tuple[str, str]:
    return f"sglang:{metric}", f"sglang_{metric}"


RUNNING = both("num_running_reqs")
WAITING = both("num_queue_reqs")
USAGE = both("token_usage")
RETRACTIONS = both("num_retracted_requests_total")
TOKENS = both("max_total_num_tokens")
PAGES = both("num_pages")
PAGE_SIZE = both("page_size")
CONFIG = both("cache_config_info")
RANK = "dp_rank"


class Sglang(Engine):
    name = "sglang"
    metrics_paths = ("/metrics", "/v1/loads?include=core,queues,memory")
    info_paths = ("/get_server_info", "/server_info")
    slow_abort = True

    def parse_metrics(self, text: str, at_s: float) -> Telemetry:
        metrics = Exposition(text, RUNNING + WAITING + USAGE + RETRACTIONS + TOKENS + PAGES + PAGE_SIZE + CONFIG)
        return Telemetry(
            at_s=at_s,
            running=count(metrics.total(*RUNNING, per=RANK)),
            waiting=count(metrics.total(*WAITING, per=RANK)),
            kv_usage=ratio(metrics.highest(*USAGE)),
            preemptions=count(metrics.total(*RETRACTIONS, per=RANK)),
            kv_tokens=size(metrics.total(*TOKENS, per=RANK)) or _pages(metrics),
        )

    def parse_info(self, document: object, at_s: float) -> Telemetry:
        """Reads `/get_server_info` (arguments, one internal state per data-parallel rank) and `/v1/loads`."""
        loads = list(items(document, "loads"))
        states = list(items(document, "internal_states"))
        ranks = len(states) or size(at(document, "dp_size")) or 1
        return Telemetry(
            at_s=at_s,
            running=_sum(loads, "num_running_reqs"),
            waiting=_sum(loads, "num_waiting_reqs"),
            kv_usage=largest(ratio(at(load, "token_usage")) for load in loads),
            kv_tokens=_sum(loads, "max_total_num_tokens")
            or summed(size(at(state, "memory_usage", "token_capacity")) for state in states)
            or size(at(document, "max_total_num_tokens"), ranks),
            running_cap=_sum(loads, "max_running_requests")
            or _sum(states, "effective_max_running_requests_per_dp")
            or size(at(document, "max_running_requests")),
            context_tokens=size(at(document, "context_length")),
        )


def _pages(metrics: Exposition) -> int | None:
    gauges = size(metrics.total(*PAGES, per=RANK), metrics.highest(*PAGE_SIZE))
    labelled = {
        labels.get(RANK, ""): size(labels.get("num_pages"), labels.get("page_size"))
        for labels, _ in metrics.rows(*CONFIG)
    }
    return gauges or summed(labelled.values())


def _sum(parts: Iterable[object], key: str) -> int | None:
    return summed(count(at(part, key)) for part in parts)
