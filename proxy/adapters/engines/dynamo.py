"""NVIDIA Dynamo's frontend: one gauge per model, told for a single worker (the first that registered).

Capacity = blocks * block size * workers of the model, summed over models. In flight covers a request from arrival to
end, queued from arrival to first token: running is the difference. Priority travels in `nvext.agent_hints`, so a body
`priority` is not for it.
"""

from __future__ import annotations

from proxy.adapters.engines.base import Engine, count, size, summed
from proxy.adapters.engines.exposition import Exposition
from proxy.types import Telemetry

IN_FLIGHT = ("dynamo_frontend_inflight_requests", "dynamo_frontend_inflight_requests_total")
QUEUED = ("dynamo_frontend_queued_requests", "dynamo_frontend_queued_requests_total")
BLOCKS = ("dynamo_frontend_model_total_kv_blocks",)
BLOCK_SIZE = ("dynamo_frontend_model_kv_cache_block_size",)
SEQUENCES = ("dynamo_frontend_model_max_num_seqs",)
CONTEXT = ("dynamo_frontend_model_context_length",)
WORKERS = ("dynamo_frontend_model_workers",)


class Dynamo(Engine):
    name = "dynamo"
    metrics_paths = ("/metrics",)
    info_paths = ()
    slow_abort = False

    def parse_metrics(self, text: str, at_s: float) -> Telemetry:
        metrics = Exposition(text, IN_FLIGHT + QUEUED + BLOCKS + BLOCK_SIZE + SEQUENCES + CONTEXT + WORKERS)
        queued = metrics.total(*QUEUED)
        in_flight = metrics.total(*IN_FLIGHT)
        workers, block_size = _by_model(metrics, WORKERS), _by_model(metrics, BLOCK_SIZE)
        return Telemetry(
            at_s=at_s,
            running=None if in_flight is None else count(max(0.0, in_flight - (queued or 0.0))),
            waiting=count(queued),
            kv_tokens=summed(
                size(blocks * workers.get(model, 1), block_size.get(model))
                for model, blocks in _by_model(metrics, BLOCKS).items()
            ),
            running_cap=summed(
                size(sequences, workers.get(model, 1)) for model, sequences in _by_model(metrics, SEQUENCES).items()
            ),
            context_tokens=size(metrics.highest(*CONTEXT)),
        )

    def parse_info(self, document: object, at_s: float) -> Telemetry:
        return Telemetry(at_s=at_s)


def _by_model(metrics: Exposition, names: tuple[str, ...]) -> dict[str, float]:
    return {labels.get("model", ""): value for labels, value in metrics.rows(*names)}
