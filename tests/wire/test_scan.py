"""Bodies in pieces: the same facts as from whole ones, whatever the pieces; linear time; bounded memory."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.errors import BadRequest
from proxy.wire.facts import RequestFacts
from proxy.wire.openai import read_body
from proxy.wire.routes import ROUTES
from proxy.wire.scan import DEPTH_MAX, KEY_BYTES_MAX, SLICE_BYTES, VALUE_BYTES_MAX, BodyScanner
from tests.wire.documents import bodies, split

ROUTE = ROUTES[b"/v1/completions"]
Result = RequestFacts | tuple[str, str | None]


def scan(pieces: list[bytes]) -> Result:
    scanner = BodyScanner(ROUTE)
    try:
        for piece in pieces:
            scanner.feed(piece)
            assert len(scanner._rest) <= VALUE_BYTES_MAX
        return scanner.finish()
    except BadRequest as refused:
        return refused.code, refused.param


def whole(body: bytes) -> Result:
    try:
        facts = read_body(body, ROUTE)
    except BadRequest as refused:
        return refused.code, refused.param
    return facts


@settings(max_examples=400, deadline=None)
@given(bodies(), st.lists(st.integers(0, 99_999), max_size=6))
def test_pieces_tell_what_the_whole_tells(body: bytes, cuts: list[int]) -> None:
    expected = whole(body)
    assert scan([body]) == expected
    assert scan(split(body, cuts)) == expected


@settings(max_examples=40, deadline=None)
@given(bodies())
def test_single_bytes(body: bytes) -> None:
    body = body[:1500]
    assert scan([body[place : place + 1] for place in range(len(body))]) == scan([body])


@settings(max_examples=200, deadline=None)
@given(
    bodies(),
    st.integers(0, 9999),
    st.sampled_from([b"", b'"', b"}", b"]", b",", b"\\", b"x", b"{"]),
    st.lists(st.integers(0, 9999)),
)
def test_damage_is_judged_the_same_in_any_pieces(body: bytes, place: int, junk: bytes, cuts: list[int]) -> None:
    place %= len(body)
    damaged = body[:place] + junk + body[place + 1 :]
    assert scan(split(damaged, cuts)) == scan([damaged])


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"[]", b'{"a"', b'{"a" 1}', b'{"a":}', b'{"a":1', b'{"a":1 "b":2}', b'{"a":1,}', b"{,}",
        b'{"a":tru}', b'{"a":[}', b'{"a":[1}]', b'{"a":1}x', b'{"a":1}{}', b'{"\xff":1}', b'{"model":"\xff"}',
        b'{"n":01}', b'{"a":-}', b'{"a":{"b":"}', b'{"a":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}", b"{1:2}",
        b'{"a":"\\',
    ],
)  # fmt: skip
def test_broken(body: bytes) -> None:
    assert scan([body]) == ("invalid_json", None)


def test_long_keys_and_values_are_not_kept() -> None:
    long_key = b'{"' + b"k" * KEY_BYTES_MAX * 9 + b'":1, "model":"m"}'
    result = scan([long_key[place : place + 7] for place in range(0, len(long_key), 7)])
    assert isinstance(result, RequestFacts) and result.model == "m"
    number = b'{"priority":' + b"1" * 9000 + b',"service_tier":"' + b"a" * 9000 + b'"}'
    for size in (7, SLICE_BYTES):
        facts = scan([number[place : place + size] for place in range(0, len(number), size)])
        assert isinstance(facts, RequestFacts) and facts.odd_class and facts.priority is None
        assert facts.priority_span is not None and facts.priority_span.value_end == 9012


def test_a_depth_that_is_allowed() -> None:
    depth = DEPTH_MAX - 1
    assert isinstance(scan([b'{"a":' + b"[" * depth + b"]" * depth + b"}"]), RequestFacts)


def test_white_space_may_stand_anywhere() -> None:
    tokens = '{ "prompt" : [ "a" , "b" ] , "x" : { "data" : "v" , "y" : [ "data" , { } ] } , "n" : 2 }'
    facts = scan([byte.encode() for byte in "\n" + tokens.replace(" ", " \t") + "\r\n"])
    assert isinstance(facts, RequestFacts) and facts.estimate.choices == 4
    assert isinstance(scan([b"{ ", b" } ", b" "]), RequestFacts)
    assert scan([b'{"prompt":[ ', b" [1 ] ] }", b" "]) == scan([b'{"prompt":[  [1 ] ] } '])


@pytest.mark.parametrize(
    "item",
    [
        "a" * 3000,
        'say "it"\n' * 50,
        "\\" * 500,
        {"role": "user", "content": "hello"},
        {"content": [{"type": "text", "text": "hi"}]},
        {"data": "x"},
        {"data": "y" * 600},
        {"x": "data"},
        [[]],
        12,
    ],
)
def test_time_is_linear(item: object) -> None:
    """Four times the body takes four times as long; a quadratic step would make it sixteen."""
    count = 1 + 120_000 // len(json.dumps(item)) // 4
    small, large = (scan_s(json.dumps({"messages": [item] * repeats}).encode()) for repeats in (count, 4 * count))
    assert large < 10 * small + 0.001


def scan_s(body: bytes) -> float:
    times = []
    for _ in range(3):
        scanner = BodyScanner(ROUTE)
        start = time.process_time()
        scanner.feed(body)
        scanner.finish()
        times.append(time.process_time() - start)
    return min(times)
