from __future__ import annotations

import json
import logging

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.log_lines import RequestLine, json_line, request_fields
from proxy.adapters.records import RequestRecord
from proxy.adapters.request_log import SHARED_MAX, RequestLines
from proxy.types import Outcome
from proxy.wire.trace_context import TraceContext

RECORDS = st.builds(
    RequestRecord,
    request_id=st.sampled_from(["r-1", "r-2"]),
    path=st.sampled_from(["", "/v1/completions"]),
    outcome=st.sampled_from([Outcome.SUCCESS, Outcome.SUCCESS, Outcome.QUEUE_FULL]),
    status=st.sampled_from([200, 503]),
    duration_s=st.floats(0.0, 1e4),
    tenant=st.sampled_from(["", "acme"]),
    class_name=st.sampled_from(["", "high"]),
    model=st.sampled_from(["", 'a "b"', "\ud800"]),
    upstream=st.sampled_from(["", "u0"]),
    streaming=st.booleans(),
    queue_s=st.none() | st.floats(0.0, 10.0),
    ttft_s=st.none() | st.floats(0.0, 10.0),
    engine_ttft_s=st.none() | st.floats(0.0, 10.0),
    tpot_s=st.none() | st.floats(0.0, 10.0),
    abort_s=st.none() | st.none() | st.floats(0.0, 10.0),
    prompt_tokens=st.integers(0, 100),
    good=st.booleans(),
    retries=st.integers(0, 2),
    client_attempt=st.sampled_from([0, 0, 1]),
    clamped=st.booleans(),
    unknown_priority=st.booleans(),
    usage_problem=st.sampled_from(["", "", "negative"]),
    trace=st.none() | st.just(TraceContext(1, None, 2, 3, True)),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([0.5, 0.5004, 1.5]), RECORDS), max_size=8))
def test_what_requests_share_is_kept_and_changes_no_line(entries: list[tuple[float, RequestRecord]]) -> None:
    lines = RequestLines()
    for wall_s, record in entries:
        line = lines.line(wall_s, logging.INFO, record)
        assert line.endswith(b"}\n") and line.count(b"\n") == 1
        assert json.loads(line) == json.loads(json_line(wall_s, logging.INFO, request_fields(record)))


def test_what_is_kept_for_requests_is_bounded() -> None:
    lines = RequestLines()
    for number in range(SHARED_MAX + 2):
        success = RequestRecord("r-1", "/v1/completions", Outcome.SUCCESS, 200, 1.0, f"t{number}")
        assert orjson.loads(lines.line(0.5, logging.INFO, success))["tenant"] == f"t{number}"
        assert len(lines._shared) <= SHARED_MAX


def test_a_line_that_cannot_be_made_tells_why_and_hides_no_other() -> None:
    def failing(wall_s: float, level: int, record: RequestRecord) -> bytes:
        raise OverflowError("planted-secret")

    record = RequestRecord("r-7", "/v1/completions", Outcome.SUCCESS, 200, 1.0)
    line = orjson.loads(RequestLine(failing, 0.5, logging.INFO, record).made())
    assert (line["event"], line["level"], line["error"]) == ("internal error", "error", "OverflowError")
    assert line["request_id"] == "r-7" and line["frames"][-1].startswith("test_request_log.py")
    assert "planted-secret" not in str(line)
