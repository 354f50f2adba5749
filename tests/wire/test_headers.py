"""Request heads: what is read, what is refused, and what can never pass."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.errors import BadRequest
from proxy.wire.headers import (
    SPELLINGS_MAX,
    TIMEOUT_S_MAX,
    HeadFacts,
    HeadReader,
    forward_head,
    upstream_lines,
)

HOST = (b"Host", b"h")
Pairs = list[tuple[bytes, bytes]]


def read(*headers: tuple[bytes, bytes], http_1_1: bool = True) -> HeadFacts:
    return HeadReader().read([HOST, *headers], http_1_1)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", b"x")], 400),
        ([(b"Authorization", b"Bearer a"), (b"authorization", b"Bearer a")], 400),
        ([(b"Authorization", b"Bearer a"), (b"x-api-key", b"b")], 400),
        ([(b"x-api-key", b"a"), (b"X-API-Key", b"a")], 400),
        ([(b"Authorization", b"Bearer \xff")], 400),
        ([(b"Authorization", b"Bearer a\tb")], 400),
        ([(b"x-api-key", b"\x7f")], 400),
        ([(b"host", b"h"), (b"x", b"y")], 400),
        ([(b"Transfer-Encoding", b"gzip, chunked")], 501),
        ([(b"Transfer-Encoding", b"xchunked")], 501),
        ([(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")], 501),
        ([(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"1")], 400),
        ([(b"Content-Length", b"1"), (b"content-length", b"1")], 400),
        ([(b"Content-Length", b"+1")], 400),
        ([(b"Content-Length", b"")], 400),
        ([(b"Content-Length", b"9" * 19)], 400),
        ([(b"Content-Encoding", b"gzip")], 415),
        ([(b"Content-Type", b"a/b"), (b"content-type", b"a/b")], 400),
        ([(b"Content-Type", b"a\xff")], 400),
        ([(b"Content-Type", b"multipart/form-data")], 400),
        ([(b"Content-Type", b"multipart/form-data; boundary=" + b"b" * 201)], 400),
        ([(b"Content-Type", b"multipart/form-data; boundary=a; boundary=b")], 400),
        ([(b"Content-Type", b'multipart/form-data; boundary="a\\"b"')], 400),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], 400),
        ([(b"Upgrade", b"h2c"), (b"Connection", b"keep-alive, upgrade")], 400),
        ([(b"Expect", b"200-ok")], 400),
        ([(b"x-request-timeout-ms", b"soon")], 400),
        ([(b"x-request-timeout-ms", b"1.5")], 400),
        ([(b"x-request-timeout-ms", b"1"), (b"x-request-timeout-ms", b"1")], 400),
        ([(b"x-stainless-read-timeout", b"\xff")], 400),
        ([(b"x-tenant-id", b"a"), (b"x-tenant-id", b"b")], 400),
        ([(b"x-priority", b"\xff")], 400),
        ([(b"bad name", b"x")], 400),
        ([(b"x", b"a\r\nb: c")], 400),
        ([(b"x", b"a\0")], 400),
    ],
)
def test_refused(headers: Pairs, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        read(*headers)
    assert refused.value.status == status
    assert refused.value.code in {"invalid_header", "encoded_body", "not_implemented"}


def test_host_is_needed_in_http_1_1_alone() -> None:
    assert HeadReader().read([], http_1_1=False).block == b""
    with pytest.raises(BadRequest):
        HeadReader().read([])
    with pytest.raises(BadRequest):
        HeadReader().read([(b"host", b"a\xff")])


def test_chunked_is_refused_in_http_1_0() -> None:
    assert read((b"Transfer-Encoding", b" Chunked ")).chunked
    with pytest.raises(BadRequest):
        read((b"Transfer-Encoding", b"chunked"), http_1_1=False)


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        (b"Authorization", b"Bearer sk-1", "key", b"sk-1"),
        (b"AUTHORIZATION", b"bearer  sk-1 ", "key", b"sk-1"),
        (b"Authorization", b"Bearer sk-1\t", "key", b"sk-1"),
        (b"Authorization", b"Bearer", "key", None),
        (b"Authorization", b"Basic abc", "key", b"Basic abc"),
        (b"x-api-key", b"sk-2", "key", b"sk-2"),
        (b"X-Request-Id", b"abc-1", "request_id", "abc-1"),
        (b"x-request-id", b"a" * 129, "request_id", None),
        (b"x-request-id", b"a b", "request_id", None),
        (b"x-request-id", b"a\xff", "request_id", None),
        (b"x-request-timeout-ms", b"1500", "timeout_s", 1.5),
        (b"x-request-timeout-ms", b"-5", "timeout_s", -0.005),
        (b"x-request-timeout-ms", b"9" * 500, "timeout_s", TIMEOUT_S_MAX),
        (b"x-stainless-read-timeout", b"600", "timeout_s", 600),
        (b"x-stainless-read-timeout", b"2.5", "timeout_s", 2.5),
        (b"x-stainless-read-timeout", b"1e9", "timeout_s", TIMEOUT_S_MAX),
        (b"x-stainless-read-timeout", b"nan", "timeout_s", None),
        (b"x-stainless-read-timeout", b"none", "timeout_s", None),
        (b"x-stainless-read-timeout", b"0", "timeout_s", None),
        (b"x-stainless-retry-count", b"2", "retry_count", 2),
        (b"x-stainless-retry-count", b"99999", "retry_count", 9),
        (b"x-stainless-retry-count", b"-1", "retry_count", 0),
        (b"Content-Length", b"12 ", "content_length", 12),
        (b"Content-Encoding", b"Identity", "boundary", None),
        (b"Expect", b"100-Continue", "expects_continue", True),
        (b"Upgrade", b"h2c", "upgrade", True),
        (b"Content-Type", b"multipart/form-data; charset=utf-8; boundary=a-b", "boundary", b"a-b"),
        (b"Content-Type", b'Multipart/Form-Data; Boundary="a b"', "boundary", b"a b"),
        (b"Content-Type", b"text/plain; boundary=x", "boundary", None),
        (b"X-Forwarded-For", b"1.2.3.4", "forwarded_for", b"1.2.3.4"),
        (b"x-tenant-id", b"acme", "tenant", b"acme"),
    ],
)
def test_facts(name: bytes, value: bytes, attribute: str, expected: object) -> None:
    assert getattr(read((name, value)), attribute) == expected


def test_the_own_timeout_wins_over_the_library_hint() -> None:
    pair = [(b"x-request-timeout-ms", b"10"), (b"x-stainless-read-timeout", b"600")]
    assert read(*pair).timeout_s == read(*reversed(pair)).timeout_s == 0.01


def test_equal_keys_in_both_headers_are_one_key() -> None:
    assert read((b"authorization", b"Bearer a"), (b"x-api-key", b"a")).key == b"a"


def test_hops_of_forwarded_for_are_joined_in_order() -> None:
    assert read((b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")).forwarded_for == b"1.1.1.1, 2.2.2.2"


def test_priority_headers_come_in_their_configured_order() -> None:
    assert read((b"x-request-priority", b"5"), (b"x-priority", b"high")).priorities == ("high", "5")
    reader = HeadReader(b"X-Org", [b"X-Class"])
    facts = reader.read([HOST, (b"x-class", b"low"), (b"x-org", b"o"), (b"x-priority", b"high")])
    assert (facts.priorities, facts.tenant, facts.block) == (("low",), b"o", b"")


def test_what_passes_and_what_does_not() -> None:
    facts = read(
        (b"Accept", b"*/*"), (b"Accept-Encoding", b"gzip"), (b"Content-Type", b"application/json"),
        (b"traceparent", b"00-1"), (b"X-Odd", b"\xff\x80"), (b"x_under", b"1"), (b"Cookie", b"a=b"), (b"TE", b"x"),
        (b"Connection", b"keep-alive, X-Named , Content-Length"), (b"x-named", b"1"), (b"Content-Length", b"3"),
        (b"X-Forwarded-Proto", b"https"), (b"api-key", b"k"), (b"X-Penstock-Class", b"critical"),
        (b"x-envoy-attempt", b"1"), (b"x-smg-priority", b"system"), (b"Proxy-Authorization", b"p"),
        (b"x-tenant-id", b"t"), (b"x-priority", b"high"), (b"Upgrade", b"h2c"),
    )  # fmt: skip
    assert facts.block.split(b"\r\n")[1:] == [
        b"Accept: */*", b"Accept-Encoding: gzip", b"Content-Type: application/json", b"traceparent: 00-1",
        b"X-Odd: \xff\x80",
    ]  # fmt: skip
    assert facts.content_length == 3


def test_remembered_spellings_are_bounded() -> None:
    reader = HeadReader()
    for number in range(SPELLINGS_MAX + 10):
        reader.read([HOST, (b"x-%d" % number, b"1"), (b"y" * 65, b"1")])
    assert len(reader._spellings) == SPELLINGS_MAX


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        (b"POST", 7, b"content-length: 7"),
        (b"POST", 0, b"content-length: 0"),
        (b"POST", None, b"transfer-encoding: chunked"),
        (b"GET", 0, b"accept: a"),
    ],
)
def test_forwarded_head(method: bytes, length: int | None, framing: bytes) -> None:
    upstream = upstream_lines(b"up:8000", b"secret", b"x-extra: 1\r\n")
    head = forward_head(method, b"/v1/x?y", read((b"accept", b"a")), upstream, length, "id-1", b"10.0.0.1")
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    assert lines[:6] == [
        method + b" /v1/x?y HTTP/1.1", b"host: up:8000", b"authorization: Bearer secret", b"x-extra: 1",
        b"x-request-id: id-1", b"x-forwarded-for: 10.0.0.1",
    ]  # fmt: skip
    assert lines[6] == b"accept: a" and lines[-1] == framing


def test_without_a_key_of_its_own_an_upstream_gets_none() -> None:
    facts = read((b"Authorization", b"Bearer client"))
    head = forward_head(b"POST", b"/", facts, upstream_lines(b"u"), 0, "i", b"c")
    assert b"authorization" not in head.lower() and b"client" not in head


NAMES = st.sampled_from(
    b"connection keep-alive te trailer transfer-encoding upgrade host authorization x-api-key cookie x-a x-b x_c "
    b"content-length x-penstock-class x-real-ip proxy-connection expect content-type accept".split()
) | st.binary(min_size=1, max_size=12)
VALUES = st.sampled_from(
    [b"close", b"x-a, x-b", b"chunked", b"1", b"keep-alive", b"a\r\nb: c", b"\n", b"\0"]
) | st.binary(max_size=12)
FORBIDDEN = frozenset(
    b"connection keep-alive te trailer transfer-encoding upgrade host authorization x-api-key cookie content-length "
    b"x-penstock-class x-real-ip proxy-connection expect".split()
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES.map(lambda name: name.title()) | NAMES, VALUES), max_size=6))
def test_nothing_forbidden_ever_passes(headers: Pairs) -> None:
    try:
        facts = read(*headers)
    except BadRequest:
        return
    lines = facts.block.split(b"\r\n")[1:]
    listed = {t.strip(b" \t") for n, v in headers if n.lower() == b"connection" for t in v.lower().split(b",")}
    for line in lines:
        name, _, value = line.partition(b": ")
        lowered = name.lower()
        assert lowered not in FORBIDDEN and b"_" not in name and lowered not in listed
        assert (name, value) in headers
        assert not set(value) & set(b"\r\n\0")
