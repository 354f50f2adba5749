from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.trace_context import TraceContext, read_traceparent

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
GOOD = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (GOOD, (TRACE, PARENT, True)),
        (b" " + GOOD + b"\t", (TRACE, PARENT, True)),
        (GOOD[:-2] + b"00", (TRACE, PARENT, False)),
        (GOOD[:-2] + b"fe", (TRACE, PARENT, False)),
        (GOOD[:-2] + b"ff", (TRACE, PARENT, True)),
        (b"cc" + GOOD[2:] + b"-what-the-future-will-be-like", (TRACE, PARENT, True)),
        (GOOD + b"-more", None),  # version 00 ends after the flags
        (b"cc" + GOOD[2:] + b".more", None),
        (b"ff" + GOOD[2:], None),
        (GOOD.upper(), None),
        (GOOD[:-1], None),
        (GOOD.replace(b"-", b"_"), None),
        (b"00-" + b"0" * 32 + GOOD[35:], None),
        (GOOD[:36] + b"0" * 16 + b"-01", None),
        (b"", None),
    ],
)
def test_the_examples_and_rules_of_the_recommendation(value: bytes, read: tuple[int, int, bool] | None) -> None:
    assert read_traceparent(value) == read


@settings(max_examples=50)
@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_can_be_read(trace_id: int, upstream_id: int, sampled: bool) -> None:
    written = TraceContext(trace_id, None, 7, upstream_id, sampled)
    name, value = written.header.removeprefix(b"\r\n").split(b": ")
    assert name == b"traceparent"
    assert read_traceparent(value) == (trace_id, upstream_id, sampled)
    assert int(written.trace_hex, 16) == trace_id
    assert len(written.trace_hex) == 32
