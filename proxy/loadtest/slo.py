"""Latency objectives: `ttft=500ms,itl=50ms,e2e=10s`. A request is good when it succeeds within all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.loadtest.records import Record

_PART = re.compile(r"\s*(ttft|itl|tpot|e2e)\s*=\s*([0-9]*\.?[0-9]+)\s*(us|ms|s)\s*")
_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds in seconds, None for none. `itl_s` bounds a request's mean time per output token after the first."""

    ttft_s: float | None = None
    itl_s: float | None = None
    e2e_s: float | None = None

    def __bool__(self) -> bool:
        return any(bound is not None for bound in (self.ttft_s, self.itl_s, self.e2e_s))

    def __str__(self) -> str:
        named = (("ttft", self.ttft_s), ("itl", self.itl_s), ("e2e", self.e2e_s))
        return ",".join(f"{name}={bound * 1e3:g}ms" for name, bound in named if bound is not None)

    def met(self, record: Record) -> bool:
        """A bound that a request cannot show (no stream, one token) does not fail it."""
        pairs = ((record.ttft_s, self.ttft_s), (record.tpot_s, self.itl_s), (record.e2e_s, self.e2e_s))
        return record.ok and all(value is None or bound is None or value <= bound for value, bound in pairs)


def read_slo(text: str) -> Slo:
    """Raises ValueError that says what is wrong. `tpot` is another word for `itl`."""
    bounds: dict[str, float] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None or float(match[2]) <= 0:
            raise ValueError(f"{part.strip()!r} is no objective; write for example ttft=500ms,itl=50ms,e2e=10s")
        name = "itl" if match[1] == "tpot" else match[1]
        if name in bounds:
            raise ValueError(f"{name} stands twice; give it once")
        bounds[name] = float(match[2]) * _UNIT[match[3]]
    return Slo(bounds.get("ttft"), bounds.get("itl"), bounds.get("e2e"))
