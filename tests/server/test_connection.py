from __future__ import annotations

import pytest

from proxy.adapters.forward import WAITING
from proxy.server.connection import JOIN_MAX_BYTES, PIPELINE_MAX_BYTES
from proxy.types import Outcome, Phase
from tests.adapters.shell import CHAT, DONE, LAST_CHUNK, STREAM_HEAD, Shell, chunk, said, token
from tests.server.edge import Edge, intake_of, post, stream

HEALTH = b"GET /health HTTP/1.1\r\nhost: proxy\r\n\r\n"
STOP = token("stop")
AUDIO = "/v1/audio/transcriptions"
FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\n'
SOUND = b'content-disposition: form-data; name="file"; filename="a"\r\n\r\n'


def form(body: bytes, length: int) -> bytes:
    head = (
        f"POST {AUDIO} HTTP/1.1\r\nhost: p\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {length}"
    )
    return head.encode() + b"\r\n\r\n" + body


# ---- answers ----


def test_a_request_its_answer_and_the_next_one() -> None:
    edge = Edge()
    client = edge.client(post())
    edge.shell.answer(said(b"one"))
    answer = client.take()
    assert answer.startswith(b"HTTP/1.1 200 Said\r\n")
    assert answer.endswith(b"\r\n\r\none")
    for piece in (post()[:30], post()[30:-5], post()[-5:]):
        client.send(piece)
    edge.shell.answer(said(b"two"))
    assert client.take().endswith(b"two")
    assert (edge.outcomes(), client.transport.ended, edge.shell.clean()) == (["success"] * 2, False, True)


def test_a_stream_is_framed_anew_and_ended() -> None:
    edge = Edge()
    client = edge.client(stream())
    edge.shell.answer(STREAM_HEAD, chunk(token()) + chunk(STOP), chunk(DONE), LAST_CHUNK)
    head, _, body = client.take().partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked\r\n" in head
    assert body == chunk(token() + STOP) + chunk(DONE) + LAST_CHUNK
    assert not client.transport.ended


def test_a_large_first_piece_is_not_copied_behind_its_head() -> None:
    edge = Edge()
    client = edge.client(post())
    edge.shell.answer(said(b"x" * (JOIN_MAX_BYTES + 1)))
    assert client.take().endswith(b"\r\n\r\n" + b"x" * (JOIN_MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("path", "body", "event"),
    [
        (CHAT, b'{"model":"m","stream":true}', b"data: "),
        ("/v1/messages", b'{"model":"m","stream":true}', b"event: error"),
    ],
)  # fmt: skip
def test_a_broken_stream_ends_with_an_event_and_no_last_chunk(path: str, body: bytes, event: bytes) -> None:
    edge = Edge()
    client = edge.client(post(body, path))
    mark = token() if path == CHAT else b'data: {"type":"content_block_delta"}\n\n'
    edge.shell.answer(STREAM_HEAD, chunk(mark))
    edge.shell.lose(ConnectionResetError())
    body = client.take().partition(b"\r\n\r\n")[2]
    assert body.startswith(chunk(mark))
    assert b"\n\n" + event in body
    assert not body.endswith(LAST_CHUNK)
    assert (client.transport.ended, edge.outcomes()) == (True, ["upstream_error"])


def test_a_broken_whole_answer_is_only_cut() -> None:
    edge = Edge()
    client = edge.client(post())
    edge.shell.answer(said(b"abc")[:-1])
    edge.shell.lose()
    assert client.take().endswith(b"\r\n\r\nab")
    assert client.transport.ended


@pytest.mark.parametrize(
    ("lines", "answer", "ends", "connection"),
    [
        (["connection: keep-alive"], said(b"x"), False, b"keep-alive"),
        ([], said(b"x"), True, b"close"),
        (["connection: keep-alive"], STREAM_HEAD + chunk(b"x") + LAST_CHUNK, True, b"close"),
    ],
    ids=["kept", "not kept", "length unknown"],
)
def test_http_1_0(lines: list[str], answer: bytes, ends: bool, connection: bytes) -> None:
    edge = Edge()
    client = edge.client(post(b'{"model":"m"}', CHAT, *lines, version="1.0"))
    edge.shell.answer(answer)
    head, _, body = client.take().partition(b"\r\n\r\n")
    assert (body, client.transport.ended) == (b"x", ends)
    assert b"\r\nconnection: " + connection in head
    assert b"chunked" not in head


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_ends_no_connection(status: int) -> None:
    edge = Edge()
    client = edge.client(post())
    edge.shell.answer(b"HTTP/1.1 %d None\r\n\r\n" % status)
    assert (client.statuses(), client.send(HEALTH).statuses()) == ([status], [200])


@pytest.mark.parametrize("lines", [["connection: close"], []], ids=["asked for", "draining"])
def test_the_last_answer_closes(lines: list[str]) -> None:
    edge = Edge()
    client = edge.client(post(b'{"model":"m"}', CHAT, *lines))
    edge.listener.draining = not lines
    edge.shell.answer(said())
    assert client.take()
    assert client.transport.ended


# ---- pipelining ----


def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    edge = Edge(Shell(seats=8))
    client = edge.client(post() + HEALTH + stream() + HEALTH)
    assert len(edge.shell.dials[0].made) == 1
    assert client.take() == b""
    edge.shell.answer(said(b"one"))
    first = client.take()
    assert first.index(b"one") < first.index(b'{"status":"ok"}')
    edge.shell.answer(STREAM_HEAD, chunk(STOP), chunk(DONE), LAST_CHUNK)
    assert client.take().count(b"HTTP/1.1 200") == 2
    assert edge.outcomes() == ["success"] * 2


def test_what_is_pipelined_is_bounded_and_read_again_once_it_is_served() -> None:
    edge = Edge()
    big = post(b'{"model":"m","x":"%b"}' % (b"x" * (PIPELINE_MAX_BYTES // 2)))
    client = edge.client(post(), big, big)
    reading = [client.transport.reading]
    for _ in range(2):
        edge.shell.answer(said())
    assert [*reading, client.transport.reading] == [False, True]
    assert len(edge.outcomes()) == 2


@pytest.mark.parametrize(
    ("junk", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 501),
        (b"BREW / HTTP/1.1\r\n\r\n", 501),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 501),
    ],
)  # fmt: skip
def test_requests_before_bytes_that_are_no_http_are_still_answered(junk: bytes, status: int) -> None:
    edge = Edge()
    client = edge.client(post(), junk)
    assert client.take() == b""
    edge.shell.answer(said())
    assert (client.statuses()[0], edge.outcomes()[0]) == (200, "success")
    edge.pass_time(3.0)
    assert client.transport.ended
    alone = edge.client(junk)
    assert alone.statuses() == [status]
    assert edge.shell.records[-1].outcome is Outcome.BAD_REQUEST


# ---- refusals ----


def test_a_refused_request_that_was_read_leaves_the_connection_open() -> None:
    edge = Edge()
    client = edge.client(post(b'{"model":"x"}'), HEALTH)
    assert (client.statuses(), client.transport.ended) == ([404, 200], False)
    assert edge.shell.clean()


def test_a_refused_upload_is_read_away_so_that_its_client_sees_the_answer() -> None:
    edge = Edge()
    client = edge.client(post(b"", "/unknown").replace(b"length: 0", b"length: 100"))
    assert client.statuses() == [404]
    assert (client.transport.eof, client.transport.ended) == (True, False)
    client.send(b"x" * 50, b"x" * 500)
    assert client.take() == b""
    edge.pass_time(2.6)
    assert (client.transport.aborted, edge.outcomes()) == (True, ["bad_request"])


def test_without_half_close_a_refused_upload_is_closed_at_once() -> None:
    edge = Edge()
    client = edge.client()
    client.transport.half_closes = False  # TLS
    client.send(post(b"", "/unknown").replace(b"length: 0", b"length: 100"))
    assert (client.statuses(), client.transport.ended) == ([404], True)


def test_a_head_request_gets_a_refusal_without_a_body() -> None:
    edge = Edge()
    answer = edge.client(b"HEAD /unknown HTTP/1.1\r\nhost: proxy\r\n\r\n").take()
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in answer


@pytest.mark.parametrize(("length", "granted"), [(13, True), (10**9, False)])
def test_100_continue_is_granted_only_to_a_head_that_passes(length: int, granted: bool) -> None:
    edge = Edge()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: p\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    client = edge.client(head.encode())
    assert client.statuses() == [100 if granted else 413]
    if granted:
        client.send(b'{"model":"m"}')
        edge.shell.answer(said())
        assert client.statuses() == [200]


def test_a_head_that_never_ends_is_bounded() -> None:
    edge = Edge()
    client = edge.client(b"GET /health HTTP/1.1\r\n", *[b"x-%d: " % n + b"a" * 7000 + b"\r\n" for n in range(9)])
    assert client.take() == b""
    client.send(b"x: " + b"a" * 7000)
    assert (client.statuses(), client.transport.eof) == ([431], True)


def test_our_own_fault_is_a_500_with_the_request_id_alone() -> None:
    edge = Edge()
    edge.listener.intake.clock = lambda: 1 / 0
    answer = edge.client(post()).take()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert (b"division" in answer, [str(error) for error in edge.errors]) == (False, ["division by zero"])
    assert edge.outcomes() == ["internal_error"]


def test_a_refusal_of_the_dispatcher_names_the_class() -> None:
    edge = Edge(Shell(seats=1, queue_timeout_s=5.0))
    first, second = edge.client(post()), edge.client(post())
    edge.shell.now += 5.5
    edge.shell.gate.expire()
    answer = second.take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nx-penstock-class: normal\r\n" in answer
    assert b"\r\nretry-after: " in answer
    assert (first.take(), second.transport.ended) == (b"", False)


# ---- clients that leave ----


@pytest.mark.parametrize(
    ("seats", "pieces", "fed", "phase"),
    [
        pytest.param(2, (post()[:-3],), (), Phase.UPLOAD, id="upload"),
        pytest.param(1, (post(),), (), Phase.WAITING, id="waiting"),
        pytest.param(1, (stream(),), (STREAM_HEAD, chunk(token())), Phase.STREAMING, id="streaming"),
    ],
)
def test_a_client_that_leaves_is_counted_once_and_gives_everything_back(
    seats: int, pieces: tuple[bytes, ...], fed: tuple[bytes, ...], phase: Phase
) -> None:
    edge = Edge(Shell(seats=seats))
    client = edge.client(*pieces)
    edge.shell.answer(*fed) if fed else None
    client.leave()
    assert [(record.outcome, record.gone_phase) for record in edge.shell.records] == [(Outcome.CLIENT_GONE, phase)]
    assert edge.shell.clean()
    assert edge.listener.connections == {}


def test_who_leaves_the_queue_takes_the_pipelined_along() -> None:
    edge = Edge(Shell(seats=1))
    edge.client(post())
    waiting = edge.client(post() + post() + post()[:-3])
    waiting.leave()
    assert [record.gone_phase for record in edge.shell.records] == [Phase.QUEUED, Phase.UPLOAD, Phase.UPLOAD]
    assert edge.shell.dispatcher.snapshot(edge.shell.now).queue_bytes == 13


def test_an_idle_client_that_leaves_is_no_ending() -> None:
    edge = Edge()
    edge.client().leave()
    assert (edge.shell.records, edge.listener.connections) == ([], {})


def test_a_reader_that_stops_holds_its_upstream_back() -> None:
    edge = Edge()
    client = edge.client(stream())
    edge.shell.answer(STREAM_HEAD, chunk(token()))
    client.connection.pause_writing()
    assert not edge.shell.transport().reading
    client.connection.resume_writing()
    assert edge.shell.transport().reading
    assert repr(client.connection).startswith("ClientConnection(192.0.2.7 inbox=1 exchange=Exchange(made-1 running")


# ---- bodies that are streamed through ----


def test_a_form_is_streamed_through_once_its_model_is_seen() -> None:
    edge = Edge()
    rest = SOUND + b"x" * 50
    client = edge.client(form(FORM[:30], len(FORM + rest)))
    assert edge.shell.dials[0].made == []
    client.send(FORM[30:], rest[:70], rest[70:])
    assert edge.shell.transport().take().partition(b"\r\n\r\n")[2] == FORM + rest
    assert edge.shell.dispatcher.snapshot(edge.shell.now).queue_bytes <= len(FORM + rest)
    edge.shell.answer(said())
    assert (client.statuses(), edge.shell.clean()) == ([200], True)


def test_a_second_model_later_in_the_form_is_refused() -> None:
    edge = Edge()
    client = edge.client(form(FORM, 10_000))
    assert len(edge.shell.dials[0].made) == 1
    client.send(b'content-disposition: form-data; name="model"\r\n\r\nother\r\n--b\r\n')
    assert client.statuses() == [400]
    edge.pass_time(3.0)
    assert (edge.outcomes(), client.transport.ended, edge.shell.clean()) == (["bad_request"], True, True)
    assert edge.shell.transport().aborted


def test_a_form_that_waits_is_counted_and_one_that_grows_too_large_is_refused() -> None:
    shell = Shell(seats=1)
    edge = Edge(shell, intake_of(shell, max_body_bytes=1000))
    edge.client(post())
    head = form(FORM, 0).replace(b"content-length: 0", b"transfer-encoding: chunked").partition(b"\r\n\r\n")[0]
    client = edge.client(head + b"\r\n\r\n" + chunk(FORM + SOUND))
    client.send(chunk(b"x" * 100))
    assert shell.dispatcher.snapshot(shell.now).queue_bytes == 13 + len(FORM + SOUND) + 100
    client.send(chunk(b"x" * 1000))
    assert client.statuses() == [413]
    assert shell.dispatcher.snapshot(shell.now).queue_bytes == 13
    assert shell.records[-1].outcome is Outcome.BAD_REQUEST


@pytest.mark.parametrize("begun", [b"", chunk(FORM + SOUND)])
def test_a_body_that_is_no_http_ends_its_request_at_once(begun: bytes) -> None:
    edge = Edge()
    client = edge.client(post() + form(begun, 0).replace(b"content-length: 0", b"transfer-encoding: chunked"))
    client.send(b"+d\r\n")
    edge.shell.answer(said(b"one"))
    assert client.statuses() == [200, 400]
    edge.pass_time(3.0)
    assert (edge.outcomes(), client.transport.ended, edge.shell.clean()) == (["success", "bad_request"], True, True)


def test_an_answer_before_the_upload_is_whole_ends_the_connection() -> None:
    edge = Edge()
    client = edge.client(form(FORM + SOUND, 10_000))
    edge.shell.answer(said(b"enough"))
    assert b"\r\nconnection: close\r\n" in client.transport.written
    assert client.statuses() == [200]
    inbound_bytes = sum(len(one.body) for one in client.connection.inbox)
    client.send(b"x" * 5000)
    assert (inbound_bytes, client.transport.eof) == (0, True)
    edge.pass_time(3.0)
    assert (client.transport.aborted, edge.shell.clean()) == (True, True)
    assert list(edge.shell.pools[0].idle) == []  # its next request would be taken for the missing body


def test_a_full_upstream_pauses_the_upload() -> None:
    edge = Edge()
    client = edge.client(form(FORM + SOUND, 10_000))
    edge.shell.upstream().pause_writing()
    assert not client.transport.reading
    edge.shell.upstream().resume_writing()
    assert client.transport.reading


# ---- comments while waiting ----


def test_a_stream_that_waits_gets_comments_and_then_its_answer() -> None:
    edge = Edge(Shell(seats=1, keepalive_s=5.0))
    running, waiting = edge.client(stream()), edge.client(stream())
    edge.pass_time(5.5)
    assert waiting.take().endswith(chunk(WAITING))
    edge.shell.answer(STREAM_HEAD, chunk(STOP), chunk(DONE), LAST_CHUNK)
    edge.shell.answer(STREAM_HEAD, chunk(STOP), chunk(DONE), LAST_CHUNK)
    assert waiting.take() == chunk(STOP) + chunk(DONE) + LAST_CHUNK
    assert (running.statuses(), edge.shell.clean()) == ([200], True)


def test_after_a_comment_the_engines_refusal_is_an_event_and_the_cut() -> None:
    edge = Edge(Shell(seats=1, keepalive_s=5.0))
    running, waiting = edge.client(post()), edge.client(stream())
    edge.pass_time(5.5)
    waiting.take()
    edge.shell.answer(said())
    edge.shell.answer(said(b"busy", 429))
    assert waiting.take().endswith(b'"code":"upstream_error"}}\n\n\r\n')
    assert (waiting.transport.ended, edge.outcomes()) == (True, ["success", "upstream_error"])
    assert running.statuses() == [200]
