"""W3C Trace Context (https://www.w3.org/TR/trace-context/): reads `traceparent`, writes our own towards the upstream.

`traceparent` = version-trace_id-parent_id-flags, lower-case hex of 2, 32, 16 and 2 digits; bit 0 of the flags says that
the trace is sampled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Ids of one request: `span_id` is the proxy's own span, `upstream_id` that of its call of the engine."""

    trace_id: int
    parent_id: int | None  # None: the trace starts here
    span_id: int
    upstream_id: int
    sampled: bool

    @property
    def trace_hex(self) -> str:
        return f"{self.trace_id:032x}"

    @property
    def header(self) -> bytes:
        """The line for the upstream, led by CRLF."""
        return b"\r\ntraceparent: 00-%032x-%016x-%02x" % (self.trace_id, self.upstream_id, self.sampled)


def read_traceparent(value: bytes) -> tuple[int, int, bool] | None:
    """Trace id, parent id, sampled; None where the value is to be ignored. Later versions may append fields."""
    match = _TRACEPARENT.fullmatch(value.strip(b" \t"))
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    trace_id, parent_id = int(match[2], 16), int(match[3], 16)
    return (trace_id, parent_id, bool(int(match[4], 16) & SAMPLED)) if trace_id and parent_id else None
