"""Any other server that speaks OpenAI's routes: nothing is asked of it beyond its model list."""

from __future__ import annotations

from proxy.adapters.engines.base import Engine
from proxy.types import Telemetry


class OpenAi(Engine):
    name = "openai"
    metrics_paths = ()
    info_paths = ()
    slow_abort = False

    def parse_metrics(self, text: str, at_s: float) -> Telemetry:
        return Telemetry(at_s=at_s)

    def parse_info(self, document: object, at_s: float) -> Telemetry:
        return Telemetry(at_s=at_s)
