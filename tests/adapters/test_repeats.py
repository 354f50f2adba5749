from __future__ import annotations

import pytest

from proxy.adapters.repeats import HEAD_BYTES_MAX, Repeat, around_length, cut, stream_of
from tests.adapters.shell import LAST_CHUNK, STREAM_HEAD, chunk

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nx: y\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(HEAD.replace(b"Content-Length: 5", b"x-length: 5") + b"12345", 5, id="no length"),
        pytest.param(HEAD.replace(b"x: y", b"content-length: 5") + b"12345", 5, id="two lengths"),
        pytest.param(HEAD.replace(b": 5", b": 5 ") + b"12345", 5, id="a blank behind the digits"),
        pytest.param(HEAD.replace(b": 5", b": 6") + b"12345", 5, id="another length than the body's"),
        pytest.param(HEAD + b"12345\r\n", 5, id="bytes behind the body"),
        pytest.param(b"\r\n\r\n" + HEAD + b"12345", 5, id="blank lines ahead"),
        pytest.param(HEAD.replace(b": 5", b": 0"), 0, id="no body"),
        pytest.param(HEAD.replace(b"x: y", b"x: " + b"y" * HEAD_BYTES_MAX) + b"12345", 5, id="a long head"),
    ],
)
def test_what_cannot_be_known_again(data: bytes, size: int) -> None:
    assert cut(data, size) is None


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (HEAD + b"12345", b"12345"),
        (HEAD.replace(b": 5", b": 12") + b"123456789012", b"123456789012"),
        *((HEAD.replace(b": 5", b": %d" % size) + b"x" * size, b"x" * size) for size in (1, 9, 10, 99, 100, 101)),
        *((HEAD.replace(b": 5", b": %d" % (size + 1)) + b"x" * size, None) for size in (8, 9, 10, 98, 99, 100)),
        (HEAD.replace(b": 5", b": 005") + b"12345", None),
        (HEAD.replace(b": 5", b": 0"), None),
        (HEAD + b"1234", None),
        (HEAD + b"123456", None),
        (HEAD + b"12345" + HEAD + b"12345", None),
        (HEAD.replace(b": 5", b": +5") + b"12345", None),
        (HEAD.replace(b": 5", b":  5") + b"12345", None),
        (HEAD.replace(b": 5", b": 5 ") + b"12345", None),
        (HEAD.replace(b": 5", b": ") + b"12345", None),
        (HEAD.replace(b": 5", b": 5, 5") + b"12345", None),
        (HEAD.replace(b": 5", b": " + b"0" * 18 + b"5") + b"12345", None),
        (HEAD.replace(b"Host", b"host") + b"12345", None),
        (HEAD.replace(b"x: y", b"x: z") + b"12345", None),
        (HEAD[:30], None),
        (b"", None),
    ],
)
def test_the_body_of_what_is_known_again(data: bytes, body: bytes | None) -> None:
    parts = cut(HEAD + b"12345", 5)
    assert parts is not None
    assert Repeat(*parts).body_of(data) == body


def test_a_head_is_cut_at_its_length_in_any_spelling() -> None:
    assert around_length(b"HTTP/1.1 200 OK\r\ncontent-LENGTH:7\r\n\r\n") == (
        b"HTTP/1.1 200 OK\r\ncontent-LENGTH:", b"\r\n\r\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "pieces", "known"),
    [
        pytest.param(STREAM_HEAD, [], True, id="the head alone"),
        pytest.param(STREAM_HEAD + chunk(b"a") + chunk(b"b"), [b"a", b"b"], True, id="chunks"),
        pytest.param(STREAM_HEAD + chunk(b"a") + LAST_CHUNK, [b"a"], False, id="ended"),
        pytest.param(STREAM_HEAD + chunk(b"a")[:-1], [b"a"], False, id="a cut chunk"),
        pytest.param(STREAM_HEAD + chunk(b"a"), [b"b"], False, id="not what the parser found"),
        pytest.param(b"HTTP/1.1 103 Early\r\n\r\n" + STREAM_HEAD, [], False, id="an interim head ahead"),
        pytest.param(STREAM_HEAD[:-2], [], False, id="a cut head"),
        pytest.param(STREAM_HEAD.replace(b"event", b"e" * HEAD_BYTES_MAX), [], False, id="a long head"),
    ],
)
def test_the_head_of_a_stream(data: bytes, pieces: list[bytes], known: bool) -> None:
    found = stream_of(data, pieces, b"OK", [(b"a", b"b")])
    assert (found is not None) == known
    assert found is None or (found.head, found.reason, found.headers) == (STREAM_HEAD, b"OK", [(b"a", b"b")])
    assert found is None or found.size == len(STREAM_HEAD)
