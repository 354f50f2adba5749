from __future__ import annotations

import pytest

from proxy.adapters.endings import own_lines, plausible, written_head, written_stream
from proxy.adapters.repeats import KnownAnswer, KnownStream
from proxy.types import Outcome, Usage
from proxy.wire.answer import AnswerWriter
from proxy.wire.usage import StreamEnd
from tests.adapters.shell import DONE, LAST_CHUNK, STREAM_HEAD, Shell, chunk, said, token

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


EVENTS = (b"Content-Type", b"text/event-stream")


@pytest.mark.parametrize(
    ("headers", "plain"),
    [
        ([EVENTS, (b"transfer-encoding", b"chunked")], True),
        ([JSON], False),
        ([EVENTS, (b"content-encoding", b"gzip")], False),
        ([EVENTS, (b"content-length", b"-5")], False),
    ],
)
def test_the_head_of_a_known_stream_is_written_once(headers: list[tuple[bytes, bytes]], plain: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    known = KnownStream(b"", b"OK", headers)
    for _ in range(2):
        assert written_stream(known, AnswerWriter()) == (head if plain else b"")
        headers.clear()  # it is not read again


@pytest.mark.parametrize("http10", [False, True])
def test_a_known_stream_has_the_head_that_its_client_can_read(http10: bool) -> None:
    shell = Shell()
    heads: list[bytes] = []
    for number in range(3):  # the second is known, the third finds its head written
        _, sink = shell.ask(stream=True, http10=http10)
        shell.answer(STREAM_HEAD + chunk(token()), chunk(DONE) + LAST_CHUNK)
        name = shell.records[-1].request_id.encode()
        heads.append(sink.head.replace(name, b"one"))
        assert sink.acts == ["begin" if http10 else "begin chunked", "end"], number
        assert name in sink.head and sink.body == token() + DONE
    stream = shell.pools[0].known_stream
    assert stream is not None and (stream.written is None) is http10
    assert sorted(heads[0].split(b"\r\n")) == sorted(heads[1].split(b"\r\n")) and heads[1] == heads[2]
    assert (b"transfer-encoding" in heads[1]) is not http10


def test_a_known_stream_after_a_wait_that_was_told_of_has_no_second_head() -> None:
    shell = Shell(seats=1, keepalive_s=1.0)
    shell.ask(stream=True)
    shell.answer(STREAM_HEAD + chunk(token()))
    waits, sink = shell.ask(stream=True)
    shell.now += 1.5
    waits.keep_waiting(shell.now)
    shell.answer(chunk(DONE) + LAST_CHUNK, STREAM_HEAD + chunk(token()), chunk(DONE) + LAST_CHUNK)
    assert (sink.acts, sink.body) == (["begin chunked", "end"], b": waiting\n\n" + token() + DONE)
    assert sink.overs == 1 and shell.clean()


@pytest.mark.parametrize(
    ("tokens", "events", "counted", "problem"),
    [(20, 20, 20, None), (20, 5, 20, None), (9, 20, 9, None), (8, 20, 20, "fewer_than_events"), (0, 2, 0, None)],
)
def test_a_stream_has_no_fewer_tokens_than_half_of_its_events(
    tokens: int, events: int, counted: int, problem: str | None
) -> None:
    found = plausible(StreamEnd(True, usage=Usage(7, tokens, 3)), events)
    assert found == (Usage(7, counted, 3), problem)


def test_what_no_usage_tells_is_not_judged() -> None:
    assert plausible(StreamEnd(True, usage_problem="malformed"), 50) == (None, "malformed")


def test_usage_that_counts_fewer_tokens_than_came_moves_neither_the_time_per_token_nor_the_signal() -> None:
    shell = Shell()
    shell.ask(stream=True)
    shell.answer(STREAM_HEAD, chunk(token()))
    for _ in range(29):
        shell.now += 0.02
        shell.answer(chunk(token()))
    usage = b'data: {"usage":{"prompt_tokens":10,"completion_tokens":6}}\n\n'
    shell.answer(chunk(token("stop")), chunk(usage), chunk(DONE), LAST_CHUNK)
    (record,) = shell.records
    assert (record.prompt_tokens, record.output_tokens, record.usage_problem) == (10, 31, "fewer_than_events")
    assert record.tpot_s == pytest.approx(0.02, rel=0.05)
    assert shell.gate.lanes["u0"].tokens_per_event == 1.0


@pytest.mark.parametrize(
    ("waited_s", "told"), [(0.0, b"0.0"), (0.0123, b"12.3"), (0.00096, b"1.0"), (61.23456, b"61234.6"), (1e-9, b"0.0")]
)
def test_our_own_lines(waited_s: float, told: bytes) -> None:
    assert own_lines("a-1", "high", waited_s, "u0") == (
        b"x-request-id: a-1\r\nrequest-id: a-1\r\nx-penstock-class: high\r\nx-penstock-queue-ms: %b\r\n"
        b"x-penstock-upstream: u0\r\n" % told
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
