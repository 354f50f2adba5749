"""Forms in pieces: the model is found, doubt is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.errors import BadRequest
from proxy.wire.facts import AUDIO_TOKENS
from proxy.wire.multipart import PART_HEAD_BYTES_MAX, MultipartScanner
from proxy.wire.routes import ROUTES
from tests.wire.documents import split

ROUTE = ROUTES[b"/v1/audio/transcriptions"]
FILE = b'form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


def part(disposition: bytes, value: bytes) -> bytes:
    return b"--B\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + value + b"\r\n"


def field(name: bytes, value: bytes) -> bytes:
    return part(b'form-data; name="' + name + b'"', value)


END = b"--B--\r\n"


def scan(body: bytes, cuts: list[int] | None = None) -> MultipartScanner:
    scanner = MultipartScanner(b"B")
    for piece in split(body, cuts or []):
        scanner.feed(piece)
    return scanner


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b"\r\n--", b"\r\n--A", b"\r", b"--B"]), max_size=4),
    st.lists(st.integers(0, 999), max_size=8),
)
def test_any_pieces_tell_the_same(contents: list[bytes], cuts: list[int]) -> None:
    contents = [content for content in contents if b"\r\n--B" not in b"\r\n" + content + b"\r\n"]
    files = b"".join(part(FILE, content) for content in contents)
    body = files + field(b"model", b"whisper") + field(b"stream", b"True") + END
    scanner = scan(body, cuts)
    facts = scanner.facts(True, ROUTE, len(body))
    assert facts is not None and (facts.model, facts.stream, facts.retryable) == ("whisper", True, False)
    assert facts.estimate.prompt_tokens == AUDIO_TOKENS and facts.estimate.prompt_floor == 0


def test_the_model_is_known_before_the_file_has_come() -> None:
    scanner = MultipartScanner(b"B")
    body = field(b"model", b"m") + part(FILE, b"x" * 100_000)
    scanner.feed(body[:30])
    assert scanner.facts(False, ROUTE, 30) is None
    scanner.feed(body[30:])
    facts = scanner.facts(False, ROUTE, len(body))
    assert facts is not None and facts.model == "m"
    assert len(scanner._rest) < 10


def test_a_form_without_a_model_has_an_empty_one() -> None:
    facts = scan(field(b"language", b"en") + END + b"epilogue").facts(True, ROUTE, 0)
    assert facts is not None and facts.model == ""


@pytest.mark.parametrize(
    "body",
    [
        b"junk" + field(b"model", b"m") + END,
        field(b"model", b"m").replace(b"\r\n", b"\n"),
        field(b"model", b"m") + b"--Bx\r\n",
        b"--B\r\n\r\nno head\r\n" + END,
        b"--B\r\nContent-Disposition: attachment\r\n\r\nx\r\n" + END,
        b"--B\r\nX: " + b"y" * PART_HEAD_BYTES_MAX,
        part(b'form-data; name="a"; name="model"', b"m") + END,
        part(b"form-data; name*=utf-8''model", b"m") + END,
        part(b"form-data; name=\"a\"; name*=utf-8''model", b"m") + END,
        part(b'form-data; name="mod\\el"', b"m") + END,
        part(b'form-data; filename="x"', b"m") + END,
        part(b'form-data; name="model" junk', b"m") + END,
        part(b'form-data; name="a"\r\nContent-Disposition: form-data; name="model"', b"m") + END,
        field(b"model", b"a") + field(b"model", b"b") + END,
        field(b"stream", b"1") + field(b"stream", b"0") + END,
        field(b"model", b"\xff") + END,
        field(b"model", b"m" * 257) + END,
        field(b"model", b"m" * 3000) + END,
    ],
)
def test_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        scan(body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_value")


def test_a_form_that_is_cut_short_is_refused() -> None:
    with pytest.raises(BadRequest):
        scan(field(b"model", b"m")).facts(True, ROUTE, 0)
