"""Request heads where tracing is on: every request gets a context, and its upstream a `traceparent` of ours.

A caller's decision whether to sample holds; a trace that starts here is sampled with the configured share. Where
tracing is off, `HeadReader` itself is used and the caller's header passes as it came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Final

from proxy.wire.headers import Headers, HeadFacts, HeadReader
from proxy.wire.trace_context import TraceContext, read_traceparent

NAME: Final = b"traceparent"
_STATE_LINE: Final = re.compile(rb"\r\ntracestate: [^\r\n]*", re.IGNORECASE)


class TracedHeads(HeadReader):
    """A head reader that takes part in traces."""

    def __init__(
        self, tenant_header: bytes, priority_headers: Sequence[bytes], sample_ratio: float, rng: Random
    ) -> None:
        """`sample_ratio` 0..1: the share of own traces that are sampled."""
        super().__init__(tenant_header, priority_headers)
        self._rules[NAME] = self._spellings[NAME] = None
        self._ratio = sample_ratio
        self._rng = rng

    def read(self, headers: Headers, http_1_1: bool = True) -> HeadFacts:
        facts = super().read(headers, http_1_1)
        came = [value for name, value in headers if name.lower() == NAME]
        facts.trace = trace = self._context(read_traceparent(came[0]) if len(came) == 1 else None)
        if trace.parent_id is None:
            facts.block = _STATE_LINE.sub(b"", facts.block)  # the state of a context that is not continued
        facts.block += trace.header
        return facts

    def _context(self, came: tuple[int, int, bool] | None) -> TraceContext:
        draw = self._rng.getrandbits
        span_id, upstream_id = draw(64) or 1, draw(64) or 1
        if came is not None:
            trace_id, parent_id, sampled = came
            return TraceContext(trace_id, parent_id, span_id, upstream_id, sampled)
        return TraceContext(draw(128) or 1, None, span_id, upstream_id, self._rng.random() < self._ratio)
