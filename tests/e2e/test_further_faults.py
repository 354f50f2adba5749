"""Faults beyond the matrix, one a row: framing that peers abuse, answers that nobody asked for, peers that overdo it.

Each row ends with the invariants, and with a request that is served as if nothing had happened.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.conftest import Bench, ask
from tests.e2e.raw_client import CHAT, RawClient, bare, chat, is_refusal, post
from tests.e2e.scripted_upstream import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Do,
    Script,
    Wait,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


def sized(length: bytes, *lines: bytes, body: bytes = b"{}") -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: " + length + b"\r\n\r\n" + body


UNUSABLE: dict[str, Script] = {
    "only interim answers": (HINT * 5000, Do.HOLD),
    "interim, then RST": (HINT, Do.RESET),
    "interim, then FIN": (HINT, Do.CLOSE),
    "an interim answer with a huge head": (HINT[:-2] + b"x: " + b"a" * 70_000 + b"\r\n\r\n",),
    "HTTP/0.9": (b"<html>hello</html>", Do.CLOSE),
    "HTTP/2 frames": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", Do.HOLD),
    "another protocol's version": (b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\n{}",),
    "status of four digits": (b"HTTP/1.1 1000 X\r\nContent-Length: 2\r\n\r\n{}",),
    "status of two digits": (b"HTTP/1.1 99 X\r\nContent-Length: 2\r\n\r\n{}",),
    "status 600": (b"HTTP/1.1 600 X\r\nContent-Length: 2\r\n\r\n{}",),
    "NUL in a value": (sized(b"2", b"x: a\x00b"),),
    "CR in a value": (sized(b"2", b"x: a\rb"),),
    "folded line": (sized(b"2", b"x: a\r\n b"),),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",),
    "line without colon": (sized(b"2", b"nothing"),),
    "blank before the colon": (sized(b"2", b"x : a"),),
    "equal lengths": (sized(b"2", b"Content-Length: 2"),),
    "different lengths": (sized(b"2", b"Content-Length: 4", body=b"{}{}"),),
    "list of lengths": (sized(b"2, 2"),),
    "negative length": (sized(b"-2"),),
    "length with sign": (sized(b"+2"),),
    "length in hex": (sized(b"0x2"),),
    "length of twenty digits": (sized(b"9" * 20), Do.CLOSE),
    "length and chunked": (sized(b"2", b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"),),
    "gzip, chunked": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunk(b"{}") + LAST_CHUNK,),
    "xchunked": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n{}", Do.CLOSE),
    "chunk size overflows": (CHUNKED + b"f" * 20 + b"\r\n{}", Do.HOLD),
    "negative chunk size": (CHUNKED + b"-2\r\n{}\r\n" + LAST_CHUNK,),
    "chunk size with 0x": (CHUNKED + b"0x2\r\n{}\r\n" + LAST_CHUNK,),
    "chunk size with blanks": (CHUNKED + b" 2\r\n{}\r\n" + LAST_CHUNK,),
    "chunks ended by LF": (CHUNKED + b"2\n{}\n0\n\n",),
    "chunk longer than it says": (CHUNKED + b"2\r\n{}xx" + LAST_CHUNK,),
    "two status lines": (b"HTTP/1.1 200 OK\r\nHTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n{}",),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_answer_that_cannot_be_passed_on_is_a_502_and_no_second_execution(bench: Bench, name: str) -> None:
    main = bench.play(*UNUSABLE[name])
    found = ask(bench, post(chat()))
    is_refusal(found, 502, "upstream_error")
    assert len(main.calls) == 1
    main.calls[0].wait_gone()
    bench.play()
    assert ask(bench, post(chat())).body == b'{"ok":true}'


def test_a_stream_of_which_not_a_byte_came_is_no_success(bench: Bench) -> None:
    bench.play(STREAM_HEAD + LAST_CHUNK)
    is_refusal(ask(bench, post(chat(stream=True))), 502, "upstream_error")


ODD: dict[str, tuple[Script, bytes]] = {
    "interim answers first": ((HINT * 20 + answer(),), b'{"ok":true}'),
    "204 with a body": ((b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",), b""),
    "HTTP/1.0 until it closes": ((b"HTTP/1.0 200 OK\r\n\r\n{}", Do.CLOSE), b"{}"),
    "no reason phrase": ((b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",), b"{}"),
    "reason with control bytes": ((b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\n{}",), b"{}"),
    "extension of a chunk": ((CHUNKED + b"2;" + b"a" * 2_000_000 + b"\r\n{}\r\n" + LAST_CHUNK,), b"{}"),
    "trailers": ((CHUNKED + chunk(b"{}") + b"0\r\nx-own: kept?\r\n\r\n",), b"{}"),
    "a second answer": ((answer() + answer('{"whose":"?"}'),), b'{"ok":true}'),
    "a second answer, later": ((answer(), Wait(0.03), answer('{"whose":"?"}')), b'{"ok":true}'),
    "bytes after the end": ((answer() + b"\x00garbage",), b'{"ok":true}'),
    "a redirect": ((answer("", 307, "Location: http://127.0.0.1:1/\r\n"),), b""),
    "names of ours": (
        (answer(headers="X-Penstock-Upstream: evil\r\nConnection: x-gone\r\nx-gone: 1\r\n"),), b'{"ok":true}'
    ),
}  # fmt: skip


UNASKED = {"a second answer", "a second answer, later", "bytes after the end", "HTTP/1.0 until it closes"}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_is_passed_on_as_what_it_says_and_nothing_of_it_reaches_the_next(bench: Bench, name: str) -> None:
    script, body = ODD[name]
    main = bench.play(*script)
    found = ask(bench, post(chat()))
    assert (found.body, found.complete) == (body, True)
    assert found.headers["x-penstock-upstream"] == "main"
    assert not {"x-own", "x-gone"} & found.headers.keys()
    assert len(main.calls) == 1
    if name in UNASKED:
        main.calls[0].wait_gone()  # such a connection is not used again
    bench.play()
    for _ in range(2):
        assert ask(bench, post(chat())).body == b'{"ok":true}'


def sse(*events: bytes, head: bytes = STREAM_HEAD) -> bytes:
    return head + b"".join(map(chunk, events)) + LAST_CHUNK


def with_length(*events: bytes, more: int = 0) -> bytes:
    body = b"".join(events)
    return STREAM_HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % (len(body) + more)) + body


STOP = token(finish="stop")
WHOLE = (token(), STOP, DONE)
STREAMS: dict[str, tuple[Script, bool]] = {
    "lines ended by CR": ((sse(*(event.replace(b"\n", b"\r") for event in WHOLE)),), True),
    "lines ended by CRLF": ((sse(*(event.replace(b"\n", b"\r\n") for event in WHOLE)),), True),
    "no blank after the colon": ((sse(*(event.replace(b"data: ", b"data:") for event in WHOLE)),), True),
    "a byte-order mark": ((sse(b"\xef\xbb\xbf" + WHOLE[0], *WHOLE[1:]),), True),
    "an event of two megabytes": ((sse(token("x" * 2_000_000), STOP, DONE),), True),
    "no JSON, no UTF-8, NUL": ((sse(b"data: {{{\n\n", b"data: \xff\xfe\x00\n\n", *WHOLE),), True),
    "with a length": ((with_length(*WHOLE),), True),
    "with a length that is never reached": ((with_length(*WHOLE, more=9), Do.CLOSE), True),
    "with a length, and left open": ((with_length(*WHOLE, more=9), Do.HOLD), True),
    "with a length, broken off": ((with_length(token(), more=100), Do.CLOSE), False),
    "finished, then RST": ((sse(*WHOLE)[: -len(LAST_CHUNK)], Do.RESET), True),
    "finished, then comments without end": (
        (sse(*WHOLE)[: -len(LAST_CHUNK)], *(step for _ in range(60) for step in (chunk(b": on\n\n"), Wait(0.1)))), True
    ),
    "events without output, for longer than the first may take": (
        (STREAM_HEAD, *(step for _ in range(14) for step in (chunk(b'data: {"on":1}\n\n'), Wait(0.1))),
         sse(*WHOLE)[len(STREAM_HEAD) :]), True
    ),
    "comments and never an event": (
        (STREAM_HEAD, *(step for _ in range(60) for step in (chunk(b": on\n\n"), Wait(0.1)))), False
    ),
    "comments, then its end": ((sse(b": ping\n\n"),), False),
    "the end mark as text": ((sse(token("data: [DONE]")),), False),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_whole_or_says_that_it_is_not(bench: Bench, name: str) -> None:
    script, whole = STREAMS[name]
    main = bench.play(*script)
    found = ask(bench, post(chat(stream=True)))
    assert (found.status, found.complete) == (200, whole)
    assert found.body.count(b'data: {"error":') == (not whole)
    if not whole:
        assert found.body.endswith(b"}}\n\n"), "the last event is whole"
    assert len(main.calls) == 1


# ---- clients ----

BODY = json.dumps(chat()).encode()
TE = "Transfer-Encoding: chunked"


def odd(*lines: str, body: bytes = BODY, first: str = f"POST {CHAT} HTTP/1.1", length: bool = True) -> bytes:
    """A request with further header lines, without Content-Length where it brings a framing of its own."""
    sizes = [f"Content-Length: {len(body)}"] if length else []
    return bare(first, "Content-Type: application/json", *lines, *sizes) + body


IN_CHUNKS = chunk(BODY) + LAST_CHUNK
MODELS = bare("GET /v1/models HTTP/1.1")
MALFORMED, SERVED = ("malformed_request", True), ("", False)
REQUESTS: dict[str, tuple[bytes, tuple[str, bool]]] = {
    "equal lengths": (odd(f"Content-Length: {len(BODY)}"), MALFORMED),
    "list of lengths": (odd(f"Content-Length: {len(BODY)}, {len(BODY)}", length=False), MALFORMED),
    "length with sign": (odd(f"Content-Length: +{len(BODY)}", length=False), MALFORMED),
    "length of twenty digits": (odd("Content-Length: " + "9" * 20, length=False), MALFORMED),
    "length with zeros before it": (odd(f"Content-Length: 000{len(BODY)}", length=False), SERVED),
    "length with a vertical tab": (odd(f"Content-Length: \x0b{len(BODY)}", length=False), MALFORMED),
    "length under another spelling": (odd("Content_Length: 3"), SERVED),
    "chunked in capitals": (odd("TRANSFER-ENCODING: CHUNKED", body=IN_CHUNKS, length=False), SERVED),
    "chunked twice": (odd(TE, TE, body=IN_CHUNKS, length=False), MALFORMED),
    "chunked, then identity": (odd("Transfer-Encoding: chunked, identity", body=IN_CHUNKS, length=False), MALFORMED),
    "chunked with a parameter": (odd(TE + ";q=1", body=IN_CHUNKS, length=False), ("not_implemented", True)),
    "folded coding": (odd("Transfer-Encoding:\r\n chunked", body=IN_CHUNKS, length=False), MALFORMED),
    "chunk size overflows": (odd(TE, body=b"f" * 17 + b"\r\n" + BODY, length=False), MALFORMED),
    "negative chunk size": (odd(TE, body=b"-1\r\n" + BODY, length=False), MALFORMED),
    "chunk size with 0x": (odd(TE, body=b"0x" + IN_CHUNKS, length=False), MALFORMED),
    "chunks ended by LF": (odd(TE, body=IN_CHUNKS.replace(b"\r\n", b"\n"), length=False), MALFORMED),
    "extension with a line end in quotes": (
        odd(TE, body=b'%x;a="\r\n"\r\n%b\r\n0\r\n\r\n' % (len(BODY), BODY), length=False), MALFORMED
    ),
    "a long extension": (odd(TE, body=b"%x;%b" % (len(BODY), b"a" * 300_000) + IN_CHUNKS[2:], length=False), SERVED),
    "length in the trailer": (odd(TE, body=chunk(BODY) + b"0\r\nContent-Length: 3\r\n\r\n", length=False), MALFORMED),
    "a key in the trailer": (odd(TE, body=chunk(BODY) + b"0\r\nAuthorization: a\r\n\r\n", length=False), SERVED),
    "body sent with Expect": (odd("Expect: 100-continue"), SERVED),
    "another expectation": (odd("Expect: 200-ok"), ("invalid_header", False)),
    "upgrade to h2c": (odd("Connection: upgrade", "Upgrade: h2c"), ("invalid_header", True)),
    "upgrade to a websocket": (odd("Connection: upgrade", "Upgrade: websocket"), ("invalid_header", True)),
    "absolute target": (odd(first=f"POST http://other{CHAT} HTTP/1.1"), ("invalid_value", False)),
    "target with a fragment": (odd(first=f"POST {CHAT}#x HTTP/1.1"), ("invalid_value", False)),
    "target with a tab": (odd(first=f"POST {CHAT}\tHTTP/1.1"), MALFORMED),
    "target with a byte above ASCII": (odd(first=f"POST {CHAT}\xff HTTP/1.1"), MALFORMED),
    "version 1.2": (odd(first=f"POST {CHAT} HTTP/1.2"), MALFORMED),
    "version 2.0": (odd(first=f"POST {CHAT} HTTP/2.0"), ("http_version_not_supported", True)),
    "method in small letters": (odd(first=f"post {CHAT} HTTP/1.1"), ("not_implemented", True)),
    "host with a user": (odd().replace(b"Host: proxy", b"Host: user@proxy"), ("invalid_header", False)),
    "host with a blank": (odd().replace(b"Host: proxy", b"Host: a b"), ("invalid_header", False)),
    "host with a path": (odd().replace(b"Host: proxy", b"Host: a/b"), ("invalid_header", False)),
    "line without a name": (odd(": x"), MALFORMED),
    "Connection names the length": (odd("Connection: content-length"), SERVED),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), ("not_implemented", True)),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", MALFORMED),
    "PROXY protocol": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + odd(), ("not_implemented", True)),
    "line ends before it": (b"\r\n" * 5000 + odd(), SERVED),
    "text with a byte-order mark": (odd(body=b"\xef\xbb\xbf" + BODY), ("invalid_json", False)),
    "UTF-16": (odd(body=BODY.decode().encode("utf-16")), ("invalid_json", False)),
    "number that is none": (odd(body=b'{"model":"m","temperature":NaN}'), ("invalid_json", False)),
    "model under an escaped name, too": (odd(body=b'{"model":"m","mod\\u0065l":"x"}'), ("invalid_json", False)),
}  # fmt: skip


@pytest.mark.parametrize("known", [False, True], ids=["first", "after others"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_has_one_answer_and_is_framed_anew_or_refused(bench: Bench, name: str, known: bool) -> None:
    """Also on a connection whose heads have been seen before. A request that follows is answered as such, or the
    connection ends: nothing of the odd one is taken for it."""
    request, (code, closes) = REQUESTS[name]
    with RawClient(bench.proxy.port) as client:
        for _ in range(3 * known):
            assert client.send(odd()).answer().status == 200
        bench.main.calls.clear()
        client.send(request)
        found = client.answer()
        if code:
            is_refusal(found, found.status, code)
            assert 400 <= found.status < 600
        else:
            assert (found.status, found.body) == (200, b'{"ok":true}')
        assert (found.headers.get("connection") == "close") is closes
        if closes:
            assert client.closed(), "one answer, and the end"
        else:
            assert client.send(MODELS).answer().status == 200
    calls = bench.main.calls
    assert len(calls) == (not code)
    for call in calls:
        assert call.body == BODY
        framing = [
            line for line in call.head.lower().split("\r\n") if re.match("content.length|transfer|upgrade", line)
        ]
        assert framing == [f"content-length: {len(BODY)}"]


def test_the_next_request_may_come_while_a_stream_runs_and_neither_mixes_with_the_other(bench: Bench) -> None:
    main = bench.main
    main.scripts = [(STREAM_HEAD + chunk(token()), Do.HOLD, whole_stream()[len(STREAM_HEAD) :]), (answer('{"n":2}'),)]
    with RawClient(bench.proxy.port) as client:
        client.send(post(chat(stream=True))).read_until(b"data: ")
        client.send(post(chat(n=2)))
        main.release.set()
        first, second = client.answer(), client.answer()
    assert (first.complete, first.body.endswith(DONE)) == (True, True)
    assert second.body == b'{"n":2}'


@pytest.mark.parametrize("how", ["reset", "answered early"])
def test_an_upload_that_the_engine_does_not_want_to_its_end_harms_nobody(bench: Bench, how: str) -> None:
    """A form is streamed through; the engine reads its beginning, and resets or refuses in the middle of it."""
    main = bench.main
    refusal = b"HTTP/1.1 413 Too Long\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    main.early = (Do.RESET,) if how == "reset" else (refusal, Do.HOLD)
    boundary = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\nContent-Disposition: '
    form = boundary + b'form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 150_000
    head = bare(
        "POST /v1/audio/transcriptions HTTP/1.1", "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {len(form) + 20_000}",
    )  # fmt: skip
    try:
        with RawClient(bench.proxy.port) as client:
            found = client.send(head + form).answer()
            assert found.status == (502 if how == "reset" else 413)
            assert found.headers["connection"] == "close", "the rest of the body is on its way"
    finally:
        main.early = ()
    wait_for(lambda: bench.proxy.state()["queue_bytes"] == 0, "its bytes are given back")
    bench.play()
    assert ask(bench, post(chat())).status == 200
