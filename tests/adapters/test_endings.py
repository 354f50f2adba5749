from __future__ import annotations

import pytest

from proxy.adapters.endings import own_lines, written_head
from proxy.adapters.repeats import KnownAnswer
from proxy.types import Outcome
from proxy.wire.answer import AnswerWriter
from tests.adapters.shell import Shell, said

JSON = (b"Content-Type", b"application/json")


@pytest.mark.parametrize(
    ("headers", "written"),
    [
        ([JSON, (b"content-length", b"5"), (b"x", b"y")], (5, b"\r\nx: y\r\n")),
        ([JSON, (b"content-length", b"5"), (b"keep-alive", b"z")], (5, b"\r\n")),
        ([(b"content-type", b"text/event-stream"), (b"content-length", b"5")], None),
        ([JSON, (b"content-length", b"5"), (b"content-encoding", b"gzip")], None),
        ([JSON, (b"content-length", b"-5")], None),
        ([JSON], None),
    ],
)
def test_a_known_head_is_written_once(headers: list[tuple[bytes, bytes]], written: tuple[int, bytes] | None) -> None:
    known = KnownAnswer((b"", b""), b"OK", headers)
    found = written_head(known, AnswerWriter())
    if written is None:
        assert found == ()
    else:
        assert found == (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: ", written[1])


def test_our_own_lines() -> None:
    assert own_lines("a-1", "high", 0.0123, "u0") == (
        b"x-request-id: a-1\r\nrequest-id: a-1\r\nx-penstock-class: high\r\nx-penstock-queue-ms: 12.3\r\n"
        b"x-penstock-upstream: u0\r\n"
    )


@pytest.mark.parametrize(("seconds", "good"), [(0.4, True), (0.6, False)])
def test_a_whole_answer_is_good_if_its_tokens_came_in_time(seconds: float, good: bool) -> None:
    shell = Shell()
    for _ in range(2):
        shell.ask()
        shell.now += seconds
        shell.answer(said(b'{"usage":{"prompt_tokens":4,"completion_tokens":10}}'))
    first, again = shell.records
    assert (again.outcome, again.good, again.output_tokens) == (Outcome.SUCCESS, good, 10)
    assert again.tpot_s == pytest.approx(seconds / 10)
    first.request_id = again.request_id
    assert repr(first) == repr(again), "known by its head or not"
