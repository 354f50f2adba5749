from __future__ import annotations

from random import Random

import pytest

from proxy.wire.headers import HeadFacts
from proxy.wire.trace_context import TraceContext, read_traceparent
from proxy.wire.traced_heads import TracedHeads
from tests.wire.test_trace_context import GOOD, PARENT, TRACE

Header = tuple[bytes, bytes]


def read(*headers: Header, ratio: float = 0.5, seed: int = 1) -> tuple[HeadFacts, TraceContext]:
    reader = TracedHeads(b"x-tenant-id", (b"x-priority", b"x-request-priority"), ratio, Random(seed))
    facts = reader.read([(b"host", b"a"), *headers])
    assert facts.trace is not None
    return facts, facts.trace


def lines(facts: HeadFacts) -> list[bytes]:
    return [line for line in facts.block.split(b"\r\n") if line]


@pytest.mark.parametrize("name", [b"traceparent", b"TraceParent"])
@pytest.mark.parametrize(("flags", "sampled"), [(b"01", True), (b"00", False)])
def test_a_callers_trace_goes_on_with_its_decision_and_our_span(name: bytes, flags: bytes, sampled: bool) -> None:
    facts, trace = read((name, GOOD[:-2] + flags), (b"TraceState", b"vendor=1"), ratio=1.0 - sampled)
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, PARENT, sampled)
    assert len({trace.span_id, trace.upstream_id, PARENT, 0}) == 4
    assert lines(facts)[0] == b"TraceState: vendor=1"
    assert read_traceparent(lines(facts)[1].removeprefix(b"traceparent: ")) == (TRACE, trace.upstream_id, sampled)
    assert len(lines(facts)) == 2


@pytest.mark.parametrize("came", [[], [b"00-zz-1-01"], [GOOD, GOOD]], ids=["none", "malformed", "two"])
def test_otherwise_a_trace_starts_here_and_foreign_state_ends(came: list[bytes]) -> None:
    state = (b"tracestate", b"vendor=1"), (b"Accept", b"*/*")
    facts, trace = read(*((b"traceparent", value) for value in came), *state)
    assert trace.parent_id is None
    assert trace.trace_id != TRACE
    assert lines(facts) == [b"Accept: */*", trace.header.strip()]


def test_the_share_of_own_traces_is_the_configured_one() -> None:
    reader = TracedHeads(b"x-tenant-id", (), 0.25, Random(3))
    made = [reader.read([(b"host", b"a")]).trace for _ in range(2000)]
    assert 400 < sum(trace is not None and trace.sampled for trace in made) < 600
    assert len({trace.trace_id for trace in made if trace is not None}) == 2000
