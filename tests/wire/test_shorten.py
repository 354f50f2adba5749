"""The short form of a body has the keys, values and nesting of the body, whatever stands in its strings."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.types import WorkEstimate
from proxy.wire.errors import BadRequest
from proxy.wire.openai import read_body
from proxy.wire.routes import ROUTES
from proxy.wire.scan import BodyScanner
from proxy.wire.shorten import BYTES_PER_QUOTE, FILLER, LONG_BYTES, shortened

CHAT = ROUTES[b"/v1/chat/completions"]
ODD = ['"', "\\", '\\"', '\\\\"', "{", "}", "[", ",", ":", "ü", "\n", "\x01", '","n":2,"', "dat"]
LONG = st.builds(
    lambda words, fill, end: "".join(words) + fill * (LONG_BYTES + 50) + "".join(end),
    st.lists(st.sampled_from(ODD), max_size=6),
    st.sampled_from(["x", "é", " "]),
    st.lists(st.sampled_from(ODD), max_size=6),
)
SHORT = st.lists(st.sampled_from([*ODD, "a"]), max_size=5).map("".join)
VALUES = st.recursive(
    st.one_of(LONG, SHORT, st.none(), st.booleans(), st.integers(-9, 9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(SHORT, LONG), inner, max_size=3)),
    max_leaves=8,
)
KEYED = st.fixed_dictionaries(
    {"model": st.one_of(st.just("m"), LONG), "messages": VALUES, "prompt": VALUES},
    optional={"n": st.integers(1, 4), "max_tokens": st.integers(1, 9), "stream": st.booleans(), "x": VALUES},
)


def short_of(value: Any, size: int = LONG_BYTES) -> Any:
    """The short form, by way of a parser."""
    if isinstance(value, str):
        return FILLER.decode() if len(json.dumps(value, ensure_ascii=False).encode()) - 1 > size else value
    if isinstance(value, list):
        return [short_of(one) for one in value]
    if isinstance(value, dict):
        return {short_of(key): short_of(one) for key, one in value.items()}
    return value


def strings_of(value: Any) -> list[str]:
    """Every string in it, keys included."""
    if isinstance(value, str):
        return [value]
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [found for one in inner for found in strings_of(one)]


@settings(max_examples=300, deadline=None)
@given(VALUES, st.sampled_from([None, 1]))
def test_it_parses_to_the_same_with_long_strings_filled(value: Any, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=False, indent=indent).encode()
    short = shortened(body + b" " * (BYTES_PER_QUOTE * (body.count(b'"') + 1)))  # so that it never has too many quotes
    assert (short is None) is any(one.startswith("data") for one in strings_of(value))
    if short is not None:
        assert json.loads(short) == short_of(value)


@settings(max_examples=300, deadline=None)
@given(KEYED)
def test_facts_of_a_body_are_those_that_the_scanner_finds(document: dict[str, Any]) -> None:
    body = orjson.dumps(document | {"y": "z" * 5000})

    def facts(way: str) -> object:
        try:
            if way == "whole":
                return read_body(body, CHAT)
            scanner = BodyScanner(CHAT, 128)
            scanner.feed(body)
            return scanner.finish()
        except BadRequest as bad:
            return bad.code

    assert facts("whole") == facts("scanned")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a":"' + b"x" * 5000, id="no end"),
        pytest.param(b'{"a":"' + b"x" * 5000 + b'\\"}', id="only an escaped end"),
        pytest.param(b'{"a":"' + b'\\"' * 2500 + b'"}', id="too many escaped quotes"),
        pytest.param(b"[" + b'"a",' * 2000 + b"1]", id="too many strings"),
        pytest.param(b'{"image":"data:image/png;base64,' + b"A" * 5000 + b'"}', id="media"),
        pytest.param(b'{"data":"' + b"A" * 5000 + b'"}', id="media by key"),
    ],
)
def test_it_declines(body: bytes) -> None:
    assert shortened(body) is None


@pytest.mark.parametrize(("slashes", "ends"), [(0, True), (1, False), (2, True), (3, False), (4, True)])
def test_a_quote_after_an_even_number_of_backslashes_ends_a_string(slashes: int, ends: bool) -> None:
    string = b"x" * 2000 + b"\\" * slashes
    rest = b',"n":1}' if ends else b'y","n":1}'
    assert shortened(b'{"a":"' + string + b'"' + rest) == b'{"a":"' + FILLER + b'"' + rest[-7:]


def test_a_long_prompt_counts_with_all_its_bytes_and_a_long_name_is_refused() -> None:
    body = b'{"model":"m","prompt":"' + b"word " * 2000 + b'"}'
    assert read_body(body, ROUTES[b"/v1/completions"]).estimate == WorkEstimate(len(body) // 4, len(body) // 16)
    with pytest.raises(BadRequest):
        read_body(b'{"model":"' + b"m" * 5000 + b'"}', CHAT)


@pytest.mark.parametrize("inside", [b"\\q", b"\x01", b"\xff"])
def test_the_inside_of_a_long_string_is_the_engines_to_judge(inside: bytes) -> None:
    body = b'{"model":"m","prompt":"' + b"x" * 5000 + inside + b'"}'
    assert read_body(body, CHAT).model == "m"
    with pytest.raises(BadRequest):
        read_body(body + b"}", CHAT)
