from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.adapters import metrics as m
from proxy.adapters.silence import LINGER_S
from proxy.types import Outcome, Phase
from proxy.wire.facts import PrioritySpan
from tests.adapters.shell import DONE, LAST_CHUNK, STREAM_HEAD, Shell, chunk, said, token

RESET = ConnectionResetError()
SILENT = Outcome.UPSTREAM_TIMEOUT
BUSY = said(b"busy", 429, b"Retry-After: 7\r\n")
LOADING = said(b"loading", 503)


def test_a_request_reaches_the_upstream_with_its_own_head_and_the_answer_comes_back() -> None:
    shell = Shell()
    exchange, sink = shell.ask()
    head, _, body = shell.transport().take().partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /base/v1/chat/completions HTTP/1.1"
    assert {b"host: u0", b"authorization: Bearer own-key", b"content-length: 13"} <= set(lines)
    assert (body, b"secret" in head) == (b'{"model":"m"}', False)
    shell.now += 0.25
    usage = b'{"usage":{"prompt_tokens":12,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":3}}}'
    shell.answer(said(usage))
    assert sink.head.startswith(b"HTTP/1.1 200 Said\r\n")
    for line in (b"x-request-id: r-1", b"x-penstock-class: normal", b"x-penstock-queue-ms: 0.0", b"Content-Length: 96"):
        assert b"\r\n" + line in sink.head
    assert (sink.body, sink.acts, sink.overs) == (usage, ["begin", "end"], 1)
    (record,) = shell.records
    assert (record.outcome, record.status, record.upstream, record.retries) == (Outcome.SUCCESS, 200, "u0", 0)
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (12, 5, 3)
    assert (record.queue_s, record.duration_s, record.ttft_s, record.tpot_s) == (0.0, 0.25, 0.25, 0.05)
    assert record.good
    assert shell.clean()
    assert repr(exchange) == "Exchange(r-1 ended at u0)"
    assert len(shell.pools[0].idle) == 1


def test_the_head_is_held_until_the_first_body_byte() -> None:
    shell = Shell()
    _, sink = shell.ask(stream=True)
    shell.answer(STREAM_HEAD)
    assert (sink.head, sink.acts) == (b"", [])
    shell.answer(chunk(token()))
    assert sink.head.endswith(b"\r\n\r\n")
    assert (sink.body, sink.acts) == (token(), ["begin chunked"])


def test_an_empty_answer_is_begun_by_its_end() -> None:
    shell = Shell()
    _, sink = shell.ask()
    shell.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (sink.head[:12], sink.body, sink.acts) == (b"HTTP/1.1 204", b"", ["begin", "end"])
    assert shell.clean()


Fail = Callable[[Shell, int], None]


def answers(*pieces: bytes) -> Fail:
    return lambda shell, number: shell.answer(*pieces, number=number)


def loses(*pieces: bytes, error: Exception | None = RESET) -> Fail:
    def fail(shell: Shell, number: int) -> None:
        shell.answer(*pieces, number=number)
        shell.lose(error, number)

    return fail


def silent(shell: Shell, number: int) -> None:
    shell.now += 20.1
    shell.gate.sweep()
    shell.settle()


@pytest.mark.parametrize(
    ("fail", "label"),
    [(answers(BUSY), "shed"), (answers(LOADING), "shed"), (answers(LOADING[:-1], LOADING[-1:]), "shed")],
)
def test_a_shed_answer_is_replaced_by_another_upstreams(fail: Fail, label: str) -> None:
    shell = Shell(upstreams=2)
    _, sink = shell.ask()
    fail(shell, 0)
    assert (sink.acts, shell.busy(), shell.count(m.RETRIES, "u0", label)) == ([], 1, 1)
    shell.answer(said(b"fine"), number=1)
    assert (sink.body, sink.overs, shell.records[0].retries, shell.clean()) == (b"fine", 1, 1, True)
    assert shell.records[0].upstream == "u1"


def test_a_refused_connection_is_replaced_by_another_upstreams() -> None:
    shell = Shell(upstreams=2)
    shell.dials[0].refusing = True
    _, sink = shell.ask(retryable=False)
    assert (shell.busy(), shell.count(m.RETRIES, "u0", "connect")) == (1, 1)
    shell.answer(said(b"fine"), number=1)
    assert (sink.body, shell.clean()) == (b"fine", True)


def test_a_stale_connection_is_replaced_once_by_a_fresh_one() -> None:
    shell = Shell()
    shell.ask()
    shell.answer(said())
    assert len(shell.pools[0].idle) == 1
    _, sink = shell.ask()
    assert len(shell.dials[0].made) == 1
    shell.lose(RESET)
    assert (len(shell.dials[0].made), sink.acts, shell.count(m.RETRIES, "u0", "stale")) == (2, [], 1)
    shell.lose(RESET)
    assert (sink.acts, sink.overs, shell.clean()) == ([("refuse", Outcome.UPSTREAM_ERROR)], 1, True)
    assert [record.retries for record in shell.records] == [0, 1]


@pytest.mark.parametrize("bytes_of_an_answer", [b"H", said(b"a" * 9)[:60], b"no HTTP", b""])
def test_a_reused_connection_that_has_begun_to_answer_or_was_at_work_is_not_stale(bytes_of_an_answer: bytes) -> None:
    shell = Shell()
    shell.ask()
    shell.answer(said())
    _, sink = shell.ask()
    if bytes_of_an_answer:
        shell.answer(bytes_of_an_answer)
    shell.now += 0.0 if bytes_of_an_answer else 1.0
    shell.lose(RESET)
    assert (sink.acts, len(shell.dials[0].made), shell.clean()) == ([("refuse", Outcome.UPSTREAM_ERROR)], 1, True)
    assert shell.records[-1].retries == 0


@pytest.mark.parametrize(
    ("fail", "outcome"),
    [
        pytest.param(loses(), Outcome.UPSTREAM_ERROR, id="reset on a fresh connection"),
        pytest.param(loses(error=None), Outcome.UPSTREAM_ERROR, id="closed"),
        pytest.param(loses(STREAM_HEAD), Outcome.UPSTREAM_ERROR, id="reset after the head"),
        pytest.param(answers(b"SSH-2.0\r\n"), Outcome.UPSTREAM_ERROR, id="not HTTP"),
        pytest.param(answers(said(status=999)), Outcome.UPSTREAM_ERROR, id="status 999"),
        pytest.param(answers(b"HTTP/1.1 101 Upgraded\r\n\r\n"), Outcome.UPSTREAM_ERROR, id="unasked 101"),
        pytest.param(silent, Outcome.UPSTREAM_TIMEOUT, id="silent"),
    ],
)
def test_what_may_have_run_is_not_run_again(fail: Fail, outcome: Outcome) -> None:
    shell = Shell(upstreams=2)
    _, sink = shell.ask()
    fail(shell, 0)
    assert (sink.acts, sink.overs) == ([("refuse", outcome)], 1)
    assert (shell.dials[1].made, shell.pools[0].open, shell.clean()) == ([], set(), True)
    assert (shell.records[0].outcome, shell.records[0].status) == (outcome, 599)


def test_when_all_shed_the_last_answer_passes_unchanged() -> None:
    shell = Shell(upstreams=2)
    _, sink = shell.ask()
    shell.answer(LOADING, number=0)
    shell.answer(BUSY, number=1)
    assert (sink.head[:12], sink.body, sink.acts, sink.overs) == (b"HTTP/1.1 429", b"busy", ["begin", "end"], 1)
    assert b"\r\nRetry-After: 7\r\n" in sink.head
    (record,) = shell.records
    assert (record.outcome, record.status, record.retries) == (Outcome.UPSTREAM_STATUS, 429, 1)
    assert shell.clean()


def test_a_shed_answer_too_long_to_hold_passes() -> None:
    shell = Shell(upstreams=2)
    _, sink = shell.ask()
    long = said(b"x" * 70_000, 503)
    shell.answer(long[:40_000], long[40_000:])
    assert (len(sink.body), sink.acts, shell.dials[1].made) == (70_000, ["begin", "end"], [])
    assert shell.records[0].outcome is Outcome.UPSTREAM_STATUS


STOP = token("stop")
OWN_ERROR = b'data: {"error":{"message":"CUDA"}}\n\n'


@pytest.mark.parametrize(
    ("events", "ending", "acts", "outcome"),
    [
        pytest.param((token(), STOP, DONE), "end", ["end"], Outcome.SUCCESS, id="whole"),
        pytest.param((token(), DONE), "end", ["end"], Outcome.SUCCESS, id="no finish mark but [DONE]"),
        pytest.param((token(), STOP), "end", ["end"], Outcome.SUCCESS, id="finish mark but no [DONE]"),
        pytest.param((token(), STOP), "lose", ["end"], Outcome.SUCCESS, id="finished, then reset"),
        pytest.param((token(),), "end", [("cut", Outcome.UPSTREAM_ERROR)], Outcome.UPSTREAM_ERROR, id="unfinished"),
        pytest.param((token(),), "lose", [("cut", Outcome.UPSTREAM_ERROR)], Outcome.UPSTREAM_ERROR, id="reset"),
        pytest.param((token(),), "junk", [("cut", Outcome.UPSTREAM_ERROR)], Outcome.UPSTREAM_ERROR, id="bad chunk"),
        pytest.param((token(),), "silence", [("cut", SILENT)], SILENT, id="silence"),
        pytest.param((token(), OWN_ERROR, DONE), "end", [("cut", None)], Outcome.UPSTREAM_ERROR, id="its own error"),
    ],
)  # fmt: skip
def test_how_a_stream_ends(events: tuple[bytes, ...], ending: str, acts: list[object], outcome: Outcome) -> None:
    shell = Shell()
    _, sink = shell.ask(stream=True)
    shell.answer(STREAM_HEAD, *map(chunk, events))
    if ending == "end":
        shell.answer(LAST_CHUNK)
    elif ending == "lose":
        shell.lose(RESET)
    elif ending == "junk":
        shell.answer(b"zz\r\n")
    else:
        shell.now += 5.1
        shell.gate.sweep()
        shell.settle()
    assert (sink.body, sink.acts, sink.overs) == (b"".join(events), ["begin chunked", *acts], 1)
    assert [record.outcome for record in shell.records] == [outcome]
    assert shell.clean()


def test_signals_of_a_stream_are_stamped_when_they_are_read() -> None:
    shell = Shell()
    exchange, _ = shell.ask(stream=True)
    shell.now += 0.2
    shell.answer(STREAM_HEAD, chunk(token()))
    for _ in range(9):
        shell.now += 0.03
        shell.answer(chunk(token() + token()))
    lane = shell.gate.lanes["u0"]
    assert (lane.events, round(lane.gap_s, 6), exchange.tokens_so_far()) == (18, 0.27, 19)
    usage = b'data: {"usage":{"prompt_tokens":10,"completion_tokens":38}}\n\n'
    shell.answer(chunk(STOP), chunk(usage), chunk(DONE), LAST_CHUNK)
    (record,) = shell.records
    assert [record.ttft_s, record.engine_ttft_s] == pytest.approx([0.2, 0.2])
    assert record.output_tokens == 38
    assert record.tpot_s == pytest.approx(0.27 / 37)
    assert lane.tokens_per_event == pytest.approx(1.0 + 0.05 * (38 / 20 - 1))
    assert (record.good, exchange.tokens_so_far()) == (True, 0)


def test_a_slow_reader_holds_the_upstream_back_and_is_not_its_gap() -> None:
    shell = Shell()
    exchange, sink = shell.ask(stream=True)
    shell.answer(STREAM_HEAD, chunk(token()))
    exchange.client_paused(True)
    assert not shell.transport().reading
    shell.now += 60.0
    shell.gate.sweep()
    assert sink.acts == ["begin chunked"]
    exchange.client_paused(False)
    assert shell.transport().reading
    shell.answer(chunk(token()))
    assert shell.gate.lanes["u0"].gap_s == 0.0
    shell.now += 4.9
    shell.gate.sweep()
    assert exchange.ended is False


@pytest.mark.parametrize(
    ("events", "wait_s", "itl_s", "over"),
    [
        pytest.param((STOP, DONE), LINGER_S + 0.1, 5.0, True, id="done"),
        pytest.param((STOP, DONE), LINGER_S / 2, LINGER_S / 3, True, id="done, and never a time-out"),
        pytest.param((STOP, DONE), LINGER_S / 2, 5.0, False, id="just now"),
        pytest.param((STOP,), LINGER_S + 0.1, 5.0, False, id="usage may follow"),
    ],
)
def test_a_finished_stream_left_open_ends(events: tuple[bytes, ...], wait_s: float, itl_s: float, over: bool) -> None:
    shell = Shell()
    shell.caps = replace(shell.caps, itl_s=itl_s)
    _, sink = shell.ask(stream=True)
    shell.answer(STREAM_HEAD, *map(chunk, events))
    shell.now += wait_s
    shell.gate.sweep()
    shell.settle()
    assert (sink.acts == ["begin chunked", "end"], shell.transport().aborted, shell.clean()) == (over, over, over)


def leave_queued(shell: Shell) -> None:
    shell.fill()


def leave_connecting(shell: Shell) -> None:
    shell.dials[0].holding = True


@pytest.mark.parametrize(
    ("prepare", "pieces", "phase", "aborts"),
    [
        pytest.param(leave_queued, (), Phase.QUEUED, False, id="queued"),
        pytest.param(leave_connecting, (), Phase.WAITING, False, id="connecting"),
        pytest.param(None, (), Phase.WAITING, True, id="waiting"),
        pytest.param(None, (STREAM_HEAD, chunk(token())), Phase.STREAMING, True, id="streaming"),
    ],
)
def test_a_client_that_leaves(
    prepare: Callable[[Shell], None] | None, pieces: tuple[bytes, ...], phase: Phase, aborts: bool
) -> None:
    shell = Shell()
    if prepare:
        prepare(shell)
    held_before = shell.dispatcher.snapshot(shell.now).held
    exchange, sink = shell.ask(stream=True)
    shell.answer(*pieces)
    exchange.client_left()
    exchange.client_left()
    assert (shell.records == []) is aborts  # the record waits until the upstream is closed
    shell.now += 0.001
    shell.settle()
    (record,) = shell.records
    assert (record.outcome, record.status, record.gone_phase) == (Outcome.CLIENT_GONE, 499, phase)
    assert record.abort_s == (pytest.approx(0.001) if aborts else None)
    assert (shell.count(m.QUEUE_WAIT, "normal", "client_gone") > 0) is (phase is Phase.QUEUED)
    assert (sink.overs, shell.dispatcher.snapshot(shell.now).held) == (0, held_before)
    assert shell.dispatcher.snapshot(shell.now).queue_bytes == 13 * held_before
    assert not aborts or shell.transport().aborted
    for half_open in shell.dials[0].half_open:
        shell.dials[0].finish(shell.pools[0], half_open)  # too late: nothing is sent on it
        assert (shell.transport().take(), len(shell.pools[0].idle)) == (b"", 1)
        half_open.connect_failed("refused", False)
    assert len(shell.records) == 1


@pytest.mark.parametrize("pieces", [(), (STREAM_HEAD, chunk(token()))], ids=["waiting", "streaming"])
def test_expelled(pieces: tuple[bytes, ...]) -> None:
    shell = Shell()
    exchange, sink = shell.ask(stream=True)
    shell.answer(*pieces)
    exchange.expel()
    shell.settle()
    act = ("cut", Outcome.SHUTTING_DOWN) if pieces else ("refuse", Outcome.SHUTTING_DOWN)
    assert (sink.acts[-1], sink.overs, shell.transport().aborted, shell.clean()) == (act, 1, True, True)


@pytest.mark.parametrize(
    ("chunked", "written"), [(False, b"abcd"), (True, b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")], ids=["sized", "chunked"]
)
def test_a_body_that_is_still_coming_is_streamed_through(chunked: bool, written: bytes) -> None:
    shell = Shell()
    inbound = shell.inbound(b"abcd", chunked=chunked)
    inbound.body, inbound.body_bytes, inbound.complete = [b"ab"], 2, False
    shell.dials[0].holding = True
    exchange, sink = shell.ask(inbound=inbound, retryable=False)
    exchange.upload(b"cd", last=False)  # not yet connected: the connection keeps the piece
    shell.dials[0].finish(shell.pools[0], exchange)
    exchange.upload(b"cd", last=False)
    inbound.complete = True
    exchange.upload(b"", last=True)
    assert shell.transport().take().partition(b"\r\n\r\n")[2] == written
    inbound.complete = False
    shell.upstream().pause_writing()
    shell.upstream().resume_writing()
    assert sink.acts == ["hold", "read"]
    inbound.complete = True
    shell.upstream().pause_writing()
    assert sink.acts == ["hold", "read"]


def test_the_upstreams_silence_counts_only_once_the_upload_is_whole() -> None:
    shell = Shell()
    inbound = shell.inbound()
    inbound.complete = False
    exchange, _ = shell.ask(inbound=inbound)
    shell.now += 1000.0
    shell.gate.sweep()
    assert not exchange.ended


def test_body_priority_reaches_no_engine() -> None:
    shell = Shell()
    body = b'{"model":"m","priority":5}'
    inbound = shell.inbound(body)
    inbound.priority_span = PrioritySpan(12, 25, 24, 25)
    shell.ask(inbound=inbound)
    head, _, sent = shell.transport().take().partition(b"\r\n\r\n")
    assert sent == b'{"model":"m"}'
    assert b"content-length: %d" % len(sent) in head


@pytest.mark.parametrize(
    ("keep_alive", "answer", "line", "acts"),
    [
        (True, said(b"x"), b"\r\nconnection: keep-alive\r\n", ["begin", "end"]),
        (False, said(b"x"), b"\r\nconnection: close\r\n", ["begin", "end"]),
        (True, STREAM_HEAD + chunk(b"x") + LAST_CHUNK, b"\r\nconnection: ", ["begin", "end"]),
    ],
)
def test_http_1_0_gets_no_chunks(keep_alive: bool, answer: bytes, line: bytes, acts: list[object]) -> None:
    shell = Shell()
    inbound = shell.inbound()
    inbound.keep_alive = keep_alive
    _, sink = shell.ask(http10=True, inbound=inbound)
    shell.answer(answer)
    assert (sink.acts, sink.body) == (acts, b"x")
    assert line in sink.head
    assert b"transfer-encoding" not in sink.head
    assert inbound.keep_alive is (keep_alive and b"content-length" in sink.head.lower())


def test_body_bytes_leave_the_account_when_the_answer_begins() -> None:
    shell = Shell()
    shell.ask(stream=True)
    assert shell.dispatcher.snapshot(shell.now).queue_bytes == 13
    shell.answer(STREAM_HEAD)
    assert shell.dispatcher.snapshot(shell.now).queue_bytes == 13  # a retry may still need it
    shell.answer(chunk(token()))
    assert shell.dispatcher.snapshot(shell.now).queue_bytes == 0
